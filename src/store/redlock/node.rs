//! One of the servers that vote: [`Node`], whether it may, and what it has said.
//!
//! | standing    | an acquire                       | leaves it by                                              |
//! |-------------|----------------------------------|-----------------------------------------------------------|
//! | away        | hears so at once, or waits for the first connection | a connection -> strange                |
//! | strange     | admits it first                  | `mark.lua`: its run id is nobody else's, and its marker is set -> admitted |
//! | admitted    | is asked; in quarantine it abstains | the connection is lost -> away                          |
//!
//! A start of the server ends all connections, so admission belongs to a connection (L1, L4).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::Inner;
use super::quorum::{Durability, Vote, silence};
use super::script::{ACQUIRE, EXTEND, MARK, RELEASE, REPAIR};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::store::redis::conn::link::Phase;
use crate::store::redis::conn::wire::{Asking, Wire};
use crate::store::redis::fault::protocol_error;
use crate::store::redis::script::{self as redis_script, ScriptArgs};
use crate::store::redis::{Inner as Redis, RedisStore, millis};
use crate::store::{StoreError, Votes};

/// Nobody's wire.
const NONE: u64 = u64::MAX;
/// Between two attempts to admit a node that answers and does not say what is needed, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// So many locks of a node that is away are owed a release; those beyond run out by themselves, `max_ttl` at most.
const MOST_OWED: usize = 4096;

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// It is connected, and votes.
    Votes {
        /// Its host and port.
        node: Arc<str>,
    },
    /// It is connected, and keeps silent for a while: it may have forgotten locks (L4).
    Quarantined {
        /// Its host and port.
        node: Arc<str>,
        /// For so long.
        left: Duration,
    },
    /// It is connected, and may not vote.
    Refused {
        /// Its host and port.
        node: Arc<str>,
        /// The cause.
        why: StoreError,
    },
    /// Its connection was lost, or there was none at the start.
    Away {
        /// Its host and port.
        node: Arc<str>,
        /// The cause.
        why: StoreError,
    },
}

pub(super) struct Node {
    pub(super) index: usize,
    /// Its host and port.
    pub(super) name: Arc<str>,
    pub(super) store: RedisStore,
    pub(super) redis: Arc<Redis>,
    /// The wire on which it was admitted.
    admitted: AtomicU64,
    admitting: tokio::sync::Mutex<()>,
    standing: Mutex<Standing>,
    counts: [AtomicU64; 5],
}

struct Standing {
    run_id: Option<Box<str>>,
    silent_until: Moment,
}

impl Node {
    pub(super) fn new(index: usize, name: Arc<str>, store: RedisStore) -> Self {
        Self {
            index,
            name,
            redis: Arc::clone(&store.0),
            store,
            admitted: AtomicU64::new(NONE),
            admitting: tokio::sync::Mutex::default(),
            standing: Mutex::new(Standing { run_id: None, silent_until: Moment::ZERO }),
            counts: Default::default(),
        }
    }

    /// Its wire, once it may vote there; waits for it no longer than a call may take.
    pub(super) async fn wire(&self, inner: &Inner, begun: Moment) -> Result<Arc<Wire>, StoreError> {
        let Some(link) = self.redis.link() else { return Err(StoreError::NotRunning) };
        if let Some(why) = link.failure() {
            return Err(why);
        }
        if let Phase::Up(wire) = link.phase()
            && self.has_admitted(&wire)
        {
            return Ok(wire);
        }
        let admitting = async {
            let mut changes = link.changes();
            loop {
                let phase = changes.borrow_and_update().clone();
                match (phase, link.failure()) {
                    (Phase::Up(wire), _) => return self.admit(inner, &wire).await.map(|()| wire),
                    // A majority may do without it.
                    (Phase::Down(_), Some(why)) => return Err(why),
                    (Phase::Down(_), None) => changes.changed().await.map_err(|_| StoreError::NotRunning)?,
                    (Phase::Ended, _) => return Err(StoreError::NotRunning),
                }
            }
        };
        let limit = self.redis.config.operation_timeout;
        self.redis.ticks.within(begun, limit, admitting).await.and_then(|admitted| admitted)
    }

