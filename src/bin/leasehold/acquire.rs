//! `leasehold acquire`: a lock that outlives the command, for scripts that release it themselves.

use std::io;
use std::time::Duration;

use clap::Args;
use leasehold::{Clock, Token};
use serde_json::json;

use crate::client::{ANSWER_TIMEOUT, Client, ServerArgs};
use crate::exit::Failure;
use crate::lend::{Granted, Kind, Terms, this_process};
use crate::output::{print, print_line};
use crate::shape::{Cell, Reader, Table};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AcquireArgs {
    /// What to lock
    key: String,

    /// How long to wait for the lock
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::settings::time)]
    wait: Duration,

    /// Do not wait at all
    #[arg(long, conflicts_with = "wait")]
    nonblock: bool,

    /// How long the lock lasts without a heartbeat
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::settings::time)]
    ttl: Duration,

    /// Share the lock with all who ask for it so
    #[arg(long, conflicts_with = "limit")]
    shared: bool,

    /// Let so many hold the lock at once; all must name the same number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// Who holds the lock, for people who look [default: host and process]
    #[arg(long)]
    owner: Option<String>,

    /// A fresh UUID of your own choice: the same command may then be given again after a lost answer
    #[arg(long, value_name = "UUID")]
    lock_token: Option<Token>,

    /// Print what the server answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
In a pipe it prints the token, the fencing token and the milliseconds that are left, with tabs between them.
`leasehold run` is the safer way: it beats, and releases whatever happens.

Examples:
  token=$(leasehold acquire order:42 --ttl 5m | cut -f1)
  LEASEHOLD_LOCK_TOKEN=$token leasehold release order:42";

/// Acquires a lock and prints what was granted.
///
/// # Errors
/// It was not granted, or whether it was is not known; or its token cannot be printed, and it is released.
pub(crate) async fn acquire(args: AcquireArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let kind = match (args.shared, args.limit) {
        (true, _) => Kind::Shared,
        (false, Some(limit)) => Kind::Permit { limit },
        (false, None) => Kind::Exclusive,
    };
    let wait = if args.nonblock { Duration::ZERO } else { args.wait };
    let token = args.lock_token.unwrap_or_else(Token::random);
    let owner = args.owner.unwrap_or_else(this_process);
    let terms = Terms { key: args.key, kind, ttl: args.ttl, wait, owner, token };
    let (text, _) = terms.ask(&client, &Clock::system()).await?;
    let granted: Granted = client.read(&text)?;
    let printed = if args.json { print_line(&text) } else { print(&columns(&granted)) };
    if let Err(Failure::NobodyReads | Failure::Output(_)) = &printed {
        // Nobody has the token: the lock would only block others.
        let body = json!({ "key": terms.key, "token": granted.token });
        let _ = client.post("/release", &body, ANSWER_TIMEOUT).await;
    }
    printed.map_err(|why| match why {
        Failure::NobodyReads => Failure::Output(io::ErrorKind::BrokenPipe.into()),
        other => other,
    })
}

fn columns(granted: &Granted) -> String {
    let mut table = Table::new(&["TOKEN", "FENCING TOKEN", "LEFT"]);
    table.row([Cell::text(&granted.token), Cell::maybe(granted.fencing_token), Cell::span_ms(granted.remaining_ms)]);
    table.render(Reader::of_stdout())
}
