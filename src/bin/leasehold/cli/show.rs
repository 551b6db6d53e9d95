//! `leasehold show`: one lock, those who hold it, its queue, and for whom the nodes of its store stand.

use clap::Args;

use crate::client::replies::{Detail, NodeVote};
use crate::client::{Client, ServerArgs};
use crate::exit::Failure;
use crate::output::{print, print_line};
use crate::print::{Cell, Reader, Table, plain};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowArgs {
    /// Which lock
    key: String,

    /// Print what the server answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
In a pipe there is a line for each holder (`holder`, owner, age and time left in milliseconds, TTL, refreshes, fencing
token, mode; what is not known of one that holds it through another server is empty), each waiter (`waiter`, place, owner, mode, milliseconds waited) and each node of a Redlock store (`node`, host and
port, vote: holder, other, free, quarantined or unknown), with tabs between the columns.
Exit code 1: nobody holds it.

Examples:
  leasehold show order:42
  leasehold show order:42 --json | jq .queue";

/// Shows a lock.
///
/// # Errors
/// Nobody holds it, or the server cannot be reached.
pub(crate) async fn show(args: ShowArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let text = client.get("/locks", &[("key", &args.key)]).await?;
    if args.json {
        return print_line(&text);
    }
    print(&render(&client.read(&text)?, Reader::of_stdout()))
}

fn render(Detail { row, holders, queue, votes }: &Detail, reader: Reader) -> String {
    let mut holding = Table::new(&["", "OWNER", "AGE", "LEFT", "TTL", "REFRESHES", "FENCING TOKEN", "MODE"]);
    for holder in holders {
        holding.row([
            Cell::text("holder"),
            Cell::maybe(holder.owner.as_deref()),
            Cell::maybe_span_ms(holder.age_ms),
            Cell::maybe_span_ms(holder.remaining_ms),
            Cell::maybe_span_ms(holder.ttl_ms),
            Cell::maybe(holder.refresh_count),
            Cell::maybe(holder.fencing_token),
            Cell::text(holder.mode()),
        ]);
    }
    let mut waiting = Table::new(&["", "PLACE", "OWNER", "MODE", "WAITED"]);
    for waiter in queue {
        waiting.row([
            Cell::text("waiter"),
            Cell::number(waiter.position),
            Cell::maybe(waiter.owner.as_deref()),
            Cell::text(&waiter.mode),
            Cell::span_ms(waiter.waited_ms),
        ]);
    }
    let mut voting = Table::new(&["", "NODE", "VOTE"]);
    for NodeVote { node, vote } in votes {
        voting.row([Cell::text("node"), Cell::text(node), Cell::text(vote)]);
    }
    let (holding, waiting, voting) = (holding.render(reader), waiting.render(reader), voting.render(reader));
    if reader == Reader::Pipe {
        return format!("{holding}{waiting}{voting}");
    }
    let voting = if votes.is_empty() { String::new() } else { format!("\n{voting}") };
    let head = format!("{} ({})\n\n{holding}", plain(&row.key), plain(row.mode()));
    let unseen = |all: usize, seen: usize| match all.saturating_sub(seen) {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    let more = unseen(row.held_by, holders.len());
    if queue.is_empty() {
        return format!("{head}{more}\nnobody waits\n{voting}");
    }
    format!("{head}{more}\n{waiting}{}{voting}", unseen(row.waiting, queue.len()))
}
