//! One call at a time, its value shared: [`LockManager::singleflight`].
//!
//! The first caller has the turn and calls, under the key's lock; the others wait for the value, each as long as it
//! will. If the one who calls is dropped or panics, or cannot get the lock, the next caller has the turn; if it loses
//! the lock, the others leave it behind and start anew. Calls with different types of value never meet.
//!
//! A call has an owner of its own, as the callback of a `run` has, wherever it is made: it serves all of its callers.
//! Each of them waits for that owner, in the eyes of the deadlock check, also the one that polls the call.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::Role;
use super::across::{self, Across, AnyCodec};
use super::flight::{Call, Calling, Lead};
use super::follower::{Follower, Next};
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::request::{LockRequest, setters};
use crate::run::{OnLoss, UnderLock, Whose};

impl LockManager {
    /// Calls `call` under the key's lock, unless such a call is already under way: then waits for it and shares its
    /// value. To share errors, make the value a `Result` whose error is `Clone`.
    ///
    /// ```
    /// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = leasehold::LockManager::builder().build()?;
    /// let price = locks.singleflight("price:42", || async { 1999_u64 }).await?;
    /// assert_eq!(price, 1999);
    /// # Ok(()) }
    /// ```
    ///
    /// The call is polled by the caller whose turn it was, and ends with that caller: a future that is held and not
    /// polled (a branch of a `select!` that is looped over, a stream that buffers) calls no further, but keeps the
    /// lock, which refreshes itself, without a bound, for the reason that [`run`](LockManager::run) gives. Cap that
    /// with [`max_hold`](SingleflightRequest::max_hold), or have the call outlive its callers with
    /// [`detached`](SingleflightRequest::detached).
    ///
    /// Over a store the lock keeps other processes out: one of them calls at a time, and each calls for its own callers.
    /// [`across_processes`](SingleflightRequest::across_processes) shares the value with them.
    ///
    /// The call belongs to none of its callers: what it locks is no session's, and not
    /// [reentrant](crate::LockOptions::reentrant) with what a caller holds.
    ///
    /// # Errors
    /// As for [`LockManager::lock`], to the caller whose turn it was to call; the next one then tries for itself.
    /// [`Timeout`](LockError::Timeout) to a caller whose [`wait`](SingleflightRequest::wait) is over while another
    /// calls. [`Deadlock`](LockError::Deadlock) to one that waits, in a callback, for a call which waits for that
    /// callback: a call that asks for itself is refused so.
    ///
    /// # Panics
    /// If this caller's own `call` panics; the others are not touched by it.
    ///
    /// # Cancel safety
    /// See [`SingleflightFuture`].
    pub fn singleflight<K, F, Fut>(&self, key: K, call: F) -> SingleflightRequest<'_, F>
    where
        K: TryInto<Key, Error: Into<LockError>>,
        F: FnOnce() -> Fut,
        Fut: Future<Output: Clone + Send + Sync + 'static>,
    {
        SingleflightRequest { request: self.lock(key), wait: self.config().given.wait, call, codec: None }
    }
}

/// A call to be shared: set its terms, then `await` it. The lock is taken on the terms of whoever calls.
#[must_use = "a request does nothing until it is awaited"]
pub struct SingleflightRequest<'a, F> {
    pub(super) request: LockRequest<'a>,
    pub(super) wait: Duration,
    pub(super) call: F,
    /// For values that other processes share.
    pub(super) codec: Option<AnyCodec>,
}

impl<'a, F> SingleflightRequest<'a, F> {
    setters! { request:
        /// How long the call's lock lasts between two refreshes. See [`LockOptions::ttl`](crate::LockOptions::ttl).
        ttl(ttl: Duration);
        owner;
        /// Caps how long a call keeps the lock. When the time is over, it goes on without the lock, its value is its
        /// own caller's only, and the others start anew. See [`LockOptions::max_hold`](crate::LockOptions::max_hold).
        max_hold(cap: Duration);
        process_scope;
    }

    /// How long this caller waits for the lock, if it calls, or for the value, if another does; then it is answered
    /// [`LockError::Timeout`], and the others wait on. The builder's `wait` if not set. It counts from the first poll,
    /// and does not bound this caller's own call.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Waits without end.
    pub fn wait_forever(self) -> Self {
        self.wait(Duration::MAX)
    }
}

