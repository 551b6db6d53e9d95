//! `leasehold heartbeat`: a lock that lasts longer, by its token.

use std::time::Duration;

use clap::Args;
use leasehold::Clock;
use serde_json::json;

use super::release::TokenArgs;
use crate::client::replies::HeartbeatReply;
use crate::client::{ANSWER_TIMEOUT, Client, ServerArgs};
use crate::exit::Failure;
use crate::lease::whole_ms;
use crate::output::{print, print_line};
use crate::print::{Cell, Reader, Table};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct HeartbeatArgs {
    /// Which lock
    key: String,

    #[command(flatten)]
    token: TokenArgs,

    /// From now on; a deadline is never moved back [default: that of the acquire]
    #[arg(long, value_name = "TIME", value_parser = crate::settings::time)]
    ttl: Option<Duration>,

    /// Print what the server answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
In a pipe it prints the milliseconds that are left and how often the lock was refreshed, with a tab between them.
Exit code 75: the lock is lost.

Examples:
  LEASEHOLD_LOCK_TOKEN=$token leasehold heartbeat order:42 --ttl 5m || exit";

/// Sends one heartbeat.
///
/// # Errors
/// The lock is lost, or whether it lasts is not known.
pub(crate) async fn heartbeat(args: HeartbeatArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let mut body = json!({ "key": args.key, "token": args.token.read()?.to_string() });
    if let (Some(ttl), Some(fields)) = (args.ttl, body.as_object_mut()) {
        fields.insert("ttl_ms".to_owned(), whole_ms(ttl).into());
    }
    let clock = Clock::system();
    let sent = clock.now();
    let text = client.post("/heartbeat", &body, ANSWER_TIMEOUT).await?;
    let HeartbeatReply { remaining_ms, refresh_count } = client.read(&text)?;
    let remaining_ms = remaining_ms.saturating_sub(whole_ms(clock.now().saturating_since(sent)));
    if remaining_ms == 0 {
        // This process was stopped, or its machine asleep (R8).
        return Err(Failure::Lost("the lock ended before the answer was read".to_owned()));
    }
    if args.json {
        return print_line(&text);
    }
    let mut table = Table::new(&["LEFT", "REFRESHED"]);
    table.row([Cell::span_ms(remaining_ms), Cell::number(refresh_count)]);
    // It is done, whoever reads that.
    let _ = print(&table.render(Reader::of_stdout()));
    Ok(())
}
