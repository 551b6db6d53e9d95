//! `leasehold serve`: the routes of `leasehold::http` on sockets of their own, until a signal.
//!
//! | after the signal | new connections | acquire | release, heartbeat |
//! |---|---|---|---|
//! | while holders have time to release | taken | 503 at once, those in queues too | work |
//! | while answers under way are sent | refused | 503 | answered |
//!
//! Both together take no longer than the grace time; what is still held then ends with the process. Over a directory of the
//! server's own nobody is waited for: what is held goes on in the next server.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::time::{sleep, timeout};
use actix_server::ServerHandle;
use futures_util::future::{Either, select};
use ipnet::IpNet;
use leasehold::http::{Access, ReloadableAccess};
use leasehold::store::StoreError;
use leasehold::{LockManager, TakenOver};
use socket2::{Domain, Protocol, Socket, Type};

use super::bad_clients::BadClients;
use super::connections::{Capacity, Connections};
use super::fd_limits::Bounds;
use super::listener::{self, Edge, Parts};
use super::logs;
use super::reload::{self, Watched, What};
use super::signals::{Hangup, Signals};
use super::tls::Certificate;
use super::{metrics, tls, tokens};
use crate::exit::Failure;
use crate::settings::ServeArgs;
use crate::settings::store;

/// The longest part of the grace time that is kept back for answers under way.
const LONGEST_DRAIN: Duration = Duration::from_secs(1);
/// How long the start waits for the store's first answer.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// The first and the longest pause before the store is asked again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the log says that the store does not answer.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// A shorter lock could end before its client knows that it was granted.
pub(crate) const SHORTEST_TTL: Duration = Duration::from_millis(10);
/// How many connections may wait to be accepted. A client beyond them tries again after a second.
const BACKLOG: i32 = 4096;
/// actix-web measures these times by a clock that moves twice a second.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);

/// Serves until a signal says otherwise.
///
/// # Errors
/// Nothing was served: a setting makes no sense, the address cannot be had, or the machine is short of something.
pub(crate) fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    check(&args)?;
    keep_pages_small();
    let store = store(&args).map_err(Failure::Usage)?;
    let log = logs::start(args.log_format);
    let (access, certificate) = (ReloadableAccess::new(tokens::access(&args)?), tls::certificate(&args)?);
    let tls = certificate.as_ref().map(Certificate::config).transpose()?;
    let listeners = listen(&args, &access.current(), tls.is_some())?;
    let watched = watched(&args, &access, certificate);
    let bounds = Bounds::secure(&args);
    let builder = LockManager::builder()
        .ttl(args.ttl)
        .min_ttl(SHORTEST_TTL)
        .max_ttl(args.max_ttl)
        .wait(args.wait)
        .max_key_bytes(args.max_key_bytes)
        .max_keys(args.max_keys)
        .max_holders(args.max_holders)
        .max_sessions(args.max_sessions)
        .max_locks_per_session(args.max_locks_per_session)
        .max_waiters(bounds.waiters)
        .max_waiters_per_key(args.max_waiters_per_key)
        .namespaces(tokens::namespaces(&args, &access.current()))
        .fail_mode(args.fail_mode.into())
        .deadlock_reach(args.deadlock_reach.into());
    let builder = store.under(builder);
    let ended = actix_web::rt::System::new().block_on(async {
        let recorder = metrics::install()?;
        let locks = builder.build()?;
        locks.keep_history();
        let edge = edge(&args, bounds);
        let exposition = metrics::exposition(recorder, &locks, edge.clone());
        let hangup = Hangup::listen().map_err(|why| Failure::Os(format!("cannot hear signals: {why}")))?;
        actix_web::rt::spawn(reload::watch(watched, hangup));
        serve(args, Parts { bounds, listeners, locks, exposition, access, tls, edge }).await
    });
    log.flush();
    ended
}

fn store(args: &ServeArgs) -> Result<store::Choice, String> {
    store::choose(&args.store_name()?, args.redlock_max_ttl, &args.store_settings)
}

/// The files that are read again when they change.
fn watched(args: &ServeArgs, access: &ReloadableAccess, certificate: Option<Arc<Certificate>>) -> Vec<Watched> {
    let tokens = args.tokens_file.clone().map(|path| {
        let (file, access) = (path.clone(), access.clone());
        Watched::new(What::Tokens, vec![path], move || tokens::reload(&file, &access))
    });
    let certificate = certificate.map(|certificate| {
        let files = certificate.files().map(Path::to_owned).to_vec();
        Watched::new(What::Certificate, files, move || certificate.reload())
    });
    tokens.into_iter().chain(certificate).collect()
}

