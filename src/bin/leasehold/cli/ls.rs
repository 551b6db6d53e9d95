//! `leasehold ls`: the locks that are held, once or again and again.

use std::time::Duration;

use clap::Args;
use leasehold::ListOrder;
use serde::Deserialize;
use serde_json::Value;

use crate::client::replies::Row;
use crate::client::{CallError, Client, ServerArgs};
use crate::exit::Failure;
use crate::lease::progress::{Progress, Verbosity};
use crate::output::{print, print_line};
use crate::print::{Cell, Reader, Table};
use crate::screen::Screen;

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

    /// In which order: `age` is the longest held first, `remaining` the earliest end, `waiting` the longest queue, `wait`
    /// the one who has waited the longest; a `-` turns it round
    #[arg(long, value_name = "ORDER", default_value = "key", allow_hyphen_values = true,
        value_parser = ListOrder::ALL.map(ListOrder::as_str))]
    sort: String,

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
between them and no headings; what is not known of a lock that another process holds is empty. The mode `claimed`: another
server holds the key, or only keeps it between two of its locks. --watch goes on while the server does not answer.

Examples:
  leasehold ls
  leasehold ls order: --watch --sort waiting
  leasehold ls --all    # also what other servers over the same Redis hold
  leasehold ls --limit 1000000 | awk -F'\\t' '$7 > 10 { print $1 }'    # keys that more than ten wait for";

/// How many a server lists at once unless it is set up otherwise.
const PAGE: u32 = 1000;

#[derive(Deserialize)]
struct List {
    locks: Vec<Row>,
    truncated: bool,
    #[serde(default)]
    scope: String,
}

/// Lists the locks.
///
/// # Errors
/// The server refuses, or cannot be reached, and it is not to go on.
pub(crate) async fn ls(args: LsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let reader = Reader::of_stdout();
    let text = pages(&client, &args).await?;
    if !args.watch {
        return print(&if args.json { format!("{text}\n") } else { render(&client.read(&text)?, reader) });
    }
    if reader == Reader::Pipe || args.json {
        return follow(&client, &args, text).await;
    }
    tokio::select! {
        drawn = draw(&client, &args, reader, text) => drawn,
        // The screen is left then as it was found.
        () = ended() => Ok(()),
    }
}

/// Lists into a pipe, again and again. An empty line ends each list.
async fn follow(client: &Client, args: &LsArgs, first: String) -> Result<(), Failure> {
    let progress = Progress::new(Verbosity::Normal);
    let mut answer = Ok(first);
    loop {
        match answer {
            Ok(text) if args.json => print_line(&text)?,
            Ok(text) => print_line(&render(&client.read(&text)?, Reader::Pipe))?,
            Err(CallError::Unknown(why)) => progress.failing("ls", &why),
            Err(why) => match Failure::from(why) {
                why @ Failure::Unavailable(_) => progress.failing("ls", &why),
                why => return Err(why),
            },
        }
        tokio::time::sleep(args.every).await;
        answer = pages(client, args).await;
    }
}

/// Lists in place. What was seen last stays while the server does not answer.
async fn draw(client: &Client, args: &LsArgs, reader: Reader, first: String) -> Result<(), Failure> {
    let screen = Screen::enter()?;
    let (mut answer, mut seen) = (Ok(first), String::new());
    loop {
        let last = match answer {
            Ok(text) => {
                // The screen makes the heading bold.
                seen = render(&client.read(&text)?, Reader::Plain);
                String::new()
            }
            Err(why) => match Failure::from(why) {
                why @ Failure::Unavailable(_) => format!("not up to date: {why}"),
                why => return Err(why),
            },
        };
        screen.draw(&seen, &last, reader)?;
        tokio::time::sleep(args.every).await;
        answer = pages(client, args).await;
    }
}

/// A signal that would end the process, so that it ends well.
async fn ended() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let (Ok(mut hangup), Ok(mut end)) = (signal(SignalKind::hangup()), signal(SignalKind::terminate())) {
            tokio::select! {
                _ = hangup.recv() => return,
                _ = end.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

/// What the server answers: of its pages, which may be short, as many as the limit takes.
async fn pages(client: &Client, args: &LsArgs) -> Result<String, CallError> {
    let wanted = args.limit as usize;
    let page = args.limit.min(PAGE).to_string();
    let mut query = vec![("prefix", args.prefix.as_str()), ("limit", page.as_str())];
    if args.sort != "key" {
        query.push(("sort", &args.sort));
    }
    if args.all {
        query.push(("scope", "store"));
    }
    let text = client.get("/locks", &query).await?;
    let mut list: Value = client.read(&text)?;
    let count = |list: &Value| list["locks"].as_array().map_or(wanted, Vec::len);
    if count(&list) >= wanted || list["next_cursor"].is_null() {
        return Ok(text);
    }
    while let Some(cursor) = list["next_cursor"].as_str().map(str::to_owned).filter(|_| count(&list) < wanted) {
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
    if let Some(locks) = list["locks"].as_array_mut().filter(|locks| locks.len() > wanted) {
        // The cursor is behind the page, not behind the last that is shown.
        locks.truncate(wanted);
        (list["truncated"], list["next_cursor"]) = (true.into(), Value::Null);
    }
    Ok(list.to_string())
}

fn render(list: &List, reader: Reader) -> String {
    let mut table = Table::new(&["KEY", "MODE", "OWNER", "AGE", "LEFT", "HOLDERS", "WAITING", "FENCING TOKEN"]);
    for row @ Row { key, holder, held_by, waiting, .. } in &list.locks {
        table.row([
            Cell::text(key),
            Cell::text(row.mode()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_may_only_keep_is_no_exclusive_lock() {
        let held =
            r#""mode": "exclusive", "held_by": 1, "waiting": 0, "holder": { "owner": null, "mode": "exclusive" }"#;
        let kept = format!(r#"{{ "key": "a", "elsewhere": true, "claimed": true, {held} }}"#);
        let text = format!(r#"{{ "locks": [{kept}, {{ "key": "b", {held} }}], "truncated": false }}"#);
        let lines = render(&serde_json::from_str(&text).unwrap(), Reader::Pipe);
        let modes: Vec<_> = lines.lines().map(|line| line.split('\t').nth(1)).collect();
        assert_eq!(modes, [Some("claimed"), Some("exclusive")]);
    }
}
