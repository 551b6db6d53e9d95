//! Lock, call, release: [`LockManager::run`] and [`LockManager::try_run`], and the names that such locks usually have.
//!
//! The lock refreshes itself while the callback runs (every third of its TTL, from a TTL of 3 ms on). It is released
//! when the callback returns, panics, or is cancelled with the future; the callback's own future is dropped first, so
//! nothing of it runs on without the lock. All that the callback locks has the same owner as this lock, so that
//! callbacks which wait for each other's locks get a `Deadlock`. What the callback returned is never hidden by what
//! became of the lock: the answer has both.

mod names;
mod under_lock;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

pub use names::{operation_key, resource_key};
use pin_project_lite::pin_project;
pub(crate) use under_lock::{Callback, OnLoss, Parting, UnderLock, Whose};

use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::lock::Held;
use crate::request::{LockOptions, LockRequest, setters};
use crate::session::Session;
use crate::table::Release;

/// What a callback returned, and what its lock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Ran<T> {
    /// What the callback returned.
    pub value: T,
    /// Whether the lock was held to the end. [`Release::AlreadyGone`]: it was lost on the way, and others may have
    /// worked on the same thing meanwhile.
    pub release: Release,
}

/// What `try_run` came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome<T> {
    /// The lock was free and the callback ran.
    Ran(Ran<T>),
    /// Somebody else held the lock; the callback was not called.
    Busy,
}

impl LockManager {
    /// Runs `call` under the lock: waits for it as [`LockManager::lock`] does, calls, releases.
    ///
    /// The callback gets a [`Held`] of its own, to watch and refresh the lock with. Its future need not be `Send`.
    ///
    /// All that is asked for while the callback's future is polled is asked for on its behalf, and it is one actor to
    /// the deadlock check: two requests for one key that it polls side by side (`join!`, `FuturesUnordered`, a
    /// `LocalSet` that it runs, with the tasks of `spawn_local`) get a [`Deadlock`](LockError::Deadlock), the second
    /// with the first, though the first would end. Ask for them one after the other, or in tasks spawned on the
    /// runtime, which ask for themselves.
    ///
    /// A future that is held and not polled (a branch of a `select!` that is looped over, a stream that buffers) keeps
    /// its lock, which goes on refreshing itself: [`max_hold`](RunRequest::max_hold) caps that. Without it there is no
    /// bound, on purpose. The manager cannot tell such a future from one that computes, waits long for an answer, or
    /// belongs to a runtime that is held up; and work that stands still halfway may go on at any time. Taking its lock
    /// would let somebody else in beside it. So a cap is the caller's to set, who knows how long the work may take.
    ///
    /// ```
    /// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = leasehold::LockManager::builder().build()?;
    /// let ran = locks.run("report", async |held| format!("under {:?}", held.fencing_token())).await?;
    /// assert_eq!(ran.release, leasehold::Release::Released);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`LockManager::lock`]. The callback's own errors are in its value.
    ///
    /// # Panics
    /// If the callback panics, after the lock is released.
    ///
    /// # Cancel safety
    /// Dropping the future drops the callback's, then releases the lock.
    pub fn run<K, F, Fut>(&self, key: K, call: F) -> RunRequest<'_, F>
    where
        K: TryInto<Key, Error: Into<LockError>>,
        F: FnOnce(Held) -> Fut,
        Fut: Future,
    {
        RunRequest { request: self.lock(key), call, on_loss: OnLoss::GoOn }
    }

