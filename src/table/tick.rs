//! What time brings: expiries, the ends of waits, automatic refreshes; and the end of the whole table.
//!
//! All of it in bounded slices, so that no tick keeps the mutex for long.

use super::history::End;
use super::queue::Waiter;
use super::refresh_order::DueAction;
use super::slot::{Refreshes, Slot};
use super::timer_wheel::Step;
use super::{Effects, Grant, RefreshRequest, Table};
use crate::clock::Moment;

/// Whether a slice of work finished the work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slice {
    Done,
    More,
}

impl Table {
    /// Does up to `budget` pieces of what is due: of what somebody waits for, or would lose, three in four as long as
    /// there is any. That goes for refreshes too: one of a lock whose deadline has passed ends it (T6).
    pub(crate) fn tick(&mut self, now: Moment, budget: usize, fx: &mut Effects) -> Slice {
        self.advance_clock(now);
        for piece in 0..budget {
            let its_turn = piece % 4 == 3 && self.end_one(fx);
            if !(its_turn || self.serve_one(piece, fx) || self.end_one(fx)) {
                return Slice::Done;
            }
        }
        Slice::More
    }

    /// Does one piece of what somebody waits for, the kinds in turn; `false` if nothing of it is due.
    fn serve_one(&mut self, piece: usize, fx: &mut Effects) -> bool {
        let kinds = [Self::refresh_one, Self::hand_on_one, Self::time_out_one];
        (0..kinds.len()).any(|at| kinds[(piece + at) % kinds.len()](self, fx))
    }

    fn refresh_one(&mut self, fx: &mut Effects) -> bool {
        let step = self.refreshes.step(&mut Refreshes(&mut self.slots), self.now);
        self.take(step, fx, Self::refresh_by_order)
    }

    fn hand_on_one(&mut self, fx: &mut Effects) -> bool {
        if self.resume_hand_off(fx) {
            return true;
        }
        let step = self.expiries.urgent_step(&mut self.slots, self.now);
        self.take(step, fx, Self::end_due)
    }

    fn time_out_one(&mut self, fx: &mut Effects) -> bool {
        if self.file_wait() {
            return true;
        }
        let step = self.timeouts.step(&mut self.waiters, self.now);
        self.take(step, fx, Self::waiter_is_due)
    }

    /// Does one piece of the end of locks that nobody waits for; `false` if none is due.
    fn end_one(&mut self, fx: &mut Effects) -> bool {
        if self.file_one(fx) {
            return true;
        }
        let step = self.expiries.step(&mut self.slots, self.now);
        self.take(step, fx, Self::end_due) || self.end_idle_one(fx)
    }

    /// Files one of the grants that the lane has made, and has it refreshed if it is to be; `false` if all are filed.
    fn file_one(&mut self, fx: &mut Effects) -> bool {
        let Some(index) = self.unfiled.take() else { return false };
        if self.slots.get(index).is_some_and(Slot::is_to_be_filed) {
            self.expiries.insert(&mut self.slots, index);
        }
        self.begin_kept(index, fx);
        true
    }

    /// Files one of the waits that the lane has begun; `false` if all are filed.
    fn file_wait(&mut self) -> bool {
        let Some(id) = self.unfiled_waits.take() else { return false };
        if self.waiters.get(id).is_some_and(Waiter::is_to_be_filed) {
            self.timeouts.insert(&mut self.waiters, id);
        }
        true
    }

    fn end_due(&mut self, index: u32, fx: &mut Effects) {
        self.end_if_over(index, fx);
    }

    /// Does `due` to the entry that a wheel's step found due; `false` if the wheel had nothing to do.
    fn take(&mut self, step: Step, fx: &mut Effects, due: fn(&mut Self, u32, &mut Effects)) -> bool {
        if let Step::Due(entry) = step {
            due(self, entry, fx);
        }
        step != Step::Idle
    }

    /// Nothing falls due before this moment. `None`: nothing will.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        if !(self.handing_off.is_empty() && self.unfiled.is_empty() && self.unfiled_waits.is_empty()) {
            return Some(self.now);
        }
        let idle = self.idle_keys.as_ref().and_then(|idle| idle.next_end());
        [self.expiries.next(), self.timeouts.next(), self.refreshes.next(), idle].into_iter().flatten().min()
    }

    /// Grants nothing from now on.
    pub(crate) fn close(&mut self) {
        (self.closed, self.slow_path) = (true, true);
    }

    /// Ends the grants among `budget` entries from `cursor` on: they outlived a shutdown's grace.
    pub(crate) fn end_grants(&mut self, cursor: u32, budget: u32, fx: &mut Effects) -> Option<u32> {
        let window = self.slots.window(cursor, budget);
        let end = window.end;
        for index in window {
            if self.slots.get(index).is_some() {
                self.end(index, End::ShutDown, fx);
            }
        }
        (end < self.slots.bound()).then_some(end)
    }

    fn refresh_by_order(&mut self, index: u32, fx: &mut Effects) {
        if self.end_if_over(index, fx) {
            // It came too late, and the store is not asked either.
            return;
        }
        let now = self.now;
        let slot = &mut self.slots[index];
        let Some(holder) = slot.holder.as_ref() else { return };
        let grant = Grant { slot: index, fence: holder.fence(), proof: None };
        let ttl = holder.ttl;
        if holder.deadline >= slot.last_deadline() {
            // No refresh can move it any further.
            self.drop_auto(index);
            return;
        }
        let Some(auto) = slot.extras.as_mut().and_then(|extras| extras.auto.as_mut()) else { return };
        match auto.what {
            DueAction::Refresh => {}
            DueAction::Confirm => return self.confirm_now(grant, fx),
            DueAction::Extend => {
                self.drop_auto(index);
                return self.extend_by_order(grant, ttl, fx);
            }
        }
        let late = now.saturating_since(auto.due) > auto.timeout;
        let (every, is_own) = (auto.every, auto.is_own);
        auto.due = now.saturating_add(every);
        if is_own {
            let due = self.next_refresh(index, every);
            self.slots[index].extras_mut().auto.iter_mut().for_each(|auto| auto.due = due);
        }
        if late {
            self.count(self.key_slot(index), |c| c.refresh_late += 1);
        }
        if self.is_by_store(index) {
            // The deadline moves when the store has answered.
            self.refreshes.insert(&mut Refreshes(&mut self.slots), index);
            self.extend_by_order(grant, ttl, fx);
            return;
        }
        if self.refresh(&grant, RefreshRequest::To(ttl), now, fx).is_ok() {
            self.refreshes.insert(&mut Refreshes(&mut self.slots), index);
        }
    }
}