/// Who may connect. The list of proxies was checked before: each is an address or a network.
fn edge(args: &ServeArgs, bounds: Bounds) -> Edge {
    let network = |text: &str| text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok();
    let proxies = args.trusted_proxies.iter().flat_map(|list| list.split(',')).filter_map(|text| network(text.trim()));
    let capacity = Capacity { total: bounds.connections, per_address: bounds.per_address, proxies: proxies.collect() };
    Edge { connections: Connections::new(capacity), bad_clients: Arc::new(BadClients::default()) }
}

/// Turns huge pages off: the allocator asks for them, and every waiter would keep more of them than it needs. Only
/// `serve` does so: the command of `run` would inherit it.
#[cfg(target_os = "linux")]
fn keep_pages_small() {
    // If it fails, the server only takes more memory.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

#[cfg(not(target_os = "linux"))]
fn keep_pages_small() {}

fn check(args: &ServeArgs) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::Usage(what.to_owned()));
    if args.max_waiters >= args.max_connections {
        return wrong("--max-waiters must be below --max-connections: holders need a connection to release");
    }
    if args.max_connections_per_address == Some(0) {
        return wrong("--max-connections-per-address must be at least one");
    }
    if args.head_timeout.min(args.keep_alive) < SHORTEST_PATIENCE {
        return wrong("--head-timeout and --keep-alive must be at least a second");
    }
    if args.wait > args.max_wait {
        return wrong("--wait must not be above --max-wait");
    }
    Ok(())
}

/// Binds every address that the name stands for.
fn listen(args: &ServeArgs, access: &Access, tls: bool) -> Result<Vec<TcpListener>, Failure> {
    let failed = |why| Failure::Listen { address: args.listen.clone(), why };
    let addresses = addresses(&args.listen).map_err(failed)?;
    if let Some(open) = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback())
        && !args.insecure
    {
        if !access.has_tokens() {
            return Err(Failure::Usage(format!(
                "{open} can be reached by others, who could take and release every lock: give them tokens by \
                 --tokens-file, or say --insecure if they may"
            )));
        }
        if !tls {
            tracing::warn!("{open} can be reached by others, and without --tls-cert they can read the tokens");
        }
    }
    addresses.iter().map(|address| bind(*address).map_err(failed)).collect()
}

/// The addresses that a host and a port stand for; a port alone stands for all.
fn addresses(listen: &str) -> io::Result<Vec<SocketAddr>> {
    let Some(port) = listen.strip_prefix(':') else { return Ok(listen.to_socket_addrs()?.collect()) };
    let port: u16 = port.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "the port is no number"))?;
    // An IPv6 socket takes IPv4 as well, but not every machine has IPv6.
    let has_v6 = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).is_ok();
    let all = if has_v6 { IpAddr::from([0_u16; 8]) } else { IpAddr::from([0_u8; 4]) };
    Ok(vec![SocketAddr::new(all, port)])
}

