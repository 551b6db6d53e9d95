//! One request for a lock: what it asks for ([`LockOptions`]), who asks ([`LockRequest`]), and the future that brings
//! it about.
//!
//! A request borrows its manager, holds nothing of the caller's runtime, and does nothing until it is polled. Called by
//! everything that wants a lock; the work is done in `future`.

mod budget;
mod constructors;
mod future;
mod options;
mod owned;
mod prepared;
mod session;
mod setters;
mod underway;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use future::{AcquireFuture, Progress};
pub use options::LockOptions;
pub use owned::OwnedLockRequest;
pub(crate) use setters::setters;

use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::lock::{Lock, Ticket};
use crate::session::Session;
use crate::table::{Grant, GrantState, Mode, Scope};

/// Whether a request waits at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Style {
    /// Now, or `Held`.
    Try,
    /// In the queue (or by polling), until the wait ends.
    Wait,
}

/// A request for one lock: set its terms, then `await` it.
///
/// It borrows the manager; [`owned`](LockRequest::owned) is for what must be `'static`.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct LockRequest<'a> {
    manager: &'a LockManager,
    /// A placeholder if the options know a fault of it.
    key: Key,
    options: LockOptions,
    style: Style,
    /// Nothing yet: for its future, which it is made where it lies.
    progress: Progress<'a>,
}

impl<'a> LockRequest<'a> {
    #[inline(always)]
    pub(crate) fn new<E: Into<LockError>>(manager: &'a LockManager, key: Result<Key, E>, style: Style) -> Self {
        match key {
            Ok(key) => Self { manager, key, options: LockOptions::new(), style, progress: Progress::NEW },
            Err(why) => Self::without_key(manager, why.into(), style),
        }
    }

    #[cold]
    fn without_key(manager: &'a LockManager, why: LockError, style: Style) -> Self {
        let options = LockOptions::new().without_key(why);
        Self { manager, key: Key::placeholder(), options, style, progress: Progress::NEW }
    }

    /// Takes all options at once, in place of those set so far; what kind of lock it is stays, and on behalf of which
    /// session unless they name one.
    pub fn options(mut self, options: LockOptions) -> Self {
        let mode = self.options.the_mode();
        self.options = options.in_place_of(&self.options);
        if mode == Mode::Exclusive { self } else { self.mode(mode) }
    }

    setters! { options:
        ttl; ttl_secs; wait; wait_forever; owner; token; max_hold; refresh_after; retry; session; reentrant; account;
        process_scope;
    }

    /// The key in this manager's form, checked against its bounds.
    pub(crate) fn checked_key(&self) -> Result<Key, LockError> {
        let refused = |key: &Key, why: &LockError| self.manager.count_refused(key, self.options.the_mode(), why);
        if let Some(why) = self.options.bad_key() {
            refused(&self.key, why);
            return Err(why.clone());
        }
        let config = self.manager.config();
        let key = config.check(&self.key, None).and_then(|()| config.canonical(self.key.clone()));
        key.inspect_err(|why| refused(&self.key, why))
    }

    #[inline(always)]
    pub(crate) fn mode(mut self, mode: Mode) -> Self {
        self.options.set_mode(mode);
        self
    }

    pub(crate) fn leaving_value(mut self) -> Self {
        self.options = self.options.leaving_value();
        self
    }

    pub(crate) fn the_scope(&self) -> Scope {
        self.options.the_scope()
    }

    pub(crate) fn the_session(&self) -> Option<&Session> {
        self.options.the_session()
    }

