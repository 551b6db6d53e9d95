//! What the callers of one shared call have in common: whose turn it is to call, and the value.
//!
//! | the flight is | `turns`                        | `value` | a caller                                        |
//! |---------------|--------------------------------|---------|-------------------------------------------------|
//! | new, or left  | one to be had                  | none    | takes the turn and calls                        |
//! | led           | none, until the [`Lead`] drops | none    | waits for a turn, or the end                    |
//! | landed        | closed                         | there   | takes a clone, if it asked in time; else as one that was given up |
//! | given up      | closed                         | none    | joins another flight: the call lost its lock    |
//!
//! It lands under the lock, so no value is shared that is older than what another has written under the next lock. One that
//! another process left is for those who had asked by then (`across`).

use std::any::{Any, TypeId};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pin_project_lite::pin_project;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::SharedCell;
use super::across::{Across, Told};
use crate::clock::Moment;
use crate::deadlock::follow::Turn;
use crate::error::Loss;
use crate::key::Key;
use crate::lock::Held;
use crate::run::Callback;
use crate::shard::loss::LossSignal;
use crate::table::Owner;

#[derive(Debug)]
pub(super) struct Flight<V> {
    turns: Semaphore,
    landed: OnceLock<Landed<V>>,
    /// The same turn, as the deadlock check sees it.
    turn: Arc<Turn>,
}

#[derive(Debug)]
struct Landed<V> {
    value: V,
    source: Source,
}

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// A call of this process.
    Here,
    /// Another process, for those who had asked by this moment.
    Elsewhere(Moment),
}

impl Source {
    /// Whether the value is for a caller that has asked since then.
    pub(super) fn is_for(self, since: Moment) -> bool {
        match self {
            Self::Here => true,
            Self::Elsewhere(asked_by) => since <= asked_by,
        }
    }
}

/// What waiting for a turn came to.
pub(super) enum Landing<V> {
    Turn(Lead<V>),
    Value(V),
    GivenUp,
}

impl<V> Flight<V> {
    pub(super) fn new() -> Self {
        Self { turns: Semaphore::new(1), landed: OnceLock::new(), turn: Arc::new(Turn::default()) }
    }

    /// Whether later callers start their own.
    pub(super) fn is_over(&self) -> bool {
        self.turns.is_closed()
    }

    pub(super) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// Shares the value, unless the flight was given up.
    fn land(&self, value: &V, source: Source)
    where
        V: Clone,
    {
        if !self.is_over() {
            // One at a time leads, and lands once.
            let _ = self.landed.set(Landed { value: value.clone(), source });
            self.turns.close();
        }
    }

    /// Where its value comes from, once it has landed.
    pub(super) fn source(&self) -> Option<Source> {
        self.landed.get().map(|landed| landed.source)
    }

    /// The turn, if nobody has it.
    pub(super) fn try_lead(self: &Arc<Self>) -> Option<Lead<V>> {
        self.turns.try_acquire().ok()?.forget();
        Some(Lead(Arc::clone(self)))
    }

    /// Waits for the turn or the end, for a caller that has asked since then.
    pub(super) async fn landing(self: Arc<Self>, since: Moment) -> Landing<V>
    where
        V: Clone,
    {
        let turn = self.turns.acquire().await.map(SemaphorePermit::forget);
        if turn.is_ok() {
            return Landing::Turn(Lead(self));
        }
        let landed = self.landed.get().filter(|landed| landed.source.is_for(since));
        landed.map_or(Landing::GivenUp, |landed| Landing::Value(landed.value.clone()))
    }
}

/// The turn to make the call. Dropped before the flight is over, the next caller gets it.
#[derive(Debug)]
pub(super) struct Lead<V>(Arc<Flight<V>>);

impl<V> Lead<V> {
    /// The call is this owner's.
    pub(super) fn begin(&self, owner: &Arc<Owner>) {
        self.0.turn.begin(owner);
    }

    /// `across`: what it takes to share the value with other processes, if it is to be.
    pub(super) fn call<F>(&self, call: F, across: Option<Across<V>>) -> Call<F, V> {
        Call { call, flight: Arc::clone(&self.0), across }
    }
}

impl<V> Drop for Lead<V> {
    fn drop(&mut self) {
        self.0.turn.end();
        self.0.turns.add_permits(1);
    }
}

/// A call whose value lands its flight.
pub(super) struct Call<F, V> {
    call: F,
    flight: Arc<Flight<V>>,
    across: Option<Across<V>>,
}