debug_of!(SingleflightRequest [F] ['_, F], |it| request: it.request);

impl<'a, F, Fut> IntoFuture for SingleflightRequest<'a, F>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output: Clone + Send + Sync + 'static>,
{
    type Output = Result<Fut::Output, LockError>;
    type IntoFuture = SingleflightFuture<'a, F, Fut>;

    fn into_future(self) -> Self::IntoFuture {
        SingleflightFuture { stage: Stage::New { request: Some(self) } }
    }
}

pin_project! {
    /// The future of a [`SingleflightRequest`]. It asks when it is first polled.
    ///
    /// # Cancel safety
    /// Dropped while calling, the lock is released and the next caller calls; dropped while waiting, nothing is left.
    #[must_use = "futures do nothing unless polled"]
    pub struct SingleflightFuture<'a, F, Fut: Future> {
        #[pin]
        stage: Stage<'a, F, Fut>,
    }
}

pin_project! {
    // While `Leading`, the call stands before the turn, and so is dropped before the next caller gets it.
    #[project = Staged]
    enum Stage<'a, F, Fut: Future> {
        New { request: Option<SingleflightRequest<'a, F>> },
        Following { request: Option<SingleflightRequest<'a, F>>, follower: Option<Follower<'a, Fut::Output>> },
        Leading {
            #[pin]
            work: UnderLock<'a, Call<F, Fut::Output>, Calling<F, Fut>>,
            lead: Lead<Fut::Output>,
            follower: Follower<'a, Fut::Output>,
        },
        Answered,
    }
}

impl<F, Fut> Future for SingleflightFuture<'_, F, Fut>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output: Clone + Send + Sync + 'static>,
{
    type Output = Result<Fut::Output, LockError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut stage = self.project().stage;
        if matches!(*stage, Stage::New { .. }) {
            stage.as_mut().join()?;
        }
        if matches!(*stage, Stage::Following { .. })
            && let Some(value) = ready!(stage.as_mut().poll_turn(cx))?
        {
            return Poll::Ready(Ok(value));
        }
        stage.poll_call(cx)
    }
}

impl<'a, F, Fut> Stage<'a, F, Fut>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output: Clone + Send + Sync + 'static>,
{
    /// Takes a seat in the flight, and begins the call if nobody else has the turn.
    fn join(mut self: Pin<&mut Self>) -> Result<(), LockError> {
        let Staged::New { request } = self.as_mut().project() else { unreachable!("only a new request joins") };
        let request = request.take().expect("it is begun once");
        let mut follower = Follower::join(&request.request, request.codec.as_ref(), request.wait)?;
        match follower.take_turn() {
            Some(lead) => {
                let wait = request.wait;
                self.begin_call(request, lead, follower, wait);
            }
            None => self.set(Stage::Following { request: Some(request), follower: Some(follower) }),
        }
        Ok(())
    }

    /// Waits for the value or the turn. Answers the value; with the turn, begins the call and answers `None`.
    fn poll_turn(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Option<Fut::Output>, LockError>> {
        let Staged::Following { request, follower } = self.as_mut().project() else {
            unreachable!("only a follower waits for its turn")
        };
        let next = ready!(follower.as_mut().expect("it follows").poll(cx));
        let follower = follower.take().expect("it follows");
        let request = request.take().expect("it follows");
        self.set(Stage::Answered);
        match next? {
            Next::Turn(lead) => {
                // The time that others have already spent in vain on the lock was this caller's wait too.
                let wait = follower.left();
                self.begin_call(request, lead, follower, wait);
                Poll::Ready(Ok(None))
            }
            Next::Value(value) => {
                follower.count(Role::Follower);
                Poll::Ready(Ok(Some(value)))
            }
        }
    }

    /// `wait`: how long this caller still waits for the lock.
    fn begin_call(
        mut self: Pin<&mut Self>,
        request: SingleflightRequest<'a, F>,
        lead: Lead<Fut::Output>,
        follower: Follower<'a, Fut::Output>,
        wait: Duration,
    ) {
        let manager = request.request.manager();
        let across = follower.across(request.codec.as_ref());
        let parting = across.as_ref().map(Across::parting);
        let lock = across::lock_for(request.request.wait(wait), across.as_ref()).into_future();
        let call = lead.call(request.call, across);
        let work = UnderLock::new(manager, Whose::Own(lead.watch()), lock, call, OnLoss::GoOn).leaving(parting);
        self.set(Stage::Leading { work, lead, follower });
    }

    /// Makes the call under the lock, as long as this caller may wait for the two.
    fn poll_call(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Fut::Output, LockError>> {
        let Staged::Leading { work, follower, .. } = self.as_mut().project() else {
            panic!("a request was polled after it was answered");
        };
        let answer = match work.poll(cx) {
            Poll::Ready(ran) => ran.map(|ran| ran.value),
            Poll::Pending => match follower.check(cx) {
                Ok(()) => return Poll::Pending,
                Err(why) => Err(why),
            },
        };
        follower.count_turn();
        self.set(Stage::Answered);
        Poll::Ready(answer)
    }
}

impl<F, Fut: Future> fmt::Debug for SingleflightFuture<'_, F, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.stage {
            Stage::New { .. } => "SingleflightFuture(new)",
            Stage::Following { .. } => "SingleflightFuture(following)",
            Stage::Leading { .. } => "SingleflightFuture(leading)",
            Stage::Answered => "SingleflightFuture(answered)",
        })
    }
}
