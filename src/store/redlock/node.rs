//! One of the servers that vote: [`Node`], whether it may, and what it has answered.
//!
//! | state    | an acquire                                                         | what ends the state |
//! |----------|--------------------------------------------------------------------|---------------------|
//! | away     | fails at once, or waits for the first connection                   | a connection: unknown |
//! | unknown  | admits the node first                                              | `mark.lua` has set its marker, and its run id is no other node's: admitted |
//! | admitted | asks the node, which abstains for as long as it is in quarantine   | the connection is lost: away |
//!
//! A start of the server ends all connections, so admission belongs to a connection (L1, L4).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::config::{Config, NodeEvent};
use super::quorum::{Durability, Vote, silence};
use super::roll::Roll;
use super::script::{ACQUIRE, EXTEND, MARK, RELEASE, REPAIR};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::store::redis::conn::link::Phase;
use crate::store::redis::conn::wire::{Asking, Wire};
use crate::store::redis::fault::protocol_error;
use crate::store::redis::script::{self as redis_script, ScriptArgs};
use crate::store::redis::{Inner as Redis, RedisStore, millis};
use crate::store::{StoreError, Votes};

/// Between two attempts to admit a node that answers and cannot be admitted, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// So many locks of a node that is away are kept for a later release; those beyond run out by themselves, after
/// `max_ttl` at most.
const MAX_PENDING_RELEASES: usize = 4096;

pub(super) struct Node {
    pub(super) index: usize,
    /// Its host and port.
    pub(super) name: Arc<str>,
    pub(super) store: RedisStore,
    pub(super) redis: Arc<Redis>,
    config: Arc<Config>,
    roll: Arc<Roll>,
    /// Held by the one task that admits the node: the others wait for its result.
    admitting: tokio::sync::Mutex<()>,
    /// The end of its quarantine, as it last said.
    silent_until: Mutex<Moment>,
    /// How often it gave each [`Vote`].
    counts: [AtomicU64; 5],
}

impl Node {
    pub(super) fn new(index: usize, store: RedisStore, config: Arc<Config>, roll: Arc<Roll>) -> Self {
        Self {
            index,
            name: Arc::clone(roll.name(index)),
            redis: Arc::clone(&store.0),
            store,
            config,
            roll,
            admitting: tokio::sync::Mutex::default(),
            silent_until: Mutex::new(Moment::ZERO),
            counts: Default::default(),
        }
    }

    /// Its wire, once it may vote there; waits for it no longer than a call may take.
    pub(super) async fn wire(&self, begun: Moment) -> Result<Arc<Wire>, StoreError> {
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
                    (Phase::Up(wire), _) => return self.admit(&wire).await.map(|()| wire),
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
        self.roll.has_admitted(self.index, wire.id)
    }

    /// Finds out which server it is, and when its quarantine ends.
    async fn admit(&self, wire: &Wire) -> Result<(), StoreError> {
        let _one_at_a_time = self.admitting.lock().await;
        if self.has_admitted(wire) {
            return Ok(());
        }
        let run_id = &wire.process.run_id;
        self.roll.introduce(self.index, run_id)?;
        let left = self.examine(wire).await?;
        // Before it is admitted: whoever finds it admitted finds the quarantine, too.
        self.quarantined(left);
        // An earlier name of the same server may have been introduced meanwhile.
        self.roll.admit(self.index, run_id, wire.id)
    }

    /// An operator has ended its quarantine on this wire.
    pub(super) async fn initialised(&self, wire: &Wire) -> Result<(), StoreError> {
        self.roll.dismiss(self.index);
        self.admit(wire).await
    }

