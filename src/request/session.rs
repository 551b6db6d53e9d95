//! The locks of a session: [`Session::lock`] and its neighbours.

use super::LockRequest;
use crate::error::LockError;
use crate::key::Key;
use crate::session::Session;

impl Session {
    /// Asks for a lock now or never; see [`LockManager::try_lock`](crate::LockManager::try_lock).
    pub fn try_lock<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        self.manager().try_lock(key).session(self)
    }

    /// Queues for a lock; see [`LockManager::lock`](crate::LockManager::lock).
    ///
    /// # Errors
    /// Besides: [`LockError::Deadlock`] if this wait would close a cycle of owners that wait for each other,
    /// [`LockError::SessionEnded`], [`LockError::TooManyLocks`].
    pub fn lock<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        self.manager().lock(key).session(self)
    }

    /// Queues for a share of a key; see [`LockManager::read`](crate::LockManager::read).
    pub fn read<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        self.manager().read(key).session(self)
    }

    /// Asks for a share of a key now or never; see [`LockManager::try_read`](crate::LockManager::try_read).
    pub fn try_read<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        self.manager().try_read(key).session(self)
    }

    /// The same as [`Session::try_lock`].
    pub fn try_write<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        self.try_lock(key)
    }

    /// The same as [`Session::lock`].
    pub fn write<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        self.lock(key)
    }
}
