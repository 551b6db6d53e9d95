//! What all operations over the nodes share: [`Inner`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::fence::propose;
use super::in_flight::InFlight;
use super::lock::Lock;
use super::node::Node;
use super::queue::Queue;
use super::quorum::Quorum;
use crate::clock::{Moment, wall_micros};
use crate::key::{Key, Ttl};
use crate::store::redis::keys::KeyNames;
use crate::store::time::Ticks;
use crate::store::{Capabilities, Fairness, StoreError};

/// Why only exclusive locks are kept.
const WHY_EXCLUSIVE: &str =
    "of two shares on majorities of its servers no server need know both, so that none can count them";

pub(super) struct Inner {
    pub(super) config: Arc<Config>,
    pub(super) quorum: Quorum,
    pub(super) nodes: Vec<Arc<Node>>,
    /// Ends the wait of a round.
    pub(super) ticks: Arc<Ticks>,
    /// The highest of all proved fences that this process has seen, of any key.
    highest_fence: AtomicU64,
    pub(super) queue: Queue,
    pub(super) in_flight: Arc<InFlight>,
    /// Calls that go on without their callers. A stop waits for them.
    pub(super) calls: TaskTracker,
    /// What runs from start to stop.
    pub(super) tasks: Mutex<Vec<AbortHandle>>,
}

impl Inner {
    pub(super) fn new(config: Arc<Config>, quorum: Quorum, nodes: Vec<Arc<Node>>) -> Self {
        Self {
            quorum,
            nodes,
            ticks: Ticks::new(config.node_timeout),
            highest_fence: AtomicU64::new(0),
            queue: Queue::default(),
            in_flight: Arc::default(),
            calls: TaskTracker::new(),
            tasks: Mutex::default(),
            config,
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.ticks.now()
    }

    pub(super) fn runtime(&self) -> Option<Handle> {
        self.nodes[0].redis.runtime()
    }

    /// Runs a call in the background. Without a runtime the store has stopped, and no call goes on any more.
    pub(super) fn spawn(&self, call: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime() {
            self.calls.spawn_on(call, &runtime);
        }
    }

    /// Whether something of this lock and token is being taken back.
    pub(super) fn is_cleaning(&self, lock: &Lock) -> bool {
        self.nodes.iter().any(|node| node.redis.cleaning.is_at(&lock.names, lock.token))
    }

    pub(super) fn names(&self, key: &Key) -> Result<KeyNames, StoreError> {
        self.nodes[0].redis.names(key)
    }

    /// L4: no lock lasts longer than a node that forgot it keeps silent.
    pub(super) fn checked_ttl(&self, ttl: Ttl) -> Result<Duration, StoreError> {
        let (ttl, capabilities) = (ttl.as_duration(), self.capabilities());
        if ttl < capabilities.min_ttl || ttl > capabilities.max_ttl { Err(StoreError::InvalidTtl) } else { Ok(ttl) }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        // Two rounds, and a tick for each.
        let mut capabilities = Capabilities::new(self.config.node_timeout * 5 / 2);
        (capabilities.fairness, capabilities.max_ttl) = (Fairness::None, self.config.max_ttl);
        capabilities.why_exclusive = Some(WHY_EXCLUSIVE);
        capabilities
    }

    /// The fence that a try proposes first.
    pub(super) fn proposal(&self, begun: Moment) -> u64 {
        // The highest fence is another key's, mostly. One that lies further ahead than clocks may differ was minted by
        // a clock that was wrong: it stays with its own key, whose nodes ask for a higher one in a second round.
        let (seen, micros) = (self.highest_fence.load(Ordering::Relaxed), self.micros_at(begun));
        let ahead = u64::try_from(self.config.max_ttl.as_micros()).unwrap_or(u64::MAX);
        propose(if seen > micros.saturating_add(ahead) { 0 } else { seen }, micros)
    }

    /// A majority has accepted this fence.
    pub(super) fn proved(&self, fence: u64) {
        self.highest_fence.fetch_max(fence, Ordering::Relaxed);
    }

    /// The median of the nodes' clocks at `moment`, in microseconds; this machine's clock before any is known.
    pub(super) fn micros_at(&self, moment: Moment) -> u64 {
        let mut clocks: Vec<i64> = self.nodes.iter().filter_map(|node| node.micros_at(moment)).collect();
        clocks.sort_unstable();
        clocks.get(clocks.len() / 2).and_then(|micros| u64::try_from(*micros).ok()).unwrap_or_else(wall_micros)
    }
}
