//! Who gets a key: at once, again, or by queueing.

use std::sync::Arc;
use std::task::Waker;

use super::blockers::steps;
use super::ended_tokens::End;
use super::mode::Mode;
use super::owner::Owner;
use super::queue::{Waiter, WaiterId, WaiterState};
use super::request::{AcquireOutcome, AcquireRequest, TokenOrigin, WaitPolicy, WaiterPoll};
use super::slab::NIL;
use super::slot::{GrantState, Reentry, Terms};
use super::timer_wheel::Links;
use super::{Counters, Effects, Table};
use crate::clock::Moment;
use crate::error::{AttemptOutcome, LockError};
use crate::key::{FencingToken, Token};

/// What a guard or ticket is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grant {
    pub(crate) slot: u32,
    pub(crate) token: Token,
    /// Names the grant in its shard; in memory mode also what its resource is shown.
    pub(crate) fence: FencingToken,
    /// What the protected resource is shown, if there is such a proof.
    pub(crate) proof: Option<FencingToken>,
}

impl Grant {
    /// Moves the grant out of its guard, whose drop then has nothing to release.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self { slot: NIL, ..*self })
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.slot == NIL
    }
}

/// Why a key was not granted at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFree {
    /// It is in this slot.
    At(u32),
    /// The request, or the table's state, needs more than a look at the key.
    Unasked,
}

/// Why a request cannot be granted at once.
pub(super) enum NotGrantable {
    /// Others hold the key, or wait for it. `until`: the deadline of the session that asks.
    Held {
        index: u32,
        until: Option<Moment>,
    },
    /// The store must be asked.
    Unclaimed {
        until: Option<Moment>,
    },
    Refused(LockError),
}

impl NotGrantable {
    /// Why, for one who does not wait; `held` where it is because of others.
    #[cfg(feature = "http")]
    pub(super) fn refusal(self, held: LockError) -> LockError {
        match self {
            Self::Held { .. } | Self::Unclaimed { .. } => held,
            Self::Refused(why) => why,
        }
    }
}

impl Table {
    /// Grants a key that nobody holds; changes nothing otherwise. The lane's whole way in when there is no contention.
    #[inline]
    pub(crate) fn grant_if_free(&mut self, request: &AcquireRequest<'_>, now: Moment) -> Result<Grant, NotFree> {
        self.advance_clock(now);
        let special = request.origin == TokenOrigin::ByClient || self.slow_path || self.is_full_of_keys();
        if special || request.terms.extra.as_ref().is_some_and(|extra| extra.need_slow_path()) {
            return Err(NotFree::Unasked);
        }
        match self.find(request.hash, request.key) {
            Some(index) => Err(NotFree::At(index)),
            None => Ok(self.grant_vacant(request)),
        }
    }

    /// Answers a request that `grant_if_free` has just turned away, the mutex held ever since.
    pub(crate) fn acquire_after(
        &mut self,
        not_free: NotFree,
        request: &AcquireRequest<'_>,
        policy: WaitPolicy<'_>,
        now: Moment,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        self.advance_clock(now);
        match not_free {
            NotFree::At(index) if self.slots[index].group().is_none() && !self.end_if_over(index, fx) => {
                self.enqueue(request, index, policy, None, fx)
            }
            _ => self.acquire(request, policy, now, fx),
        }
    }

    /// Answers any request. `now` is the exact time, except for one that will queue if the key looks held.
    pub(crate) fn acquire(
        &mut self,
        request: &AcquireRequest<'_>,
        policy: WaitPolicy<'_>,
        now: Moment,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        self.advance_clock(now);
        if self.closed {
            return self.reject(None, request.terms.mode(), LockError::ShuttingDown);
        }
        let found = self.find_live(request.hash, request.key, fx);
        if request.origin == TokenOrigin::ByClient
            && let Some(outcome) = self.answer_repeated(request, found, &policy, fx)
        {
            return outcome;
        }
        match self.open(request, found, fx) {
            Ok(grant) => AcquireOutcome::Granted(grant),
            Err(NotGrantable::Held { index, until }) => self.enqueue(request, index, policy, until, fx),
            Err(NotGrantable::Unclaimed { until }) => self.claim_vacant(request, &policy, until, fx),
            Err(NotGrantable::Refused(why)) => self.reject(found, request.terms.mode(), why),
        }
    }

