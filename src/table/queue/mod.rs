//! Who waits for a key, and what became of each (T2, T3): every transition of a waiter, but the two that the store makes.
//!
//! A waiter is put in by `enqueue` or `claim_vacant`. It is granted by `grant_to_waiter`, refused or called off by
//! `reject_waiter`, and its answer is taken by `poll_waiter`; nobody else can write its state, which is private to this
//! room. `waiter` has the table of the states, `list` the order of the queue, `lane` the short way of most waiters.

mod lane;
mod list;
mod waiter;

use std::task::Waker;

use super::acquire::{reserve_quota, return_quota};
use super::claim::Attempts;
use super::history::End;
use super::holder::{GrantState, TokenOrigin};
use super::request::{AcquireOutcome, AcquireRequest, WaitPolicy, WaiterPoll};
use super::{Counters, Effects, Grant, MAX_SEATS, Table};
use crate::clock::Moment;
use crate::error::{AttemptOutcome, LockError};
use crate::mode::Mode;
pub(crate) use lane::{Offered, PassedOn};
pub(crate) use list::Queue;
pub(crate) use waiter::{Waiter, WaiterId, WaiterState};

/// Why a wait ends without a grant.
#[derive(Clone, Debug)]
pub(super) enum Rejection {
    /// Its deadline has passed.
    TimedOut,
    /// The session that it belongs to is over: nothing is granted to it any more.
    SessionEnded,
    /// Nothing is granted any more at all.
    ShutDown,
    /// It is part of a deadlock, and the one that is refused.
    Deadlock(LockError),
    /// The store has refused a request that tries once, or has given no answer.
    Denied(LockError),
    /// Its last request has gone: nobody is left to be answered.
    Cancelled,
}

impl Rejection {
    /// The counter for it. `queued`: whether the waiter has stood in the queue; one for which the key was being taken
    /// right away counts as a request that tried.
    fn counter<'c>(&self, queued: bool, c: &'c mut Counters) -> &'c mut u64 {
        match (self, queued) {
            (Self::TimedOut, true) => &mut c.timed_out,
            (Self::TimedOut, false) => &mut c.polls_exhausted,
            (Self::SessionEnded, true) => &mut c.outlived,
            (Self::ShutDown, true) => &mut c.refused_by_shutdown,
            (Self::Deadlock(_), true) => &mut c.deadlocked,
            (Self::Cancelled, true) => &mut c.cancelled,
            (Self::Cancelled, false) => &mut c.cancelled_polls,
            (Self::Denied(LockError::Held), _) => &mut c.busy,
            (Self::SessionEnded | Self::ShutDown | Self::Deadlock(_) | Self::Denied(_), _) => &mut c.rejected,
        }
    }
}

impl Table {
    /// Queues a request behind those who hold the key and wait for it, or refuses it. `until`: the deadline of its
    /// session.
    pub(super) fn enqueue(
        &mut self,
        request: &AcquireRequest<'_>,
        index: u32,
        policy: WaitPolicy<'_>,
        until: Option<Moment>,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        self.slots[index].start_traffic();
        if matches!(policy, WaitPolicy::Poll) {
            return AcquireOutcome::Refused(LockError::Held);
        }
        let mode = request.terms.mode();
        self.hot_keys.hit(request.hash, request.key, self.now);
        let WaitPolicy::Until(deadline, waker) = policy else {
            self.count(index, |c| {
                c.busy += 1;
                c.attempts += 1;
            });
            self.tally.attempt(mode, AttemptOutcome::Busy);
            return AcquireOutcome::Refused(LockError::Held);
        };
        let full =
            self.waiting >= self.limits.waiters || self.slots[index].queue.len as usize >= self.limits.waiters_per_key;
        if full {
            // Waits that are over and not yet ended count against the bounds: have the actor end them now.
            fx.due(self.now);
            return self.reject(Some(index), mode, LockError::QueueFull);
        }
        if let Err(why) = reserve_quota(request.terms) {
            return self.reject(Some(index), mode, why);
        }
        let id = self.add_waiter(request, index, WaiterState::Queued, (deadline, until), waker);
        self.join_queue(index, id.index, request.origin, fx);
        AcquireOutcome::Queued(id)
    }

