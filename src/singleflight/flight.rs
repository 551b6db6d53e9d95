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
//!
//! Whether the call loses its lock matters to those who wait for it. So the first of them has the loss watched
//! (`loss_watch`); a call that nobody waits for pays nothing for it.

use std::any::{Any, TypeId};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pin_project_lite::pin_project;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::SharedCell;
use super::across::{Across, Told};
use super::loss_watch::LossWatch;
use crate::clock::Moment;
use crate::current_owner::OwnerWatch;
use crate::deadlock::follow::Turn;
use crate::key::Key;
use crate::lock::Held;
use crate::run::Callback;
use crate::table::Owner;

#[derive(Debug)]
pub(super) struct Flight<V> {
    turns: Semaphore,
    landed: OnceLock<Landed<V>>,
    /// The same turn, as the deadlock check sees it: made for the first who has to do with that.
    turn: OnceLock<Arc<Turn>>,
    /// The lock of the call that is under way.
    lock: LossWatch,
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
        Self { turns: Semaphore::new(1), landed: OnceLock::new(), turn: OnceLock::new(), lock: LossWatch::default() }
    }

    /// Whether later callers start their own.
    pub(super) fn is_over(&self) -> bool {
        self.turns.is_closed()
    }

    pub(super) fn turn(&self) -> &Arc<Turn> {
        self.turn.get_or_init(Arc::default)
    }

    /// The callers go on without the call.
    fn give_up(&self) {
        self.turns.close();
    }

    /// Shares the value with those who wait, unless the call has lost its lock: then the flight is given up. Who has
    /// taken a seat and does not wait yet begins anew where nobody waits.
    fn land(&self, value: &V, source: Source)
    where
        V: Clone,
    {
        let is_shared = source != Source::Here || self.lock.is_watched();
        if is_shared && !self.is_over() && self.lock.is_held() {
            // One at a time leads, and lands once.
            let _ = self.landed.set(Landed { value: value.clone(), source });
        }
        self.turns.close();
    }

    /// Where its value comes from, once it has landed.
    pub(super) fn source(&self) -> Option<Source> {
        self.landed.get().map(|landed| landed.source)
    }

    /// See [`AnyFlight::landing`].
    async fn landing(self: Arc<Self>, since: Moment) -> Landing<V>
    where
        V: Clone + Send + Sync + 'static,
    {
        self.lock.watch(|| {
            let flight = Arc::downgrade(&self);
            Arc::new(move || flight.upgrade().iter().for_each(|flight| flight.give_up()))
        });
        let turn = self.turns.acquire().await.map(SemaphorePermit::forget);
        if turn.is_ok() {
            return Landing::Turn(Lead(self));
        }
        let landed = self.landed.get().filter(|landed| landed.source.is_for(since));
        landed.map_or(Landing::GivenUp, |landed| Landing::Value(landed.value.clone()))
    }
}

/// Those who wait for its value wait for the owner that its call becomes.
impl<V: Send + Sync> OwnerWatch for Flight<V> {
    fn becomes(&self, owner: &Arc<Owner>) {
        self.turn().begin(owner);
    }
}

/// The turn to make the call. Dropped before the flight is over, the next caller gets it.
#[derive(Debug)]
pub(super) struct Lead<V>(Arc<Flight<V>>);

impl<V> Lead<V> {
    /// Who is to know when the call becomes an owner.
    pub(super) fn watch(&self) -> Arc<dyn OwnerWatch>
    where
        V: Send + Sync + 'static,
    {
        Arc::clone(&self.0) as Arc<dyn OwnerWatch>
    }

    /// The call is this owner's.
    pub(super) fn begin(&self, owner: &Arc<Owner>) {
        self.0.turn().begin(owner);
    }

    /// `across`: what it takes to share the value with other processes, if it is to be.
    pub(super) fn call<F>(&self, call: F, across: Option<Across<V>>) -> Call<F, V> {
        Call { call, flight: Arc::clone(&self.0), across }
    }
}

impl<V> Drop for Lead<V> {
    fn drop(&mut self) {
        self.0.turn.get().into_iter().for_each(|turn| turn.end());
        if !self.0.is_over() {
            self.0.turns.add_permits(1);
        }
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
        let asking = across.as_ref().and_then(|across| across.ask(&held));
        flight.lock.begin(held);
        let stage = match asking {
            Some(asking) => Stage::Asking { asking, call: Some(call) },
            None => Stage::Calling { work: call() },
        };
        Calling { stage, flight: UnderWay(flight), across, start: |call| call(), land: Flight::land }
    }
}

pin_project! {
    /// A call under way.
    pub(super) struct Calling<F, Fut: Future> {
        #[pin]
        stage: Stage<F, Fut>,
        flight: UnderWay<Fut::Output>,
        across: Option<Across<Fut::Output>>,
        // How to call, and how to share a value: this is a future whatever the types are.
        start: fn(F) -> Fut,
        land: fn(&Flight<Fut::Output>, &Fut::Output, Source),
    }
}

/// A flight whose call is under way; when that ends, its lock is watched no more.
struct UnderWay<V>(Arc<Flight<V>>);

impl<V> Drop for UnderWay<V> {
    fn drop(&mut self) {
        self.0.lock.end();
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
                (this.land)(&this.flight.0, &value, Source::Elsewhere(asked_by));
                return Poll::Ready(value);
            }
            let work = (this.start)(call);
            this.stage.set(Stage::Calling { work });
        }
        let Staged::Calling { work } = this.stage.project() else { unreachable!("it has been asked") };
        let value = ready!(work.poll(cx));
        (this.land)(&this.flight.0, &value, Source::Here);
        if let Some(across) = this.across {
            across.leave(&value);
        }
        Poll::Ready(value)
    }
}

/// Why a flight has the type that is asked for.
const NAMED: &str = "the flight's key names the type";

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

    pub(super) fn of_type<V: Send + Sync + 'static>(&self) -> &Flight<V> {
        self.flight.downcast_ref().expect(NAMED)
    }

    fn shared<V: Send + Sync + 'static>(&self) -> Arc<Flight<V>> {
        Arc::clone(&self.flight).downcast().expect(NAMED)
    }

    /// The turn, if nobody has it.
    pub(super) fn try_lead<V: Send + Sync + 'static>(&self) -> Option<Lead<V>> {
        self.of_type::<V>().turns.try_acquire().ok()?.forget();
        Some(Lead(self.shared()))
    }

    /// Waits for the turn or the end, for a caller that has asked since then.
    pub(super) fn landing<V>(&self, since: Moment) -> BoxFuture<'static, Landing<V>>
    where
        V: Clone + Send + Sync + 'static,
    {
        self.shared::<V>().landing(since).boxed()
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
