//! Who waits for a key of this shard, and how it passes to the next of them.
//!
//! What most of those do who wait has no effects but one wake-up, and takes the table's lane for that; everything else
//! goes on as a step like any other, under the same hold of the mutex.

use std::task::Waker;
use std::time::Duration;

use super::waiter_budget::WaiterBudget;
use super::{LONG_WAIT, Locked, Shard, State, is_short};
use crate::clock::Moment;
use crate::key::Ttl;
use crate::sync::MutexGuard;
use crate::table::{
    AcquireOutcome, AcquireRequest, Effects, End, Grant, GrantState, Mode, PassedOn, Release, TokenOrigin, WaitPolicy,
    WaiterId, WaiterPoll,
};
use crate::wakes;

impl State {
    /// Bounds the waiters to what their budget has room for.
    #[inline]
    fn admit_waiters(&mut self, budget: &WaiterBudget) {
        let waiting = self.table.waiting();
        self.table.admit(self.waiter_permits.room(budget, waiting));
    }
}

impl Shard {
    /// Answers a request that queues if it must.
    ///
    /// A long wait is dated by the coarse clock, and made longer by what that may lag. A holder whose deadline passed
    /// within that lag still looks alive; queueing then has the actor end it at once, by the exact time.
    pub(crate) fn queue(
        &self,
        locked: Locked<'_>,
        request: &AcquireRequest<'_>,
        wait: Duration,
        waker: &Waker,
    ) -> AcquireOutcome {
        let Locked { mut state, now, not_free } = locked;
        let (now, wait) = if wait < LONG_WAIT || is_short(request.terms.ttl) || request.origin == TokenOrigin::ByClient
        {
            (self.clock.now(), wait)
        } else {
            (now, wait.saturating_add(self.clock.coarse_lag()))
        };
        let deadline = now.saturating_add(wait);
        if !state.is_forked(now) {
            state.admit_waiters(&self.waiter_budget);
            if let Some((id, due)) = state.table.queue_ordinary(not_free, request, (now, deadline), waker) {
                self.unlock(state, due);
                return AcquireOutcome::Queued(id);
            }
        }
        let policy = WaitPolicy::Until(deadline, Some(waker));
        self.finish(state, |state, fx| {
            if let Err(refused) = self.make_room_to_wait(state, request.terms.mode(), now, fx) {
                return refused;
            }
            state.table.acquire_after(not_free, request, policy, now, fx)
        })
    }

    /// The same for a request of an owner, which has already been refused once. Its effects are the caller's to run.
    pub(crate) fn queue_owned(
        &self,
        request: &AcquireRequest<'_>,
        wait: Duration,
        waker: &Waker,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        let now = self.clock.now();
        let policy = WaitPolicy::Until(now.saturating_add(wait), Some(waker));
        self.with_effects(fx, |state, fx| {
            if let Err(refused) = self.make_room_to_wait(state, request.terms.mode(), now, fx) {
                return refused;
            }
            state.table.acquire(request, policy, now, fx)
        })
    }

    /// Makes room for a request that queues if it must; refuses it in a fork, where nothing would ever end the wait.
    #[inline]
    fn make_room_to_wait(
        &self,
        state: &mut State,
        mode: Mode,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<(), AcquireOutcome> {
        state.refuse_fork(mode, now)?;
        state.make_room(mode, &self.member_budget, now, fx);
        state.admit_waiters(&self.waiter_budget);
        Ok(())
    }

    #[inline]
    pub(crate) fn see_waiter(&self, id: WaiterId, ttl: Ttl, keeper: GrantState, waker: &Waker) -> WaiterPoll {
        let now = if is_short(ttl) { self.clock.now() } else { self.clock.coarse() };
        let mut state = self.state();
        if let Some(grant) = state.table.see_grant(id, keeper, now) {
            return WaiterPoll::Granted(grant);
        }
        self.look_at_waiter(state, id, keeper, waker, now)
    }

    /// Looks at a waiter that has no ordinary grant.
    #[inline(never)]
    fn look_at_waiter(
        &self,
        state: MutexGuard<'_, State>,
        id: WaiterId,
        keeper: GrantState,
        waker: &Waker,
        now: Moment,
    ) -> WaiterPoll {
        self.finish(state, |state, fx| state.table.poll_waiter(id, keeper, waker, now, fx))
    }

    /// Ends a grant that somebody waits for, watches or asks about.
    #[inline(never)]
    pub(super) fn hand_on(&self, state: MutexGuard<'_, State>, grant: &Grant, end: End, coarse: Moment) -> Release {
        let mut state = state;
        state.settle(&self.offer);
        if let Some(PassedOn { waker, due, offered }) = state.table.pass_on(grant, end, coarse, is_short) {
            state.offer(&self.offer, offered.as_ref());
            let waiting = state.table.waiting();
            state.waiter_permits.give_back(&self.waiter_budget, waiting);
            self.unlock(state, due);
            if let Some(waker) = waker {
                wakes::wake_safely(waker);
            }
            return Release::Released;
        }
        if state.when_empty.is_empty()
            && let Some(released) = state.table.release_share(grant, end, coarse)
        {
            let members = state.table.members();
            state.member_permits.give_back(&self.member_budget, members);
            return released;
        }
        self.finish(state, |state, fx| {
            // A hand-off dates the next grant: as exactly as if that had come by the fast path.
            let now = if state.table.next_ttl(grant).is_some_and(is_short) { self.clock.now() } else { coarse };
            state.table.release(grant, end, now, fx)
        })
    }

    /// Ends a step that has no effects, in which somebody has begun to wait for `due`.
    #[inline]
    pub(super) fn unlock(&self, locked: MutexGuard<'_, State>, due: Moment) {
        let mut state = locked;
        let early = due < state.armed;
        if early {
            state.armed = due;
        }
        drop(state);
        if early && let Some(nudge) = self.nudge.get() {
            nudge();
        }
    }
}
