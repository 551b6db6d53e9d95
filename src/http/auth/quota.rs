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

/// So many seats, of which some are taken.
#[derive(Clone, Debug)]
struct Seats(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    taken: AtomicU32,
    max: AtomicU32,
    /// How many requests share the one seat of each place.
    shared: Mutex<HashMap<Place, u32>>,
}

/// What several requests wait for as one: the key, as they spell it, and the token that they chose for the lock.
type Place = (Box<str>, Token);

/// How many requests may share a seat: one, the next that relieves it, and some that have gone unnoticed.
const SHARING: u32 = 8;

/// One of them, for as long as it is kept.
#[derive(Debug)]
#[must_use]
pub(in crate::http) struct Seat {
    of: Arc<Counted>,
    place: Option<Box<Place>>,
}

impl Seats {
    fn new() -> Self {
        Self(Arc::new(Counted { taken: AtomicU32::new(0), max: AtomicU32::new(u32::MAX), shared: Mutex::default() }))
    }

    fn take(&self) -> Option<Seat> {
        let max = self.0.max.load(Ordering::Relaxed);
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        let taken = self.0.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Seat { of: Arc::clone(&self.0), place: None })
    }

    /// The seat of this place, shared with the requests that have it already.
    fn share(&self, place: Place) -> Option<Seat> {
        let mut shared = self.0.shared();
        match shared.entry(place.clone()) {
            Entry::Occupied(there) if *there.get() >= SHARING => self.take(),
            Entry::Occupied(mut there) => {
                *there.get_mut() += 1;
                Some(Seat { of: Arc::clone(&self.0), place: Some(Box::new(place)) })
            }
            Entry::Vacant(free) => {
                let mut seat = self.take()?;
                free.insert(1);
                seat.place = Some(Box::new(place));
                Some(seat)
            }
        }
    }

    fn bound(&self, max: Option<u32>) {
        self.0.max.store(max.unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}

impl Counted {
    fn shared(&self) -> MutexGuard<'_, HashMap<Place, u32>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody else has the seat of this place any more.
    fn leave(&self, place: Place) -> bool {
        let mut shared = self.shared();
        let Entry::Occupied(mut there) = shared.entry(place) else { return true };
        *there.get_mut() -= 1;
        let is_last = *there.get() == 0;
        if is_last {
            there.remove();
        }
        is_last
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.place.take().is_none_or(|place| self.of.leave(*place)) {
            self.of.taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a token has, from one list of tokens to the next.
pub(in crate::http) struct Standing {
    pub(in crate::http) account: Account,
    waiters: Seats,
    streams: Seats,
    /// How often it may come.
    pace: Option<DefaultDirectRateLimiter>,
    clock: DefaultClock,
}

impl Standing {
    pub(in crate::http) fn new(name: &str, per_second: Option<NonZeroU32>) -> Self {
        Self {
            account: Account::new(name),
            waiters: Seats::new(),
            streams: Seats::new(),
            pace: per_second.map(|per_second| RateLimiter::direct(Quota::per_second(per_second))),
            clock: DefaultClock::default(),
        }
    }

    /// What it may have from now on; what it has already it keeps.
    pub(in crate::http) fn bound(&self, quotas: Quotas) {
        let (locks, sessions) = (quotas.locks.unwrap_or(u32::MAX), quotas.sessions.unwrap_or(u32::MAX));
        let _ = self.account.clone().max_locks(locks).max_sessions(sessions);
        self.waiters.bound(quotas.waiters);
        self.streams.bound(quotas.streams);
    }

    /// A seat among those that wait; requests for one key with one token of their own choice have one together.
    pub(in crate::http) fn wait(&self, key: &str, token: Option<Token>) -> Result<Seat, Fault> {
        let seat = match token {
            Some(token) => self.waiters.share((key.into(), token)),
            None => self.waiters.take(),
        };
        seat.ok_or(Fault::WaiterQuota)
    }

    pub(in crate::http) fn listen(&self) -> Result<Seat, Fault> {
        self.streams.take().ok_or(Fault::StreamQuota)
    }

    /// Counts one request.
    pub(in crate::http) fn come(&self) -> Result<(), Fault> {
        let Some(pace) = &self.pace else { return Ok(()) };
        pace.check().map_err(|refused| Fault::RateLimited { after: refused.wait_time_from(self.clock.now()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_wait_as_one_have_one_seat() {
        let standing = Standing::new("a", None);
        standing.bound(Quotas::new().max_waiters(1));
        let (one, other) = (Some(Token::random()), Some(Token::random()));
        let first = standing.wait("k", one).unwrap();
        let next = standing.wait("k", one).unwrap();
        for (key, token) in [("k", other), ("k", None), ("l", one)] {
            assert!(standing.wait(key, token).is_err(), "{key}");
        }
        drop(first);
        assert!(standing.wait("k", other).is_err(), "the next has it still");
        let many: Vec<_> = (1..SHARING).map(|_| standing.wait("k", one).unwrap()).collect();
        assert!(standing.wait("k", one).is_err(), "so many are not one any more");
        drop((next, many));
        let _last = standing.wait("k", other).unwrap();
    }
}
