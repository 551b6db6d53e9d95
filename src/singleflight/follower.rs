//! One caller of a shared call, until it has the value or the turn to make the call.

use std::any::TypeId;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::across::{self, Across, AnyCodec};
use super::caller_wait::CallerWait;
use super::flight::{AnyFlight, Flight, FlightKey, Landing, Lead, Source};
use super::{Role, Seat};
use crate::deadlock::RegisteredWait;
use crate::deadlock::follow::Following;
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::Key;
use crate::request::LockRequest;
use crate::table::{Mode, Owner};

/// One caller's seat, its own wait, and its place in the register of the deadlock check.
pub(super) struct Follower<'a, V> {
    manager: &'a LockManager,
    seat: Seat<FlightKey, AnyFlight>,
    /// `None` while this caller has the turn.
    landing: Option<BoxFuture<'static, Landing<V>>>,
    wait: CallerWait<'a>,
    watch: Option<FollowerWait<'a>>,
}

/// What a caller's wait came to.
pub(super) enum Next<V> {
    Value(V),
    Turn(Lead<V>),
}

/// A caller's wait in the register of the deadlock check, where it stands if it is made in an owner's callback: what
/// that owner holds, it keeps at least until the call is over, whoever makes it.
struct FollowerWait<'a> {
    manager: &'a LockManager,
    owner: Arc<Owner>,
    registered: Option<(RegisteredWait<'a>, Arc<Following>)>,
}

impl<V: Clone + Send + Sync + 'static> Follower<'_, V> {
    /// Takes a seat: in a flight of this key and type, or a new one.
    pub(super) fn join<'a>(
        request: &LockRequest<'a>,
        codec: Option<&AnyCodec>,
        wait: Duration,
    ) -> Result<Follower<'a, V>, LockError> {
        let manager = request.manager();
        let key = request.checked_key()?;
        across::check(request, codec).inspect_err(|why| refused(manager, &key, why))?;
        let shard = manager.shard_at(manager.place(&key).0);
        // What another process has left is compared with when this caller asked.
        let wait = match codec {
            None => CallerWait::begin(shard, wait),
            Some(_) => CallerWait::begin_exactly(shard, wait),
        };
        let mut follower = Follower { manager, seat: seat_of::<V>(manager, key), landing: None, wait, watch: None };
        if let Some(owner) = manager.caller() {
            follower.watch = Some(FollowerWait { manager, owner, registered: None });
        }
        follower.register_wait()?;
        Ok(follower)
    }

    /// Takes the turn, if nobody has it; else begins to wait for it.
    pub(super) fn take_turn(&mut self) -> Option<Lead<V>> {
        if let Some(lead) = self.seat.cell.try_lead() {
            return Some(lead);
        }
        self.landing = Some(self.seat.cell.landing(self.wait.since()));
        None
    }

    fn register_wait(&mut self) -> Result<(), LockError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        watch
            .register_wait(&self.seat.key.0, self.seat.cell.of_type::<V>())
            .inspect_err(|why| refused(self.manager, &self.seat.key.0, why))
    }

    /// Whether the deadlock check lets this caller wait on.
    pub(super) fn check(&self, cx: &Context<'_>) -> Result<(), LockError> {
        match &self.watch {
            None => Ok(()),
            Some(watch) => watch.check(cx).inspect_err(|why| refused(self.manager, &self.seat.key.0, why)),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next<V>, LockError>> {
        loop {
            if self.landing.is_none()
                && let Some(lead) = self.take_turn()
            {
                return Poll::Ready(Ok(Next::Turn(lead)));
            }
            let landed = self.landing.as_mut().map_or(Poll::Pending, |landing| landing.poll_unpin(cx));
            let Poll::Ready(landed) = landed else { break };
            self.landing = None;
            match landed {
                Landing::Value(value) => return Poll::Ready(Ok(Next::Value(value))),
                Landing::Turn(lead) => return Poll::Ready(Ok(Next::Turn(lead))),
                Landing::GivenUp => {
                    self.seat = seat_of::<V>(self.manager, self.seat.key.0.clone());
                    self.register_wait()?;
                }
            }
        }
        self.poll_wait(cx).map(Err)
    }

    /// Answers when this caller may wait no longer.
    pub(super) fn poll_wait(&mut self, cx: &Context<'_>) -> Poll<LockError> {
        if let Err(why) = self.check(cx) {
            return Poll::Ready(why);
        }
        let why = ready!(self.wait.poll(cx));
        refused(self.manager, &self.seat.key.0, &why);
        Poll::Ready(why)
    }

    /// What is left of this caller's wait.
    pub(super) fn left(&self) -> Duration {
        self.wait.left()
    }

    /// A second seat in the same flight, for a call that outlives its callers.
    pub(super) fn another_seat(&self) -> Seat<FlightKey, AnyFlight> {
        self.seat.another()
    }

    /// What it takes to share the value of this caller's call with other processes.
    pub(super) fn across(&self, codec: Option<&AnyCodec>) -> Option<Across<V>> {
        Across::new(codec?, self.manager, self.seat.key.0.clone(), self.wait.since())
    }

    /// Counts this caller, who came to its end.
    pub(super) fn count(&self, role: Role) {
        role.count(self.wait.shard());
    }

    /// The same for one that had the turn: it has not called if the value is another process's.
    pub(super) fn count_turn(&self) {
        let is_here = matches!(self.seat.cell.of_type::<V>().source(), None | Some(Source::Here));
        self.count(if is_here { Role::Leader } else { Role::Follower });
    }
}

/// Counts a caller that its wait or the deadlock check has turned away: it never asked for the lock itself.
fn refused(manager: &LockManager, key: &Key, why: &LockError) {
    manager.count_refused(key, Mode::Exclusive, why);
}

fn seat_of<V: Send + Sync + 'static>(manager: &LockManager, key: Key) -> Seat<FlightKey, AnyFlight> {
    let flights = &manager.flights().values;
    flights.join((key, TypeId::of::<V>()), || AnyFlight::new(Flight::<V>::new())).0
}

impl FollowerWait<'_> {
    fn register_wait<V>(&mut self, key: &Key, flight: &Flight<V>) -> Result<(), LockError> {
        self.registered = None;
        let following = Arc::new(Following::new(Arc::clone(flight.turn())));
        let (manager, place) = (self.manager, self.manager.place(key));
        let wait = manager.detector().follow(manager.shards(), &self.owner, key, place, Arc::clone(&following))?;
        self.registered = Some((wait, following));
        Ok(())
    }

    fn check(&self, cx: &Context<'_>) -> Result<(), LockError> {
        let Some((wait, following)) = &self.registered else { return Ok(()) };
        // Before the look: who refuses it from here on wakes this task.
        following.set_waker(cx.waker());
        wait.check()
    }
}
