//! One at a time, shared by those who asked while it ran: calls ([`LockManager::singleflight`], in `value`) and
//! acquisitions ([`LockManager::singleflight_lock`], in `lock`).
//!
//! The value of a call can be shared with other processes: `across`.
//!
//! Here is what both have in common, the register of flights. A flight is in it while it has callers and no result:
//! until it lands or is given up, or the last of them leaves. Whoever asks later starts a new one. Its cell is all that
//! its callers share, and nobody depends on the first of them.
//!
//! The pattern is that of Go's `golang.org/x/sync/singleflight`, with the take-over that it lacks.

mod across;
mod caller_wait;
mod detached;
mod flight;
mod follower;
mod lock;
mod loss_watch;
mod value;

use std::hash::Hash;
use std::sync::Arc;

#[cfg(feature = "serde")]
pub use across::JsonCodec;
pub use across::{Codec, CodecError};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
pub use detached::{DetachedFuture, DetachedSingleflight};
use foldhash::fast::RandomState;
pub use lock::{SharedLock, SharedLockFuture, SharedLockRequest};
pub use value::{SingleflightFuture, SingleflightRequest};

use crate::engine::LockManager;
use crate::key::Key;
use crate::shard::Shard;

/// The flights of one manager.
#[derive(Debug, Default)]
struct Flights {
    values: Arc<Register<flight::FlightKey, flight::AnyFlight>>,
    locks: Arc<Register<lock::AcquisitionKey, lock::Acquisition>>,
}

/// The flights of one sort, by what makes callers share.
#[derive(Debug)]
struct Register<N: Eq + Hash, C>(DashMap<N, Registered<C>, RandomState>);

#[derive(Debug)]
struct Registered<C> {
    cell: C,
    callers: usize,
}

/// What the callers of a flight share.
trait SharedCell: Clone {
    /// Whether both are of one flight.
    fn is(&self, other: &Self) -> bool;

    /// Whether later callers are to start their own, though it has not been taken out.
    fn is_over(&self) -> bool;
}

/// One caller's part in a flight; leaves it when dropped.
struct Seat<N: Clone + Eq + Hash, C: SharedCell> {
    register: Arc<Register<N, C>>,
    key: N,
    cell: C,
}

/// A caller's part in a flight, as stats count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
}

impl Role {
    fn count(self, shard: &Shard) {
        shard.count(|c| match self {
            Self::Leader => c.flights_led += 1,
            Self::Follower => c.flights_shared += 1,
        });
    }
}

impl<N: Clone + Eq + Hash, C: SharedCell> Register<N, C> {
    /// Takes a seat in the flight of that key; if there is none, `start` makes its cell.
    fn join(self: &Arc<Self>, key: N, start: impl FnOnce() -> C) -> (Seat<N, C>, Role) {
        let mut over = None;
        let (mut flight, role) = match self.0.entry(key.clone()) {
            Entry::Occupied(entry) if !entry.get().cell.is_over() => (entry.into_ref(), Role::Follower),
            Entry::Occupied(mut entry) => {
                over = Some(entry.insert(Registered { cell: start(), callers: 0 }));
                (entry.into_ref(), Role::Leader)
            }
            Entry::Vacant(entry) => (entry.insert(Registered { cell: start(), callers: 0 }), Role::Leader),
        };
        flight.callers += 1;
        let cell = flight.cell.clone();
        drop(flight);
        // Not under the entry's lock, as below.
        drop(over);
        (Seat { register: Arc::clone(self), key, cell }, role)
    }

    /// Takes a flight out, so that later callers start their own. Only for one with a seat in it: the flight of that
    /// key is then theirs, if it has not landed yet.
    fn land(&self, key: &N) {
        self.0.remove(key);
    }
}

impl<N: Eq + Hash, C> Default for Register<N, C> {
    fn default() -> Self {
        Self(DashMap::with_hasher(RandomState::default()))
    }
}

impl<N: Clone + Eq + Hash, C: SharedCell> Seat<N, C> {
    /// One more seat in the same flight.
    fn another(&self) -> Self {
        if let Some(mut flight) = self.register.0.get_mut(&self.key)
            && flight.cell.is(&self.cell)
        {
            flight.callers += 1;
        }
        // If it is not there any more, leaving it changes nothing.
        Self { register: Arc::clone(&self.register), key: self.key.clone(), cell: self.cell.clone() }
    }
}

impl<N: Clone + Eq + Hash, C: SharedCell> Drop for Seat<N, C> {
    fn drop(&mut self) {
        // Joining and leaving both happen under the entry's lock: the last one out is always seen as the last.
        let last = self.register.0.remove_if_mut(&self.key, |_, flight| {
            let is_ours = flight.cell.is(&self.cell);
            flight.callers -= usize::from(is_ours);
            is_ours && flight.callers == 0
        });
        // Not under it: what goes with the flight may wake others.
        drop(last);
    }
}

impl LockManager {
    fn flights(&self) -> &Flights {
        self.attached_flights()
    }

    /// Counts a caller of a flight that came to its end.
    fn count_flight(&self, key: &Key, role: Role) {
        role.count(self.shard_at(self.place(key).0));
    }

    /// Counts a caller that came by a lock through another's acquisition.
    fn count_coalesced(&self, key: &Key) {
        self.shard_at(self.place(key).0).count(|c| c.coalesced += 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::IntoFuture;
    use std::time::Duration;

    use super::Flights;
    use crate::engine::LockManager;
    use crate::error::LockError;

    impl Flights {
        fn is_empty(&self) -> bool {
            self.values.0.is_empty() && self.locks.0.is_empty()
        }
    }

    #[actix_rt::test]
    async fn idle_keys_leave_no_flight_behind_however_it_ended() {
        let locks = LockManager::builder().build().unwrap();
        for n in 0..100 {
            assert_eq!(locks.singleflight(format!("k{n}"), || async move { n }).await, Ok(n));
        }
        let stuck = || locks.singleflight("k", std::future::pending::<u8>).into_future();
        let (first, second) = (stuck(), stuck());
        let mut both = Box::pin(async { futures_util::join!(first, second) });
        assert!(futures_util::poll!(&mut both).is_pending());
        assert!(!locks.flights().is_empty());
        drop(both);
        assert!(locks.flights().is_empty());
    }

    #[actix_rt::test]
    async fn idle_keys_leave_no_acquisition_behind_however_it_ended() {
        let locks = LockManager::builder().build().unwrap();
        for n in 0..100 {
            let lock = locks.singleflight_lock(format!("k{n}")).await.unwrap();
            assert!(locks.flights().is_empty(), "who holds it is not in the way of others");
            drop(lock);
        }
        let holder = locks.try_lock("k").await.unwrap();
        let ask = || locks.singleflight_lock("k");
        let timed_out = ask().wait(Duration::from_millis(1)).await;
        assert!(matches!(timed_out, Err(LockError::Timeout { .. })));
        assert!(locks.flights().is_empty());
        let mut both = Box::pin(async { futures_util::join!(ask().into_future(), ask().into_future()) });
        assert!(futures_util::poll!(&mut both).is_pending());
        assert!(!locks.flights().is_empty());
        drop(both);
        assert!(locks.flights().is_empty());
        let mut refused = Box::pin(ask().wait_forever().into_future());
        assert!(futures_util::poll!(&mut refused).is_pending());
        drop(holder);
        locks.shutdown(Duration::ZERO).await;
        drop(refused.await);
        assert!(locks.flights().is_empty());
    }
}
