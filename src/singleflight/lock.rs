//! One acquisition of a key at a time, its lock shared: [`LockManager::singleflight_lock`].
//!
//! The cell of such a flight is the acquisition itself, a shared future that queues without end of its own. Any
//! caller's poll drives it, each caller times its own wait, and it is dropped, and so leaves the queue, with the last
//! of them. It lands before anybody sees its lock.
//!
//! It owns a manager, as its callers borrow one; the register, which is the manager's, holds it only while it has
//! callers.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::caller_wait::CallerWait;
use super::{Role, Seat, SharedCell};
use crate::current_owner;
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::{Key, Ttl};
use crate::lock::{Held, Lock};
use crate::request::{LockOptions, setters};
use crate::table::{Mode, Release, Scope};

/// What makes callers share an acquisition. A request on other terms is for another lock.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct AcquisitionKey {
    key: Key,
    ttl: Ttl,
    max_hold: Option<Duration>,
    scope: Scope,
}

pub(super) type Acquisition = Shared<BoxFuture<'static, Result<Arc<Lock>, LockError>>>;

impl SharedCell for Acquisition {
    fn is(&self, other: &Self) -> bool {
        // One that was answered is of no flight any more: those have landed.
        self.ptr_eq(other)
    }

    fn is_over(&self) -> bool {
        // It lands itself.
        false
    }
}

impl LockManager {
    /// Waits for the key's lock together with all who ask for it so while it is waited for, and shares it with them:
    /// one place in the queue, one grant, released when the last of them has let go.
    ///
    /// Who asks after the lock was seen to be granted does not join: a new acquisition begins, which queues. So nobody
    /// keeps a lock for ever by overlapping with others. The lock excludes all other locks on the key, not those who
    /// share it. Only callers with the same TTL, [`max_hold`](SharedLockRequest::max_hold) and scope share.
    ///
    /// Over a store they have one place in the queue of processes, too; each process asks for a lock of its own.
    ///
    /// The lock is nobody's in particular, wherever it is asked for: no session's, and unknown to the deadlock check.
    /// In the callback of a [`run`](LockManager::run) on the same key it waits in vain.
    ///
    /// ```
    /// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = leasehold::LockManager::builder().build()?;
    /// let rebuilding = locks.lock("index").await?;
    /// let reader = || async { locks.singleflight_lock("index").await };
    /// let (first, second, ()) = futures_util::join!(reader(), reader(), async { drop(rebuilding) });
    /// let (first, second) = (first?, second?);
    /// assert_eq!(first.fencing_token(), second.fencing_token());
    ///
    /// first.unlock().await;
    /// assert!(second.is_held());
    /// second.unlock().await;
    /// assert!(!locks.is_locked("index").await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`LockManager::lock`]. A [`Timeout`](LockError::Timeout) is each caller's own, counted from its own first
    /// poll; whatever else the acquisition comes to, all of them are answered.
    ///
    /// # Cancel safety
    /// See [`SharedLockFuture`].
    pub fn singleflight_lock<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> SharedLockRequest<'_> {
        let key = key.try_into().map_err(Into::into);
        SharedLockRequest { manager: self, key, options: LockOptions::new() }
    }
}

/// A request for a lock that may be shared: set its terms, then `await` it.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct SharedLockRequest<'a> {
    manager: &'a LockManager,
    /// Or why there is none; it is answered when the request is awaited.
    key: Result<Key, LockError>,
    options: LockOptions,
}

impl<'a> SharedLockRequest<'a> {
    setters! { options:
        ttl;
        /// Who asks; the lock shows the one whose request began the acquisition. See [`LockOptions::owner`].
        owner(owner: impl AsRef<str>);
        /// Caps how long the lock may be held in all, by whomever. See [`LockOptions::max_hold`].
        max_hold(cap: Duration);
        process_scope;
        /// How long this caller waits before it is answered [`LockError::Timeout`]; the others wait on. The builder's
        /// `wait` if not set.
        wait(wait: Duration);
        wait_forever;
    }

    fn join(self) -> Result<Waiting<'a>, LockError> {
        let Self { manager, key, options } = self;
        let config = manager.config();
        let refused = |key: &Key, why: &LockError| manager.count_refused(key, Mode::Exclusive, why);
        let key = key.inspect_err(|why| refused(&Key::placeholder(), why))?;
        let name = options.sharing().and_then(|(ttl, max_hold, scope)| {
            let ttl = ttl.unwrap_or(config.ttl);
            config.check(&key, Some(ttl))?;
            Ok(AcquisitionKey { key: config.canonical(key.clone())?, ttl, max_hold, scope })
        });
        let name = name.inspect_err(|why| refused(&key, why))?;
        let (shard, wait) = (manager.shard_at(manager.place(&name.key).0), options.the_wait(config.given.wait));
        let start = || acquisition(manager.clone(), name.clone(), options);
        let (seat, role) = manager.flights().locks.join(name.clone(), start);
        Ok(Waiting { manager, seat, role, wait: CallerWait::begin(shard, wait) })
    }
}

