//! The check for resources that are values in Redis: [`RedisGuard`] and its script.
//!
//! The script is all of it; the type spells its keys and arguments. It needs nothing of the lock's own store: the
//! resource may live on another server than the locks.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, Script, ScriptInvocation, ToSingleRedisArg};

use super::StaleFence;
use crate::key::FencingToken;
use crate::store::redis::beside;

/// The script that [`RedisGuard`] runs, for clients in other languages.
///
/// `KEYS`: the resource, its fence. `ARGV`: the fence in decimal, the value, the value's life in ms, the fence's life
/// in ms (0: no end). Answers `{1, fence}` when it has written, `{0, highest seen}` when the fence is stale.
pub const REDIS_GUARD: &str = include_str!("guard.lua");

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(REDIS_GUARD));

/// Writes values in Redis under a fence: unless a higher one has written there before, in one atomic step.
///
/// The fence stands beside the value, in the same cluster slot, under [`RedisGuard::fence_key`]. All writers of the
/// value have to go through the guard; readers `GET` it as ever. A resource that is deleted keeps its fence.
///
/// ```no_run
/// use leasehold::fence::{GuardError, RedisGuard};
///
/// # async fn write(lock: leasehold::Lock, mut connection: redis::aio::MultiplexedConnection) -> Result<(), GuardError> {
/// let Some(fence) = lock.fencing_token() else { return Ok(()) };
/// match RedisGuard::new().set(&mut connection, "stock:7", fence, 41).await {
///     Err(GuardError::Stale(stale)) => println!("somebody else has gone on: {stale}"),
///     other => other?,
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct RedisGuard {
    /// Whole milliseconds; 0 for no end.
    life_ms: u64,
    retention_ms: u64,
}

/// Why a guarded write was not done, or not known to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// A later holder has written. The lock is lost: take it anew.
    #[error(transparent)]
    Stale(#[from] StaleFence),
    /// Redis refused, or did not answer: the value may have been written. Writing it again under the same fence is
    /// safe.
    #[error("the resource's store failed")]
    Redis(#[from] RedisError),
}

impl RedisGuard {
    /// Values and fences without an end.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets each value end so long after it was written; less than a millisecond counts as one. The fence stays.
    pub fn expire_after(mut self, life: Duration) -> Self {
        self.life_ms = at_least_a_millisecond(life);
        self
    }

    /// Forgets a fence so long after the last write: for resources that come and go, whose fences would pile up. A
    /// holder that slept for longer than that is not refused any more; a day is long enough for most.
    pub fn forget_after(mut self, retention: Duration) -> Self {
        self.retention_ms = at_least_a_millisecond(retention);
        self
    }

    /// Where the fence of a resource is kept.
    #[must_use]
    pub fn fence_key(resource: &str) -> String {
        beside("seen:", resource)
    }

    /// Sets the value of `resource` unless a higher fence has.
    ///
    /// # Errors
    /// [`GuardError::Stale`] if one has; [`GuardError::Redis`] leaves open whether the value was written.
    ///
    /// # Cancel safety
    /// Dropped before its end, it may or may not have written, as if the answer were lost.
    pub async fn set(
        &self,
        connection: &mut impl redis::aio::ConnectionLike,
        resource: &str,
        fence: FencingToken,
        value: impl ToSingleRedisArg,
    ) -> Result<(), GuardError> {
        let answer: Answer = self.invocation(resource, fence, value).invoke_async(connection).await?;
        meaning(fence, &answer)
    }

    /// The same from synchronous code.
    ///
    /// # Errors
    /// As for [`RedisGuard::set`].
    pub fn set_blocking(
        &self,
        connection: &mut impl redis::ConnectionLike,
        resource: &str,
        fence: FencingToken,
        value: impl ToSingleRedisArg,
    ) -> Result<(), GuardError> {
        let answer: Answer = self.invocation(resource, fence, value).invoke(connection)?;
        meaning(fence, &answer)
    }

    fn invocation(
        &self,
        resource: &str,
        fence: FencingToken,
        value: impl ToSingleRedisArg,
    ) -> ScriptInvocation<'static> {
        let mut invocation = SCRIPT.prepare_invoke();
        invocation.key(resource).key(Self::fence_key(resource));
        invocation.arg(fence.get()).arg(value).arg(self.life_ms).arg(self.retention_ms);
        invocation
    }
}

type Answer = (u8, String);

fn meaning(shown: FencingToken, answer: &Answer) -> Result<(), GuardError> {
    match answer {
        (1, _) => Ok(()),
        (_, seen) => {
            // The script has seen that it is a number, and higher than one from 1 on: at most it is out of range.
            let seen = seen.parse().unwrap_or(FencingToken::at_least_one(u64::MAX));
            Err(StaleFence::refused(shown, seen).into())
        }
    }
}

fn at_least_a_millisecond(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}
