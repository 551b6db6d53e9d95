//! How a lock is asked for: exclusively ([`LockManager::lock`]), or as one of any number who read
//! ([`LockManager::read`]).

use super::{LockRequest, Style};
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::lock::Lock;
use crate::table::Mode;

impl LockManager {
    /// Asks for the lock now: it is granted at once, or the answer is [`LockError::Held`].
    ///
    /// # Errors
    /// Awaiting the request answers `Held`, [`InvalidKey`](LockError::InvalidKey),
    /// [`InvalidTtl`](LockError::InvalidTtl), [`InvalidOption`](LockError::InvalidOption),
    /// [`TooManyKeys`](LockError::TooManyKeys), [`ShuttingDown`](LockError::ShuttingDown); with
    /// [`retry`](LockRequest::retry) `Timeout` in place of `Held`; with a chosen [`token`](LockRequest::token) also
    /// [`Lost`](LockError::Lost) and [`TokenReused`](LockError::TokenReused).
    #[inline(always)]
    pub fn try_lock<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        LockRequest::new(self, key.try_into(), Style::Try)
    }

    /// Queues for the lock: first come, first served, until [`wait`](LockRequest::wait) ends (5 s by default).
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`], but [`Timeout`](LockError::Timeout) in place of `Held`, and
    /// [`QueueFull`](LockError::QueueFull). A lock that was granted and ran out before its future was polled answers
    /// [`Lost`](LockError::Lost).
    ///
    /// # Cancel safety
    /// See [`LockFuture`](crate::LockFuture).
    #[inline(always)]
    pub fn lock<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        LockRequest::new(self, key.try_into(), Style::Wait)
    }

    /// `try_lock` for synchronous code.
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`].
    pub fn try_lock_now<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> Result<Lock, LockError> {
        self.try_lock(key).now()
    }

    /// `lock` for synchronous code: blocks the calling thread. For other terms use
    /// [`LockRequest::block`].
    ///
    /// # Errors
    /// As for [`LockManager::lock`].
    ///
    /// # Panics
    /// In async code; see [`LockRequest::block`].
    #[track_caller]
    pub fn blocking_lock<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> Result<Lock, LockError> {
        self.lock(key).block()
    }

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
    pub fn read<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        LockRequest::new(self, key.try_into(), Style::Wait).mode(Mode::Shared)
    }

    /// The same for those who want it now or never: a share, or [`LockError::Held`].
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`], and [`LockError::WrongMode`].
    pub fn try_read<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
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
    pub fn write<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        self.lock(key)
    }

    /// The same for those who want it now or never: another name for [`try_lock`](LockManager::try_lock).
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`].
    pub fn try_write<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> LockRequest<'_> {
        self.try_lock(key)
    }
}
