//! What the callers of one shared call have in common: whose turn it is to call, and the value.
//!
//! | the flight is | `turns`                        | `value` | a caller                                        |
//! |---------------|--------------------------------|---------|-------------------------------------------------|
//! | new, or left  | one to be had                  | none    | takes the turn and calls                        |
//! | led           | none, until the [`Lead`] drops | none    | waits for a turn, or the end                    |
//! | landed        | closed                         | there   | takes a clone                                   |
//! | given up      | closed                         | none    | joins another flight: the call lost its lock    |
//!
//! It lands under the lock, so no value is shared that is older than what another has written under the next lock.

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
    value: OnceLock<V>,
    /// The same turn, as the deadlock check sees it.
    turn: Arc<Turn>,
}

/// What waiting for a turn came to.
pub(super) enum Landing<V> {
    Turn(Lead<V>),
    Value(V),
    GivenUp,
}

impl<V> Flight<V> {
    pub(super) fn new() -> Self {
        Self { turns: Semaphore::new(1), value: OnceLock::new(), turn: Arc::new(Turn::default()) }
    }

    /// Whether later callers start their own.
    pub(super) fn is_over(&self) -> bool {
        self.turns.is_closed()
    }

    pub(super) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// Shares the value, unless the flight was given up.
    fn land(&self, value: &V)
    where
        V: Clone,
    {
        if !self.is_over() {
            // One at a time leads, and lands once.
            let _ = self.value.set(value.clone());
            self.turns.close();
        }
    }

    /// The turn, if nobody has it.
    pub(super) fn try_lead(self: &Arc<Self>) -> Option<Lead<V>> {
        self.turns.try_acquire().ok()?.forget();
        Some(Lead(Arc::clone(self)))
    }

    /// Waits for the turn or the end.
    pub(super) async fn landing(self: Arc<Self>) -> Landing<V>
    where
        V: Clone,
    {
        let turn = self.turns.acquire().await.map(SemaphorePermit::forget);
        if turn.is_ok() {
            return Landing::Turn(Lead(self));
        }
        self.value.get().cloned().map_or(Landing::GivenUp, Landing::Value)
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

    pub(super) fn call<F>(&self, call: F) -> Call<F, V> {
        Call { call, flight: Arc::clone(&self.0) }
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
}

impl<F, Fut> Callback for Call<F, Fut::Output>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output: Clone + Send + Sync + 'static>,
{
    type Work = Calling<Fut>;

    fn begin(self, held: Held) -> Calling<Fut> {
        let Self { call, flight } = self;
        let lost = give_up_on_loss(Arc::clone(&flight), &held);
        Calling { work: call(), flight, land: Flight::land, _lost: lost }
    }
}

pin_project! {
    /// A call under way.
    pub(super) struct Calling<Fut: Future> {
        #[pin]
        work: Fut,
        flight: Arc<Flight<Fut::Output>>,
        // How to share a value: a future of any output is a future.
        land: fn(&Flight<Fut::Output>, &Fut::Output),
        // Here to be dropped with the call.
        _lost: BoxFuture<'static, Option<Loss>>,
    }
}

impl<Fut: Future> Future for Calling<Fut> {
    type Output = Fut::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fut::Output> {
        let this = self.project();
        let value = ready!(this.work.poll(cx));
        (this.land)(this.flight, &value);
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
