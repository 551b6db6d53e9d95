//! What can go wrong, one variant per cause, and the code and the metric outcome of each.
//!
//! The HTTP status of each is the room `http`'s.
//!
//! Contention (`Held`, `Timeout`) is an outcome of a healthy system; the caller skips or tries later. Everything else
//! says what must change before trying again helps.

use std::sync::Arc;
use std::time::Duration;

use crate::key::{Key, KeyFault, TtlFault};
use crate::mode::ModeConflict;

/// Why a request was not answered with a lock, or an operation on a lock was refused.
///
/// `StoreUnavailable` belongs to stores: a manager in memory mode never answers it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// The key breaks the rules for keys. Use another key.
    #[error("invalid key: {0}")]
    InvalidKey(#[from] KeyFault),
    /// The TTL is out of bounds. Use one within them.
    #[error("invalid ttl: {0}")]
    InvalidTtl(#[from] TtlFault),
    /// Another option of the request cannot be met.
    #[error("invalid option `{option}`: {why}")]
    InvalidOption {
        /// The name of the option.
        option: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Somebody else holds the lock, and the request was not to wait. Skip, or try later.
    #[error("the lock is held by another owner")]
    Held,
    /// The lock did not come free within the wait (or within the retries).
    #[error("timed out after waiting {waited:?} for the lock")]
    Timeout {
        /// How long the request waited.
        waited: Duration,
    },
    /// The token is not the one that holds this key: another grant does. Nothing was changed.
    #[error("the token does not hold this key; another grant does")]
    NotHeld,
    /// The grant behind the token or guard is over. Stop working on the protected resource.
    #[error("the lock is lost: {0}")]
    Lost(Loss),
    /// The chosen token already belongs to a request with other parameters. Choose a fresh one.
    #[error("the token was already used with other parameters")]
    TokenReused,
    /// The key is in use as another kind of lock, or the store does not keep this kind, or no lock goes over to it. Ask
    /// in the mode that everybody uses the key in.
    #[error("{0}")]
    WrongMode(#[from] ModeConflict),
    /// The session that asked has ended. Open a new one.
    #[error("the session has ended")]
    SessionEnded,
    /// The queue for this key, or all queues together, are full. Back off.
    #[error("the queue is full")]
    QueueFull,
    /// The table is full. Back off, or raise the bound.
    #[error("too many keys are locked")]
    TooManyKeys,
    /// Shared keys and semaphores have as many holders as they may, all together. Back off, or raise the bound.
    #[error("too many hold shared keys and permits")]
    TooManyHolders,
    /// The session holds as many locks as it may.
    #[error("the session holds too many locks")]
    TooManyLocks,
    /// The account that is charged holds and waits for as many locks as it may. Release some first.
    #[error("the account has too many locks")]
    LockQuota,
    /// As many sessions are kept for the account as may be. End one first.
    #[error("the account has too many sessions")]
    SessionQuota,
    /// As many sessions are kept as may be. Back off, or raise the bound.
    #[error("too many sessions are open")]
    TooManySessions,
    /// As many streams of single keys are open as may be. Drop some, or raise the bound.
    #[error("too many keys are watched")]
    TooManyWatchers,
    /// The process is a fork of the one that built the manager, whose thread stayed there: here nothing would ever end
    /// the wait. Build a manager after the fork.
    #[error("the manager was built before this process was forked off")]
    Forked,
    /// Waiting would have closed a cycle of owners that wait for each other. Release what you hold, then try again.
    #[error("waiting would deadlock: {}", show_cycle(cycle))]
    Deadlock {
        /// Who waits for what, in order; the last holder is the first waiter.
        cycle: Arc<[WaitEdge]>,
    },
    /// The store could not be asked: the lock may or may not be free. Never to be taken as "no".
    #[error("the store is unavailable")]
    StoreUnavailable,
    /// The manager is shutting down and grants nothing new.
    #[error("the lock manager is shutting down")]
    ShuttingDown,
}

impl From<std::convert::Infallible> for LockError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// One step of a deadlock: an owner and the key it waits for, held by the next step's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitEdge {
    /// Who waits.
    pub owner: Arc<str>,
    /// For which key.
    pub key: Key,
}

fn show_cycle(cycle: &[WaitEdge]) -> String {
    let steps: Vec<_> = cycle.iter().map(|step| format!("{} waits for {}", step.owner, step.key)).collect();
    steps.join(", ")
}

/// Why a grant ended other than by its holder's own release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Loss {
    /// Its deadline passed.
    #[error("its deadline passed")]
    Expired,
    /// An operator released it by force.
    #[error("an operator released it by force")]
    Forced,
    /// It was taken from its holder to break a deadlock.
    #[error("it was taken to break a deadlock")]
    Revoked,
    /// Its session was ended.
    #[error("its session was ended")]
    SessionEnded,
    /// The store does not keep it any more: it was deleted, evicted or taken over there.
    #[error("the store does not keep it any more")]
    Vanished,
    /// The manager shut down before it was released.
    #[error("the manager shut down")]
    ShutDown,
    /// It was released: with its token by somebody else who knew it, or, as a view of it sees that, by its guard.
    #[error("it was released")]
    Released,
    /// It ended so long ago that the reason is no longer known.
    #[error("it ended earlier")]
    Unknown,
}

named! {
    /// How one attempt to lock ended, as metrics count it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum AttemptOutcome {
        /// With a lock.
        Acquired = "acquired",
        /// Held by another, and the attempt was not to wait.
        Busy = "busy",
        /// The wait ran out.
        Timeout = "timeout",
        /// The caller dropped the future.
        Cancelled = "cancelled",
        /// Refused to break a deadlock.
        Deadlock = "deadlock",
        /// The queue was full.
        QueueFull = "queue_full",
        /// The table was full, or the session.
        TooManyKeys = "too_many_keys",
        /// Another kind of lock.
        WrongMode = "wrong_mode",
        /// The session ended.
        SessionEnded = "session_ended",
        /// The store could not be asked, or the grant was lost before it was seen.
        StoreError = "store_error",
        /// Shutting down.
        Shutdown = "shutdown",
        /// Bad input.
        Invalid = "invalid",
    }
}