    /// Answers a request of an owner if it can be granted now; changes nothing otherwise.
    pub(crate) fn grant_now(&mut self, request: &AcquireRequest<'_>, now: Moment, fx: &mut Effects) -> Option<Grant> {
        self.advance_clock(now);
        if self.closed || request.origin == TokenOrigin::ByClient {
            return None;
        }
        let found = self.find_live(request.hash, request.key, fx);
        self.open(request, found, fx).ok()
    }

    /// Grants what can be granted without waiting.
    pub(super) fn open(
        &mut self,
        request: &AcquireRequest<'_>,
        found: Option<u32>,
        fx: &mut Effects,
    ) -> Result<Grant, NotGrantable> {
        let until = request.terms.session().map(|session| session.settle(self.now)).transpose();
        let until = until.map_err(|_| NotGrantable::Refused(LockError::SessionEnded))?;
        let needs_claim = self.claim.is_stored() && request.terms.needs_claim();
        if needs_claim && request.terms.mode() != Mode::Exclusive {
            return Err(NotGrantable::Refused(LockError::WrongMode));
        }
        if let Some(index) = found {
            let (slot, mode) = (&self.slots[index], request.terms.mode());
            if slot.kind() != mode.kind() || (self.claim.is_stored() && slot.is_claimed() != needs_claim) {
                return Err(NotGrantable::Refused(LockError::WrongMode));
            }
            if let Some(owner) = request.terms.owner()
                && let Some(own) = self.own_grant(index, owner, request.terms)
            {
                self.tally.acquired(request.terms.mode());
                return Ok(self.reenter(own, index));
            }
            if slot.queue.len > 0 || !slot.has_room(mode) {
                return Err(NotGrantable::Held { index, until });
            }
        }
        let full = match found {
            None => self.is_full_of_keys().then_some(LockError::TooManyKeys),
            Some(index) => {
                let is_member = self.slots[index].holder.is_some();
                (is_member && self.members() >= self.limits.members).then_some(LockError::TooManyHolders)
            }
        };
        if let Some(why) = full {
            fx.due(self.now);
            return Err(NotGrantable::Refused(why));
        }
        if needs_claim {
            return Err(NotGrantable::Unclaimed { until });
        }
        reserve_quota(request.terms).map_err(NotGrantable::Refused)?;
        let Some(index) = found else {
            let grant = self.grant_vacant_until(request, until);
            self.granted(grant.slot, grant.slot, 0, fx);
            self.tally.acquired(request.terms.mode());
            return Ok(grant);
        };
        let at = self.place(index, request.token, request.terms, request.grant_state, until);
        self.count(index, |c| {
            c.attempts += 1;
            c.grants += 1;
        });
        self.tally.acquired(request.terms.mode());
        self.granted(at, index, 0, fx);
        Ok(Grant { slot: at, token: request.token, fence: self.fence, proof: Some(self.fence) })
    }

    /// The grant of this owner that answers its request again, if the request wants that.
    fn own_grant(&self, index: u32, owner: &Arc<Owner>, terms: &Terms) -> Option<u32> {
        if terms.extra.as_ref()?.reentry == Reentry::Refused {
            return None;
        }
        let is_own = |at: u32| self.slots[at].owner() == Some(owner) && !self.slots[at].is_pending();
        match (self.slots[index].group(), terms.mode()) {
            (None, Mode::Exclusive | Mode::Shared) => is_own(index).then_some(index),
            (Some(group), Mode::Shared) => {
                let members = group.members_of(owner.id).inspect(|_| steps::count());
                std::iter::once(index).chain(members).find(|at| is_own(*at))
            }
            // Of permits one may want more, and a share is no exclusive lock.
            _ => None,
        }
    }