    /// Makes a waiter, which waits until the first of two moments: its own deadline, and that of its session.
    #[inline(always)]
    pub(super) fn add_waiter(
        &mut self,
        request: &AcquireRequest<'_>,
        index: u32,
        state: WaiterState,
        (deadline, until): (Moment, Option<Moment>),
        waker: Option<&Waker>,
    ) -> WaiterId {
        self.waiter_seq += 1;
        let waiter = Waiter {
            deadline,
            due: deadline.min(until.unwrap_or(Moment::FAR)),
            waker: waker.cloned(),
            ..Waiter::new(request, request.terms.clone(), index, state, self.waiter_seq, self.now)
        };
        WaiterId { index: self.waiters.insert(waiter), seat: 0, seq: self.waiter_seq }
    }

    /// Puts a waiter at the end of its queue, and under its deadline, its session, its token and its permits, by which
    /// it is found there.
    fn join_queue(&mut self, index: u32, id: u32, origin: TokenOrigin, fx: &mut Effects) {
        self.slots[index].queue.push_back(&mut self.waiters, id);
        let waiter = &self.waiters[id];
        let (due, seq, token, mode) = (waiter.due, waiter.seq, waiter.kept_token(), waiter.terms.mode());
        if let Some(session) = waiter.terms.session().cloned() {
            self.index_of(&session).waiters.insert(id);
        }
        if due != Moment::FAR {
            self.timeouts.insert(&mut self.waiters, id);
        }
        if let Some(token) = token.filter(|_| origin == TokenOrigin::ByClient) {
            self.chosen.insert((token, index), id);
        }
        if let Mode::Permits { permits, .. } = mode {
            self.slots[index].extras_mut().wanted.get_or_insert_default().insert(permits, seq, id);
        }
        self.waiting += 1;
        self.tally.queued(mode, self.slots[index].queue.len, self.now);
        fx.due(due);
        fx.due(self.first_end(index));
        if self.slots[index].queue.len == 1 {
            self.file_first_as_urgent(index);
        }
        self.count(index, |c| c.queued += 1);
    }

    /// Takes a queued waiter out of its queue, its timer, the chosen tokens and the index of its owner. Whoever calls
    /// this gives it its next state.
    #[inline]
    pub(super) fn leave_queue(&mut self, index: u32, id: u32) {
        self.slots[index].queue.remove(&mut self.waiters, id);
        self.timeouts.remove(&mut self.waiters, id);
        self.waiting -= 1;
        let waiter = &self.waiters[id];
        self.tally.left_queue(waiter.terms.mode());
        if let Some(token) = waiter.kept_token()
            && self.chosen.get(&(token, index)) == Some(&id)
        {
            self.chosen.remove(&(token, index));
        }
        if waiter.terms.extra.is_some() {
            self.leave_queue_on_terms(index, id);
        }
    }

    #[inline(never)]
    fn leave_queue_on_terms(&mut self, index: u32, id: u32) {
        let (seq, terms) = (self.waiters[id].seq, &self.waiters[id].terms);
        let session = terms.session().map(|session| session.id);
        if let Mode::Permits { permits, .. } = terms.mode()
            && let Some(extras) = self.slots[index].extras.as_mut()
            && let Some(wanted) = extras.wanted.as_mut()
        {
            wanted.remove(permits, seq, id);
            if wanted.is_empty() {
                extras.wanted = None;
            }
        }
        if let Some(session) = session {
            self.remove_from_index(session, |owner_index| &mut owner_index.waiters, id);
        }
    }

    /// `Queued` to `Claiming`: the key is being taken for a waiter that has just left its queue.
    pub(super) fn claim_for(&mut self, index: u32, id: u32, fx: &mut Effects) {
        self.waiters[id].state =
            WaiterState::Claiming { tries: Attempts::Many, queued: true, refused: false, counted: true };
        match self.waiters[id].terms.mode() {
            Mode::Exclusive => self.start_claim(index, id, (Attempts::Many, None), fx),
            _ => self.start_join(index, id, (Attempts::Many, None), fx),
        }
    }

