//! `leasehold force-release`: an operator takes a lock from whoever holds it.

use std::io::{self, BufRead, IsTerminal};

use clap::Args;

use crate::client::{Client, ServerArgs};
use crate::exit::Failure;
use crate::output::{print_line, status};
use crate::print::plain;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ForceReleaseArgs {
    /// Which lock
    key: String,

    /// Do not ask whether it is meant; without a terminal to ask on it must be said
    #[arg(long)]
    yes: bool,

    /// Print what the server answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
The holder may still be at work: only the fencing token keeps it from the resource. The server logs who did it.
Exit code 1: nobody holds it, or it was not meant.

Examples:
  leasehold show order:42 && leasehold force-release order:42 --yes";

/// Releases a lock by force.
///
/// # Errors
/// It was not meant, nobody holds it, the token may not, or the server cannot be reached.
pub(crate) async fn force_release(args: ForceReleaseArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    if !args.yes {
        confirm(&args.key)?;
    }
    let text = client.delete("/locks", &[("key", &args.key)]).await?;
    if args.json {
        return print_line(&text);
    }
    // It is done, whoever reads that.
    let _ = print_line("released");
    Ok(())
}

fn confirm(key: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage("force-release takes a lock from one who may be at work: say --yes".to_owned()));
    }
    status(format!("Take {} from its holder, who may be at work? [y/N] ", plain(key)));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        return Ok(());
    }
    Err(Failure::NotAcquired("nothing was released".to_owned()))
}
