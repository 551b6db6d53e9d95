//! What a store over several nodes was set up with: [`Config`], and what it says of them: [`NodeEvent`].

use std::sync::Arc;
use std::time::Duration;

use crate::store::StoreError;

/// The settings that the store keeps for as long as it lives.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) node_timeout: Duration,
    pub(super) max_ttl: Duration,
    pub(super) quarantine: Quarantine,
    pub(super) fence_retention: Duration,
    /// The name of this process in the nodes' queues.
    pub(super) process: Arc<str>,
    pub(super) on_event: Option<OnEvent>,
    /// The key in which a node keeps the end of its quarantine. No lock can have this name. Empty until the store is
    /// built: it begins as all keys beside locks do.
    pub(super) marker: Arc<str>,
}

pub(super) type OnEvent = Arc<dyn Fn(&NodeEvent) + Send + Sync>;

/// Whether nodes that may have forgotten locks keep silent (L4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Quarantine {
    On,
    #[cfg_attr(not(feature = "test-util"), expect(dead_code, reason = "tests show what it is for"))]
    Off,
}

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

impl Config {
    pub(super) fn new() -> Self {
        Self {
            node_timeout: Duration::from_millis(200),
            max_ttl: Duration::from_mins(1),
            quarantine: Quarantine::On,
            fence_retention: Duration::from_hours(24),
            process: uuid::Uuid::new_v4().simple().to_string().into(),
            on_event: None,
            marker: "".into(),
        }
    }

    /// Checks what does not depend on the nodes.
    ///
    /// # Errors
    /// [`StoreError::Config`] says what is wrong.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let wrong = |why: &str| Err(StoreError::Config(why.into()));
        if self.node_timeout < Duration::from_millis(5) || self.node_timeout > Duration::from_secs(10) {
            return wrong("the node timeout is between 5 ms and 10 s");
        }
        if self.max_ttl < Duration::from_millis(100) || self.max_ttl > Duration::from_hours(24) {
            return wrong("the longest TTL of Redlock is between 100 ms and 24 h");
        }
        if self.fence_retention / 2 < self.max_ttl {
            return wrong("the fence retention is at least twice the longest TTL");
        }
        Ok(())
    }

    /// For how long a node keeps silent that may have forgotten locks.
    pub(super) fn silence(&self) -> Duration {
        match self.quarantine {
            Quarantine::On => self.max_ttl,
            Quarantine::Off => Duration::ZERO,
        }
    }

    /// The processes that use the nodes do not agree on the longest TTL: a node would forget what this process holds
    /// before it has run out.
    pub(super) fn other_max_ttl(&self, other_ms: i64) -> StoreError {
        let ours = self.max_ttl.as_millis();
        let why =
            format!("redlock: max_ttl is {ours} ms here, and {other_ms} ms in the processes that marked the node");
        StoreError::Config(why.into())
    }
}