    /// To `Granted`: the waiter's grant holds `slot` now.
    #[inline]
    pub(super) fn grant_to_waiter(&mut self, id: u32, slot: u32, fx: &mut Effects) {
        let waiter = &mut self.waiters[id];
        (waiter.state, waiter.slot) = (WaiterState::Granted, slot);
        waiter.wake_all(fx);
    }

    /// The store has refused the waiter that a key is being taken for, or has given no answer; one that waits goes on.
    pub(super) fn deny_claimant(&mut self, index: u32, id: u32, why: LockError, fx: &mut Effects) {
        let WaiterState::Claiming { tries, queued, ref mut refused, .. } = self.waiters[id].state else { return };
        *refused = true;
        // As without a store, a request is refused while the key is in use in another way; one that waits already goes on.
        if tries == Attempts::One || (matches!(why, LockError::WrongMode(_)) && !queued) {
            self.reject_waiter(index, id, Rejection::Denied(why), fx);
        }
    }

    /// Ends a wait without a grant, from `Queued` or `Claiming`: the one place where that is done. The place in the
    /// queue, or the claim of the key, is given up. Whoever waited behind a queued one is let in by the caller.
    #[inline(never)]
    pub(super) fn reject_waiter(&mut self, index: u32, id: u32, reason: Rejection, fx: &mut Effects) {
        let (queued, counted, is_claiming) = match self.waiters[id].state {
            WaiterState::Claiming { queued, counted, .. } => (queued, counted, true),
            _ => (true, true, false),
        };
        if !is_claiming {
            self.leave_queue(index, id);
        }
        return_quota(&self.waiters[id].terms);
        let why = self.error_of(&reason, index, id);
        let outcome = why.as_ref().map_or(AttemptOutcome::Cancelled, |why| why.outcome());
        // A poller's single try is no attempt of its own.
        if counted || !matches!(reason, Rejection::Denied(LockError::Held)) {
            match reason {
                Rejection::Denied(_) => self.tally.attempt(self.waiters[id].terms.mode(), outcome),
                _ => self.tally_end_of_wait(id, outcome),
            }
            self.count(index, |c| {
                *reason.counter(queued, c) += 1;
                c.attempts += 1;
            });
        }
        if let Some(why) = why {
            self.answer_waiter(id, why, fx);
        }
        match (is_claiming, self.waiters[id].terms.mode()) {
            (false, _) => {}
            (true, Mode::Exclusive) => self.end_claim(index, fx),
            (true, _) => self.end_join(index, id, fx),
        }
    }

    /// Counts the end of a waiter's attempt, before its state is written: one that the key was being taken for may have
    /// waited for nobody.
    fn tally_end_of_wait(&mut self, id: u32, outcome: AttemptOutcome) {
        let waiter = &self.waiters[id];
        self.tally.attempt(waiter.terms.mode(), outcome);
        if waiter.was_behind() {
            self.tally.waited_for(outcome, self.now.nanos_since(waiter.queued_at));
        }
    }

    /// What the requests of a rejected waiter are answered, if there are any left.
    fn error_of(&self, reason: &Rejection, index: u32, id: u32) -> Option<LockError> {
        match reason {
            Rejection::TimedOut => Some(self.reason_at_timeout(index, self.waiters[id].queued_at)),
            Rejection::SessionEnded => Some(LockError::SessionEnded),
            Rejection::ShutDown => Some(LockError::ShuttingDown),
            Rejection::Deadlock(why) | Rejection::Denied(why) => Some(why.clone()),
            Rejection::Cancelled => None,
        }
    }

    /// `Granted` to `Refused`: the grant has ended before anybody saw it (T3). The grant's end is counted, not this.
    pub(super) fn lose_grant(&mut self, id: u32, end: End, fx: &mut Effects) {
        self.answer_waiter(id, LockError::Lost(end.as_loss()), fx);
    }

