//! One call at a time, its value shared: [`LockManager::singleflight`].
//!
//! The cell of such a flight is one that the first caller fills, under the key's lock; the others wait for it and take
//! a clone. If the first one's future is dropped or panics, or it cannot get the lock, the next caller fills the cell
//! with a call of its own. Calls with different types of value never meet.

use std::any::{Any, TypeId};
use std::future::Future;
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::{Cell, Role};
use crate::error::LockError;
use crate::key::Key;
use crate::manager::LockManager;

pub(super) type Name = (Key, TypeId);

/// An `OnceCell` of the value's type.
pub(super) type AnyCell = Arc<dyn Any + Send + Sync>;

impl Cell for AnyCell {
    fn is(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(self), Arc::as_ptr(other))
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
        let flights = &self.flights().values;
        let (seat, _) = flights.join((key.clone(), TypeId::of::<V>()), || Arc::new(OnceCell::<V>::new()));
        let cell: Arc<OnceCell<V>> = Arc::clone(&seat.cell).downcast().expect("the name holds the type");
        let joined = self.now();
        let mut led = false;
        let value = cell
            .get_or_try_init(|| async {
                led = true;
                // The time that others have already spent in vain on the lock was this caller's wait too.
                let left = self.config().wait.saturating_sub(self.now().saturating_since(joined));
                let ran = self.run(&key, |_| call()).wait(left).await?;
                // Before any follower can see the value: who asks from now on wants a fresh one.
                flights.land(&seat.name);
                Ok(ran.value)
            })
            .await
            .cloned();
        self.count_flight(&key, if led { Role::Leader } else { Role::Follower });
        value
    }
}
