//! The messages that callers who are actors themselves send instead of using the handles. Same answers, same errors.
//!
//! Any shard's address takes any key; [`LockManager::shard`](crate::LockManager::shard) names the one whose thread
//! owns it. Replies to `TryLock` and `Acquire` are guards: if the sender has gone, the lock is released.

use std::time::Duration;

use actix::Message;

use crate::error::LockError;
use crate::key::{Key, Token};
use crate::lock::{Lock, Refreshed};
use crate::manager::{LockInfo, Stats};
use crate::request::LockOptions;

/// Asks for a lock now or never; answers as [`LockManager::try_lock`](crate::LockManager::try_lock) does.
#[derive(Debug, Message)]
#[rtype(result = "Result<Lock, LockError>")]
pub struct TryLock {
    /// Which lock.
    pub key: Key,
    /// On what terms.
    pub options: LockOptions,
}

/// Queues for a lock; answers as [`LockManager::lock`](crate::LockManager::lock) does.
#[derive(Debug, Message)]
#[rtype(result = "Result<Lock, LockError>")]
pub struct Acquire {
    /// Which lock.
    pub key: Key,
    /// On what terms.
    pub options: LockOptions,
}

/// Releases by token, as [`LockManager::release`](crate::LockManager::release).
#[derive(Debug, Message)]
#[rtype(result = "Result<crate::Release, LockError>")]
pub struct Release {
    /// Which lock.
    pub key: Key,
    /// The proof of holding.
    pub token: Token,
}

/// Refreshes by token, as [`LockManager::refresh`](crate::LockManager::refresh).
#[derive(Debug, Message)]
#[rtype(result = "Result<Refreshed, LockError>")]
pub struct Refresh {
    /// Which lock.
    pub key: Key,
    /// The proof of holding.
    pub token: Token,
    /// The time from now; `None` for the TTL it was granted with.
    pub ttl: Option<Duration>,
}

/// Looks at a key, as [`LockManager::inspect`](crate::LockManager::inspect).
#[derive(Debug, Message)]
#[rtype(result = "Result<Option<LockInfo>, LockError>")]
pub struct Inspect {
    /// Which lock.
    pub key: Key,
}

/// The whole manager's totals, as [`LockManager::stats`](crate::LockManager::stats).
#[derive(Debug, Message)]
#[rtype(result = "Result<Stats, LockError>")]
pub struct GetStats;

/// Has the actor's next turn panic halfway, so that a test can see that nothing is lost.
#[cfg(feature = "test-util")]
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Panic;
