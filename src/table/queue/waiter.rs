//! One waiter: what a request left behind when it queued, or when its key began to be taken for it from the store.

use std::task::Waker;

use super::super::claim::Attempts;
use super::super::holder::{GrantState, TokenOrigin};
use super::super::request::AcquireRequest;
use super::super::slab::{NIL, Slab};
use super::super::timer_wheel::{Links, Timed};
use super::super::{Effects, Terms};
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::Token;

/// Names one seat of one waiter. The sequence number tells a waiter from a later one at the same index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WaiterId {
    pub(crate) index: u32,
    pub(crate) seat: u32,
    pub(crate) seq: u64,
}

/// Where a waiter stands (T3: in exactly one of these).
///
/// | state     | in the queue | leaves it by                                              |
/// |-----------|--------------|-----------------------------------------------------------|
/// | `Queued`  | yes          | hand-off -> `Granted`, or with a store `Claiming`; time, shutdown -> `Refused`; drop |
/// | `Claiming`| no           | the store's yes -> `Granted`; its no to a single try, time, shutdown -> `Refused`; drop |
/// | `Granted` | no           | poll (seen); drop (goes to the next); expiry -> `Refused` |
/// | `Refused` | no           | poll or drop                                              |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WaiterState {
    Queued,
    /// The key is being taken for it from the store.
    Claiming {
        tries: Attempts,
        /// Whether it stood in the queue before.
        queued: bool,
        /// Whether the store has refused it, or given no answer: it waits for somebody elsewhere.
        refused: bool,
        /// Whether its end is the end of an attempt; the single tries of a poller are none.
        counted: bool,
    },
    Granted,
    /// Boxed: of all who wait few are refused.
    Refused(Box<LockError>),
}

/// One place in a queue. Several requests share it when they name the same client-chosen token (T11).
#[derive(Debug)]
pub(crate) struct Waiter {
    /// Of the key it waits for; once granted, of its grant.
    pub(crate) slot: u32,
    pub(crate) prev: u32,
    pub(crate) next: u32,
    pub(crate) timeout: Links,
    /// To be kept with its grant; in a box, since most have none.
    pub(super) token: Option<Box<Token>>,
    pub(crate) origin: TokenOrigin,
    /// Whether a client is told of the grant, and its deadline.
    pub(crate) is_for_ticket: bool,
    pub(crate) terms: Terms,
    pub(crate) queued_at: Moment,
    /// The end of its wait.
    pub(crate) deadline: Moment,
    /// When it is to be looked at: at its deadline, or at its session's if that may come first.
    pub(crate) due: Moment,
    pub(crate) seq: u64,
    /// Written by the transitions of this room alone; read by [`Waiter::state`].
    pub(super) state: WaiterState,
    /// Of the first seat.
    pub(crate) waker: Option<Waker>,
    /// Those that joined later, if any ever did.
    pub(crate) joined: Option<Box<Joined>>,
    /// How many seats are still taken.
    pub(crate) seats: u32,
}

/// The requests that share a waiter, but the first: their seat numbers, which rise, and whom to wake.
#[derive(Debug, Default)]
pub(crate) struct Joined(pub(crate) Vec<(u32, Option<Waker>)>);

impl Joined {
    fn find(&mut self, seat: u32) -> Option<(usize, &mut Option<Waker>)> {
        let mut places = self.0.iter_mut().enumerate();
        places.find_map(|(at, (number, place))| (*number == seat).then_some((at, place)))
    }
}

impl Waiter {
    /// A waiter with one seat, which is in no queue yet.
    pub(super) fn new(
        request: &AcquireRequest<'_>,
        terms: Terms,
        slot: u32,
        state: WaiterState,
        seq: u64,
        now: Moment,
    ) -> Self {
        let token = request.token.map(Box::new);
        Self { token, origin: request.origin, ..Self::minted(request, terms, slot, state, seq, now) }
    }