    pub(crate) fn manager(&self) -> &'a LockManager {
        self.manager
    }

    /// The same request with a manager of its own, which borrows nothing: to be spawned, or kept in a `'static` future.
    pub fn owned(self) -> OwnedLockRequest {
        OwnedLockRequest::new(self)
    }

    /// Asks for a [`Ticket`] instead of a guard: the lock is then released by its token or by time, by nothing else.
    pub fn ticket(self) -> TicketRequest<'a> {
        TicketRequest(self)
    }

    /// Answers at once, in any thread, with or without a runtime. A request that would have to wait for its lock
    /// answers [`LockError::Held`].
    ///
    /// # Errors
    /// As for awaiting the request.
    pub fn now(mut self) -> Result<Lock, LockError> {
        if self.manager.config().given.store.is_some() {
            let why = "there is a store to be asked: await the request, or use block";
            return Err(LockError::InvalidOption { option: "now", why });
        }
        self.style = Style::Try;
        if let Some(rare) = self.options.rare.as_mut() {
            rare.retry = None;
        }
        match self.into_future().poll_now() {
            Poll::Ready(answer) => answer,
            Poll::Pending => Err(LockError::Held),
        }
    }

    /// Waits in the calling thread. Not for async code: it would hold up every task of that thread.
    ///
    /// # Errors
    /// As for awaiting the request.
    ///
    /// # Panics
    /// In a thread that drives async tasks of a tokio or actix runtime, whether it would have to wait or not, as
    /// tokio's own blocking calls do. `spawn_blocking` and `block_in_place` are the places for it.
    #[track_caller]
    pub fn block(self) -> Result<Lock, LockError> {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        // The mutex is free and of no other use: tokio checks the thread when it blocks.
        drop(tokio::sync::Mutex::new(()).blocking_lock());
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut request = self.into_future();
        loop {
            match request.poll_at_once(&Context::from_waker(&waker)) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl<'a> IntoFuture for LockRequest<'a> {
    type Output = Result<Lock, LockError>;
    type IntoFuture = LockFuture<'a>;

    #[inline(always)]
    fn into_future(self) -> LockFuture<'a> {
        LockFuture(AcquireFuture::new(self))
    }
}

/// Where a request stands in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitPlace {
    /// The first is 1. Places beyond the thousandth are all given as 1,001.
    pub position: usize,
    /// How long it may take: the mean time for which this key was held since it became contended, times the position.
    /// `None` until a first lock of it has ended since.
    pub estimate: Option<Duration>,
}

/// A request whose answer is a [`Ticket`]; made by [`LockRequest::ticket`].
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct TicketRequest<'a>(LockRequest<'a>);

impl<'a> IntoFuture for TicketRequest<'a> {
    type Output = Result<Ticket, LockError>;
    type IntoFuture = TicketFuture<'a>;

    fn into_future(self) -> TicketFuture<'a> {
        TicketFuture(AcquireFuture::new(self.0))
    }
}

/// The future of a [`LockRequest`].
///
/// # Cancel safety
/// Dropping it leaves the queue; a lock that was already granted to it is released to the next waiter.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct LockFuture<'a>(AcquireFuture<'a>);

impl LockFuture<'_> {
    /// Where this request stands in its queue, if it waits in one: for people who want to know how long it may take.
    ///
    /// Looks at up to a thousand places of the queue.
    #[must_use]
    pub fn place(&self) -> Option<WaitPlace> {
        self.0.place()
    }

    /// Grants the key at once, if it is free and the request has no terms but its TTL and wait: to nobody in particular, wherever
    /// it is asked for, and kept refreshed by the manager from then on. Answers also the grant, and its shard. After `None` the
    /// request is as it was.
    #[inline]
    pub(crate) fn grant_kept(&mut self, keeper: GrantState) -> Option<(Lock, u32, Grant)> {
        self.0.grant_kept(keeper)
    }

    fn poll_now(mut self) -> Poll<Result<Lock, LockError>> {
        self.poll_at_once(&Context::from_waker(Waker::noop()))
    }

    /// Polls without a look at the task's budget.
    #[inline]
    fn poll_at_once(&mut self, cx: &Context<'_>) -> Poll<Result<Lock, LockError>> {
        self.0.poll_as(cx)
    }
}

impl Future for LockFuture<'_> {
    type Output = Result<Lock, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(budget::poll_proceed(cx));
        self.poll_at_once(cx)
    }
}

/// The future of a [`TicketRequest`].
///
/// # Cancel safety
/// As for [`LockFuture`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct TicketFuture<'a>(AcquireFuture<'a>);

impl Future for TicketFuture<'_> {
    type Output = Result<Ticket, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        ready!(budget::poll_proceed(cx));
        self.0.poll_as(cx)
    }
}
