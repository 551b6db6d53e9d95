//! Who gets a key: at once, by queueing, by hand-off, or by the token that it already holds.

use std::task::Waker;

use super::ended::End;
use super::expiry::Links;
use super::queue::{Queue, Waiter, WaiterId, WaiterState};
use super::slab::NIL;
use super::slot::{self, Extras, Holder, Keeper, Slot, Terms};
use super::{Effects, MAX_SEATS, Table};
use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::key::{FencingToken, Key, Token};

/// One request, as the table sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) key: &'a Key,
    pub(crate) hash: u32,
    pub(crate) terms: &'a Terms,
    pub(crate) token: Token,
    pub(crate) choice: TokenChoice,
    /// Who will answer for the grant: a guard or a ticket.
    pub(crate) keeper: Keeper,
}

/// Where a request's token comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenChoice {
    /// Freshly minted; nobody can have asked with it before.
    Minted,
    /// Named by the client, maybe for the second time (DESIGN 6).
    ByClient,
}

/// What a request does when the key is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience<'a> {
    /// Nothing, and that ends it.
    Now,
    /// Nothing, and it will come again: not counted as an attempt.
    Poll,
    /// It queues until the deadline.
    Until(Moment, Option<&'a Waker>),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Granted(Grant),
    Queued(WaiterId),
    Refused(LockError),
}

/// What a guard or ticket is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grant {
    pub(crate) slot: u32,
    pub(crate) token: Token,
    pub(crate) fence: FencingToken,
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

/// What a waiter finds when it looks.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Pending,
    Granted(Grant),
    Refused(LockError),
    /// Another seat of the same waiter has already taken the answer.
    Taken,
}

impl Table {
    /// Grants a key that nobody holds; changes nothing otherwise. The lane's whole way in when there is no contention.
    #[inline]
    pub(crate) fn grant_if_free(&mut self, ask: &Ask<'_>, now: Moment) -> Result<Grant, NotFree> {
        self.see(now);
        let special = ask.choice == TokenChoice::ByClient || self.closed || self.slots.len() >= self.limits.keys;
        if special {
            return Err(NotFree::Unasked);
        }
        match self.find(ask.hash, ask.key) {
            Some(index) => Err(NotFree::At(index)),
            None => Ok(self.grant_vacant(ask)),
        }
    }

    /// Answers a request that `grant_if_free` has just turned away, the mutex held ever since.
    pub(crate) fn acquire_after(
        &mut self,
        not_free: NotFree,
        ask: &Ask<'_>,
        patience: Patience<'_>,
        now: Moment,
        fx: &mut Effects,
    ) -> Verdict {
        self.see(now);
        match not_free {
            NotFree::At(index) if !self.expire_if_due(index, fx) => self.contend(ask, index, patience, fx),
            _ => self.acquire(ask, patience, now, fx),
        }
    }

    /// Answers any request. `now` is the exact time, except for one that will queue if the key looks held.
    pub(crate) fn acquire(&mut self, ask: &Ask<'_>, patience: Patience<'_>, now: Moment, fx: &mut Effects) -> Verdict {
        self.see(now);
        if self.closed {
            return self.reject(None, LockError::ShuttingDown);
        }
        let mut found = self.find(ask.hash, ask.key);
        if let Some(index) = found
            && self.expire_if_due(index, fx)
        {
            found = self.find(ask.hash, ask.key);
        }
        if ask.choice == TokenChoice::ByClient
            && let Some(verdict) = self.answer_again(ask, found, &patience, fx)
        {
            return verdict;
        }
        match found {
            None if self.slots.len() >= self.limits.keys => {
                fx.due(self.now);
                self.reject(None, LockError::TooManyKeys)
            }
            None => Verdict::Granted(self.grant_vacant(ask)),
            Some(index) => self.contend(ask, index, patience, fx),
        }
    }