    /// Runs `call` if the lock is free now, and answers [`Outcome::Busy`] if it is not.
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`], but that `Held` is no error here.
    ///
    /// # Panics
    /// If the callback panics, after the lock is released.
    ///
    /// # Cancel safety
    /// Dropping the future drops the callback's, then releases the lock.
    pub fn try_run<K, F, Fut>(&self, key: K, call: F) -> TryRunRequest<'_, F>
    where
        K: TryInto<Key, Error: Into<LockError>>,
        F: FnOnce(Held) -> Fut,
        Fut: Future,
    {
        TryRunRequest(RunRequest { request: self.try_lock(key), call, on_loss: OnLoss::GoOn })
    }
}

impl Session {
    /// Runs `call` under a lock; see [`LockManager::run`]. What `call` locks is this session's too.
    pub fn run<K, F, Fut>(&self, key: K, call: F) -> RunRequest<'_, F>
    where
        K: TryInto<Key, Error: Into<LockError>>,
        F: FnOnce(Held) -> Fut,
        Fut: Future,
    {
        self.manager().run(key, call).session(self)
    }

    /// Runs `call` if a lock is free now; see [`LockManager::try_run`].
    pub fn try_run<K, F, Fut>(&self, key: K, call: F) -> TryRunRequest<'_, F>
    where
        K: TryInto<Key, Error: Into<LockError>>,
        F: FnOnce(Held) -> Fut,
        Fut: Future,
    {
        self.manager().try_run(key, call).session(self)
    }
}

/// A callback to be run under a lock: set the lock's terms, then `await` it.
#[must_use = "a request does nothing until it is awaited"]
pub struct RunRequest<'a, F> {
    request: LockRequest<'a>,
    call: F,
    on_loss: OnLoss,
}

/// The same for [`LockManager::try_run`].
#[must_use = "a request does nothing until it is awaited"]
pub struct TryRunRequest<'a, F>(RunRequest<'a, F>);

impl<F> RunRequest<'_, F> {
    setters! { request:
        /// Takes all options at once, in place of those set so far; a session set before stays unless they name one.
        options(options: LockOptions);
        /// How long the lock lasts between two refreshes. See [`LockOptions::ttl`].
        ttl(ttl: Duration);
        wait; wait_forever; owner; token;
        /// Caps how long the callback keeps the lock. See [`LockOptions::max_hold`].
        max_hold(cap: Duration);
        retry;
        /// Asks on behalf of a session, and so does what the callback locks. See [`LockOptions::session`].
        session(session: &Session);
        /// Runs under the lock that the caller holds already. See [`LockOptions::reentrant`].
        reentrant();
    }

    /// Drops the callback's future as soon as the lock is lost, and answers [`LockError::Lost`]. Without this it goes
    /// on to its end, and [`Ran::release`] says so.
    ///
    /// It is dropped at one of its `await`s, and only while this future is polled: what it did before stands, and the
    /// fencing token is still what keeps it from doing harm.
    pub fn cancel_on_loss(mut self) -> Self {
        self.on_loss = OnLoss::Cancel;
        self
    }
}

impl<F> TryRunRequest<'_, F> {
    setters! { 0:
        /// Takes all options at once, in place of those set so far; a session set before stays unless they name one.
        options(options: LockOptions);
        /// How long the lock lasts between two refreshes. See [`LockOptions::ttl`].
        ttl(ttl: Duration);
        owner;
        /// Caps how long the callback keeps the lock. See [`LockOptions::max_hold`].
        max_hold(cap: Duration);
        /// Asks on behalf of a session, and so does what the callback locks. See [`LockOptions::session`].
        session(session: &Session);
        /// Runs under the lock that the caller holds already. See [`LockOptions::reentrant`].
        reentrant();
        /// Drops the callback's future as soon as the lock is lost. See [`RunRequest::cancel_on_loss`].
        cancel_on_loss();
    }
}

debug_of!(RunRequest [F] ['_, F], |it| request: it.request);

debug_of!(TryRunRequest [F] ['_, F], |it| request: it.0);

impl<'a, F, Fut> IntoFuture for RunRequest<'a, F>
where
    F: FnOnce(Held) -> Fut,
    Fut: Future,
{
    type Output = Result<Ran<Fut::Output>, LockError>;
    type IntoFuture = RunFuture<'a, F, Fut>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { request, call, on_loss } = self;
        let (manager, session) = (request.manager(), request.the_session().and_then(Session::owner));
        let whose = session.map_or(Whose::Callers, Whose::Owners);
        RunFuture { work: UnderLock::new(manager, whose, request.into_future(), call, on_loss) }
    }
}

impl<'a, F, Fut> IntoFuture for TryRunRequest<'a, F>
where
    F: FnOnce(Held) -> Fut,
    Fut: Future,
{
    type Output = Result<Outcome<Fut::Output>, LockError>;
    type IntoFuture = TryRunFuture<'a, F, Fut>;

    fn into_future(self) -> Self::IntoFuture {
        TryRunFuture { run: self.0.into_future() }
    }
}

pin_project! {
    /// The future of a [`RunRequest`].
    #[must_use = "futures do nothing unless polled"]
    pub struct RunFuture<'a, F, Fut: Future> {
        #[pin]
        work: UnderLock<'a, F, Fut>,
    }
}

impl<F, Fut> Future for RunFuture<'_, F, Fut>
where
    F: FnOnce(Held) -> Fut,
    Fut: Future,
{
    type Output = Result<Ran<Fut::Output>, LockError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().work.poll(cx)
    }
}

pin_project! {
    /// The future of a [`TryRunRequest`].
    #[must_use = "futures do nothing unless polled"]
    pub struct TryRunFuture<'a, F, Fut: Future> {
        #[pin]
        run: RunFuture<'a, F, Fut>,
    }
}

impl<F, Fut> Future for TryRunFuture<'_, F, Fut>
where
    F: FnOnce(Held) -> Fut,
    Fut: Future,
{
    type Output = Result<Outcome<Fut::Output>, LockError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.project().run.poll(cx)) {
            Ok(ran) => Ok(Outcome::Ran(ran)),
            Err(LockError::Held) => Ok(Outcome::Busy),
            Err(why) => Err(why),
        })
    }
}

debug_of!(RunFuture [F, Fut: Future] ['_, F, Fut], |it| stage: it.work.stage_name());

debug_of!(TryRunFuture [F, Fut: Future] ['_, F, Fut], |it| run: it.run);
