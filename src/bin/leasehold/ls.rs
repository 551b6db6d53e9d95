//! `leasehold ls`: the locks that are held, once or again and again.

use std::time::Duration;

use clap::Args;
use serde::Deserialize;

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
between them and no headings.

Examples:
  leasehold ls
  leasehold ls order: --watch
  leasehold ls | awk -F'\\t' '$7 > 10 { print $1 }'    # keys that more than ten wait for";

#[derive(Deserialize)]
struct List {
    locks: Vec<Row>,
    truncated: bool,
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
    pub(crate) age_ms: u64,
    pub(crate) remaining_ms: u64,
    pub(crate) ttl_ms: u64,
    pub(crate) refresh_count: u32,
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
        let text = client.get("/locks", &[("prefix", &args.prefix), ("limit", &args.limit.to_string())]).await?;
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

fn render(list: &List, reader: Reader) -> String {
    let mut table = Table::new(&["KEY", "MODE", "OWNER", "AGE", "LEFT", "HOLDERS", "WAITING", "FENCING TOKEN"]);
    for Row { key, mode, holder, held_by, waiting } in &list.locks {
        table.row([
            Cell::text(key),
            Cell::text(mode),
            Cell::maybe(holder.owner.as_deref()),
            Cell::span_ms(holder.age_ms),
            Cell::span_ms(holder.remaining_ms),
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
        if list.truncated {
            text.push_str("and more: see --limit\n");
        }
    }
    text
}
