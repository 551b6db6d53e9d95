//! The way to one server, whichever wire it takes just now: [`Link`].
//!
//! | phase  | an operation                          | leaves it by                                   |
//! |--------|---------------------------------------|------------------------------------------------|
//! | `Down` | waits, within its timeout             | a connection comes about -> `Up`; stop -> `Ended` |
//! | `Up`   | is sent                               | the wire is broken -> `Down`; stop -> `Ended`   |
//! | `Ended`| is refused                            | -                                              |
//!
//! Between two attempts to connect it rests (N1): for a fraction of a second where the server is away, so that service
//! resumes within a second (R20), and for up to [`REFUSED`] where the server refuses us, which no asking changes.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::select;
use parking_lot::Mutex;
use redis::{ConnectionAddr, ConnectionInfo};
use tokio::sync::watch;

use super::opener::Opener;
use super::wire::Wire;
use crate::backoff::Backoff;
use crate::store::redis::builder::OnWarning;
use crate::store::{StoreCause, StoreError, Warning};
use crate::supervise::supervise;

/// Between two attempts to connect, at first and at most; "within a second" (R20) leaves room for several.
pub(in crate::store) const AWAY: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(500));
/// The same where the server refuses us: somebody has to change a password or a right first.
pub(in crate::store) const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A connection that held for less counts as one more failure.
const STEADY: Duration = Duration::from_secs(2);
/// Between two warnings of the same refusal.
pub(in crate::store) const WARN_AGAIN: Duration = Duration::from_mins(1);

#[derive(Clone)]
pub(in crate::store) enum Phase {
    Down(StoreError),
    Up(Arc<Wire>),
    Ended,
}

/// Where a link leads.
#[derive(Clone)]
pub(in crate::store) enum Target {
    Server(ConnectionInfo),
    /// The master that Sentinels name.
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: Arc<str>,
        /// Everything about the master but its address.
        like: ConnectionInfo,
    },
}

pub(in crate::store) struct Link {
    phase: watch::Sender<Phase>,
    target: Target,
    opener: Opener,
    on_warning: Option<OnWarning>,
    reconnects: Reconnects,
    /// The last attempt to open a wire failed.
    failing: AtomicBool,
    /// No attempt to open a wire has ended yet.
    is_new: AtomicBool,
    /// The last refusal that a warning was given of, and when. Cleared when a wire is open, so that the next one is given.
    warned: Mutex<Option<(StoreCause, Instant)>>,
}

/// Rises whenever any link of a store comes up.
pub(in crate::store) type Reconnects = Arc<watch::Sender<u64>>;

impl Link {
    pub(in crate::store) fn new(
        target: Target,
        opener: Opener,
        on_warning: Option<OnWarning>,
        reconnects: Reconnects,
    ) -> Arc<Self> {
        let phase = watch::Sender::new(Phase::Down(StoreError::Unreachable("not connected yet".into())));
        let (failing, is_new, warned) = (AtomicBool::new(false), AtomicBool::new(true), Mutex::default());
        Arc::new(Self { phase, target, opener, on_warning, reconnects, failing, is_new, warned })
    }

    /// The wire, if there is one.
    pub(in crate::store) fn wire_now(&self) -> Option<Arc<Wire>> {
        match &*self.phase.borrow() {
            Phase::Up(wire) => Some(Arc::clone(wire)),
            Phase::Down(_) | Phase::Ended => None,
        }
    }

    /// The wire, as soon as there is one. Waits without end: its caller bounds it.
    pub(in crate::store) async fn wire(&self) -> Result<Arc<Wire>, StoreError> {
        let mut phases = self.phase.subscribe();
        let settled = phases.wait_for(|phase| !matches!(phase, Phase::Down(_))).await;
        match settled.as_deref() {
            Ok(Phase::Up(wire)) => Ok(Arc::clone(wire)),
            _ => Err(StoreError::NotRunning),
        }
    }

    pub(in crate::store) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Why there is no wire, if the last attempt to open one failed: waiting may be in vain.
    pub(in crate::store) fn failure(&self) -> Option<StoreError> {
        match (&*self.phase.borrow(), self.failing.load(Ordering::Relaxed)) {
            (Phase::Down(why), true) => Some(why.clone()),
            _ => None,
        }
    }

    /// Whether the first attempt to open a wire is still under way.
    pub(in crate::store) fn is_new(&self) -> bool {
        self.is_new.load(Ordering::Relaxed)
    }

