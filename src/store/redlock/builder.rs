//! Which nodes vote, and how they are asked: [`RedlockBuilder`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::in_flight::Underway;
use super::node::{Node, NodeEvent};
use super::queue::Queue;
use super::quorum::Quorum;
use super::{Inner, RedlockStore};
use crate::store::batching::{BatchLimits, Batcher};
use crate::store::redis::RedisBuilder;
use crate::store::redis::builder::Repeats;
use crate::store::redis::conn::time::Ticks;
use crate::store::redis::conn::url::Place;
use crate::store::{KeyTemplate, StoreError, Warning};
use crate::supervise;

/// Of the acquires, and of the releases: with N nodes each command is paid N times.
const LIMITS: BatchLimits = BatchLimits { in_flight: 1, batch: 64 };

/// Sets up a [`RedlockStore`].
#[derive(Clone)]
#[must_use]
pub struct RedlockBuilder {
    nodes: Vec<RedisBuilder>,
    pub(super) node_timeout: Duration,
    pub(super) max_ttl: Duration,
    pub(super) quarantine: Quarantine,
    pub(super) fence_retention: Duration,
    /// What this process is called in queues.
    pub(super) process: Arc<str>,
    pub(super) on_event: Option<OnEvent>,
}

pub(super) type OnEvent = Arc<dyn Fn(&NodeEvent) + Send + Sync>;

/// Whether nodes that may have forgotten locks keep silent (L4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Quarantine {
    On,
    #[cfg_attr(not(feature = "test-util"), expect(dead_code, reason = "tests show what it is for"))]
    Off,
}

impl RedlockBuilder {
    pub(super) fn new<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Self {
        Self {
            nodes: urls.into_iter().map(|url| RedisBuilder::new(url.as_ref())).collect(),
            node_timeout: Duration::from_millis(200),
            max_ttl: Duration::from_mins(1),
            quarantine: Quarantine::On,
            fence_retention: Duration::from_hours(24),
            process: uuid::Uuid::new_v4().simple().to_string().into(),
            on_event: None,
        }
    }

    fn each(mut self, set: impl Fn(RedisBuilder) -> RedisBuilder) -> Self {
        self.nodes = self.nodes.into_iter().map(set).collect();
        self
    }

    /// How locks are named on every node; `lock:{key}` unless it is set.
    pub fn key_template(self, template: KeyTemplate) -> Self {
        self.each(|node| node.key_template(template.clone()))
    }

    /// What the keys and channels beside locks begin with, on every node; see
    /// [`RedisBuilder::side_key_prefix`](crate::store::redis::RedisBuilder::side_key_prefix).
    pub fn side_key_prefix(self, prefix: &str) -> Self {
        self.each(|node| node.side_key_prefix(prefix))
    }