    pub(super) fn has_admitted(&self, wire: &Wire) -> bool {
        self.admitted.load(Ordering::Acquire) == wire.id
    }

    /// Learns who is at the other end, and sees to the end of its quarantine.
    async fn admit(&self, inner: &Inner, wire: &Wire) -> Result<(), StoreError> {
        let _one_at_a_time = self.admitting.lock().await;
        if self.has_admitted(wire) {
            return Ok(());
        }
        self.introduce(inner, wire)?;
        let left = self.examine(inner, wire).await?;
        // Another name of the same server may have come meanwhile.
        let _roll = inner.roll.lock();
        self.is_nobody_else(inner, wire)?;
        self.quarantined(left);
        self.admitted.store(wire.id, Ordering::Release);
        Ok(())
    }

    /// Says who it is. Of two names of one server the second may not vote (L1), whichever comes first.
    fn introduce(&self, inner: &Inner, wire: &Wire) -> Result<(), StoreError> {
        let _roll = inner.roll.lock();
        self.standing.lock().run_id = Some(wire.process.run_id.clone());
        for later in inner.nodes.iter().filter(|other| other.index > self.index && other.is(wire)) {
            // It is to be admitted again, and will not be.
            later.admitted.store(NONE, Ordering::Release);
        }
        self.is_nobody_else(inner, wire)
    }

    fn is_nobody_else(&self, inner: &Inner, wire: &Wire) -> Result<(), StoreError> {
        match inner.nodes[..self.index].iter().find(|other| other.is(wire)) {
            None => Ok(()),
            Some(other) => {
                let why = format!("redlock: {} and {} are the same server", other.name, self.name);
                Err(StoreError::Config(why.into()))
            }
        }
    }

    fn is(&self, wire: &Wire) -> bool {
        self.standing.lock().run_id.as_ref() == Some(&wire.process.run_id)
    }

    /// An operator has ended its quarantine on this wire.
    pub(super) async fn initialised(&self, inner: &Inner, wire: &Wire) -> Result<(), StoreError> {
        self.admitted.store(NONE, Ordering::Release);
        self.admit(inner, wire).await
    }

