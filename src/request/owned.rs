//! A request that borrows nothing: [`LockRequest::owned`].

use std::future::IntoFuture;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::future::Progress;
use super::{LockOptions, LockRequest, Style};
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::lock::Lock;

/// A request for one lock with a manager of its own: `await` it anywhere. Made by [`LockRequest::owned`], when all of
/// its terms are set.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let locks = leasehold::LockManager::builder().build()?;
/// let lock = tokio::spawn(locks.lock("order:42").owned().into_future()).await??;
/// # use std::future::IntoFuture;
/// # drop(lock);
/// # Ok(()) }
/// ```
///
/// Its future is boxed.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct OwnedLockRequest {
    manager: LockManager,
    parts: RequestParts,
}

/// What a request asks, apart from whom it asks.
#[derive(Debug)]
pub(crate) struct RequestParts {
    key: Key,
    options: LockOptions,
    style: Style,
}

impl OwnedLockRequest {
    pub(super) fn new(request: LockRequest<'_>) -> Self {
        let LockRequest { manager, key, options, style, .. } = request;
        Self { manager: manager.clone(), parts: RequestParts { key, options, style } }
    }

    pub(crate) fn into_parts(self) -> (LockManager, RequestParts) {
        (self.manager, self.parts)
    }
}

impl RequestParts {
    pub(crate) fn on(self, manager: &LockManager) -> LockRequest<'_> {
        let Self { key, options, style } = self;
        LockRequest { manager, key, options, style, progress: Progress::NEW }
    }
}

impl IntoFuture for OwnedLockRequest {
    type Output = Result<Lock, LockError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    /// # Cancel safety
    /// As for [`LockFuture`](super::LockFuture).
    fn into_future(self) -> Self::IntoFuture {
        let Self { manager, parts } = self;
        async move { parts.on(&manager).await }.boxed()
    }
}
