//! Redlock: one lock over N independent Redis nodes, held by whoever has a majority of them: [`RedlockStore`].
//!
//! One file per operation, with its script beside it: `acquire`, `extend`, `repair`, `release`, `force`, `look`,
//! `votes`, `initialise`. Each asks all nodes at once and goes on as soon as a majority decides; who is slower is heard out in
//! the background (`fan`). Acquires and releases that wait for each other (`batching`) go out together, to all nodes alike
//! (`flight`). The half that does no I/O counts votes (`quorum`, `poll`) and fences (`fence`); `model` walks every
//! bounded history of both. A node is a [`RedisStore`](super::redis::RedisStore) of its own (`node`).
//!
//! # Rules
//!
//! | rule | what holds of a lock over N nodes |
//! |---|---|
//! | L1 | A quorum is more than half of the configured nodes, which are told apart by endpoint and by run id. Their number is odd. All are asked at once. |
//! | L2 | A lock is granted if a quorum has said yes before the deadline; otherwise it is released on all nodes, also on those that did not answer. A denial tells the holder's fence, so that a key that a majority holds is not taken for a split vote. |
//! | L3 | An extend needs a quorum within the old validity. A minority that has lost the lock is given it back with the time that is left, while a majority holds it, and never after the deadline. |
//! | L4 | A node that may have forgotten locks does not vote for `max_ttl`: one that was started less than that ago, unless it runs `appendfsync always`, or one that was flushed. Run id, uptime and the marker that a flush removes are read on the connection that votes. One that was only paused votes at once. |
//! | L5 | A fence is proposed above all that were seen and above the clock; a node accepts what is above its own. A majority of acceptances proves it; without proof there is no grant. Nodes' clocks are assumed to differ by less than `max_ttl`. |
//!
//! # What it promises, and what not
//! * A key is held by one token at a time as long as nodes' and holders' clocks run at the same rate (R11), give or take
//!   the drift allowance, and no node is given up for lost and replaced within `max_ttl`. Redis itself says no more:
//!   <https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/>.
//! * A holder that is paused (GC, SIGSTOP, a slow disk) past its deadline does not know. No lock with a TTL can tell it:
//!   Kleppmann, "How to do distributed locking" (2016). Sanfilippo's answer, "Is Redlock safe?" (2016), is about clocks
//!   and restarts, not about that pause. **The fencing token is the real protection**: the resource refuses a lower one.
//! * Fences are proved here (`fence`): each grant's was accepted by a majority, and is above all earlier ones, through
//!   crashes, lost replies and restarts, while clocks differ by less than `max_ttl`. Without proof there is no grant.
//! * A node that restarts without `appendfsync always`, or is flushed, does not vote for `max_ttl` (L4). So a new
//!   deployment is silent for that long once, unless it is told that nothing is held ([`RedlockStore::initialise`], or
//!   `leasehold redlock init`).
//! * One node with replicas and `WAIT` ([`wait_for_replicas`](super::redis::RedisBuilder::wait_for_replicas)) is a
//!   fifth of the work, and is to be preferred where an outage of seconds is bearable and the resource checks fences:
//!   N nodes buy that any minority can die without anybody noticing.
//! * Turns between processes are kept as well as they can be without a promise ([`Fairness::None`](super::Fairness)): each
//!   node has a queue, in an order that is the same on all of them (`queue`), and it is told of a release who is next.
//!   A majority of heads is not a turn, so a vote may still be split; whoever was, tries again after a random pause.

mod acquire_round;
mod builder;
mod fanout;
pub(crate) mod fence;
mod in_flight;
#[cfg(test)]
mod model;
mod node;
mod ops;
mod queue;
pub(crate) mod quorum;
mod round;
mod script;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

pub use self::builder::RedlockBuilder;
use self::fence::propose;
use self::in_flight::Underway;
use self::node::Node;
pub use self::node::NodeEvent;
use self::ops::{acquire, extend, force, health, initialise, look, node_states, notice, release, watch};
use self::queue::Queue;
use self::quorum::Quorum;
use super::batching::Batcher;
use super::redis::conn::time::Ticks;
use super::redis::keys::KeyNames;
use super::{
    AcquireRequest, Acquired, BoxFuture, Capabilities, Events, Extended, Fairness, Forced, Health, KeyState, NodeVote,
    Noticed, Released, Store, StoreError, Watch,
};
use crate::clock::{Moment, wall_micros};
use crate::key::{Key, Token, Ttl};
use crate::supervise::supervise;