    async fn examine(&self, inner: &Inner, wire: &Wire) -> Result<Duration, StoreError> {
        // The slower nodes of a round would learn it in a second trip, after the round is over.
        for script in [&*ACQUIRE, &*RELEASE, &*redis_script::RELEASE, &*EXTEND, &*REPAIR] {
            wire.load(script).await?;
        }
        let longest = inner.config.silence();
        let silent = silence(wire.process.uptime, durability(wire).await?, longest);
        let parts = ScriptArgs::of([&inner.marker]).arg(millis(silent)).arg(millis(longest)).arg(&wire.process.run_id);
        let reply = wire.run_one(&MARK, Asking::No, parts).await.map_err(|fault| fault.error)?;
        match (reply.code(), reply.rest()) {
            (1, &[left_ms]) => Ok(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))),
            (7, &[other_ms]) => Err(other_max_ttl(inner, other_ms)),
            _ => Err(protocol_error("no end of a quarantine")),
        }
    }

    /// Admits it on every connection, before anybody asks for it, and tells what becomes of it.
    pub(super) async fn keep(node: Arc<Self>, inner: Weak<Inner>) {
        let Some(link) = node.redis.link() else { return };
        let mut changes = link.changes();
        let (mut last, mut pauses) = (None, Backoff::new(PAUSE.0, PAUSE.1));
        loop {
            let phase = changes.borrow_and_update().clone();
            let wait = match (phase, inner.upgrade()) {
                (Phase::Ended, _) | (_, None) => return,
                (Phase::Up(wire), Some(inner)) => {
                    // A wire that does not answer is left by the calls that wait on it.
                    let admitted = tokio::time::timeout(inner.config.node_timeout * 2, node.admit(&inner, &wire));
                    let admitted = admitted.await.unwrap_or(Err(StoreError::Timeout));
                    let left = node.silent_for();
                    let name = Arc::clone(&node.name);
                    let (event, wait) = match admitted {
                        Err(StoreError::Timeout) => (None, Some(pauses.next())),
                        Err(why) => (Some(NodeEvent::Refused { node: name, why }), Some(pauses.next())),
                        Ok(()) if left.is_zero() => (Some(NodeEvent::Votes { node: name }), None),
                        Ok(()) => (Some(NodeEvent::Quarantined { node: name, left }), Some(left)),
                    };
                    if admitted_now(&event) {
                        pauses.reset();
                    }
                    node.tell(&inner, event, &mut last);
                    wait
                }
                (Phase::Down(_), Some(inner)) => {
                    // At the start it is down without having failed.
                    let away = link.failure().map(|why| NodeEvent::Away { node: Arc::clone(&node.name), why });
                    node.tell(&inner, away, &mut last);
                    None
                }
            };
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }

    /// Tells it once: causes and times that change do not make it another event.
    fn tell(&self, inner: &Inner, event: Option<NodeEvent>, last: &mut Option<std::mem::Discriminant<NodeEvent>>) {
        let Some(event) = event else { return };
        if last.replace(std::mem::discriminant(&event)) != Some(std::mem::discriminant(&event))
            && let Some(hook) = &inner.config.on_event
        {
            hook(&event);
        }
    }

    /// It said that it is in quarantine for so long still.
    pub(super) fn quarantined(&self, left: Duration) {
        self.standing.lock().silent_until = self.redis.now().saturating_add(left);
    }

    /// For how long it is known to be in quarantine.
    pub(super) fn silent_for(&self) -> Duration {
        self.standing.lock().silent_until.saturating_since(self.redis.now())
    }

    /// What its clock shows, if that is known now.
    pub(super) fn micros_at(&self, moment: Moment) -> Option<i64> {
        match self.redis.link()?.phase() {
            Phase::Up(wire) => Some(wire.clock.at(moment, Duration::ZERO)),
            _ => None,
        }
    }

    /// Why there is no wire to it and may be none soon.
    pub(super) fn failure(&self) -> Option<StoreError> {
        self.redis.link().and_then(|link| link.failure())
    }

    /// Whether so much is to be taken back there, while it is away, that more would not pay.
    pub(super) fn owes_enough(&self) -> bool {
        self.redis.cleaning.len() >= MOST_OWED && self.failure().is_some()
    }

    pub(super) fn count(&self, vote: Vote) {
        self.counts[vote as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn votes(&self) -> Votes {
        let of = |vote: Vote| self.counts[vote as usize].load(Ordering::Relaxed);
        Votes {
            granted: of(Vote::Granted),
            refused: of(Vote::Refused),
            denied: of(Vote::Denied),
            abstained: of(Vote::Abstained),
            unknown: of(Vote::Unknown),
        }
    }
}

fn admitted_now(event: &Option<NodeEvent>) -> bool {
    matches!(event, Some(NodeEvent::Votes { .. } | NodeEvent::Quarantined { .. }))
}

/// The store's processes do not agree on the longest TTL: what this one holds the others' nodes would forget too early.
pub(super) fn other_max_ttl(inner: &Inner, other_ms: i64) -> StoreError {
    let (ours, other) = (inner.config.max_ttl.as_millis(), other_ms);
    let why = format!("redlock: max_ttl is {ours} ms here, and {other} ms in the processes that marked the node");
    StoreError::Config(why.into())
}

/// Whether the server forgets nothing that it has answered.
async fn durability(wire: &Wire) -> Result<Durability, StoreError> {
    let appends = wire.setting("appendonly").await? == "yes" && wire.setting("appendfsync").await? == "always";
    // During a rewrite it would not wait for the disk.
    let at_all_times = appends && wire.setting("no-appendfsync-on-rewrite").await? == "no";
    Ok(if at_all_times { Durability::Always } else { Durability::Partial })
}
