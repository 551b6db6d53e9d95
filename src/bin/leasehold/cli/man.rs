//! `leasehold man`: the manual page of the program or of a verb, from the same words as `--help`.

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::args::Cli;
use crate::exit::Failure;
use crate::output::print;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Of this verb [default: of the program]
    verb: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  leasehold man | man -l -
  leasehold man run > /usr/local/share/man/man1/leasehold-run.1";

/// Prints the page.
///
/// # Errors
/// `Usage` if there is no such verb.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let mut program = Cli::command().name("leasehold");
    program.build();
    let command = match &args.verb {
        None => program,
        Some(verb) => page(&program, verb)?,
    };
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    print(&String::from_utf8_lossy(&page))
}

fn page(program: &Command, verb: &str) -> Result<Command, Failure> {
    let found = program.find_subcommand(verb).ok_or_else(|| Failure::Usage(format!("there is no verb {verb:?}")))?;
    Ok(found.clone().name(format!("leasehold-{}", found.get_name())).version(env!("CARGO_PKG_VERSION")))
}
