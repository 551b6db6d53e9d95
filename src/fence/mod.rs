//! The check on the other side (R14): a resource that refuses a holder whose lock has passed on.
//!
//! A lock is exclusive until its local deadline. A holder that was paused past it (a stopped process, a stalled
//! machine) does not know, and writes all the same. Its [fencing token](FencingToken) gives it away: every grant of a
//! key has a higher one than those before. So let the resource remember the highest fence it has seen, and refuse
//! lower ones. An equal fence is the same holder, and passes.
//!
//! Here are the ways to do that, by where the resource lives. All follow one rule: **the fence is compared in the
//! same atomic step that writes**. A check followed by a write can be paused in between, and is no check.
//!
//! | the resource | the check |
//! |---|---|
//! | in this process | [`FenceGuard`] |
//! | in Redis | `RedisGuard`, or its script `REDIS_GUARD` from any language (feature `redis`) |
//! | in PostgreSQL | `PostgresGuard` in the caller's own transaction, or its statement `POSTGRES_GUARD` (feature `postgres`) |
//! | in an SQL table | [a column and a `WHERE`](#sql) |
//! | behind HTTP | [a header](#http), checked behind it in one of the ways above |
//!
//! # SQL
//!
//! Give the table a column `fence BIGINT NOT NULL DEFAULT 0`, and write like this; SQLite and PostgreSQL take it as it
//! is. No row changed means that the fence was stale (in the first form also: no such row).
//!
//! ```sql
//! UPDATE stock SET amount = :amount, fence = :fence WHERE id = :id AND fence <= :fence;
//!
//! INSERT INTO stock (id, amount, fence) VALUES (:id, :amount, :fence)
//!     ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, fence = excluded.fence
//!     WHERE stock.fence <= excluded.fence;
//! ```
//!
//! A row that is deleted forgets its fence: mark it as deleted instead, for as long as a holder may sleep.
//!
//! # HTTP
//!
//! The holder sends its fence in the header [`HEADER`], in decimal:
//!
//! ```http
//! PUT /stock/7 HTTP/1.1
//! Leasehold-Fence: 1795229686733898
//! ```
//!
//! The service reads it with [`str::parse`] into a [`FencingToken`], has the write checked, and answers
//! `412 Precondition Failed` to a stale one. A request without the header is `428 Precondition Required`.
//!
//! # What it does not do
//!
//! A fence orders the grants of one key. Guard a resource by the fences of one key only; those of two keys say nothing
//! about each other. Nor does a fence undo: what a holder wrote while it held the lock stays written.

mod guard;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;

use std::sync::atomic::{AtomicU64, Ordering};

pub use guard::FenceGuard;

#[cfg(feature = "postgres")]
#[cfg_attr(docsrs, doc(cfg(feature = "postgres")))]
pub use self::postgres::{POSTGRES_GUARD, POSTGRES_GUARD_DDL, PostgresGuard, PostgresGuardError};
#[cfg(feature = "redis")]
#[cfg_attr(docsrs, doc(cfg(feature = "redis")))]
pub use self::redis::{GuardError, REDIS_GUARD, RedisGuard};
use crate::key::FencingToken;

/// The HTTP header that carries a fence.
pub const HEADER: &str = "Leasehold-Fence";

/// A fence that the resource refuses: a later holder has been there, or may have been.
///
/// The lock is lost. Do not try again under the same grant; take the lock anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the fence {shown} is stale: {seen} was seen")]
pub struct StaleFence {
    /// The fence that was shown.
    pub shown: FencingToken,
    /// What it was measured by: the highest that the resource has seen, or the floor below which it has forgotten.
    pub seen: FencingToken,
}

/// Fences that were refused in this process.
static REFUSED: AtomicU64 = AtomicU64::new(0);

impl StaleFence {
    /// Counts the refusal.
    fn refused(shown: FencingToken, seen: FencingToken) -> Self {
        REFUSED.fetch_add(1, Ordering::Relaxed);
        Self { shown, seen }
    }
}

/// How many fences the guards of this process have refused.
#[cfg(feature = "metrics")]
pub(crate) fn refusals() -> u64 {
    REFUSED.load(Ordering::Relaxed)
}