fn acquisition(manager: LockManager, name: AcquisitionKey, options: LockOptions) -> Acquisition {
    let acquire = async move {
        let mut request = manager.lock(&name.key).options(options).wait_forever().into_future();
        let answer = poll_fn(|cx| {
            // Whoever drives it: were it the session's whose callback asked first, it would end for all with that.
            let _for_nobody = current_owner::enter_nobody();
            request.poll_unpin(cx)
        })
        .await;
        // Before anybody can see it: who asks from now on waits for the next one.
        manager.flights().locks.land(&name);
        answer.map(Arc::new)
    };
    acquire.boxed().shared()
}

impl<'a> IntoFuture for SharedLockRequest<'a> {
    type Output = Result<SharedLock, LockError>;
    type IntoFuture = SharedLockFuture<'a>;

    fn into_future(self) -> SharedLockFuture<'a> {
        SharedLockFuture(Stage::New(self))
    }
}

/// The future of a [`SharedLockRequest`]. It asks when it is first polled.
///
/// # Cancel safety
/// Dropping it takes nobody along: the acquisition keeps its place in the queue for the others. The last one's leaves
/// the queue; a lock that was already granted to it is released to the next waiter.
#[must_use = "futures do nothing unless polled"]
pub struct SharedLockFuture<'a>(Stage<'a>);

enum Stage<'a> {
    New(SharedLockRequest<'a>),
    Waiting(Waiting<'a>),
    Answered,
}

/// One caller of an acquisition.
struct Waiting<'a> {
    manager: &'a LockManager,
    seat: Seat<AcquisitionKey, Acquisition>,
    role: Role,
    wait: CallerWait<'a>,
}

impl Waiting<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Lock>, LockError>> {
        if let Poll::Ready(answer) = self.seat.cell.poll_unpin(cx) {
            return Poll::Ready(answer);
        }
        match self.wait.poll(cx) {
            // The shard is closed: the acquisition itself is refused, and its answer says so.
            Poll::Pending | Poll::Ready(LockError::ShuttingDown) => Poll::Pending,
            Poll::Ready(why) => Poll::Ready(Err(why)),
        }
    }
}

impl Future for SharedLockFuture<'_> {
    type Output = Result<SharedLock, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waiting = match std::mem::replace(&mut self.0, Stage::Answered) {
            Stage::New(request) => request.join()?,
            Stage::Waiting(waiting) => waiting,
            Stage::Answered => panic!("a request was polled after it was answered"),
        };
        match waiting.poll(cx) {
            Poll::Ready(answer) => {
                waiting.manager.count_flight(&waiting.seat.key.key, waiting.role);
                if answer.is_ok() && matches!(waiting.role, Role::Follower) {
                    waiting.manager.count_coalesced(&waiting.seat.key.key);
                }
                Poll::Ready(answer.map(SharedLock))
            }
            Poll::Pending => {
                self.0 = Stage::Waiting(waiting);
                Poll::Pending
            }
        }
    }
}

impl fmt::Debug for SharedLockFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Stage::New(_) => "SharedLockFuture(new)",
            Stage::Waiting(_) => "SharedLockFuture(waiting)",
            Stage::Answered => "SharedLockFuture(answered)",
        })
    }
}

/// One caller's part in a lock that it shares; the lock is released when the last of them lets go, by
/// [`unlock`](SharedLock::unlock) or by dropping this.
///
/// What can be asked of a lock, and how it is refreshed, is on [`Held`], to which it dereferences.
#[derive(Debug)]
#[must_use = "a caller lets go of a shared lock as soon as its part is dropped"]
pub struct SharedLock(Arc<Lock>);

impl SharedLock {
    /// A view of the lock for code that may use it but not end it. It outlives this part.
    #[must_use]
    pub fn held(&self) -> Held {
        self.0.held()
    }

    /// Lets go, and says whether the lock was held until then; the last one releases it, and is answered what
    /// the store says of that, where there is one.
    ///
    /// # Cancel safety
    /// Dropped at any point, this caller has let go.
    pub async fn unlock(self) -> Release {
        match self.let_go() {
            Ok(last) => last.unlock().await,
            Err(before) => before,
        }
    }

    /// The same from synchronous code, which waits for no store: it says what this process knows.
    pub fn unlock_now(self) -> Release {
        self.let_go().map_or_else(|before| before, Lock::unlock_now)
    }

    /// The lock, if nobody else has a part in it; else whether it is held.
    fn let_go(self) -> Result<Lock, Release> {
        // Asked before letting go: the others may release it right after.
        let before = if self.0.is_held() { Release::Released } else { Release::AlreadyGone };
        Arc::into_inner(self.0).ok_or(before)
    }
}

impl Deref for SharedLock {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.0
    }
}
