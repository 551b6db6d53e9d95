//! Several keys at once, all or nothing: [`LockManager::lock_many`].
//!
//! The keys are taken one after the other in their order, the same for everybody, so two such requests never wait for
//! each other in a circle. What is already held is refreshed while the rest is waited for; at the last grant all
//! deadlines are dated anew, together. If any of it fails, everything is released.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;

use crate::clock::Moment;
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::lock::Lock;
use crate::request::{LockOptions, setters};
use crate::retry::RetryStrategy;
use crate::session::Session;
use crate::table::{AutoRefreshStart, Release};

/// The most keys that one request may name.
pub(crate) const MAX_KEYS: usize = 1_000;

/// A request for several locks: set its terms, then `await` it.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct LockManyRequest<'a> {
    manager: &'a LockManager,
    keys: Result<Vec<Key>, LockError>,
    options: LockOptions,
}

impl LockManager {
    /// Queues for all of the keys, in their order, and answers with one guard for all of them or none.
    ///
    /// Repeated keys count once. The wait is one for all (5 s by default).
    ///
    /// ```
    /// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = leasehold::LockManager::builder().build()?;
    /// let both = locks.lock_many(["account:7", "account:3"]).await?;
    /// assert_eq!(both.len(), 2);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`LockManager::lock`]; [`LockError::InvalidOption`] for no keys or more than 1,000;
    /// [`LockError::Lost`] if one of the locks was lost (by force) while the others were waited for.
    ///
    /// # Cancel safety
    /// Dropping the future releases what it had already got.
    pub fn lock_many<I, K>(&self, keys: I) -> LockManyRequest<'_>
    where
        I: IntoIterator<Item = K>,
        K: TryInto<Key, Error: Into<LockError>>,
    {
        let keys = keys.into_iter().map(|key| self.good_key(key)).collect();
        LockManyRequest { manager: self, keys, options: LockOptions::new() }
    }
}

impl Session {
    /// Queues for several keys, all or nothing; see [`LockManager::lock_many`].
    pub fn lock_many<I, K>(&self, keys: I) -> LockManyRequest<'_>
    where
        I: IntoIterator<Item = K>,
        K: TryInto<Key, Error: Into<LockError>>,
    {
        self.manager().lock_many(keys).session(self)
    }
}

impl LockManyRequest<'_> {
    setters! { options:
        /// How long the locks last unless refreshed, from the last grant. See [`LockOptions::ttl`].
        ttl(ttl: Duration);
        ttl_secs;
        /// How long to wait for all of them together. See [`LockOptions::wait`].
        wait(wait: Duration);
        wait_forever; owner;
        /// Caps how long each may be held, counted from its own grant. See [`LockOptions::max_hold`].
        max_hold(cap: Duration);
        refresh_after;
        /// Polls for each key instead of queueing. See [`LockOptions::retry`].
        retry(strategy: impl RetryStrategy);
        session; reentrant; process_scope;
    }

    /// Takes all options at once, in place of those set so far; a session set before stays unless they name one. A
    /// chosen token is refused: each lock has its own.
    pub fn options(mut self, options: LockOptions) -> Self {
        self.options = options.in_place_of(&self.options);
        self
    }

    async fn acquire(self) -> Result<LockMany, LockError> {
        let Self { manager, keys, options } = self;
        let mut keys = keys?;
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(LockError::InvalidOption { option: "keys", why: "name from 1 to 1,000 keys" });
        }
        if options.has_token() {
            return Err(LockError::InvalidOption { option: "token", why: "several locks have a token each" });
        }
        let started = manager.now();
        let wait = options.the_wait(manager.config().given.wait);
        let mut locks: Vec<Lock> = Vec::with_capacity(keys.len());
        let mut ordered = Vec::with_capacity(keys.len());
        for key in keys {
            let waited = manager.now().saturating_since(started);
            let options = options.clone().wait(wait.saturating_sub(waited));
            let lock = manager.lock(key).options(options).await.map_err(|why| match why {
                LockError::Timeout { .. } => LockError::Timeout { waited: manager.now().saturating_since(started) },
                other => other,
            })?;
            // Granted just now; were it lost already, the refresh below would say so.
            let order = lock.keep_refreshed().unwrap_or(AutoRefreshStart::Unchanged);
            ordered.push(order);
            locks.push(lock);
        }
        for (lock, order) in locks.iter().zip(ordered) {
            // An order that was there before is of whoever holds the key around this request.
            if let AutoRefreshStart::Started(order) = order {
                lock.stop_order(order);
            }
            lock.refresh().await?;
        }
        Ok(LockMany { locks })
    }
}

impl<'a> IntoFuture for LockManyRequest<'a> {
    type Output = Result<LockMany, LockError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.acquire())
    }
}

/// Several locks held together. Dropping it releases them all.
#[must_use = "the locks are released as soon as their guard is dropped"]
pub struct LockMany {
    /// In the order of their keys.
    locks: Vec<Lock>,
}

impl LockMany {
    /// The locks, in the order of their keys.
    pub fn locks(&self) -> &[Lock] {
        &self.locks
    }

    /// How many there are: repeated keys count once.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> usize {
        self.locks.len()
    }

    /// Whether all of them are still held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.locks.iter().all(|lock| lock.is_held())
    }

    /// When the first of them ends unless refreshed; `None` if one has ended.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.locks.iter().map(|lock| lock.deadline()).min_by_key(|deadline| deadline.unwrap_or(Moment::ZERO)).flatten()
    }

    /// Refreshes all of them, each to now plus its TTL.
    ///
    /// # Errors
    /// [`LockError::Lost`] if one has ended; the others may have been refreshed or not.
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll.
    pub async fn refresh(&self) -> Result<(), LockError> {
        for lock in &self.locks {
            lock.refresh().await?;
        }
        Ok(())
    }

    /// Releases all of them, and says whether all were still held: as the store answers, where there is one.
    ///
    /// # Cancel safety
    /// Dropped at any point, the locks are released.
    pub async fn unlock(self) -> Release {
        let found = join_all(self.locks.into_iter().map(Lock::unlock)).await;
        found.into_iter().find(|release| *release != Release::Released).unwrap_or(Release::Released)
    }
}

impl fmt::Debug for LockMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.locks).finish()
    }
}
