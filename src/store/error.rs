//! Why a store could not answer: [`StoreError`]. It never holds a password (S14).

use std::sync::Arc;
use std::time::Duration;

use crate::key::Key;

/// Why an answer is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No answer came within the operation timeout.
    #[error("the store did not answer in time")]
    Timeout,
    /// There is no connection; nothing was sent.
    #[error("the store cannot be reached: {0}")]
    Unreachable(Arc<str>),
    /// The connection broke before the answer came.
    #[error("the connection to the store broke: {0}")]
    Io(Arc<str>),
    /// The server is a replica now, and refuses writes. The store looks for the master.
    #[error("the server is read-only")]
    ReadOnly,
    /// The server is still reading its data.
    #[error("the server is loading its data")]
    Loading,
    /// The cluster is in disorder: a slot is moving, or nobody serves it.
    #[error("the cluster does not serve the key now: {0}")]
    Cluster(Arc<str>),
    /// The server has no memory left.
    #[error("the server is out of memory")]
    OutOfMemory,
    /// The server refuses who we are, or what we may do.
    #[error("the server refuses access: {0}")]
    Denied(Arc<str>),
    /// The server answered something that no working server does.
    #[error("the server answered nonsense: {0}")]
    Protocol(Arc<str>),
    /// An earlier try with the same token is still being cleaned up (S5). Try again, or take a fresh token.
    #[error("an earlier try with this token is being cleaned up")]
    CleaningUp,
    /// The store cannot keep this key.
    #[error("the store cannot keep the key {key:?}: {why}")]
    InvalidKey {
        /// The key.
        key: Key,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The TTL is shorter or longer than the store keeps.
    #[error("the store keeps no TTL this short or this long")]
    InvalidTtl,
    /// The set-up is wrong.
    #[error("invalid store configuration: {0}")]
    Config(Arc<str>),
    /// Of several nodes, too few answered to decide anything (Redlock).
    #[error("{answered} of {nodes} nodes answered, and {needed} are needed: {why}")]
    NoQuorum {
        /// How many voted.
        answered: usize,
        /// How many decide.
        needed: usize,
        /// How many there are.
        nodes: usize,
        /// What kept the others, node by node.
        why: Arc<str>,
    },
    /// The node may have forgotten locks, and keeps silent until they have run out (L4).
    #[error("it is in quarantine for {}", humane(*left))]
    Quarantined {
        /// For so long still.
        left: Duration,
    },
    /// The store was not started, or was stopped.
    #[error("the store is not running")]
    NotRunning,
    /// Anything else.
    #[error("the store failed: {0}")]
    Other(Arc<str>),
}

/// Whole seconds are enough for a log.
fn humane(left: Duration) -> String {
    if left < Duration::from_secs(1) { format!("{} ms", left.as_millis()) } else { format!("{} s", left.as_secs()) }
}