    /// How long a connection to a node may take to come about; 2 s unless it is set, from 10 ms to a minute.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.each(|node| node.connect_timeout(timeout))
    }

    /// The number of the database on every node, in the place of the URLs'.
    pub fn database(self, number: u16) -> Self {
        self.each(|node| node.database(number))
    }

    /// How long a round waits for the nodes; 200 ms unless it is set, from 5 ms to 10 s. It is waited for only where
    /// the nodes that have answered decide nothing.
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.node_timeout = timeout;
        self
    }

    /// The longest TTL that may be asked for, and the time for which a node that may have forgotten locks does not
    /// vote; one minute unless it is set. **It is the same in every process that uses these nodes**: one with another
    /// value is refused by the nodes. To change it, stop them all, and [initialise](RedlockStore::initialise).
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.max_ttl = ttl;
        self
    }

    /// How long the fence of an idle key is remembered; 24 h unless it is set, at least twice `max_ttl`.
    pub fn fence_retention(mut self, retention: Duration) -> Self {
        self.fence_retention = retention;
        self
    }

    /// Trusts this certificate authority (PEM) in the place of the system's.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn root_certificate(self, pem: impl Into<Vec<u8>>) -> Self {
        let pem = pem.into();
        self.each(|node| node.root_certificate(pem.clone()))
    }

    /// Shows this certificate to nodes that ask for one (PEM, with its chain), and proves it with its key (PEM).
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn client_certificate(self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let (certificate, key) = (certificate.into(), key.into());
        self.each(|node| node.client_certificate(certificate.clone(), key.clone()))
    }

    /// Calls `hook`, on the store's runtime, when a connection finds a node's set-up dangerous (R22), or a node refuses us;
    /// the same not more often than once a minute for each node. A hook that panics harms nothing.
    pub fn on_warning(self, hook: impl Fn(&Warning) + Send + Sync + 'static) -> Self {
        let hook = Arc::new(hook);
        self.each(|node| {
            let hook = Arc::clone(&hook);
            node.on_warning(move |warning| hook(warning))
        })
    }

    /// Calls `hook`, on the store's runtime, when a node comes, goes, or begins to vote: for logs. A hook that panics
    /// harms nothing.
    pub fn on_node_event(mut self, hook: impl Fn(&NodeEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(move |event: &NodeEvent| supervise::hook(|| hook(event))));
        self
    }

    /// Lets nodes vote that may have forgotten locks. Shows what the quarantine is for; nothing else is good for it.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn without_quarantine(mut self) -> Self {
        self.quarantine = Quarantine::Off;
        self
    }

    /// Checks everything and makes the store. Nothing is connected before it is started.
    ///
    /// # Errors
    /// [`StoreError::Config`] says what is wrong. It shows no URL.
    pub fn build(mut self) -> Result<RedlockStore, StoreError> {
        let wrong = |why: &str| Err(StoreError::Config(why.into()));
        let mut names = Vec::new();
        for node in &self.nodes {
            match &node.place {
                Ok(Place::Server(info)) => names.push(info.addr().to_string().to_lowercase()),
                Ok(_) => return wrong("a node of Redlock is one server: neither Sentinel nor a Cluster"),
                Err(error) => return Err(error.clone()),
            }
        }
        let quorum = Quorum::over(&names).map_err(|why| StoreError::Config(format!("redlock: {why}").into()))?;
        if self.node_timeout < Duration::from_millis(5) || self.node_timeout > Duration::from_secs(10) {
            return wrong("the node timeout is between 5 ms and 10 s");
        }
        if self.max_ttl < Duration::from_millis(100) || self.max_ttl > Duration::from_hours(24) {
            return wrong("the longest TTL of Redlock is between 100 ms and 24 h");
        }
        if self.fence_retention / 2 < self.max_ttl {
            return wrong("the fence retention is at least twice the longest TTL");
        }
        // A straggler is heard out for two rounds, within the bounds of a single server's timeout.
        let patience = (self.node_timeout * 2).max(Duration::from_millis(100));
        let (retention, longest, process) = (self.fence_retention, self.max_ttl, Arc::clone(&self.process));
        self = self.each(|node| {
            let mut node = node.operation_timeout(patience).fence_retention(retention).process_id(&process);
            // L4: by the time that a node votes which forgot a release, the key has run out there.
            (node.longest_life, node.repeats) = (longest, Repeats::Off);
            node
        });
        let stores: Vec<_> = self.nodes.iter().map(|node| node.clone().build()).collect::<Result<_, _>>()?;
        let node = |(index, (store, name)): (usize, (_, String))| Arc::new(Node::new(index, name.into(), store));
        let marker = format!("{}quarantine", self.nodes[0].side_keys).into();
        Ok(RedlockStore(Arc::new(Inner {
            quorum,
            marker,
            nodes: stores.into_iter().zip(names).enumerate().map(node).collect(),
            roll: Mutex::default(),
            ticks: Ticks::new(self.node_timeout),
            highest_fence: AtomicU64::new(0),
            queue: Queue::default(),
            in_flight: Underway::default(),
            acquires: Batcher::new(LIMITS),
            releases: Batcher::new(LIMITS),
            flights: TaskTracker::new(),
            tasks: Mutex::default(),
            config: self,
        })))
    }

    /// For how long a node keeps silent that may have forgotten locks.
    pub(super) fn silence(&self) -> Duration {
        match self.quarantine {
            Quarantine::On => self.max_ttl,
            Quarantine::Off => Duration::ZERO,
        }
    }
}

impl fmt::Debug for RedlockBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedlockBuilder")
            .field("nodes", &self.nodes)
            .field("node_timeout", &self.node_timeout)
            .field("max_ttl", &self.max_ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(urls: &[&str]) -> String {
        RedlockStore::new(urls).unwrap_err().to_string()
    }

    #[test]
    fn even_numbers_and_duplicates_are_refused_with_the_reason() {
        assert!(refusal(&["redis://a", "redis://b"]).contains("even"));
        assert!(refusal(&[]).contains("no nodes"));
        assert!(refusal(&["redis://a", "redis://B:1", "redis://b:1/0"]).contains("nodes 1 and 2 are the same"));
        assert!(refusal(&["redis://u:secret@a", "redis://A:6379", "redis://c"]).contains("same"));
        assert!(RedlockStore::new(["redis://a"]).is_ok(), "one node votes alone");
        assert!(RedlockStore::new(["redis://a", "redis://a:1", "redis://a:2"]).is_ok());
    }

    #[test]
    fn what_is_no_single_server_is_refused_without_its_url() {
        for url in ["redis+cluster://:secret@a", "redis+sentinel://:secret@a/m", "http://:secret@a"] {
            let said = refusal(&[url, "redis://b", "redis://c"]);
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        let builder = || RedlockStore::builder(["redis://a"]);
        assert!(builder().node_timeout(Duration::ZERO).build().is_err());
        assert!(builder().max_ttl(Duration::ZERO).build().is_err());
        assert!(builder().max_ttl(Duration::from_hours(13)).build().is_err(), "fences would be forgotten too early");
        assert!(builder().max_ttl(Duration::from_hours(12)).build().is_ok());
    }
}
