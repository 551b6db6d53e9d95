//! `leasehold acquire`: a lock that outlives the command, for scripts that release it themselves.

use std::io;
use std::time::Duration;

use clap::Args;
use leasehold::{Clock, Token};

use crate::client::{Client, ServerArgs};
use crate::exit::Failure;
use crate::lease::progress::{Progress, Verbosity};
use crate::lease::rounds::{AcquireReply, Rounds, TokenFrom, give_back};
use crate::lease::{Granted, HolderArgs, LeaseTerms, whole_ms};
use crate::output::{print, print_line};
use crate::print::{Cell, Reader, Table};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AcquireArgs {
    /// What to lock
    key: String,

    /// How long to wait for the lock, also while the server does not answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::settings::time)]
    wait: Duration,

    /// Do not wait at all
    #[arg(long, conflicts_with = "wait")]
    nonblock: bool,

    /// How long the lock lasts without a heartbeat
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::settings::time)]
    ttl: Duration,

    #[command(flatten)]
    holder: HolderArgs,

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
    let wait = if args.nonblock { Duration::ZERO } else { args.wait };
    let token = args.lock_token.unwrap_or_else(Token::random);
    let from = if args.lock_token.is_some() { TokenFrom::Caller } else { TokenFrom::Us };
    let (kind, owner) = (args.holder.kind(), args.holder.owner());
    let mut terms = LeaseTerms { key: args.key, kind, ttl: args.ttl, owner, token };
    let (clock, progress) = (Clock::system(), Progress::new(Verbosity::Normal));
    let end = clock.now().saturating_add(wait);
    let mut rounds = Rounds::until(end, from, &client, &clock, &progress);
    let (text, granted, left) = loop {
        let AcquireReply { text, sent } = match rounds.ask(&mut terms).await {
            Ok(answered) => answered,
            Err(why) => {
                if let (Failure::Unavailable(_), TokenFrom::Us) = (&why, from) {
                    // Nobody will ever have the token of what may have been granted.
                    give_back(&client, &terms).await;
                }
                return Err(why);
            }
        };
        let granted: Granted = client.read(&text)?;
        let left = granted.deadline(sent, terms.ttl).saturating_since(clock.now());
        // Time may have passed while this process was stopped (R8).
        if !left.is_zero() {
            break (text, granted, left);
        }
        rounds.give_back(&mut terms).await?;
    };
    let printed = if args.json { print_line(&text) } else { print(&columns(&granted, left)) };
    if let Err(Failure::NobodyReads | Failure::Output(_)) = &printed {
        // Nobody has the token: the lock would only block others.
        give_back(&client, &terms).await;
    }
    printed.map_err(|why| match why {
        Failure::NobodyReads => Failure::Output(io::ErrorKind::BrokenPipe.into()),
        other => other,
    })
}

fn columns(granted: &Granted, left: Duration) -> String {
    let mut table = Table::new(&["TOKEN", "FENCING TOKEN", "LEFT"]);
    table.row([
        Cell::text(&granted.token),
        Cell::maybe(granted.fencing_token),
        Cell::span_ms(granted.remaining_ms.min(whole_ms(left))),
    ]);
    table.render(Reader::of_stdout())
}