/// A [`Store`] over an odd number of independent Redis servers.
///
/// ```no_run
/// use leasehold::store::redlock::RedlockStore;
/// let store = RedlockStore::new(["redis://a", "redis://b", "redis://c"])?;
/// # Ok::<(), leasehold::store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct RedlockStore(Arc<Inner>);

/// How long a stop waits for clean-ups.
const LAST_CALLS: Duration = Duration::from_secs(1);

struct Inner {
    config: RedlockBuilder,
    quorum: Quorum,
    /// The key in which a node keeps the end of its quarantine. No lock can have this name.
    marker: Box<str>,
    nodes: Vec<Arc<Node>>,
    /// Held while nodes are told apart.
    roll: Mutex<()>,
    /// Says when a round has waited enough.
    ticks: Arc<Ticks>,
    /// Of all proved fences that this process has seen.
    highest_fence: AtomicU64,
    queue: Queue,
    in_flight: Underway,
    acquires: Batcher<acquire::Try>,
    releases: Batcher<release::Order>,
    /// Calls that are under way.
    flights: TaskTracker,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// What a token is to hold.
#[derive(PartialEq, Eq, Hash)]
struct Lock {
    names: KeyNames,
    token: Token,
}

impl RedlockStore {
    /// A store with the usual settings. Nothing is connected yet.
    ///
    /// # Errors
    /// [`StoreError::Config`] if a URL cannot be read, if the nodes are even in number, or if two are the same.
    pub fn new<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Self, StoreError> {
        Self::builder(urls).build()
    }

    /// Settings for a store over the nodes behind `urls`, one server each.
    pub fn builder<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> RedlockBuilder {
        RedlockBuilder::new(urls)
    }

    /// Ends the quarantine of all nodes at once, for those who know that no lock is held anywhere: before the first
    /// start of a new deployment, or to change `max_ttl`. Needs a store that was started.
    ///
    /// **While anything is held this can grant it twice**, where nodes have forgotten it: it is a step for an operator,
    /// never for a program that starts by itself.
    ///
    /// # Errors
    /// If a node does not answer. The others may have been initialised by then.
    ///
    /// # Cancel safety
    /// Some nodes may have been initialised when it is dropped; it can be called again.
    pub async fn initialise(&self) -> Result<(), StoreError> {
        initialise::initialise(&self.0).await
    }
}

impl Inner {
    fn now(&self) -> Moment {
        self.ticks.now()
    }

    fn runtime(&self) -> Option<Handle> {
        self.nodes[0].redis.runtime()
    }

    /// Without a runtime the store has stopped, and nothing is under way any more.
    fn spawn(&self, flight: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime() {
            self.flights.spawn_on(flight, &runtime);
        }
    }

    /// Whether something of this lock and token is being taken back.
    fn is_cleaning(&self, lock: &Lock) -> bool {
        self.nodes.iter().any(|node| node.redis.cleaning.is_at(&lock.names, lock.token))
    }

    fn names(&self, key: &Key) -> Result<KeyNames, StoreError> {
        self.nodes[0].redis.names(key)
    }

    /// L4: nothing is held for longer than a node that forgot it keeps silent.
    fn checked_ttl(&self, ttl: Ttl) -> Result<Duration, StoreError> {
        let (ttl, capabilities) = (ttl.as_duration(), self.capabilities());
        if ttl < capabilities.min_ttl || ttl > capabilities.max_ttl { Err(StoreError::InvalidTtl) } else { Ok(ttl) }
    }

    fn capabilities(&self) -> Capabilities {
        // Two rounds, and a tick for each.
        let mut capabilities = Capabilities::new(self.config.node_timeout * 5 / 2);
        (capabilities.fairness, capabilities.max_ttl) = (Fairness::None, self.config.max_ttl);
        capabilities
    }

