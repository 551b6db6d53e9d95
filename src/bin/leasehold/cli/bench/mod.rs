//! `leasehold bench`: how fast a server or a store acquires and releases, from this machine.
//!
//! One thread sends all requests, over as many connections as there are clients: it shows the latency that a client
//! sees. A fast server can do more than one thread can ask for; `benches/http.rs` measures how much. With `--store` an
//! engine of this process asks the store, as a service does that embeds leasehold; `memory` is that engine alone.

mod report;

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::{Either, join_all, select};
use hdrhistogram::Histogram;
use leasehold::{LockManager, Token};
use serde_json::json;

use crate::client::{ANSWER_TIMEOUT, CallError, Client, ServerArgs};
use crate::exit::Failure;
use crate::output::status;
use crate::settings::store::{self, StoreArgs};

/// What is measured, and how.
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

    /// Ask a store, without a server: `redis://host:port`, `redis` with REDIS_URL,
    /// `redlock:redis://a,redis://b,redis://c`, or `memory` for the engine of this process alone
    #[arg(long, conflicts_with = "server")]
    store: Option<String>,

    /// Over `redlock:` what its servers have, the same for all
    #[arg(long, env = "LEASEHOLD_REDLOCK_MAX_TTL", value_name = "TIME", default_value = "60s", value_parser = crate::settings::time)]
    redlock_max_ttl: Duration,

    #[command(flatten)]
    store_settings: StoreArgs,
}

const EXAMPLES: &str = "\
A terminal also gets the acquires as a histogram. In a pipe the columns are call, calls, calls per second, and the
latencies in microseconds: median, 90th, 99th, 99.9th percentile, longest. The locks are real: choose a --prefix that
nobody else uses.

Examples:
  leasehold bench
  leasehold bench --clients 64 --keys 1 --for 10s    # all want the same lock
  leasehold bench --store redis://127.0.0.1:6379     # what a service sees that embeds leasehold";

/// The TTL of its locks: how long one stays if the bench is interrupted.
const TTL: Duration = Duration::from_secs(10);
/// How long a client waits for a lock that another holds.
const WAIT: Duration = Duration::from_secs(10);
/// After so many calls in a row that were answered without waiting, a client lets the others have their turn.
const TURN: u32 = 64;
/// How often the progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);
/// Latencies are recorded up to a minute, in three significant digits.
const LONGEST_NS: u64 = 60_000_000_000;

/// The latencies that the clients saw, in nanoseconds.
struct Seen {
    acquires: Histogram<u64>,
    releases: Histogram<u64>,
    /// How often a wait ended without the lock.
    refused: u64,
}

impl Seen {
    fn new() -> Self {
        let empty = || Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("the bounds are in order");
        Self { acquires: empty(), releases: empty(), refused: 0 }
    }
}

/// Who is asked.
enum Asked {
    Server(Client),
    Store(LockManager),
}

/// Measures a server or a store.
///
/// # Errors
/// It refuses, or cannot be reached.
pub(crate) async fn bench(args: BenchArgs) -> Result<(), Failure> {
    let asked = match &args.store {
        None => Asked::Server(Client::new(&args.server)?),
        Some(name) => {
            let choice = store::choose(name, args.redlock_max_ttl, &args.store_settings).map_err(Failure::Usage)?;
            Asked::Store(choice.under(LockManager::builder().ttl(TTL)).build_and_connect().await?)
        }
    };
    let seen = RefCell::new(Seen::new());
    let began = Instant::now();
    let end = began + args.span;
    let clients = (0..args.clients).map(|number| ask(&asked, &args, u32::from(number), end, &seen));
    let clients = std::pin::pin!(join_all(clients));
    let ended = match select(clients, std::pin::pin!(progress(began, args.span))).await {
        Either::Left((ended, _)) => ended,
        Either::Right((never, _)) => match never {},
    };
    let took = began.elapsed();
    if let Asked::Store(locks) = &asked {
        locks.shutdown(Duration::ZERO).await;
    }
    if io::stderr().is_terminal() {
        status("\r\x1b[K".to_owned());
    }
    ended.into_iter().collect::<Result<(), _>>()?;
    report::report(&args, &seen.borrow(), took)
}

/// One client: a lock and its release, over and over.
async fn ask(asked: &Asked, args: &BenchArgs, number: u32, end: Instant, seen: &RefCell<Seen>) -> Result<(), Failure> {
    let mut turn = number;
    let mut calls = 0_u32;
    while Instant::now() < end {
        let key = format!("{}{}", args.prefix, turn % args.keys);
        turn = turn.wrapping_add(u32::from(args.clients));
        let was_granted = match asked {
            Asked::Server(client) => over_http(client, &key, seen).await?,
            Asked::Store(locks) => in_store(locks, &key, seen).await?,
        };
        if !was_granted {
            seen.borrow_mut().refused += 1;
        }
        calls = calls.wrapping_add(1);
        if calls.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// A lock of a server and its release; `false` if it was not granted in time.
async fn over_http(client: &Client, key: &str, seen: &RefCell<Seen>) -> Result<bool, CallError> {
    let token = Token::random().to_string();
    let (ttl_ms, wait_ms) = (TTL.as_millis() as u64, WAIT.as_millis() as u64);
    let ask = json!({ "key": key, "token": token, "ttl_ms": ttl_ms, "wait_ms": wait_ms, "owner": "bench" });
    let began = Instant::now();
    match client.post("/acquire", &ask, ANSWER_TIMEOUT + WAIT).await {
        Ok(_) => seen.borrow_mut().acquires.saturating_record(nanos(began)),
        Err(CallError::Refused(problem)) if ["timeout", "held"].contains(&problem.code.as_str()) => return Ok(false),
        Err(why) => return Err(why),
    }
    let began = Instant::now();
    client.post("/release", &json!({ "key": key, "token": token }), ANSWER_TIMEOUT).await?;
    seen.borrow_mut().releases.saturating_record(nanos(began));
    Ok(true)
}

/// A lock of a store and its release; `false` if it was not granted in time.
async fn in_store(locks: &LockManager, key: &str, seen: &RefCell<Seen>) -> Result<bool, Failure> {
    let began = Instant::now();
    let lock = match locks.lock(key).wait(WAIT).await {
        Ok(lock) => lock,
        Err(why) if why.is_contention() => return Ok(false),
        Err(why) => return Err(why.into()),
    };
    seen.borrow_mut().acquires.saturating_record(nanos(began));
    let began = Instant::now();
    lock.unlock().await;
    seen.borrow_mut().releases.saturating_record(nanos(began));
    Ok(true)
}

fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
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