    /// The same for a request without a token.
    #[inline(always)]
    pub(super) fn minted(
        request: &AcquireRequest<'_>,
        terms: Terms,
        slot: u32,
        state: WaiterState,
        seq: u64,
        now: Moment,
    ) -> Self {
        Self {
            slot,
            prev: NIL,
            next: NIL,
            timeout: Links::NEW,
            token: None,
            origin: TokenOrigin::Minted,
            is_for_ticket: request.grant_state == GrantState::Ticket,
            terms,
            queued_at: now,
            deadline: Moment::FAR,
            due: Moment::FAR,
            seq,
            state,
            waker: None,
            joined: None,
            seats: 1,
        }
    }

    /// The token that is to be kept with its grant.
    #[inline]
    pub(crate) fn kept_token(&self) -> Option<Token> {
        self.token.as_deref().copied()
    }

    pub(crate) fn state(&self) -> &WaiterState {
        &self.state
    }

    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.state, WaiterState::Queued)
    }

    pub(crate) fn is_claiming(&self) -> bool {
        matches!(self.state, WaiterState::Claiming { .. })
    }

    /// Forgets its neighbours in its queue, and answers which they were: the one before it, and the one behind.
    #[inline]
    pub(super) fn take_links(&mut self) -> (u32, u32) {
        (std::mem::replace(&mut self.prev, NIL), std::mem::replace(&mut self.next, NIL))
    }

    /// Whether it waits until a moment that is in no wheel.
    pub(crate) fn is_to_be_filed(&self) -> bool {
        (self.is_queued() || self.is_claiming()) && self.due != Moment::FAR && !self.timeout.is_filed()
    }

    /// Whether neither it nor its session is over.
    pub(crate) fn waits_at(&self, now: Moment) -> bool {
        self.deadline > now && self.terms.session().is_none_or(|session| session.settle(now).is_ok())
    }

    /// Whether it had to wait: in the queue, or for the store after a first no.
    pub(crate) fn was_behind(&self) -> bool {
        match self.state {
            WaiterState::Claiming { tries: Attempts::Many, queued, refused, .. } => queued || refused,
            _ => true,
        }
    }

    /// Remembers whom to wake for `seat`; answers the waker that this replaces.
    #[must_use = "wakers are dropped after the mutex"]
    pub(crate) fn set_waker(&mut self, seat: u32, waker: &Waker) -> Option<Waker> {
        let place = match self.joined.as_mut().and_then(|joined| joined.find(seat)) {
            Some((_, place)) => place,
            None => &mut self.waker,
        };
        match place {
            Some(old) if old.will_wake(waker) => None,
            _ => place.replace(waker.clone()),
        }
    }

    /// Takes a further seat.
    pub(crate) fn join(&mut self, waker: Option<&Waker>) -> u32 {
        let Joined(joined) = &mut **self.joined.get_or_insert_default();
        let seat = joined.last().map_or(1, |(number, _)| number + 1);
        joined.push((seat, waker.cloned()));
        self.seats += 1;
        seat
    }

    /// Gives a seat back; answers its waker. The number may be given out again (T9).
    #[must_use = "wakers are dropped after the mutex"]
    pub(crate) fn leave(&mut self, seat: u32) -> Option<Waker> {
        self.seats -= 1;
        let joined = self.joined.as_mut();
        match joined.and_then(|joined| joined.find(seat).map(|(at, _)| at).map(|at| joined.0.remove(at))) {
            Some((_, waker)) => waker,
            None => self.waker.take(),
        }
    }

    /// Wakes everybody who waits in this place.
    pub(crate) fn wake_all(&mut self, fx: &mut Effects) {
        self.waker.take().into_iter().for_each(|waker| fx.wake(waker));
        for (_, waker) in self.joined.iter_mut().flat_map(|joined| &mut joined.0) {
            waker.take().into_iter().for_each(|waker| fx.wake(waker));
        }
    }
}

/// The waiters as entries of the timeout wheel.
impl Timed for Slab<Waiter> {
    fn timed(&mut self, id: u32) -> (Moment, &mut Links) {
        let waiter = &mut self[id];
        (waiter.due, &mut waiter.timeout)
    }
}