    /// Looks at a waiter on behalf of one of its seats, which is given up unless the answer is `Pending`.
    pub(crate) fn see_waiter(
        &mut self,
        id: WaiterId,
        keeper: Keeper,
        waker: &Waker,
        now: Moment,
        fx: &mut Effects,
    ) -> Seen {
        self.see(now);
        let Some(index) = self.waiter_slot(id) else { return Seen::Taken };
        match self.waiters[id.index].state {
            // A grant that expired before it was seen is lost (T3); this turns the state to `Refused`.
            WaiterState::Granted => drop(self.expire_if_due(index, fx)),
            // So does this: a wait that is over is over, also when the timer is late (C1).
            WaiterState::Queued if self.waiters[id.index].deadline <= self.now => {
                self.leave_queue(index, id.index);
                self.time_out(index, id.index, fx);
            }
            WaiterState::Queued | WaiterState::Refused(_) => {}
        }
        let waiter = &mut self.waiters[id.index];
        match &waiter.state {
            WaiterState::Queued => {
                fx.discard(waiter.set_waker(id.seat, waker));
                Seen::Pending
            }
            WaiterState::Granted => {
                waiter.wake_all(fx);
                self.waiters.remove(id.index);
                let holder = self.slots[index].holder.as_mut().expect("a granted waiter's slot is held by its grant");
                holder.keeper = keeper;
                Seen::Granted(Grant { slot: index, token: holder.token, fence: holder.fence })
            }
            WaiterState::Refused(why) => {
                let why = why.clone();
                self.leave_seat(id, fx);
                Seen::Refused(why)
            }
        }
    }

    /// Gives up a seat, in whatever state its waiter is (T3): nothing of a dropped future stays behind, and a grant
    /// that nobody will see goes to the next waiter.
    pub(crate) fn cancel(&mut self, id: WaiterId, now: Moment, fx: &mut Effects) {
        self.see(now);
        let Some(index) = self.waiter_slot(id) else { return };
        if self.waiters[id.index].seats > 1 {
            self.leave_seat(id, fx);
            return;
        }
        if self.waiters[id.index].state == WaiterState::Granted {
            // A grant that nobody sees expires like any other (C1); this turns the state to `Refused`.
            self.expire_if_due(index, fx);
        }
        match self.waiters[id.index].state {
            WaiterState::Queued => {
                self.leave_queue(index, id.index);
                self.leave_seat(id, fx);
                self.count(index, |c| {
                    c.cancelled += 1;
                    c.attempts += 1;
                });
            }
            WaiterState::Granted => {
                self.leave_seat(id, fx);
                self.end(index, End::Dropped, fx);
            }
            WaiterState::Refused(_) => self.leave_seat(id, fx),
        }
    }

    /// The place of a waiter in its queue, the first being 1, if it still waits. O(queue).
    #[cfg(test)]
    pub(crate) fn position(&self, id: WaiterId) -> Option<usize> {
        let index = self.waiter_slot(id).filter(|_| self.waiters[id.index].state == WaiterState::Queued)?;
        self.slots[index].queue.iter(&self.waiters).position(|(other, _)| other == id.index).map(|at| at + 1)
    }

    /// Hands a freed key to the next waiter whose wait has not run out (T2), or takes it out of the table (T7). The
    /// key is never free in between.
    pub(super) fn hand_off(&mut self, index: u32, fx: &mut Effects) {
        while let Some(next) = self.slots[index].queue.first() {
            self.leave_queue(index, next);
            if self.waiters[next].deadline <= self.now {
                self.time_out(index, next, fx);
                continue;
            }
            if self.closed {
                self.shut_out(index, next, fx);
                continue;
            }
            let waiter = &mut self.waiters[next];
            waiter.state = WaiterState::Granted;
            waiter.wake_all(fx);
            let waited = self.now.nanos_since(waiter.queued_at);
            let (token, terms) = (waiter.token, Terms { ttl: waiter.terms.ttl, extra: waiter.terms.extra.take() });
            let holder = self.holder(token, &terms, Keeper::Unseen(next));
            let extra = terms.extra;
            let deadline = holder.deadline;
            let slot = &mut self.slots[index];
            slot.holder = Some(holder);
            if extra.is_some() || slot.extras.is_some() {
                slot.extras_mut().terms = extra;
            }
            if slot.queue.len > 0 {
                fx.due(deadline);
            }
            self.expiries.insert(&mut self.slots, index);
            self.count(index, |c| {
                c.attempts += 1;
                c.grants += 1;
                c.handoffs += 1;
                c.wait_nanos = c.wait_nanos.saturating_add(waited);
            });
            return;
        }
        self.remove_slot(index);
    }

