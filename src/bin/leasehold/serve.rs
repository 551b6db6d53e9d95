//! `leasehold serve`: the routes of `leasehold::http` on sockets of their own, until a signal.
//!
//! | after the signal | new connections | acquire | release, heartbeat |
//! |---|---|---|---|
//! | while holders have time to release | taken | 503 at once, those in queues too | work |
//! | while answers under way are sent | refused | 503 | answered |
//!
//! Both together take no longer than the grace time; what is still held then ends with the process.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use actix_rt::time::timeout;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer};
use futures_util::future::{Either, select};
use leasehold::http::Limits;
use leasehold::{LockManager, http};

use crate::args::ServeArgs;
use crate::bounds::Bounds;
use crate::exit::Failure;
use crate::logs;
use crate::signals::Signals;
use crate::store::{self, Choice};

/// The longest part of the grace time that is kept back for answers under way.
const LONGEST_DRAIN: Duration = Duration::from_secs(1);
/// Over a network less is no lock at all.
const SHORTEST_TTL: Duration = Duration::from_millis(10);

/// Serves until a signal says otherwise.
///
/// # Errors
/// Nothing was served: a setting makes no sense, the address cannot be had, or the machine is short of something.
pub(crate) fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    check(&args)?;
    let store = store::choose(&args.store, args.redlock_max_ttl)?;
    let listeners = listen(&args)?;
    logs::start(args.log_format);
    let bounds = Bounds::secure(&args);
    let builder = LockManager::builder()
        .ttl(args.ttl)
        .min_ttl(SHORTEST_TTL)
        .max_ttl(args.max_ttl)
        .wait(args.wait)
        .max_keys(args.max_keys)
        .max_waiters(bounds.waiters)
        .max_waiters_per_key(args.max_waiters_per_key);
    let builder = match store {
        Choice::Memory => builder,
        Choice::Redis(store) => builder.store(store),
        Choice::Redlock(store) => builder.store(store),
    };
    actix_web::rt::System::new().block_on(async {
        let locks = builder.build_and_connect().await?;
        serve(args, bounds, listeners, locks).await
    })
}

fn check(args: &ServeArgs) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
    if args.max_waiters >= args.max_connections {
        return wrong("--max-waiters must be below --max-connections: holders need a connection to release");
    }
    if args.wait > args.max_wait {
        return wrong("--wait must not be above --max-wait");
    }
    Ok(())
}

/// Binds every address that the name stands for.
fn listen(args: &ServeArgs) -> Result<Vec<TcpListener>, Failure> {
    let failed = |why| Failure::Listen { address: args.listen.clone(), why };
    let addresses: Vec<SocketAddr> = args.listen.to_socket_addrs().map_err(failed)?.collect();
    if let Some(open) = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback())
        && !args.insecure
    {
        return Err(Failure::Usage(format!(
            "{open} can be reached by others, who could take and release every lock; say --insecure if they may"
        )));
    }
    addresses.iter().map(|address| TcpListener::bind(address).map_err(failed)).collect()
}

async fn serve(
    args: ServeArgs,
    bounds: Bounds,
    listeners: Vec<TcpListener>,
    locks: LockManager,
) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen().map_err(|why| Failure::Os(format!("cannot hear signals: {why}")))?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let server =
        start(&args, bounds, listeners, &locks).map_err(|why| Failure::Listen { address: args.listen.clone(), why })?;
    let handle = server.handle();
    let mut serving = actix_web::rt::spawn(server);
    announce(&addresses);

    match select(pin!(signals.next()), &mut serving).await {
        Either::Left((signal, _)) => tracing::info!(signal, grace = ?args.grace, "shutting down"),
        Either::Right((ended, _)) => {
            return Err(Failure::Os(format!("the server ended by itself: {ended:?}")));
        }
    }
    let end = pin!(shut_down(&args, &locks, &handle));
    match select(end, pin!(signals.next())).await {
        Either::Left(_) => Ok(ExitCode::SUCCESS),
        Either::Right((signal, _)) => {
            tracing::warn!(signal, "ending at once");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn start(
    args: &ServeArgs,
    bounds: Bounds,
    listeners: Vec<TcpListener>,
    locks: &LockManager,
) -> io::Result<actix_web::dev::Server> {
    let limits = Limits::new()
        .min_ttl(SHORTEST_TTL)
        .max_ttl(args.max_ttl)
        .max_wait(args.max_wait)
        .max_body_bytes(args.max_body_bytes)
        .body_timeout(args.body_timeout);
    let locks = locks.clone();
    let workers = args.workers.map_or_else(cores, usize::from);
    let mut server =
        HttpServer::new(move || App::new().app_data(locks.clone()).app_data(limits).configure(http::configure))
            .workers(workers)
            .max_connections(bounds.connections.div_ceil(workers))
            // A waiter whose client has gone leaves the queue at once.
            .h1_allow_half_closed(false)
            .disable_signals();
    for listener in listeners {
        server = server.listen(listener)?;
    }
    Ok(server.run())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Tells where the server is, for people and for scripts that wait for it.
fn announce(addresses: &[SocketAddr]) {
    let mut out = io::stdout().lock();
    for address in addresses {
        // A closed stdout is no reason not to serve.
        let _ = writeln!(out, "listening on http://{address}");
    }
    if let Some(address) = addresses.first() {
        let _ = writeln!(out, "  totals   http://{address}/stats");
        let _ = writeln!(out, "  locks    http://{address}/locks");
        let _ = writeln!(out, "  health   http://{address}/healthz");
    }
    let _ = writeln!(out, "locks live in memory: they end with this process");
    let _ = out.flush();
}

async fn shut_down(args: &ServeArgs, locks: &LockManager, handle: &ServerHandle) {
    let drain = LONGEST_DRAIN.min(args.grace / 4);
    let active = locks.stats().active;
    if active > 0 {
        tracing::info!(active, "waiting for holders to release; a second signal ends it at once");
    }
    let left = locks.shutdown(args.grace.saturating_sub(drain)).await;
    if left > 0 {
        tracing::warn!(left, "locks were still held");
    }
    // Ended early, clients that keep idle connections open are cut off; so is whoever is too slow to take an answer.
    if timeout(drain, handle.stop(true)).await.is_err() {
        tracing::info!("some connections were still open");
    }
}
