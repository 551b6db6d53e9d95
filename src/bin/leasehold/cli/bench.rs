//! `leasehold bench`: how fast a server acquires and releases, from this machine.
//!
//! One thread sends all requests, over as many connections as there are clients: it shows the latency that a client
//! sees. A fast server can do more than one thread can ask for; `benches/http.rs` measures how much.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::{Either, join_all, select};
use hdrhistogram::Histogram;
use leasehold::Token;
use serde_json::json;

use crate::client::{ANSWER_TIMEOUT, CallError, Client, ServerArgs};
use crate::exit::Failure;
use crate::output::{notice, print, print_line, status};
use crate::print::{Cell, Reader, Table};

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// How many clients ask at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    clients: u16,

    /// How many keys they ask for; fewer than clients means that they wait for each other
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,

    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = crate::settings::time)]
    span: Duration,

    /// What the keys begin with
    #[arg(long, default_value = "bench:")]
    prefix: String,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
In a pipe the columns are call, calls, calls per second, and the latencies in microseconds: median, 90th, 99th, 99.9th
percentile, longest. The locks are real: choose a --prefix that nobody else uses.

Examples:
  leasehold bench
  leasehold bench --clients 64 --keys 1 --for 10s    # all want the same lock";

/// The TTL of its locks: how long one stays if the bench is interrupted.
const TTL_MS: u64 = 10_000;
/// How long a client waits for a lock that another holds.
const WAIT_MS: u64 = 10_000;
/// How often the progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);
/// Latencies are recorded up to a minute, in three significant digits.
const LONGEST_US: u64 = 60_000_000;

/// The latencies that one client saw, in microseconds.
struct Seen {
    acquires: Histogram<u64>,
    releases: Histogram<u64>,
    /// How often a wait ended without the lock.
    refused: u64,
}

impl Seen {
    fn new() -> Self {
        let empty = || Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order");
        Self { acquires: empty(), releases: empty(), refused: 0 }
    }

    fn add(&mut self, other: &Self) {
        let same = "they have the same bounds";
        self.acquires.add(&other.acquires).expect(same);
        self.releases.add(&other.releases).expect(same);
        self.refused += other.refused;
    }
}

/// Measures a server.
///
/// # Errors
/// The server refuses, or cannot be reached.
pub(crate) async fn bench(args: BenchArgs) -> Result<(), Failure> {
    let client = Client::new(&args.server)?;
    let began = Instant::now();
    let end = began + args.span;
    let clients = (0..args.clients).map(|number| ask(&client, &args, u32::from(number), end));
    let clients = std::pin::pin!(join_all(clients));
    let seen = match select(clients, std::pin::pin!(progress(began, args.span))).await {
        Either::Left((seen, _)) => seen,
        Either::Right((never, _)) => match never {},
    };
    let took = began.elapsed();
    if io::stderr().is_terminal() {
        status("\r\x1b[K".to_owned());
    }
    let mut all = Seen::new();
    for one in seen {
        all.add(&one?);
    }
    report(&args, &all, took)
}

/// One client: a lock and its release, over and over.
async fn ask(client: &Client, args: &BenchArgs, number: u32, end: Instant) -> Result<Seen, CallError> {
    let mut seen = Seen::new();
    let mut turn = number;
    while Instant::now() < end {
        let key = format!("{}{}", args.prefix, turn % args.keys);
        turn = turn.wrapping_add(u32::from(args.clients));
        let token = Token::random().to_string();
        let ask = json!({ "key": key, "token": token, "ttl_ms": TTL_MS, "wait_ms": WAIT_MS, "owner": "bench" });
        let began = Instant::now();
        match client.post("/acquire", &ask, ANSWER_TIMEOUT + Duration::from_millis(WAIT_MS)).await {
            Ok(_) => seen.acquires.saturating_record(micros(began)),
            Err(CallError::Refused(problem)) if ["timeout", "held"].contains(&problem.code.as_str()) => {
                seen.refused += 1;
                continue;
            }
            Err(why) => return Err(why),
        }
        let began = Instant::now();
        client.post("/release", &json!({ "key": key, "token": token }), ANSWER_TIMEOUT).await?;
        seen.releases.saturating_record(micros(began));
    }
    Ok(seen)
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
}

/// Draws a progress bar if stderr is a terminal. Never resolves.
async fn progress(began: Instant, span: Duration) -> std::convert::Infallible {
    const WIDTH: usize = 30;
    let terminal = io::stderr().is_terminal();
    loop {
        if terminal {
            let share = (began.elapsed().as_secs_f64() / span.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0);
            let done = (share * WIDTH as f64) as usize;
            status(format!("\r[{}{}] {:>3.0} %", "#".repeat(done), "-".repeat(WIDTH - done), share * 100.0));
        }
        tokio::time::sleep(PROGRESS).await;
    }
}

const PERCENTILES: [(&str, f64); 4] = [("p50_us", 50.0), ("p90_us", 90.0), ("p99_us", 99.0), ("p99_9_us", 99.9)];

fn report(args: &BenchArgs, seen: &Seen, took: Duration) -> Result<(), Failure> {
    let rate = |histogram: &Histogram<u64>| histogram.len() as f64 / took.as_secs_f64();
    let calls = [("acquire", &seen.acquires), ("release", &seen.releases)];
    if args.json {
        let figures = |histogram: &Histogram<u64>| {
            let mut figures = json!({
                "calls": histogram.len(), "per_second": rate(histogram).round(), "max_us": histogram.max(),
            });
            for (name, percentile) in PERCENTILES {
                figures[name] = histogram.value_at_percentile(percentile).into();
            }
            figures
        };
        let mut all = json!({ "clients": args.clients, "keys": args.keys, "refused": seen.refused });
        for (name, histogram) in calls {
            all[name] = figures(histogram);
        }
        return print_line(&all.to_string());
    }
    let reader = Reader::of_stdout();
    let mut table = Table::new(&["CALL", "CALLS", "PER SECOND", "P50", "P90", "P99", "P99.9", "MAX"]);
    for (name, histogram) in calls {
        let latency = |us: u64| match reader {
            Reader::Pipe => Cell::number(us),
            Reader::Plain | Reader::Coloured => Cell::text(format!("{:.2} ms", us as f64 / 1000.0)),
        };
        let [p50, p90, p99, p999] = PERCENTILES.map(|(_, at)| latency(histogram.value_at_percentile(at)));
        let per_second = Cell::text(format!("{:.0}", rate(histogram)));
        table.row([
            Cell::text(name),
            Cell::number(histogram.len()),
            per_second,
            p50,
            p90,
            p99,
            p999,
            latency(histogram.max()),
        ]);
    }
    print(&table.render(reader))?;
    if seen.refused > 0 {
        notice(format_args!("{} times the lock was held by others for too long", seen.refused));
    }
    Ok(())
}