    /// Receives every change of the phase.
    pub(in crate::store) fn changes(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(in crate::store) fn end(&self) {
        self.phase.send_replace(Phase::Ended);
    }

    /// Keeps a wire open until the link is ended, whatever panics on the way.
    pub(in crate::store) async fn run(self: Arc<Self>) {
        let mut phases = self.phase.subscribe();
        let ended = async {
            // An error would mean that the link is gone, and with it this task.
            let _ = phases.wait_for(|phase| matches!(phase, Phase::Ended)).await;
        };
        let keeping = supervise("the connection to a server", || self.keep_open());
        select(pin!(ended), pin!(keeping)).await;
    }

    async fn keep_open(&self) {
        let mut pauses = Pauses::default();
        loop {
            let opened = self.open().await;
            self.is_new.store(false, Ordering::Relaxed);
            match opened {
                Ok(wire) => {
                    if let Some(hook) = &self.on_warning {
                        wire.warnings.iter().for_each(|warning| hook(warning));
                    }
                    let (wire, begun) = (Arc::new(wire), Instant::now());
                    self.failing.store(false, Ordering::Relaxed);
                    *self.warned.lock() = None;
                    self.enter(Phase::Up(Arc::clone(&wire)));
                    self.reconnects.send_modify(|reconnects| *reconnects += 1);
                    wire.broken.notified().await;
                    self.enter(Phase::Down(StoreError::Unreachable("the connection was lost".into())));
                    if begun.elapsed() >= STEADY {
                        pauses.reset();
                    } else {
                        tokio::time::sleep(pauses.away.next()).await;
                    }
                }
                Err(error) => {
                    self.failing.store(true, Ordering::Relaxed);
                    self.warn(&error);
                    let pause = pauses.after(&error);
                    self.enter(Phase::Down(error));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Warns of a refusal: without a call for a lock nobody would see it.
    fn warn(&self, error: &StoreError) {
        if !error.is_refusal() {
            return;
        }
        let Some(hook) = &self.on_warning else { return };
        let mut warned = self.warned.lock();
        if warned.is_none_or(|(cause, at)| cause != error.cause() || at.elapsed() >= WARN_AGAIN) {
            *warned = Some((error.cause(), Instant::now()));
            drop(warned);
            hook(&Warning::Refused { server: self.name().to_string(), why: error.clone() });
        }
    }

    /// Changes the phase, unless the link has ended.
    fn enter(&self, next: Phase) {
        self.phase.send_if_modified(|phase| {
            let goes_on = !matches!(phase, Phase::Ended);
            if goes_on {
                *phase = next;
            }
            goes_on
        });
    }

    async fn open(&self) -> Result<Wire, StoreError> {
        match &self.target {
            Target::Server(info) => self.opener.master(info).await,
            Target::Sentinel { sentinels, master, like } => {
                let mut failure = None;
                for sentinel in sentinels {
                    // One that lags names a master that is dead, or none any more: then the next may know better.
                    let opened = async {
                        let (host, port) = self.opener.master_of(sentinel, master).await?;
                        self.opener.master(&at(like, host, port)).await
                    };
                    match opened.await {
                        Ok(wire) => return Ok(wire),
                        Err(error) => keep_failure(&mut failure, error),
                    }
                }
                Err(failure.unwrap_or_else(|| StoreError::Unreachable("there are no Sentinels".into())))
            }
        }
    }

    /// What its server is called: host and port, or what Sentinels call the master, whichever server that is.
    pub(in crate::store) fn name(&self) -> Arc<str> {
        match &self.target {
            Target::Server(info) => info.addr().to_string().to_lowercase().into(),
            Target::Sentinel { master, .. } => Arc::clone(master),
        }
    }

    /// Where it leads, if that does not change.
    pub(in crate::store) fn address(&self) -> Option<&ConnectionInfo> {
        match &self.target {
            Target::Server(info) => Some(info),
            Target::Sentinel { .. } => None,
        }
    }
}

/// Of the failures of several servers keeps the one that says for how long to rest: a refusal only if all refuse. One
/// that refuses must not hold up what the others will do again soon (R20).
pub(in crate::store) fn keep_failure(failure: &mut Option<StoreError>, error: StoreError) {
    if failure.as_ref().is_none_or(|kept| kept.is_refusal() || !error.is_refusal()) {
        *failure = Some(error);
    }
}

/// How long a loop rests that opens connections: by what kept it from one.
pub(in crate::store) struct Pauses {
    pub(in crate::store) away: Backoff,
    refused: Backoff,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { away: Backoff::new(AWAY.0, AWAY.1), refused: Backoff::new(REFUSED.0, REFUSED.1) }
    }
}

impl Pauses {
    /// The pause after one more failure.
    pub(in crate::store) fn after(&mut self, why: &StoreError) -> Duration {
        if why.is_refusal() { self.refused.next() } else { self.away.next() }
    }

    pub(in crate::store) fn reset(&mut self) {
        self.away.reset();
        self.refused.reset();
    }
}

/// The same access at another address.
pub(in crate::store) fn at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_that_refuses_does_not_make_the_others_wait() {
        let (away, refused) = (StoreError::Timeout, StoreError::Unauthenticated("no".into()));
        let kept = |errors: [&StoreError; 2]| {
            let mut failure = None;
            errors.into_iter().for_each(|error| keep_failure(&mut failure, error.clone()));
            failure.unwrap()
        };
        assert_eq!(kept([&away, &refused]), away);
        assert_eq!(kept([&refused, &away]), away);
        assert_eq!(kept([&refused, &refused]), refused);
    }
}