    /// To `Refused`.
    fn answer_waiter(&mut self, id: u32, why: LockError, fx: &mut Effects) {
        let waiter = &mut self.waiters[id];
        waiter.state = WaiterState::Refused(Box::new(why));
        waiter.wake_all(fx);
    }

    /// Rejects a waiter if its wait is over, or its session.
    #[inline]
    pub(super) fn reject_if_over(&mut self, index: u32, id: u32, fx: &mut Effects) -> bool {
        let waiter = &self.waiters[id];
        let is_over = waiter.deadline <= self.now;
        (is_over || waiter.terms.extra.is_some()) && self.reject_if_wait_or_session_over(index, id, fx)
    }

    /// The same where either may be over; if both are, the session's end is the reason.
    #[inline(never)]
    fn reject_if_wait_or_session_over(&mut self, index: u32, id: u32, fx: &mut Effects) -> bool {
        let waiter = &self.waiters[id];
        let session = waiter.terms.session();
        if session.is_some_and(|session| session.settle(self.now).is_err()) {
            self.reject_waiter(index, id, Rejection::SessionEnded, fx);
        } else if waiter.deadline <= self.now {
            self.reject_waiter(index, id, Rejection::TimedOut, fx);
        } else {
            return false;
        }
        true
    }

    /// The same, and lets those in who waited behind it.
    fn reject_if_over_and_hand_on(&mut self, index: u32, id: u32, fx: &mut Effects) -> bool {
        let is_queued = self.waiters[id].is_queued();
        let is_over = self.reject_if_over(index, id, fx);
        if is_over && is_queued {
            self.hand_off_if_shared(index, fx);
        }
        is_over
    }

    /// A waiter whose time came is rejected, or, if its session lives on, filed again.
    pub(super) fn waiter_is_due(&mut self, id: u32, fx: &mut Effects) {
        if self.reject_if_over_and_hand_on(self.waiters[id].slot, id, fx) {
            return;
        }
        let waiter = &mut self.waiters[id];
        // One whose session has ended meanwhile is looked at again at once.
        let session = waiter.terms.session().map(|session| session.deadline().unwrap_or(self.now));
        waiter.due = waiter.deadline.min(session.unwrap_or(Moment::FAR));
        self.timeouts.insert(&mut self.waiters, id);
    }

    /// Looks at a waiter on behalf of one of its seats, which is given up unless the answer is `Pending`.
    pub(crate) fn poll_waiter(
        &mut self,
        id: WaiterId,
        grant_state: GrantState,
        waker: &Waker,
        now: Moment,
        fx: &mut Effects,
    ) -> WaiterPoll {
        self.advance_clock(now);
        let Some(index) = self.waiter_slot(id) else { return WaiterPoll::Taken };
        // What is over is over, also when the timer is late (C1): both turn the state to `Refused`.
        match self.waiters[id.index].state {
            WaiterState::Granted => drop(self.end_if_over(index, fx)),
            WaiterState::Queued | WaiterState::Claiming { .. } => {
                self.reject_if_over_and_hand_on(index, id.index, fx);
            }
            WaiterState::Refused(_) => {}
        }
        let waiter = &mut self.waiters[id.index];
        match &waiter.state {
            WaiterState::Queued | WaiterState::Claiming { .. } => {
                fx.discard(waiter.set_waker(id.seat, waker));
                WaiterPoll::Pending
            }
            WaiterState::Granted => {
                self.take_answer(id.index, fx);
                let proof = self.proof_in(index);
                let holder = self.slots[index].holder.as_mut().expect("a granted waiter's slot is held by its grant");
                holder.grant_state = grant_state;
                WaiterPoll::Granted(Grant { slot: index, fence: holder.fence(), proof })
            }
            WaiterState::Refused(why) => {
                let why = LockError::clone(why);
                self.leave_seat(id, fx);
                WaiterPoll::Refused(why)
            }
        }
    }

    /// One request takes the grant of a waiter; the others that share it are woken, and find it gone.
    pub(super) fn take_answer(&mut self, id: u32, fx: &mut Effects) {
        self.waiters[id].wake_all(fx);
        self.waiters.remove(id);
    }