impl<F, Fut> Callback for Call<F, Fut::Output>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output: Clone + Send + Sync + 'static>,
{
    type Work = Calling<F, Fut>;

    fn begin(self, held: Held) -> Calling<F, Fut> {
        let Self { call, flight, across } = self;
        let lost = give_up_on_loss(Arc::clone(&flight), &held);
        let stage = match across.as_ref().and_then(|across| across.ask(&held)) {
            Some(asking) => Stage::Asking { asking, call: Some(call) },
            None => Stage::Calling { work: call() },
        };
        Calling { stage, flight, across, start: |call| call(), land: Flight::land, _lost: lost }
    }
}

pin_project! {
    /// A call under way.
    pub(super) struct Calling<F, Fut: Future> {
        #[pin]
        stage: Stage<F, Fut>,
        flight: Arc<Flight<Fut::Output>>,
        across: Option<Across<Fut::Output>>,
        // How to call, and how to share a value: this is a future whatever the types are.
        start: fn(F) -> Fut,
        land: fn(&Flight<Fut::Output>, &Fut::Output, Source),
        // Here to be dropped with the call.
        _lost: BoxFuture<'static, Option<Loss>>,
    }
}

pin_project! {
    #[project = Staged]
    enum Stage<F, Fut: Future> {
        // Whether another process has left a value.
        Asking { asking: BoxFuture<'static, Option<Told>>, call: Option<F> },
        Calling { #[pin] work: Fut },
    }
}

impl<F, Fut: Future> Future for Calling<F, Fut> {
    type Output = Fut::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fut::Output> {
        let mut this = self.project();
        if let Staged::Asking { asking, call } = this.stage.as_mut().project() {
            let told = ready!(asking.poll_unpin(cx));
            let call = call.take().expect("it is asked once");
            if let Some((value, asked_by)) = told.and_then(|told| this.across.as_ref()?.read(told)) {
                (this.land)(this.flight, &value, Source::Elsewhere(asked_by));
                return Poll::Ready(value);
            }
            let work = (this.start)(call);
            this.stage.set(Stage::Calling { work });
        }
        let Staged::Calling { work } = this.stage.project() else { unreachable!("it has been asked") };
        let value = ready!(work.poll(cx));
        (this.land)(this.flight, &value, Source::Here);
        if let Some(across) = this.across {
            across.leave(&value);
        }
        Poll::Ready(value)
    }
}

/// Has the loss of the lock end the flight, whether the call is polled or not: its callers go on without it. In force
/// until the answer is dropped.
fn give_up_on_loss<V: Send + Sync + 'static>(flight: Arc<Flight<V>>, held: &Held) -> BoxFuture<'static, Option<Loss>> {
    struct GiveUp<V>(Arc<Flight<V>>, Arc<LossSignal>);

    impl<V: Send + Sync> Wake for GiveUp<V> {
        fn wake(self: Arc<Self>) {
            // A release is no loss: then the flight has landed, or the next caller has its turn.
            if self.1.loss().is_some() {
                self.0.turns.close();
            }
        }
    }

    let signal = held.lost_signal();
    let mut lost = Arc::clone(&signal).wait().boxed();
    let waker = Waker::from(Arc::new(GiveUp(flight, signal)));
    if lost.poll_unpin(&mut Context::from_waker(&waker)).is_ready() {
        waker.wake();
        // It was lost already, and a future that has answered is not to be kept.
        return std::future::pending().boxed();
    }
    lost
}

/// What makes calls share a flight: the key, and the type of the value.
pub(super) type FlightKey = (Key, TypeId);

/// A [`Flight`] of some type of value.
#[derive(Clone, Debug)]
pub(super) struct AnyFlight {
    flight: Arc<dyn Any + Send + Sync>,
    is_over: fn(&dyn Any) -> bool,
}

impl AnyFlight {
    pub(super) fn new<V: Send + Sync + 'static>(flight: Flight<V>) -> Self {
        let is_over = |flight: &dyn Any| flight.downcast_ref::<Flight<V>>().is_none_or(Flight::is_over);
        Self { flight: Arc::new(flight), is_over }
    }

    pub(super) fn of_type<V: Send + Sync + 'static>(&self) -> Arc<Flight<V>> {
        Arc::clone(&self.flight).downcast().expect("the flight's key names the type")
    }
}

impl SharedCell for AnyFlight {
    fn is(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.flight), Arc::as_ptr(&other.flight))
    }

    fn is_over(&self) -> bool {
        (self.is_over)(&*self.flight)
    }
}
