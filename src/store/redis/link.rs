//! The way to one server, whichever wire it takes just now: [`Link`].
//!
//! | phase  | an operation                          | leaves it by                                   |
//! |--------|---------------------------------------|------------------------------------------------|
//! | `Down` | waits, within its timeout             | a connection comes about -> `Up`; stop -> `Ended` |
//! | `Up`   | is sent                               | the wire is in doubt -> `Down`; stop -> `Ended` |
//! | `Ended`| is refused                            | -                                              |

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::select;
use redis::{ConnectionAddr, ConnectionInfo};
use tokio::sync::watch;

use super::config::OnWarning;
use super::wire::{Opener, Wire};
use crate::store::StoreError;

/// Between two attempts to connect; "within a second" (R20) leaves room for several.
const PAUSE: std::ops::Range<u64> = 20..120;

#[derive(Clone)]
pub(in crate::store) enum Phase {
    Down(StoreError),
    Up(Arc<Wire>),
    Ended,
}

/// Where a link leads.
#[derive(Clone)]
pub(super) enum Target {
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
    ups: Ups,
    failing: AtomicBool,
}

/// Rises whenever any link of a store comes up.
pub(super) type Ups = Arc<watch::Sender<u64>>;

impl Link {
    pub(super) fn new(target: Target, opener: Opener, on_warning: Option<OnWarning>, ups: Ups) -> Arc<Self> {
        let phase = watch::Sender::new(Phase::Down(StoreError::Unreachable("not connected yet".into())));
        Arc::new(Self { phase, target, opener, on_warning, ups, failing: AtomicBool::new(false) })
    }

    /// The wire, as soon as there is one. Waits without end: its caller bounds it.
    pub(in crate::store) async fn wire(&self) -> Result<Arc<Wire>, StoreError> {
        match &*self.phase.borrow() {
            Phase::Up(wire) => return Ok(Arc::clone(wire)),
            Phase::Ended => return Err(StoreError::NotRunning),
            Phase::Down(_) => {}
        }
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

    /// Hears of every change.
    pub(in crate::store) fn changes(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn end(&self) {
        self.phase.send_replace(Phase::Ended);
    }

    /// Keeps a wire open until the link is ended.
    pub(super) async fn run(&self) {
        let mut phases = self.phase.subscribe();
        let ended = async {
            // An error would mean that the link is gone, and with it this task.
            let _ = phases.wait_for(|phase| matches!(phase, Phase::Ended)).await;
        };
        select(pin!(ended), pin!(self.keep_open())).await;
    }

    async fn keep_open(&self) {
        loop {
            match self.open().await {
                Ok(wire) => {
                    if let Some(hook) = &self.on_warning {
                        wire.warnings.iter().for_each(|warning| hook(warning));
                    }
                    let wire = Arc::new(wire);
                    self.failing.store(false, Ordering::Relaxed);
                    self.turn(Phase::Up(Arc::clone(&wire)));
                    self.ups.send_modify(|ups| *ups += 1);
                    wire.doubt.notified().await;
                    self.turn(Phase::Down(StoreError::Unreachable("the connection was lost".into())));
                }
                Err(error) => {
                    self.failing.store(true, Ordering::Relaxed);
                    self.turn(Phase::Down(error));
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(PAUSE))).await;
                }
            }
        }
    }

    /// Once ended, it stays so.
    fn turn(&self, next: Phase) {
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
                let mut last = StoreError::Unreachable("there are no Sentinels".into());
                for sentinel in sentinels {
                    // One that lags names a master that is dead, or none any more: then the next may know better.
                    let opened = async {
                        let (host, port) = self.opener.master_of(sentinel, master).await?;
                        self.opener.master(&at(like, host, port)).await
                    };
                    match opened.await {
                        Ok(wire) => return Ok(wire),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// What its server is called: host and port, or what Sentinels call the master, whichever server that is.
    pub(super) fn name(&self) -> Arc<str> {
        match &self.target {
            Target::Server(info) => info.addr().to_string().to_lowercase().into(),
            Target::Sentinel { master, .. } => Arc::clone(master),
        }
    }

    /// Where it leads, if that does not change.
    pub(super) fn address(&self) -> Option<&ConnectionInfo> {
        match &self.target {
            Target::Server(info) => Some(info),
            Target::Sentinel { .. } => None,
        }
    }
}

/// The same access at another address.
pub(super) fn at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}
