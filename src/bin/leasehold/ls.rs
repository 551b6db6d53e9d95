//! `leasehold ls`: the locks that are held, once or again and again.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, ServerArgs};
use crate::exit::Failure;
use crate::output::{print, print_line};
use crate::shape::{Cell, Reader, Table};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LsArgs {
    /// Only keys that begin so
    #[arg(default_value = "")]
    prefix: String,

    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Over a store: all locks that it keeps, whoever holds them, not only those held through the server
    #[arg(long)]
    all: bool,

    /// List them again and again, on a terminal in place
    #[arg(long)]
    watch: bool,

    /// How often
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "watch", value_parser = crate::settings::time)]
    every: Duration,

    /// Print what the server answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
In a pipe the columns are key, mode, owner, age and time left in milliseconds, holders, waiters, fencing token, with tabs
between them and no headings; what is not known of a lock that another process holds is empty.

Examples:
  leasehold ls
  leasehold ls order: --watch
  leasehold ls --all    # also what other servers over the same Redis hold
  leasehold ls | awk -F'\\t' '$7 > 10 { print $1 }'    # keys that more than ten wait for";

#[derive(Deserialize)]
struct List {
    locks: Vec<Row>,
    truncated: bool,
    #[serde(default)]
    scope: String,
}

/// One held lock.
#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) mode: String,
    pub(crate) holder: Holder,
    pub(crate) held_by: usize,
    pub(crate) waiting: usize,
}

/// One who holds a lock.
#[derive(Deserialize)]
pub(crate) struct Holder {
    pub(crate) owner: Option<String>,
    pub(crate) fencing_token: Option<u64>,
    /// What is not known of a lock that another process holds, or has no end, is left out.
    pub(crate) age_ms: Option<u64>,
    pub(crate) remaining_ms: Option<u64>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) refresh_count: Option<u32>,
}

/// Clears the screen from the top left on.
const REDRAW: &str = "\x1b[H\x1b[2J";

/// Lists the locks.
///
/// # Errors
/// The server refuses, or cannot be reached.
pub(crate) async fn ls(args: LsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let reader = Reader::of_stdout();
    loop {
        let text = list(&client, &args).await?;
        let list = if args.json { format!("{text}\n") } else { render(&client.read(&text)?, reader) };
        if args.watch && !args.json && reader != Reader::Pipe {
            print(REDRAW)?;
        }
        print(&list)?;
        if !args.watch {
            return Ok(());
        }
        if reader == Reader::Pipe && !args.json {
            // One list ends here.
            print_line("")?;
        }
        tokio::time::sleep(args.every).await;
    }
}

/// What the server answers; of a store's pages, which may be short, as many as the limit takes.
async fn list(client: &Client, args: &LsArgs) -> Result<String, Failure> {
    let limit = args.limit.to_string();
    let mut query = vec![("prefix", args.prefix.as_str()), ("limit", limit.as_str())];
    if !args.all {
        return Ok(client.get("/locks", &query).await?);
    }
    query.push(("scope", "store"));
    let mut list: Value = client.read(&client.get("/locks", &query).await?)?;
    while let Some(cursor) = list["next_cursor"].as_str().map(str::to_owned) {
        if list["locks"].as_array().is_none_or(|locks| locks.len() >= args.limit as usize) {
            break;
        }
        let mut query = query.clone();
        query.push(("cursor", &cursor));
        let mut page: Value = client.read(&client.get("/locks", &query).await?)?;
        if let (Some(all), Some(more)) = (list["locks"].as_array_mut(), page["locks"].as_array_mut()) {
            all.append(more);
        }
        for member in ["next_cursor", "truncated"] {
            list[member] = page[member].take();
        }
    }
    Ok(list.to_string())
}

fn render(list: &List, reader: Reader) -> String {
    let mut table = Table::new(&["KEY", "MODE", "OWNER", "AGE", "LEFT", "HOLDERS", "WAITING", "FENCING TOKEN"]);
    for Row { key, mode, holder, held_by, waiting } in &list.locks {
        table.row([
            Cell::text(key),
            Cell::text(mode),
            Cell::maybe(holder.owner.as_deref()),
            Cell::maybe_span_ms(holder.age_ms),
            Cell::maybe_span_ms(holder.remaining_ms),
            Cell::number(held_by),
            Cell::number(waiting),
            Cell::maybe(holder.fencing_token),
        ]);
    }
    let mut text = table.render(reader);
    if reader != Reader::Pipe {
        if list.locks.is_empty() {
            text = "nothing is locked\n".to_owned();
        }
        if list.scope == "server" {
            text.push_str("(through this server; others may hold more in the store)\n");
        }
        if list.truncated {
            text.push_str("and more: see --limit\n");
        }
    }
    text
}
