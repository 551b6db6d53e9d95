//! What one token may have at once, and what it has: locks, sessions, waiters, streams. Without bounds of their own one
//! of several tokens could take all that the server has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::http::problem::Fault;
use crate::{Account, Token};

/// How much one token may have at once; what is not set has no bound but the server's.
///
/// | bound | beyond it |
/// |---|---|
/// | `max_locks`, held and waited for together | 429 `lock_quota` |
/// | `max_sessions` | 429 `session_quota` |
/// | `max_waiters`, requests that wait; those of one key and lock token count as one | 429 `waiter_quota` |
/// | `max_streams`, of events | 429 `stream_quota` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Quotas {
    pub(in crate::http) locks: Option<u32>,
    pub(in crate::http) sessions: Option<u32>,
    pub(in crate::http) waiters: Option<u32>,
    pub(in crate::http) streams: Option<u32>,
}

impl Quotas {
    /// No bounds.
    pub const fn new() -> Self {
        Self { locks: None, sessions: None, waiters: None, streams: None }
    }

    /// How many locks it may hold and wait for together.
    pub const fn max_locks(mut self, max: u32) -> Self {
        self.locks = Some(max);
        self
    }

    /// How many sessions may be open.
    pub const fn max_sessions(mut self, max: u32) -> Self {
        self.sessions = Some(max);
        self
    }

    /// How many of its requests may wait.
    pub const fn max_waiters(mut self, max: u32) -> Self {
        self.waiters = Some(max);
        self
    }

    /// How many streams of events it may listen to.
    pub const fn max_streams(mut self, max: u32) -> Self {
        self.streams = Some(max);
        self
    }

    /// These, and of `others` what these leave open.
    pub(in crate::http) fn or(self, others: Self) -> Self {
        Self {
            locks: self.locks.or(others.locks),
            sessions: self.sessions.or(others.sessions),
            waiters: self.waiters.or(others.waiters),
            streams: self.streams.or(others.streams),
        }
    }
}

/// How many uses there may be at once, and how many there are.
#[derive(Clone, Debug)]
struct UsageLimit(Arc<UsageCount>);

#[derive(Debug)]
struct UsageCount {
    taken: AtomicU32,
    max: AtomicU32,
    /// How many requests count as the one use of each pair. A use ends with the last of them.
    shared: Mutex<HashMap<RetryPair, u32>>,
}

/// What several requests wait for as one: the key, as they spell it, and the token that they chose for the lock.
type RetryPair = (Box<str>, Token);

/// How many requests may count as one use: one, the next that relieves it, and some that have gone unnoticed.
const SHARING: u32 = 8;

/// One use, for as long as it is kept.
#[derive(Debug)]
#[must_use]
pub(in crate::http) struct UsageGuard {
    of: Arc<UsageCount>,
    /// The pair whose requests share this use; `None`: it is not shared.
    pair: Option<Box<RetryPair>>,
}

impl UsageLimit {
    fn new() -> Self {
        Self(Arc::new(UsageCount { taken: AtomicU32::new(0), max: AtomicU32::new(u32::MAX), shared: Mutex::default() }))
    }

    fn take(&self) -> Option<UsageGuard> {
        let max = self.0.max.load(Ordering::Relaxed);
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        let taken = self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| UsageGuard { of: Arc::clone(&self.0), pair: None })
    }

    /// The use of this pair, shared with the requests that have it already.
    fn share(&self, pair: RetryPair) -> Option<UsageGuard> {
        let mut shared = self.0.shared();
        match shared.entry(pair.clone()) {
            Entry::Occupied(there) if *there.get() >= SHARING => self.take(),
            Entry::Occupied(mut there) => {
                *there.get_mut() += 1;
                Some(UsageGuard { of: Arc::clone(&self.0), pair: Some(Box::new(pair)) })
            }
            Entry::Vacant(free) => {
                let mut guard = self.take()?;
                free.insert(1);
                guard.pair = Some(Box::new(pair));
                Some(guard)
            }
        }
    }

    fn set_max(&self, max: Option<u32>) {
        self.0.max.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

impl UsageCount {
    fn shared(&self) -> MutexGuard<'_, HashMap<RetryPair, u32>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends one request of a pair; answers whether it was the last.
    fn leave(&self, pair: RetryPair) -> bool {
        let mut shared = self.shared();
        let Entry::Occupied(mut there) = shared.entry(pair) else { return true };
        *there.get_mut() -= 1;
        let is_last = *there.get() == 0;
        if is_last {
            there.remove();
        }
        is_last
    }
}

impl Drop for UsageGuard {
    fn drop(&mut self) {
        if self.pair.take().is_none_or(|pair| self.of.leave(*pair)) {
            self.of.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a token uses. It is the same from one list of tokens to the next.
pub(in crate::http) struct TokenUsage {
    pub(in crate::http) account: Account,
    waiters: UsageLimit,
    streams: UsageLimit,
    /// How many requests a second it may send; `None`: any number.
    rate_limit: Option<DefaultDirectRateLimiter>,
    clock: DefaultClock,
}

impl TokenUsage {
    pub(in crate::http) fn new(name: &str, per_second: Option<NonZeroU32>) -> Self {
        Self {
            account: Account::new(name),
            waiters: UsageLimit::new(),
            streams: UsageLimit::new(),
            rate_limit: per_second.map(|per_second| RateLimiter::direct(Quota::per_second(per_second))),
            clock: DefaultClock::default(),
        }
    }

    /// What it may have from now on; what it has already it keeps.
    pub(in crate::http) fn set_quotas(&self, quotas: Quotas) {
        let (locks, sessions) = (quotas.locks.unwrap_or(u32::MAX), quotas.sessions.unwrap_or(u32::MAX));
        let _ = self.account.clone().max_locks(locks).max_sessions(sessions);
        self.waiters.set_max(quotas.waiters);
        self.streams.set_max(quotas.streams);
    }

    /// Counts one request that waits; those for one key with one token of their own choice count as one.
    pub(in crate::http) fn count_waiter(&self, key: &str, token: Option<Token>) -> Result<UsageGuard, Fault> {
        let guard = match token {
            Some(token) => self.waiters.share((key.into(), token)),
            None => self.waiters.take(),
        };
        guard.ok_or(Fault::WaiterQuota)
    }

    /// Counts one stream of events.
    pub(in crate::http) fn count_stream(&self) -> Result<UsageGuard, Fault> {
        self.streams.take().ok_or(Fault::StreamQuota)
    }

    /// Counts one request.
    pub(in crate::http) fn count_request(&self) -> Result<(), Fault> {
        let Some(rate_limit) = &self.rate_limit else { return Ok(()) };
        rate_limit.check().map_err(|refused| Fault::RateLimited { after: refused.wait_time_from(self.clock.now()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_wait_as_one_count_as_one() {
        let usage = TokenUsage::new("a", None);
        usage.set_quotas(Quotas::new().max_waiters(1));
        let (one, other) = (Some(Token::random()), Some(Token::random()));
        let first = usage.count_waiter("k", one).unwrap();
        let next = usage.count_waiter("k", one).unwrap();
        for (key, token) in [("k", other), ("k", None), ("l", one)] {
            assert!(usage.count_waiter(key, token).is_err(), "{key}");
        }
        drop(first);
        assert!(usage.count_waiter("k", other).is_err(), "the next has it still");
        let many: Vec<_> = (1..SHARING).map(|_| usage.count_waiter("k", one).unwrap()).collect();
        assert!(usage.count_waiter("k", one).is_err(), "so many are not one any more");
        drop((next, many));
        let _last = usage.count_waiter("k", other).unwrap();
    }
}
