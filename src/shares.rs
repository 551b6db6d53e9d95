//! Keys that any number read and one writes: [`LockManager::read`] and [`LockManager::write`].

use crate::error::LockError;
use crate::key::Key;
use crate::manager::LockManager;
use crate::request::{LockRequest, Style};
use crate::table::Mode;

impl LockManager {
    /// Queues for a share of the key: any number hold shares of a key together, and exclude those that
    /// [`lock`](LockManager::lock) or [`write`](LockManager::write) it.
    ///
    /// First come, first served: a reader that comes after a waiting writer waits behind it, so that no writer starves.
    ///
    /// ```
    /// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = leasehold::LockManager::builder().build()?;
    /// let (one, two) = (locks.read("config").await?, locks.read("config").await?);
    /// assert!(locks.try_lock("config").await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`LockManager::lock`], and [`LockError::WrongMode`] while the key is in use as a semaphore.
    ///
    /// # Cancel safety
    /// See [`LockFuture`](crate::LockFuture).
    pub fn read<K>(&self, key: K) -> LockRequest<'_>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        LockRequest::new(self, key.try_into(), Style::Wait).mode(Mode::Shared)
    }

    /// The same for those who want it now or never: a share, or [`LockError::Held`].
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`], and [`LockError::WrongMode`].
    pub fn try_read<K>(&self, key: K) -> LockRequest<'_>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        LockRequest::new(self, key.try_into(), Style::Try).mode(Mode::Shared)
    }

    /// The exclusive lock on a key that others [`read`](LockManager::read): another name for
    /// [`lock`](LockManager::lock). [`Lock::downgrade`](crate::Lock::downgrade) makes a share of it.
    ///
    /// # Errors
    /// As for [`LockManager::lock`].
    ///
    /// # Cancel safety
    /// See [`LockFuture`](crate::LockFuture).
    pub fn write<K>(&self, key: K) -> LockRequest<'_>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        self.lock(key)
    }

    /// The same for those who want it now or never: another name for [`try_lock`](LockManager::try_lock).
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`].
    pub fn try_write<K>(&self, key: K) -> LockRequest<'_>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        self.try_lock(key)
    }
}