    /// Tells a waiter, already out of its queue, that its wait ran out.
    pub(super) fn time_out(&mut self, index: u32, waiter: u32, fx: &mut Effects) {
        let waited = self.now.saturating_since(self.waiters[waiter].queued_at);
        self.refuse(waiter, LockError::Timeout { waited }, fx);
        self.count(index, |c| {
            c.timed_out += 1;
            c.attempts += 1;
        });
    }

    /// Tells a waiter, already out of its queue, that nothing is granted any more.
    pub(super) fn shut_out(&mut self, index: u32, waiter: u32, fx: &mut Effects) {
        self.refuse(waiter, LockError::ShuttingDown, fx);
        self.count(index, |c| {
            c.refused_by_shutdown += 1;
            c.attempts += 1;
        });
    }

    /// Leaves word for a waiter that is out of its queue.
    pub(super) fn refuse(&mut self, waiter: u32, why: LockError, fx: &mut Effects) {
        let waiter = &mut self.waiters[waiter];
        waiter.state = WaiterState::Refused(why);
        waiter.wake_all(fx);
    }

    /// Takes a queued waiter out of its queue, its timer and the chosen tokens.
    pub(super) fn leave_queue(&mut self, index: u32, waiter: u32) {
        self.slots[index].queue.remove(&mut self.waiters, waiter);
        self.timeouts.remove(&mut self.waiters, waiter);
        self.waiting -= 1;
        if !self.chosen.is_empty() {
            let token = self.waiters[waiter].token;
            if self.chosen.get(&token) == Some(&waiter) {
                self.chosen.remove(&token);
            }
        }
    }

    /// Makes a grant: the one place where that is done. It takes the next fence (T4), and ends within its claim.
    #[inline]
    pub(super) fn holder(&mut self, token: Token, terms: &Terms, keeper: Keeper) -> Holder {
        self.fence = self.fence.next();
        let (now, ttl) = (self.now, terms.ttl);
        let deadline = slot::deadline(ttl, terms.max_hold(), now, now).min(self.claim.horizon());
        Holder { token, fence: self.fence, deadline, granted_at: now, ttl, refreshes: 0, keeper }
    }

    fn grant_vacant(&mut self, ask: &Ask<'_>) -> Grant {
        let holder = self.holder(ask.token, ask.terms, ask.keeper);
        let extras = ask.terms.extra.clone().map(|terms| Box::new(Extras { terms: Some(terms), ..Extras::default() }));
        let index = self.insert_slot(Slot {
            key: ask.key.clone(),
            holder: Some(holder),
            queue: Queue::EMPTY,
            hash: ask.hash,
            expiry: Links::NEW,
            extras,
        });
        self.expiries.insert(&mut self.slots, index);
        self.counters.attempts += 1;
        self.counters.grants += 1;
        Grant { slot: index, token: ask.token, fence: self.fence }
    }

    /// The key is held: refuse, or queue.
    fn contend(&mut self, ask: &Ask<'_>, index: u32, patience: Patience<'_>, fx: &mut Effects) -> Verdict {
        self.mark_contended(index);
        if matches!(patience, Patience::Poll) {
            return Verdict::Refused(LockError::Held);
        }
        self.hot.hit(ask.hash, ask.key);
        let (deadline, waker) = match patience {
            Patience::Now | Patience::Poll => {
                self.count(index, |c| {
                    c.busy += 1;
                    c.attempts += 1;
                });
                return Verdict::Refused(LockError::Held);
            }
            Patience::Until(deadline, waker) => (deadline, waker),
        };
        let full =
            self.waiting >= self.limits.waiters || self.slots[index].queue.len as usize >= self.limits.waiters_per_key;
        if full {
            // What is over but not yet swept counts against the bounds: have the actor sweep now.
            fx.due(self.now);
            return self.reject(Some(index), LockError::QueueFull);
        }
        self.waiter_seq += 1;
        let id = self.waiters.insert(Waiter {
            slot: index,
            prev: NIL,
            next: NIL,
            timeout: Links::NEW,
            token: ask.token,
            terms: ask.terms.clone(),
            queued_at: self.now,
            deadline,
            seq: self.waiter_seq,
            state: WaiterState::Queued,
            waker: waker.cloned(),
            joined: Vec::new(),
            seats: 1,
        });
        self.slots[index].queue.push_back(&mut self.waiters, id);
        if deadline != Moment::FAR {
            self.timeouts.insert(&mut self.waiters, id);
        }
        if ask.choice == TokenChoice::ByClient {
            self.chosen.insert(ask.token, id);
        }
        self.waiting += 1;
        fx.due(deadline);
        if let Some(holder) = self.slots[index].holder.as_ref() {
            fx.due(holder.deadline);
        }
        self.count(index, |c| c.queued += 1);
        Verdict::Queued(WaiterId { index: id, seat: 0, seq: self.waiter_seq })
    }

