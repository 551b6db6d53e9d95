//! `leasehold stats`: the totals of a server, or of one key.

use clap::Args;
use serde_json::{Map, Value};

use crate::client::{Client, ServerArgs};
use crate::exit::Failure;
use crate::output::{print, print_line};
use crate::print::{Cell, Reader, Table};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatsArgs {
    /// Only of this key, which must be held [default: of all]
    key: Option<String>,

    /// Print what the server answers
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
In a pipe there is a line for each number, its name first; the most contended keys follow as `hot_key`, contentions, key.

Examples:
  leasehold stats
  leasehold stats | awk -F'\\t' '$1 == \"waiting\" { print $2 }'
  leasehold stats order:42 --json";

/// Prints the totals.
///
/// # Errors
/// Nobody holds the key, or the server cannot be reached.
pub(crate) async fn stats(args: StatsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let key = args.key.as_deref().map(|key| ("key", key));
    let text = client.get("/stats", key.as_slice()).await?;
    if args.json {
        return print_line(&text);
    }
    print(&render(&client.read(&text)?, Reader::of_stdout()))
}

fn render(totals: &Map<String, Value>, reader: Reader) -> String {
    let mut numbers = Table::new(&["TOTAL", "NUMBER"]);
    // One key's stand beside its name.
    let totals = totals.get("stats").and_then(Value::as_object).unwrap_or(totals);
    for (name, number) in totals {
        match number {
            // People see few digits: 0.123456 says no more than 0.123.
            Value::Number(exact) if exact.is_f64() && reader != Reader::Pipe => {
                numbers.row([Cell::text(name), Cell::text(format!("{:.3}", exact.as_f64().unwrap_or(f64::NAN)))]);
            }
            Value::Number(exact) => numbers.row([Cell::text(name), Cell::number(exact)]),
            Value::Null => numbers.row([Cell::text(name), Cell::maybe(None::<&str>)]),
            _ => {}
        }
    }
    let mut hot = Table::new(&["", "CONTENTIONS", "KEY"]);
    let keys = totals.get("hot_keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for row in keys {
        let contentions = row["contentions"].as_u64().unwrap_or_default();
        hot.row([
            Cell::text("hot_key"),
            Cell::number(contentions),
            Cell::text(row["key"].as_str().unwrap_or_default()),
        ]);
    }
    let (numbers, hot) = (numbers.render(reader), hot.render(reader));
    if reader == Reader::Pipe || keys.is_empty() {
        return if keys.is_empty() { numbers } else { format!("{numbers}{hot}") };
    }
    format!("{numbers}\n{hot}")
}
