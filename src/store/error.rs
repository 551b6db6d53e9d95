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
    /// The server's user has not all the rights that are needed (`NOPERM`). The module's documentation lists them.
    #[error("the server refuses access: {0}")]
    Denied(Arc<str>),
    /// The server refuses the user or the password (`WRONGPASS`, `NOAUTH`): one is wrong, or was changed.
    #[error("the server refuses the user or the password: {0}")]
    Unauthenticated(Arc<str>),
    /// The server cannot write to its disk, and takes no writes until it can (`MISCONF`).
    #[error("the server takes no writes while it cannot save: {0}")]
    CannotSave(Arc<str>),
    /// Fewer replicas are connected, or have confirmed, than were asked for (`NOREPLICAS`, `WAIT`).
    #[error("the server has too few replicas")]
    TooFewReplicas,
    /// A script of some client runs for too long (`BUSY`).
    #[error("the server is busy with a script")]
    Busy,
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

/// Whole seconds: enough for a log.
fn humane(left: Duration) -> String {
    if left < Duration::from_secs(1) { format!("{} ms", left.as_millis()) } else { format!("{} s", left.as_secs()) }
}

named! {
    /// The kind of a [`StoreError`]: a bounded set of words for metrics, logs and answers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum StoreCause {
        /// No answer in time.
        Timeout = "timeout",
        /// No connection.
        Unreachable = "unreachable",
        /// A connection that broke.
        Broken = "broken",
        /// The server is a replica.
        ReadOnly = "read_only",
        /// The server reads its data.
        Loading = "loading",
        /// The cluster is in disorder.
        Cluster = "cluster",
        /// The server is full.
        OutOfMemory = "out_of_memory",
        /// The rights are missing.
        Denied = "denied",
        /// The user or the password is wrong.
        Unauthenticated = "unauthenticated",
        /// The server cannot save.
        CannotSave = "cannot_save",
        /// Too few replicas.
        TooFewReplicas = "too_few_replicas",
        /// A script blocks the server.
        Busy = "busy",
        /// An answer that makes no sense.
        Protocol = "protocol",
        /// An earlier try with the token is cleaned up.
        CleaningUp = "cleaning_up",
        /// A key, a TTL or a set-up that the store refuses.
        Invalid = "invalid",
        /// Too few nodes answered.
        NoQuorum = "no_quorum",
        /// The node may have forgotten locks.
        Quarantined = "quarantined",
        /// The store does not run.
        NotRunning = "not_running",
        /// Anything else.
        Other = "other",
    }
}

impl StoreCause {
    /// What it means and what helps, for people. It quotes nothing that the server said.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Timeout => "the store did not answer in time",
            Self::Unreachable => "the store cannot be reached",
            Self::Broken => "the connection to the store broke",
            Self::ReadOnly => "the store is a replica and takes no writes",
            Self::Loading => "the store is loading its data",
            Self::Cluster => "the cluster does not serve the key now",
            Self::OutOfMemory => "the store has no memory left",
            Self::Denied => "the store's user has not all the rights that are needed",
            Self::Unauthenticated => "the store refuses the user or the password",
            Self::CannotSave => "the store cannot save to its disk and takes no writes",
            Self::TooFewReplicas => "the store has too few replicas and takes no writes",
            Self::Busy => "the store is busy with a script of somebody's",
            Self::Protocol => "the store answered something that makes no sense",
            Self::CleaningUp => "an earlier try with this token is being cleaned up",
            Self::Invalid => "the store refuses the key, the TTL or its configuration",
            Self::NoQuorum => "too few nodes of the store answered",
            Self::Quarantined => "nodes of the store may have forgotten locks and keep silent",
            Self::NotRunning => "the store is not running",
            Self::Other => "the store failed",
        }
    }
}

impl StoreError {
    /// Its kind.
    #[must_use]
    pub const fn cause(&self) -> StoreCause {
        match self {
            Self::Timeout => StoreCause::Timeout,
            Self::Unreachable(_) => StoreCause::Unreachable,
            Self::Io(_) => StoreCause::Broken,
            Self::ReadOnly => StoreCause::ReadOnly,
            Self::Loading => StoreCause::Loading,
            Self::Cluster(_) => StoreCause::Cluster,
            Self::OutOfMemory => StoreCause::OutOfMemory,
            Self::Denied(_) => StoreCause::Denied,
            Self::Unauthenticated(_) => StoreCause::Unauthenticated,
            Self::CannotSave(_) => StoreCause::CannotSave,
            Self::TooFewReplicas => StoreCause::TooFewReplicas,
            Self::Busy => StoreCause::Busy,
            Self::Protocol(_) => StoreCause::Protocol,
            Self::CleaningUp => StoreCause::CleaningUp,
            Self::InvalidKey { .. } | Self::InvalidTtl | Self::Config(_) => StoreCause::Invalid,
            Self::NoQuorum { .. } => StoreCause::NoQuorum,
            Self::Quarantined { .. } => StoreCause::Quarantined,
            Self::NotRunning => StoreCause::NotRunning,
            Self::Other(_) => StoreCause::Other,
        }
    }

    /// Whether asking again soon does not help: an operator has to change something first.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(self.cause(), StoreCause::Denied | StoreCause::Unauthenticated | StoreCause::Invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_number_and_words_of_its_own() {
        let mut names: Vec<_> = StoreCause::ALL.map(StoreCause::as_str).into();
        assert!(StoreCause::ALL.iter().enumerate().all(|(at, cause)| *cause as usize == at));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), StoreCause::ALL.len());
    }
}
