//! Semaphores: keys that several hold at once, each with a number of permits.

use std::future::IntoFuture;

use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::request::{LockFuture, LockRequest, Style};
use crate::session::Session;
use crate::table::Mode;

/// A key with a fixed number of permits. Everybody who uses it must name the same number.
///
/// ```
/// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let locks = leasehold::LockManager::builder().build()?;
/// let pool = locks.semaphore("pool", 10);
/// let two = pool.permits(2).await?;
/// let eight = pool.permits(8).await?;
/// assert!(pool.try_permits(1).await.is_err());
/// # Ok(()) }
/// ```
///
/// Awaiting it takes one permit.
#[derive(Clone, Debug)]
#[must_use]
pub struct Semaphore<'a> {
    manager: &'a LockManager,
    key: Result<Key, LockError>,
    limit: u32,
    session: Option<Session>,
}

impl LockManager {
    /// A semaphore of `limit` permits under this key. It exists while somebody holds permits of it.
    ///
    /// Waiters are served in order: one that wants many permits is not passed by one that wants few.
    ///
    /// # Errors
    /// Its requests answer as [`LockManager::lock`] does; [`LockError::InvalidOption`] for no permits or more than the
    /// limit, [`LockError::WrongMode`] while the key is in use as another kind of lock or with another limit.
    pub fn semaphore<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K, limit: u32) -> Semaphore<'_> {
        Semaphore { manager: self, key: key.try_into().map_err(Into::into), limit, session: None }
    }
}

impl Session {
    /// A semaphore, used by this session; see [`LockManager::semaphore`].
    pub fn semaphore<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K, limit: u32) -> Semaphore<'_> {
        self.manager().semaphore(key, limit).session(self)
    }
}

impl<'a> Semaphore<'a> {
    /// Queues for so many permits at once.
    pub fn permits(&self, permits: u32) -> LockRequest<'a> {
        self.request(permits, Style::Wait)
    }

    /// Asks for so many permits now, or [`LockError::Held`].
    pub fn try_permits(&self, permits: u32) -> LockRequest<'a> {
        self.request(permits, Style::Try)
    }

    /// Uses it on behalf of a session.
    pub fn session(mut self, session: &Session) -> Self {
        self.session = Some(session.clone());
        self
    }

    /// The same semaphore with a manager of its own, which borrows nothing: to be kept in a `'static` place.
    pub fn owned(&self) -> OwnedSemaphore {
        let Self { manager, key, limit, session } = self.clone();
        OwnedSemaphore { manager: manager.clone(), key, limit, session }
    }

    fn request(&self, permits: u32, style: Style) -> LockRequest<'a> {
        let mode = Mode::Permits { limit: self.limit, permits };
        let request = LockRequest::new(self.manager, self.key.clone(), style).mode(mode);
        match &self.session {
            Some(session) => request.session(session),
            None => request,
        }
    }
}

/// A [`Semaphore`] that borrows nothing; made by [`Semaphore::owned`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let locks = leasehold::LockManager::builder().build()?;
/// use std::future::IntoFuture;
///
/// let pool = locks.semaphore("pool", 10).owned();
/// let two = tokio::spawn(pool.permits(2).owned().into_future()).await??;
/// assert!(pool.try_permits(9).await.is_err());
/// # drop(two);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct OwnedSemaphore {
    manager: LockManager,
    key: Result<Key, LockError>,
    limit: u32,
    session: Option<Session>,
}

impl OwnedSemaphore {
    /// Queues for so many permits at once.
    pub fn permits(&self, permits: u32) -> LockRequest<'_> {
        self.borrow().permits(permits)
    }

    /// Asks for so many permits now, or [`LockError::Held`].
    pub fn try_permits(&self, permits: u32) -> LockRequest<'_> {
        self.borrow().try_permits(permits)
    }

    fn borrow(&self) -> Semaphore<'_> {
        let Self { manager, key, limit, session } = self;
        Semaphore { manager, key: key.clone(), limit: *limit, session: session.clone() }
    }
}

impl<'a> IntoFuture for Semaphore<'a> {
    type Output = <LockRequest<'a> as IntoFuture>::Output;
    type IntoFuture = LockFuture<'a>;

    fn into_future(self) -> LockFuture<'a> {
        self.permits(1).into_future()
    }
}
