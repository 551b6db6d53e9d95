//! A shared call that is a task of its own: [`SingleflightRequest::detached`].
//!
//! The caller whose turn it is spawns the task, gives it the turn and a seat in the flight, and then waits for the
//! value as all others do.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::across::{self, Across};
use super::flight::Lead;
use super::follower::{Follower, Next};
use super::{Role, SingleflightRequest};
use crate::error::{LockError, Loss};
use crate::request::setters;
use crate::run::{OnLoss, UnderLock, Whose};

/// A call to be shared that outlives its callers: set its terms, then `await` it. Made by
/// [`SingleflightRequest::detached`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::time::Duration;
/// # let locks = leasehold::LockManager::builder().build()?;
/// let slow = || async {
///     tokio::time::sleep(Duration::from_millis(200)).await;
///     1999_u64
/// };
/// let hurried = locks.singleflight("price:42", slow).detached().wait(Duration::from_millis(20)).await;
/// assert!(hurried.is_err());
/// // The call goes on; who asks meanwhile gets its value.
/// assert_eq!(locks.singleflight("price:42", slow).detached().await?, 1999);
/// # Ok(()) }
/// ```
///
/// # Errors
/// As for [`LockManager::singleflight`](crate::LockManager::singleflight); a failure to get the lock is told to the
/// caller whose turn began the call, if it still waits. [`LockError::InvalidOption`] outside of a tokio runtime.
///
/// # Panics
/// If the call that this caller began panics while it waits; the others are not touched by it.
#[must_use = "a request does nothing until it is awaited"]
pub struct DetachedSingleflight<'a, F>(pub(super) SingleflightRequest<'a, F>);

impl<'a, F> SingleflightRequest<'a, F> {
    /// Makes the call a task of its own, on the caller's tokio runtime: it goes on to its end when its callers have
    /// gone, and each of them waits only as long as it will. So a call is shared even if it takes longer than any of
    /// them is ready to wait.
    pub fn detached(self) -> DetachedSingleflight<'a, F> {
        DetachedSingleflight(self)
    }
}

impl<F> DetachedSingleflight<'_, F> {
    setters! { 0:
        /// How long the call's lock lasts between two refreshes. See [`LockOptions::ttl`](crate::LockOptions::ttl).
        ttl(ttl: Duration);
        owner;
        /// Caps how long a call keeps the lock. See [`SingleflightRequest::max_hold`].
        max_hold(cap: Duration);
        process_scope;
        /// How long this caller waits for the value, whoever's turn it was to call. If it was this caller's, the call
        /// waits as long for the lock.
        wait(wait: Duration);
        wait_forever;
    }
}

debug_of!(DetachedSingleflight [F] ['_, F], |it| request: it.0);

impl<'a, F, Fut> IntoFuture for DetachedSingleflight<'a, F>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output: Clone + Send + Sync + 'static> + Send + 'static,
{
    type Output = Result<Fut::Output, LockError>;
    type IntoFuture = DetachedFuture<'a, F, Fut::Output>;

    fn into_future(self) -> Self::IntoFuture {
        DetachedFuture { request: Some(self.0), follower: None, task: None, spawn }
    }
}

/// The future of a [`DetachedSingleflight`]. It asks when it is first polled.
///
/// # Cancel safety
/// Dropping it takes nobody along: a call that has begun goes on.
#[must_use = "futures do nothing unless polled"]
pub struct DetachedFuture<'a, F, V> {
    /// Until this caller has begun the call.
    request: Option<SingleflightRequest<'a, F>>,
    follower: Option<Follower<'a, V>>,
    /// The call that this caller has begun.
    task: Option<Task<V>>,
    spawn: Spawn<'a, F, V>,
}

type Task<V> = JoinHandle<Result<V, LockError>>;
type Spawn<'a, F, V> = fn(SingleflightRequest<'a, F>, &Follower<'a, V>, Lead<V>) -> Result<Task<V>, LockError>;

/// Nothing in it is pinned: what is polled is boxed, or a task.
impl<F, V> Unpin for DetachedFuture<'_, F, V> {}

fn spawn<'a, F, Fut>(
    request: SingleflightRequest<'a, F>,
    follower: &Follower<'a, Fut::Output>,
    lead: Lead<Fut::Output>,
) -> Result<Task<Fut::Output>, LockError>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output: Clone + Send + Sync + 'static> + Send + 'static,
{
    let SingleflightRequest { request, call, codec, .. } = request;
    let no_runtime = LockError::InvalidOption { option: "detached", why: "there is no tokio runtime to run the call" };
    let runtime = Handle::try_current().map_err(|_| no_runtime)?;
    let owner = request.manager().new_call();
    lead.begin(&owner);
    let across = follower.across(codec.as_ref());
    let parting = across.as_ref().map(Across::parting);
    let request = across::lock_for(request.wait(follower.left()), across.as_ref()).owned();
    let call = lead.call(call, across);
    // Taken here and not in the task: this caller may have gone before that begins.
    let seat = follower.another_seat();
    Ok(runtime.spawn(async move {
        let (manager, request) = request.into_parts();
        let lock = request.on(&manager).into_future();
        let ran = UnderLock::new(&manager, Whose::Owners(owner), lock, call, OnLoss::GoOn).leaving(parting).await;
        // The next caller may have the turn only when the lock is free.
        drop((lead, seat));
        ran.map(|ran| ran.value)
    }))
}

impl<F, V: Clone + Send + Sync + 'static> Future for DetachedFuture<'_, F, V> {
    type Output = Result<V, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.follower.is_none() {
            let request = this.request.as_ref().expect("a request was polled after it was answered");
            this.follower = Some(Follower::join(&request.request, request.codec.as_ref(), request.wait)?);
        }
        let follower = this.follower.as_mut().expect("it was set above");
        if this.task.is_none() {
            match ready!(follower.poll(cx))? {
                Next::Value(value) => {
                    follower.count(Role::Follower);
                    return Poll::Ready(Ok(value));
                }
                Next::Turn(lead) => {
                    let request = this.request.take().expect("a request was polled after it was answered");
                    this.task = Some((this.spawn)(request, follower, lead)?);
                }
            }
        }
        let task = this.task.as_mut().expect("it was set above");
        let Poll::Ready(ended) = task.poll_unpin(cx) else {
            return follower.poll_wait(cx).map(Err);
        };
        follower.count_turn();
        Poll::Ready(match ended {
            Ok(answer) => answer,
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            // Its runtime was shut down.
            Err(_) => Err(LockError::Lost(Loss::Unknown)),
        })
    }
}

impl<F, V> fmt::Debug for DetachedFuture<'_, F, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.follower, &self.task) {
            (None, _) => "DetachedFuture(new)",
            (Some(_), None) => "DetachedFuture(following)",
            (Some(_), Some(_)) => "DetachedFuture(leading)",
        })
    }
}