    /// Answers a request whose token this key already knows (DESIGN 6): the waiter it queued, the grant it was given,
    /// or the end of that grant. `None`: the token is new here.
    fn answer_again(
        &mut self,
        ask: &Ask<'_>,
        found: Option<u32>,
        patience: &Patience<'_>,
        fx: &mut Effects,
    ) -> Option<Verdict> {
        if let Some(index) = found
            && let Some(holder) = self.slots[index].holder.as_ref().filter(|holder| holder.token == ask.token)
        {
            if self.slots[index].terms(holder) != *ask.terms {
                return Some(self.reject(found, LockError::TokenReused));
            }
            let (old_keeper, grant) = (holder.keeper, Grant { slot: index, token: holder.token, fence: holder.fence });
            match (old_keeper, ask.keeper) {
                // One guard per token and process (T10): a second one would release under the first.
                (Keeper::Guard(_), Keeper::Guard(_)) => return Some(self.reject(found, LockError::TokenReused)),
                (Keeper::Guard(_), _) => return Some(Verdict::Granted(grant)),
                (Keeper::Unseen(waiter), _) => {
                    self.waiters[waiter].wake_all(fx);
                    self.waiters.remove(waiter);
                }
                (Keeper::Ticket, _) => {}
            }
            if let Some(holder) = self.slots[index].holder.as_mut() {
                holder.keeper = ask.keeper;
            }
            return Some(Verdict::Granted(grant));
        }
        if let Some(&queued) = self.chosen.get(&ask.token) {
            let waiter = &mut self.waiters[queued];
            if Some(waiter.slot) != found || waiter.terms != *ask.terms {
                return Some(self.reject(found, LockError::TokenReused));
            }
            let waker = match patience {
                Patience::Until(_, waker) => *waker,
                // It is known to be held by another, and this request will not wait with the first.
                Patience::Now | Patience::Poll => return None,
            };
            if waiter.seats >= MAX_SEATS {
                return Some(self.reject(found, LockError::QueueFull));
            }
            let (seat, seq) = (waiter.join(waker), waiter.seq);
            return Some(Verdict::Queued(WaiterId { index: queued, seat, seq }));
        }
        let end = self.ended.find(ask.token, ask.hash)?;
        Some(self.reject(found, LockError::Lost(end.as_loss())))
    }

    /// What became of a grant that another seat of the same waiter took: the same answer, or `Lost`.
    pub(crate) fn answer_taken(&mut self, ask: &Ask<'_>, now: Moment, fx: &mut Effects) -> Result<Grant, LockError> {
        self.see(now);
        let found = self.find(ask.hash, ask.key);
        let known = match found {
            Some(index) if self.expire_if_due(index, fx) => self.find(ask.hash, ask.key),
            other => other,
        };
        match self.answer_again(ask, known, &Patience::Now, fx) {
            Some(Verdict::Granted(grant)) => Ok(grant),
            Some(Verdict::Refused(why)) => Err(why),
            Some(Verdict::Queued(_)) | None => Err(LockError::Lost(Loss::Unknown)),
        }
    }

    /// Refuses before anything was changed.
    fn reject(&mut self, index: Option<u32>, why: LockError) -> Verdict {
        let add = |c: &mut super::Counters| {
            c.rejected += 1;
            c.attempts += 1;
        };
        match index {
            Some(index) => self.count(index, add),
            None => add(&mut self.counters),
        }
        Verdict::Refused(why)
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
    fn waiter_slot(&self, id: WaiterId) -> Option<u32> {
        self.waiters.get(id.index).filter(|waiter| waiter.seq == id.seq).map(|waiter| waiter.slot)
    }
}