impl LockError {
    /// Whether somebody else has the lock, and nothing is wrong: `Held` and `Timeout`.
    #[must_use]
    pub fn is_contention(&self) -> bool {
        matches!(self, Self::Held | Self::Timeout { .. })
    }

    /// Whether the same request may be answered with a lock later, with nothing changed by its caller: contention, a
    /// full queue or table, a store that did not answer. A `Deadlock` is none: release what you hold first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::QueueFull | Self::TooManyKeys | Self::TooManyHolders | Self::TooManyWatchers => true,
            Self::TooManySessions | Self::StoreUnavailable => true,
            other => other.is_contention(),
        }
    }

    /// Its stable name outside of the process, as in a problem document: each variant has its own.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code_and_outcome().0
    }

    /// The metric outcome of an attempt that ends with it.
    #[must_use]
    pub fn outcome(&self) -> AttemptOutcome {
        self.code_and_outcome().1
    }

    fn code_and_outcome(&self) -> (&'static str, AttemptOutcome) {
        match self {
            Self::InvalidKey(_) => ("invalid_key", AttemptOutcome::Invalid),
            Self::InvalidTtl(_) => ("invalid_ttl", AttemptOutcome::Invalid),
            Self::InvalidOption { .. } => ("invalid_option", AttemptOutcome::Invalid),
            Self::Held => ("held", AttemptOutcome::Busy),
            Self::Timeout { .. } => ("timeout", AttemptOutcome::Timeout),
            Self::NotHeld => ("not_held", AttemptOutcome::Invalid),
            Self::Lost(_) => ("lost", AttemptOutcome::StoreError),
            Self::TokenReused => ("token_reused", AttemptOutcome::Invalid),
            Self::WrongMode(_) => ("wrong_mode", AttemptOutcome::WrongMode),
            Self::SessionEnded => ("session_ended", AttemptOutcome::SessionEnded),
            Self::QueueFull => ("queue_full", AttemptOutcome::QueueFull),
            Self::TooManyKeys => ("too_many_keys", AttemptOutcome::TooManyKeys),
            Self::TooManyHolders => ("too_many_holders", AttemptOutcome::TooManyKeys),
            Self::TooManyLocks => ("too_many_locks", AttemptOutcome::TooManyKeys),
            Self::TooManySessions => ("too_many_sessions", AttemptOutcome::TooManyKeys),
            Self::LockQuota => ("lock_quota", AttemptOutcome::TooManyKeys),
            Self::SessionQuota => ("session_quota", AttemptOutcome::TooManyKeys),
            Self::TooManyWatchers => ("too_many_watchers", AttemptOutcome::TooManyKeys),
            Self::Forked => ("forked", AttemptOutcome::Shutdown),
            Self::Deadlock { .. } => ("deadlock", AttemptOutcome::Deadlock),
            Self::StoreUnavailable => ("store_unavailable", AttemptOutcome::StoreError),
            Self::ShuttingDown => ("shutting_down", AttemptOutcome::Shutdown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_code_and_outcome_of_the_contract() {
        let edge = WaitEdge { owner: "a".into(), key: Key::new("k").unwrap() };
        let rows: Vec<(LockError, &str, AttemptOutcome)> = vec![
            (KeyFault::Empty.into(), "invalid_key", AttemptOutcome::Invalid),
            (TtlFault::Zero.into(), "invalid_ttl", AttemptOutcome::Invalid),
            (LockError::InvalidOption { option: "o", why: "w" }, "invalid_option", AttemptOutcome::Invalid),
            (LockError::Held, "held", AttemptOutcome::Busy),
            (LockError::Timeout { waited: Duration::ZERO }, "timeout", AttemptOutcome::Timeout),
            (LockError::NotHeld, "not_held", AttemptOutcome::Invalid),
            (LockError::Lost(Loss::Expired), "lost", AttemptOutcome::StoreError),
            (LockError::TokenReused, "token_reused", AttemptOutcome::Invalid),
            (ModeConflict::Permits.into(), "wrong_mode", AttemptOutcome::WrongMode),
            (LockError::SessionEnded, "session_ended", AttemptOutcome::SessionEnded),
            (LockError::QueueFull, "queue_full", AttemptOutcome::QueueFull),
            (LockError::TooManyKeys, "too_many_keys", AttemptOutcome::TooManyKeys),
            (LockError::TooManyHolders, "too_many_holders", AttemptOutcome::TooManyKeys),
            (LockError::TooManyLocks, "too_many_locks", AttemptOutcome::TooManyKeys),
            (LockError::TooManySessions, "too_many_sessions", AttemptOutcome::TooManyKeys),
            (LockError::LockQuota, "lock_quota", AttemptOutcome::TooManyKeys),
            (LockError::SessionQuota, "session_quota", AttemptOutcome::TooManyKeys),
            (LockError::TooManyWatchers, "too_many_watchers", AttemptOutcome::TooManyKeys),
            (LockError::Forked, "forked", AttemptOutcome::Shutdown),
            (LockError::Deadlock { cycle: [edge].into() }, "deadlock", AttemptOutcome::Deadlock),
            (LockError::StoreUnavailable, "store_unavailable", AttemptOutcome::StoreError),
            (LockError::ShuttingDown, "shutting_down", AttemptOutcome::Shutdown),
        ];
        let mut codes: Vec<_> = rows.iter().map(|row| row.1).collect();
        for (error, code, outcome) in rows {
            assert_eq!((error.code(), error.outcome()), (code, outcome), "{error}");
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), 22, "each cause has a code of its own");
    }
}