    /// Gives up a seat, in whatever state its waiter is (T3): nothing of a dropped future stays behind, and a grant
    /// that nobody will see goes to the next waiter.
    pub(crate) fn cancel(&mut self, id: WaiterId, now: Moment, fx: &mut Effects) {
        self.advance_clock(now);
        let Some(index) = self.waiter_slot(id) else { return };
        if self.waiters[id.index].seats > 1 {
            self.leave_seat(id, fx);
            return;
        }
        if self.waiters[id.index].state == WaiterState::Granted {
            // A grant that nobody sees expires like any other (C1); this turns the state to `Refused`.
            self.end_if_over(index, fx);
        }
        match self.waiters[id.index].state {
            WaiterState::Queued => {
                self.reject_waiter(index, id.index, Rejection::Cancelled, fx);
                self.leave_seat(id, fx);
                self.hand_off_if_shared(index, fx);
            }
            WaiterState::Claiming { .. } => {
                self.reject_waiter(index, id.index, Rejection::Cancelled, fx);
                self.leave_seat(id, fx);
            }
            WaiterState::Granted => {
                self.leave_seat(id, fx);
                if !self.keep_for_owner(index) {
                    self.end(index, End::Dropped, fx);
                }
            }
            WaiterState::Refused(_) => self.leave_seat(id, fx),
        }
    }

    /// Lets a request share a waiter.
    pub(super) fn take_seat(&mut self, id: u32, policy: &WaitPolicy<'_>, found: Option<u32>) -> AcquireOutcome {
        let waker = match policy {
            WaitPolicy::Until(_, waker) => *waker,
            WaitPolicy::Now | WaitPolicy::Poll => None,
        };
        let waiter = &mut self.waiters[id];
        if waiter.seats >= MAX_SEATS {
            let mode = waiter.terms.mode();
            return self.reject(found, mode, LockError::QueueFull);
        }
        let (seat, seq) = (waiter.join(waker), waiter.seq);
        if let WaitPolicy::Until(deadline, _) = policy {
            self.wait_until(id, *deadline);
        }
        AcquireOutcome::Queued(WaiterId { index: id, seat, seq })
    }

    /// Lets a waiter wait as long as that one of its requests which waits longest.
    fn wait_until(&mut self, id: u32, deadline: Moment) {
        let waiter = &mut self.waiters[id];
        if !(waiter.is_queued() || waiter.is_claiming()) || deadline <= waiter.deadline {
            return;
        }
        // One with a session that may end before is looked at then, and filed anew.
        let is_due_at_its_end = waiter.due == waiter.deadline && waiter.terms.session().is_none();
        waiter.deadline = deadline;
        if is_due_at_its_end {
            self.timeouts.remove(&mut self.waiters, id);
            self.waiters[id].due = deadline;
            if deadline != Moment::FAR {
                self.timeouts.insert(&mut self.waiters, id);
            }
        }
    }

    /// Gives up a seat, and with the last one the waiter. It is in no queue any more then.
    fn leave_seat(&mut self, id: WaiterId, fx: &mut Effects) {
        let waiter = &mut self.waiters[id.index];
        fx.discard(waiter.leave(id.seat));
        if waiter.seats == 0 {
            self.waiters.remove(id.index);
        }
    }

    /// Rejects the waiters among `budget` entries from `cursor` on, as the table is closed; answers where to go on.
    pub(crate) fn refuse_waiters(&mut self, cursor: u32, budget: u32, fx: &mut Effects) -> Option<u32> {
        let window = self.waiters.window(cursor, budget);
        let end = window.end;
        for id in window {
            let Some(waiter) = self.waiters.get(id) else { continue };
            if waiter.is_queued() || waiter.is_claiming() {
                self.reject_waiter(waiter.slot, id, Rejection::ShutDown, fx);
            }
        }
        (end < self.waiters.bound()).then_some(end)
    }

    /// The slot of a waiter that is still in the slab.
    pub(super) fn waiter_slot(&self, id: WaiterId) -> Option<u32> {
        self.waiters.get(id.index).filter(|waiter| waiter.seq == id.seq).map(|waiter| waiter.slot)
    }
}
