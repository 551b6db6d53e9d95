//! One call at a time, shared by those who asked while it ran: [`LockManager::singleflight`].
//!
//! A flight is a cell that the first caller fills, under the key's lock; the others wait for it and take a clone.
//! Nobody depends on the first one: if its future is dropped or panics, or it cannot get the lock, the next caller
//! fills the cell with a call of its own. A flight is in the registry while it has callers and no value; whoever asks
//! later starts a new one.
//!
//! The pattern is that of Go's `golang.org/x/sync/singleflight`, with the take-over that it lacks.

use std::any::{Any, TypeId};
use std::future::Future;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::OnceCell;

use crate::error::LockError;
use crate::key::Key;
use crate::manager::LockManager;

/// The flights of one manager. Calls with different types of value never meet.
#[derive(Debug, Default)]
pub(crate) struct Flights(DashMap<(Key, TypeId), Flight>);

#[derive(Debug)]
struct Flight {
    /// An `OnceCell` of the value's type.
    cell: Arc<dyn Any + Send + Sync>,
    callers: usize,
}

/// One caller's part in a flight; leaves it when dropped.
struct Seat<'a, V> {
    flights: &'a Flights,
    name: (Key, TypeId),
    cell: Arc<OnceCell<V>>,
}

impl Flights {
    fn join<V: Send + Sync + 'static>(&self, key: &Key) -> Seat<'_, V> {
        let name = (key.clone(), TypeId::of::<V>());
        let mut flight =
            self.0.entry(name.clone()).or_insert_with(|| Flight { cell: Arc::new(OnceCell::<V>::new()), callers: 0 });
        flight.callers += 1;
        let cell = Arc::clone(&flight.cell).downcast().expect("the name holds the type");
        drop(flight);
        Seat { flights: self, name, cell }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<V> Seat<'_, V> {
    /// Takes the flight out of the registry, so that later callers start their own.
    fn land(&self) {
        self.flights.0.remove_if(&self.name, |_, flight| self.is_mine(flight));
    }

    fn is_mine(&self, flight: &Flight) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&flight.cell), Arc::as_ptr(&self.cell))
    }
}

impl<V> Drop for Seat<'_, V> {
    fn drop(&mut self) {
        // Joining and leaving both happen under the entry's lock: the last one out is always seen as the last.
        if let Entry::Occupied(mut entry) = self.flights.0.entry(self.name.clone())
            && self.is_mine(entry.get())
        {
            entry.get_mut().callers -= 1;
            if entry.get().callers == 0 {
                entry.remove();
            }
        }
    }
}

impl LockManager {
    /// Calls `call` under the key's lock, unless such a call is already under way: then waits for it and shares its
    /// value. To share errors, make the value a `Result` whose error is `Clone`.
    ///
    /// ```
    /// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = leasehold::LockManager::builder().build()?;
    /// let price = locks.singleflight("price:42", || async { 1999_u64 }).await?;
    /// assert_eq!(price, 1999);
    /// # Ok(()) }
    /// ```
    ///
    /// The lock is waited for as long as the builder's `wait` says, counted from when each caller asked.
    ///
    /// # Errors
    /// As for [`LockManager::lock`], to the caller whose turn it was to call; the next one then tries for itself.
    ///
    /// # Panics
    /// If this caller's own `call` panics; the others are not touched by it.
    ///
    /// # Cancel safety
    /// Dropped while calling, the lock is released and the next caller calls; dropped while waiting, nothing is left.
    pub async fn singleflight<K, V, F, Fut>(&self, key: K, call: F) -> Result<V, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
        V: Clone + Send + Sync + 'static,
        F: FnOnce() -> Fut,
        Fut: Future<Output = V>,
    {
        let key = self.good_key(key)?;
        let seat = self.flights().join::<V>(&key);
        let joined = self.now();
        let mut led = false;
        let value = seat
            .cell
            .get_or_try_init(|| async {
                led = true;
                // The time that others have already spent in vain on the lock was this caller's wait too.
                let left = self.config().wait.saturating_sub(self.now().saturating_since(joined));
                let ran = self.run(&key, |_| call()).wait(left).await?;
                // Before any follower can see the value: who asks from now on wants a fresh one.
                seat.land();
                Ok(ran.value)
            })
            .await
            .cloned();
        self.count_flight(if led { Role::Leader } else { Role::Follower });
        value
    }
}

/// A caller's part in a flight, as stats count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_rt::test]
    async fn idle_keys_leave_no_flight_behind_however_it_ended() {
        let locks = LockManager::builder().build().unwrap();
        for n in 0..100 {
            assert_eq!(locks.singleflight(format!("k{n}"), || async move { n }).await, Ok(n));
        }
        let stuck = || locks.singleflight("k", std::future::pending::<u8>);
        let (first, second) = (stuck(), stuck());
        let mut both = Box::pin(async { futures_util::join!(first, second) });
        assert!(futures_util::poll!(&mut both).is_pending());
        assert!(!locks.flights().is_empty());
        drop(both);
        assert!(locks.flights().is_empty());
    }
}