    fn reenter(&mut self, own: u32, index: u32) -> Grant {
        let slot = &mut self.slots[own];
        slot.extras_mut().reentries += 1;
        let holder = slot.holder.as_ref().expect("what an owner has is held");
        let (token, fence) = (holder.token, holder.fence);
        let grant = Grant { slot: own, token, fence, proof: self.proof_in(own) };
        self.count(index, |c| {
            c.attempts += 1;
            c.reentered += 1;
        });
        grant
    }

    /// Whether a grant whose waiter has gone unseen was asked for again by its owner meanwhile: then it is that
    /// request's, and one release less ends it.
    fn keep_for_owner(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index];
        let Some(extras) = slot.extras.as_mut().filter(|extras| extras.reentries > 0) else { return false };
        extras.reentries -= 1;
        if let Some(holder) = slot.holder.as_mut() {
            // The one that remembers its token longest: that other request may have been a guard's or a client's.
            holder.grant_state = GrantState::Guard(TokenOrigin::ByClient);
        }
        true
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
        match self.waiters[id.index].state {
            // A grant that expired before it was seen is lost (T3); this turns the state to `Refused`.
            WaiterState::Granted => drop(self.end_if_over(index, fx)),
            // So does this: a wait that is over is over, also when the timer is late (C1).
            WaiterState::Queued => {
                if self.send_away_if_over(index, id.index, fx) {
                    self.hand_off_if_shared(index, fx);
                }
            }
            WaiterState::Claiming { .. } => drop(self.sweep_waiter(index, id.index, fx)),
            WaiterState::Refused(_) => {}
        }
        let waiter = &mut self.waiters[id.index];
        match &waiter.state {
            WaiterState::Queued | WaiterState::Claiming { .. } => {
                fx.discard(waiter.set_waker(id.seat, waker));
                WaiterPoll::Pending
            }
            WaiterState::Granted => {
                waiter.wake_all(fx);
                self.waiters.remove(id.index);
                let proof = self.proof_in(index);
                let holder = self.slots[index].holder.as_mut().expect("a granted waiter's slot is held by its grant");
                holder.grant_state = grant_state;
                WaiterPoll::Granted(Grant { slot: index, token: holder.token, fence: holder.fence, proof })
            }
            WaiterState::Refused(why) => {
                let why = why.clone();
                self.leave_seat(id, fx);
                WaiterPoll::Refused(why)
            }
        }
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
                self.leave_queue(index, id.index);
                return_quota(&self.waiters[id.index].terms);
                self.tally_wait(id.index, AttemptOutcome::Cancelled);
                self.leave_seat(id, fx);
                self.count(index, |c| {
                    c.cancelled += 1;
                    c.attempts += 1;
                });
                self.hand_off_if_shared(index, fx);
            }
            WaiterState::Claiming { .. } => {
                self.cancel_claimant(index, id.index, fx);
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

    /// The key is held: refuse, or queue.
    fn enqueue(
        &mut self,
        request: &AcquireRequest<'_>,
        index: u32,
        policy: WaitPolicy<'_>,
        until: Option<Moment>,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        self.mark_contended(index);
        if matches!(policy, WaitPolicy::Poll) {
            return AcquireOutcome::Refused(LockError::Held);
        }
        self.hot_keys.hit(request.hash, request.key, self.now);
        let (deadline, waker) = match policy {
            WaitPolicy::Now | WaitPolicy::Poll => {
                self.count(index, |c| {
                    c.busy += 1;
                    c.attempts += 1;
                });
                self.tally.attempt(request.terms.mode(), AttemptOutcome::Busy);
                return AcquireOutcome::Refused(LockError::Held);
            }
            WaitPolicy::Until(deadline, waker) => (deadline, waker),
        };
        let full =
            self.waiting >= self.limits.waiters || self.slots[index].queue.len as usize >= self.limits.waiters_per_key;
        if full {
            // What is over but not yet swept counts against the bounds: have the actor sweep now.
            fx.due(self.now);
            return self.reject(Some(index), request.terms.mode(), LockError::QueueFull);
        }
        if let Err(why) = reserve_quota(request.terms) {
            return self.reject(Some(index), request.terms.mode(), why);
        }
        let due = deadline.min(until.unwrap_or(Moment::FAR));
        self.waiter_seq += 1;
        let id = self.waiters.insert(Waiter {
            slot: index,
            prev: NIL,
            next: NIL,
            timeout: Links::NEW,
            token: request.token,
            terms: request.terms.clone(),
            queued_at: self.now,
            deadline,
            due,
            seq: self.waiter_seq,
            state: WaiterState::Queued,
            waker: waker.cloned(),
            joined: Vec::new(),
            seats: 1,
        });
        self.slots[index].queue.push_back(&mut self.waiters, id);
        if due != Moment::FAR {
            self.timeouts.insert(&mut self.waiters, id);
        }
        if let Some(session) = request.terms.session() {
            self.index_of(session).waiters.insert(id);
        }
        if request.origin == TokenOrigin::ByClient {
            self.chosen.insert((request.token, index), id);
        }
        if let Mode::Permits { permits, .. } = request.terms.mode() {
            let wanted = self.slots[index].extras_mut().wanted.get_or_insert_default();
            wanted.insert(permits, self.waiter_seq, id);
        }
        self.waiting += 1;
        self.tally.queued(request.terms.mode(), self.slots[index].queue.len, self.now);
        fx.due(due);
        fx.due(self.first_end(index));
        if self.slots[index].queue.len == 1 {
            self.file_first_as_urgent(index);
        }
        self.count(index, |c| c.queued += 1);
        AcquireOutcome::Queued(WaiterId { index: id, seat: 0, seq: self.waiter_seq })
    }

    /// Refuses before anything was changed.
    pub(super) fn reject(&mut self, index: Option<u32>, mode: Mode, why: LockError) -> AcquireOutcome {
        self.tally.attempt(mode, why.outcome());
        let add = |c: &mut Counters| {
            c.rejected += 1;
            c.attempts += 1;
        };
        match index {
            Some(index) => self.count(index, add),
            None => add(&mut self.counters),
        }
        AcquireOutcome::Refused(why)
    }

    /// Gives up a seat, and with the last one the waiter. It is in no queue any more then.
    fn leave_seat(&mut self, id: WaiterId, fx: &mut Effects) {
        let waiter = &mut self.waiters[id.index];
        fx.discard(waiter.leave(id.seat));
        if waiter.seats == 0 {
            self.waiters.remove(id.index);
        }
    }

    /// The slot of a waiter that is still in the slab.
    pub(super) fn waiter_slot(&self, id: WaiterId) -> Option<u32> {
        self.waiters.get(id.index).filter(|waiter| waiter.seq == id.seq).map(|waiter| waiter.slot)
    }
}

/// Takes a place of the owner's, and one of the account's, that a grant or waiter will hold (T9).
pub(super) fn reserve_quota(terms: &Terms) -> Result<(), LockError> {
    terms.owner().map_or(Ok(()), |owner| owner.reserve_quota())?;
    if terms.account().is_some_and(|account| !account.take_lock()) {
        if let Some(owner) = terms.owner() {
            owner.return_quota();
        }
        return Err(LockError::LockQuota);
    }
    Ok(())
}

pub(super) fn return_quota(terms: &Terms) {
    if let Some(owner) = terms.owner() {
        owner.return_quota();
    }
    if let Some(account) = terms.account() {
        account.give_lock_back();
    }
}