/// As `TcpListener::bind`, but that more connections may wait to be accepted.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows this would let another process take the port over.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn serve(args: ServeArgs, parts: Parts) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen().map_err(|why| Failure::Os(format!("cannot hear signals: {why}")))?;
    let (locks, scheme) = (parts.locks.clone(), if parts.tls.is_some() { "https" } else { "http" });
    let addresses: Vec<SocketAddr> = parts.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    // Most often the store answers: then the server is ready when it prints its address.
    let mut seen = timeout(FIRST_LOOK, locks.check_store()).await.unwrap_or(Err(StoreError::Timeout));
    if let Err(StoreError::Config(why)) = &seen {
        return Err(Failure::Usage(why.to_string()));
    }
    let access = parts.access.current();
    match locks.take_over(|name| access.account_of(name)).await {
        Ok(TakenOver { locks: 0, sessions: 0, left: 0, .. }) => {}
        Ok(TakenOver { locks, sessions, left, .. }) => {
            tracing::info!(locks, sessions, left, "locks of the last run go on")
        }
        Err(why) => return Err(Failure::Unavailable(why.to_string())),
    }
    let server = listener::start(&args, parts).map_err(|why| Failure::Listen { address: args.listen.clone(), why })?;
    let handle = server.handle();
    let mut serving = actix_web::rt::spawn(server);
    announce(scheme, &addresses, &args);
    tell_supervisor(Phase::Serving);

    let store_comes = pin!(store_comes(&locks, &mut seen));
    match select(select(pin!(signals.next()), &mut serving), store_comes).await {
        Either::Left((Either::Left((signal, _)), _)) => tracing::info!(signal, grace = ?args.grace, "shutting down"),
        Either::Left((Either::Right((ended, _)), _)) => {
            return Err(Failure::Os(format!("the server ended by itself: {ended:?}")));
        }
        Either::Right((never, _)) => return Err(never),
    }
    tell_supervisor(Phase::Stopping);
    let end = pin!(shut_down(&args, &locks, &handle));
    match select(end, pin!(signals.next())).await {
        Either::Left(_) => Ok(ExitCode::SUCCESS),
        Either::Right((signal, _)) => {
            tracing::warn!(signal, "ending at once");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Asks a store that did not answer at the start until it does, and logs why the server is not ready. Resolves only if
/// the store can never be used.
async fn store_comes(locks: &LockManager, seen: &mut Result<(), StoreError>) -> Failure {
    let (mut told, mut pause) = (None::<Instant>, FIRST_PAUSE);
    while let Err(why) = seen {
        if let StoreError::Config(why) = why {
            return Failure::Usage(why.to_string());
        }
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            tracing::warn!(%why, "not ready: the store does not answer");
            told = Some(Instant::now());
        }
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        *seen = locks.check_store().await;
    }
    if told.is_some() {
        tracing::info!("the store answers");
    }
    std::future::pending().await
}

/// Prints where the server listens, for people and for scripts that wait for it.
fn announce(scheme: &str, addresses: &[SocketAddr], args: &ServeArgs) {
    let mut text: String = addresses.iter().map(|address| format!("listening on {scheme}://{address}\n")).collect();
    if let Some(address) = addresses.first() {
        for (what, path) in [
            ("page", ""),
            ("docs", "docs"),
            ("locks", "locks"),
            ("totals", "stats"),
            ("metrics", "metrics"),
            ("ready", "readyz"),
        ] {
            text.push_str(&format!("  {what:<8} {scheme}://{address}/{path}\n"));
        }
    }
    if args.data.is_none() && args.store == "memory" {
        text.push_str("locks live in memory: they end with this process\n");
    }
    // By a thread of its own: a stdout that nobody reads must not keep the server from serving.
    let _ = std::thread::Builder::new().name("leasehold-banner".to_owned()).spawn(move || {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    });
}

/// What a supervisor wants to know.
#[derive(Clone, Copy)]
enum Phase {
    /// Requests are answered. Over a store that does not answer yet they are refused.
    Serving,
    Stopping,
}

/// Tells systemd, if that has started us and waits to hear it (`Type=notify`).
fn tell_supervisor(phase: Phase) {
    #[cfg(unix)]
    {
        use sd_notify::NotifyState;
        let state = match phase {
            Phase::Serving => NotifyState::Ready,
            Phase::Stopping => NotifyState::Stopping,
        };
        if let Err(why) = sd_notify::notify(&[state]) {
            tracing::warn!(%why, "the supervisor cannot be told");
        }
    }
    #[cfg(not(unix))]
    let _ = phase;
}

async fn shut_down(args: &ServeArgs, locks: &LockManager, handle: &ServerHandle) {
    let drain = LONGEST_DRAIN.min(args.grace / 4);
    let active = locks.stats().active;
    if args.outlives_itself() {
        let left = locks.shutdown(Duration::ZERO).await;
        tracing::info!(left, "the locks that are held go on in the next server over this directory");
    } else {
        if active > 0 {
            tracing::info!(active, "waiting for holders to release; a second signal ends it at once");
        }
        let left = locks.shutdown(args.grace.saturating_sub(drain)).await;
        if left > 0 {
            tracing::warn!(left, "locks were still held");
        }
    }
    // When the time is over, idle connections are cut off, and those whose clients are slow to read an answer.
    if timeout(drain, handle.stop(true)).await.is_err() {
        tracing::info!("some connections were still open");
    }
}