    /// Loads the scripts and sets the marker; answers for how long the node is silent.
    async fn examine(&self, wire: &Wire) -> Result<Duration, StoreError> {
        // A slow node that had to ask for a script would get it in a second trip, after the round is over.
        for script in [&*ACQUIRE, &*RELEASE, &*redis_script::RELEASE, &*EXTEND, &*REPAIR] {
            wire.load(script).await?;
        }
        let longest = self.config.silence();
        let silent = silence(wire.process.uptime, durability(wire).await?, longest);
        let marker = ScriptArgs::of([&*self.config.marker]);
        let parts = marker.arg(millis(silent)).arg(millis(longest)).arg(&wire.process.run_id);
        let reply = wire.run_one(&MARK, Asking::No, parts).await.map_err(|fault| fault.error)?;
        match (reply.code(), reply.rest()) {
            (1, &[left_ms]) => Ok(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))),
            (7, &[other_ms]) => Err(self.config.other_max_ttl(other_ms)),
            _ => Err(protocol_error("no end of a quarantine")),
        }
    }

    /// Admits the node on every new connection, before any lock is asked for, and reports what becomes of it. Ends with
    /// the connection, or when `store` is gone.
    pub(super) async fn keep_admitted<T>(node: Arc<Self>, store: Weak<T>) {
        let Some(link) = node.redis.link() else { return };
        let mut changes = link.changes();
        let (mut last, mut pauses) = (None, Backoff::new(PAUSE.0, PAUSE.1));
        loop {
            let phase = changes.borrow_and_update().clone();
            let wait = match phase {
                Phase::Ended => return,
                _ if store.strong_count() == 0 => return,
                Phase::Up(wire) => {
                    let (event, wait) = node.admission(&wire, &mut pauses).await;
                    node.report(event, &mut last);
                    wait
                }
                Phase::Down(_) => {
                    // At the start it is down without having failed.
                    node.report(
                        link.failure().map(|why| NodeEvent::Away { node: Arc::clone(&node.name), why }),
                        &mut last,
                    );
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

    /// Tries to admit the node: what is to be reported, and when to try again or to look whether it votes by then.
    async fn admission(&self, wire: &Wire, pauses: &mut Backoff) -> (Option<NodeEvent>, Option<Duration>) {
        // The calls that wait on a wire that does not answer give it up.
        let admitted = tokio::time::timeout(self.config.node_timeout * 2, self.admit(wire)).await;
        let (left, node) = (self.silent_for(), Arc::clone(&self.name));
        match admitted.unwrap_or(Err(StoreError::Timeout)) {
            Err(StoreError::Timeout) => (None, Some(pauses.next())),
            Err(why) => (Some(NodeEvent::Refused { node, why }), Some(pauses.next())),
            Ok(()) => {
                pauses.reset();
                if left.is_zero() {
                    (Some(NodeEvent::Votes { node }), None)
                } else {
                    (Some(NodeEvent::Quarantined { node, left }), Some(left))
                }
            }
        }
    }

    /// Calls the hook if the kind of event is another one than the last time: another cause or time is no news.
    fn report(&self, event: Option<NodeEvent>, last: &mut Option<std::mem::Discriminant<NodeEvent>>) {
        let Some(event) = event else { return };
        let kind = std::mem::discriminant(&event);
        if last.replace(kind) != Some(kind)
            && let Some(hook) = &self.config.on_event
        {
            hook(&event);
        }
    }

    /// The node said that it is in quarantine for so long still.
    pub(super) fn quarantined(&self, left: Duration) {
        *self.silent_until.lock() = self.redis.now().saturating_add(left);
    }

    /// For how long it is known to be in quarantine.
    pub(super) fn silent_for(&self) -> Duration {
        self.silent_until.lock().saturating_since(self.redis.now())
    }

    /// The time of its clock in microseconds, if that is known now.
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

    /// Its store, unless nothing can be asked of it now.
    pub(super) fn reachable(&self) -> Result<&RedisStore, StoreError> {
        self.failure().map_or(Ok(&self.store), Err)
    }

    /// Whether it is away, and so many locks wait for their release there that no more are added.
    pub(super) fn has_enough_pending_releases(&self) -> bool {
        self.redis.cleaning.len() >= MAX_PENDING_RELEASES && self.failure().is_some()
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

/// Whether the server forgets nothing that it has answered.
async fn durability(wire: &Wire) -> Result<Durability, StoreError> {
    let appends = wire.setting("appendonly").await? == "yes" && wire.setting("appendfsync").await? == "always";
    // During a rewrite it would not wait for the disk.
    let at_all_times = appends && wire.setting("no-appendfsync-on-rewrite").await? == "no";
    Ok(if at_all_times { Durability::Always } else { Durability::Partial })
}