    /// The fence that a try proposes first.
    fn proposal(&self, begun: Moment) -> u64 {
        // The highest fence is another key's, mostly. One that lies further ahead than clocks may differ was minted by
        // a clock that was wrong: it stays with its own key, whose nodes ask for a higher one in a second round.
        let (seen, micros) = (self.highest_fence.load(Ordering::Relaxed), self.micros_at(begun));
        let ahead = u64::try_from(self.config.max_ttl.as_micros()).unwrap_or(u64::MAX);
        propose(if seen > micros.saturating_add(ahead) { 0 } else { seen }, micros)
    }

    /// What the middle one of the nodes' clocks shows at `moment`, in microseconds; this machine's before any is known.
    fn micros_at(&self, moment: Moment) -> u64 {
        let mut clocks: Vec<i64> = self.nodes.iter().filter_map(|node| node.micros_at(moment)).collect();
        clocks.sort_unstable();
        clocks.get(clocks.len() / 2).and_then(|micros| u64::try_from(*micros).ok()).unwrap_or_else(wall_micros)
    }
}

impl Store for RedlockStore {
    fn name(&self) -> &'static str {
        "redlock"
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn canonical(&self, key: &Key) -> Result<Key, StoreError> {
        self.0.nodes[0].store.canonical(key)
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            for node in &self.0.nodes {
                let (inner, at) = (Arc::downgrade(&self.0), node.index);
                node.redis.pass_calls_on(move |lock| {
                    if let Some(inner) = inner.upgrade() {
                        inner.queue.called(at, lock, inner.quorum.needed());
                    }
                });
                node.store.start().await?;
            }
            let Some(runtime) = self.0.runtime() else { return Err(StoreError::NotRunning) };
            let ticks = Arc::clone(&self.0.ticks);
            let ticking = supervise("timeouts", move || {
                let ticks = Arc::clone(&ticks);
                async move { ticks.run().await }
            });
            let mut tasks = vec![runtime.spawn(ticking).abort_handle()];
            for node in &self.0.nodes {
                let (node, inner) = (Arc::clone(node), Arc::downgrade(&self.0));
                let keeping = supervise("a node", move || Node::keep(Arc::clone(&node), Weak::clone(&inner)));
                tasks.push(runtime.spawn(keeping).abort_handle());
            }
            self.0.tasks.lock().extend(tasks);
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ended = End(&self.0);
            // Nodes that are away are not waited for: what they owe runs out by itself.
            let begun = self.0.now();
            self.0.flights.close();
            let _ = self.0.ticks.within(begun, LAST_CALLS, self.0.flights.wait()).await;
            let stops = self.0.nodes.iter().map(|node| node.store.stop());
            let _ = self.0.ticks.within(begun, LAST_CALLS, futures_util::future::join_all(stops)).await;
        })
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        Box::pin(acquire::acquire(&self.0, ask))
    }

    fn leave(&self, key: &Key) {
        if let Ok(names) = self.0.names(key) {
            Queue::leave(&self.0, names);
        }
    }

    fn turn(&self, key: &Key) -> Option<Watch> {
        let turn = self.0.names(key).ok().and_then(|names| self.0.queue.turn(&names));
        if turn.is_some() {
            self.0.nodes.iter().for_each(|node| node.redis.listen_for_turns());
        }
        turn
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        Box::pin(extend::extend(&self.0, key, token, ttl))
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        match self.0.names(key) {
            Ok(names) => Box::pin(release::answer(release::order(&self.0, Arc::new(Lock { names, token })))),
            Err(error) => Box::pin(std::future::ready(Released::Unknown(error))),
        }
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        Box::pin(force::force(&self.0, key))
    }

    fn give_notice<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Noticed, StoreError>> {
        Box::pin(notice::give(&self.0, key, within))
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        Box::pin(look::look(&self.0, key, token))
    }

    fn votes<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Vec<NodeVote>> {
        Box::pin(node_states::votes(&self.0, key, token))
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        Box::pin(watch::watch(&self.0, key))
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        Box::pin(watch::events(&self.0))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(health::health(&self.0))
    }
}

struct End<'a>(&'a Inner);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.tasks.lock().drain(..).for_each(|task| task.abort());
        self.0.queue.end();
    }
}

impl fmt::Debug for RedlockStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedlockStore").field("config", &self.0.config).finish_non_exhaustive()
    }
}
