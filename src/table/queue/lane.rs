//! The lane of a key that many want: its ordinary holders and waiters, each looked up once.
//!
//! Ordinary is an exclusive lock on no terms but its TTL, under a token of the manager's own making, which nobody watches
//! and nobody listens to, without a store. Of anything else these functions change nothing, and leave it to the full
//! ones, whose work they do: [`pass_on`](Table::pass_on) that of `release` and the hand-off,
//! [`queue_ordinary`](Table::queue_ordinary) that of `enqueue`, [`see_grant`](Table::see_grant) that of `poll_waiter`.

use std::task::Waker;

use super::super::acquire::NotFree;
use super::super::handoff::make_holder;
use super::super::history::{AskedBy, End, EndRecord};
use super::super::holder::{GrantState, TokenOrigin};
use super::super::request::AcquireRequest;
use super::super::{Counters, Grant, Table, Terms};
use super::{Waiter, WaiterId, WaiterState};
use crate::clock::Moment;
use crate::error::AttemptOutcome;
use crate::key::{FencingToken, Ttl};
use crate::mode::Mode;

/// What is left to do of a step once the mutex is free.
#[derive(Debug)]
pub(crate) struct PassedOn {
    /// Whom to wake: the new holder.
    pub(crate) waker: Option<Waker>,
    /// When its deadline is, if somebody waits for that.
    pub(crate) due: Moment,
    /// What the new holder may be offered, if a guard is to have it: it asks nobody then.
    pub(crate) offered: Option<Offered>,
}

/// A grant that was made to a waiter of the lane. Until the table is told that it was [seen](Table::note_seen), it is not.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) to: WaiterId,
    pub(crate) slot: u32,
    pub(crate) fence: FencingToken,
    pub(crate) deadline: Moment,
}

impl Table {
    /// Queues an ordinary request behind an ordinary holder; answers also the first moment that it waits for. `None`
    /// leaves it to [`acquire_after`](Table::acquire_after), which says as well why it is refused.
    #[inline]
    pub(crate) fn queue_ordinary(
        &mut self,
        not_free: NotFree,
        request: &AcquireRequest<'_>,
        (now, deadline): (Moment, Moment),
        waker: &Waker,
    ) -> Option<(WaiterId, Moment)> {
        self.advance_clock(now);
        // What is not asked for at once is special, and so is whatever raises the flag.
        let NotFree::At(index) = not_free else { return None };
        let slot = self.slots.get_mut(index)?;
        let end = slot.holder.as_ref()?.deadline;
        let has_place = self.waiting < self.limits.waiters && (slot.queue.len as usize) < self.limits.waiters_per_key;
        let is_ordinary = slot.is_ordinary() && request.terms.extra.is_none() && request.token.is_none();
        if !has_place || !is_ordinary || end <= self.now {
            return None;
        }
        if slot.traffic().is_none() {
            slot.start_traffic();
        }
        slot.traffic_mut().into_iter().for_each(|traffic| traffic.queued += 1);
        self.hot_keys.hit(request.hash, request.key, self.now);
        self.waiter_seq += 1;
        let (seq, now, waker) = (self.waiter_seq, self.now, Some(waker.clone()));
        let id = self.waiters.insert_with(|| {
            let terms = Terms { ttl: request.terms.ttl, extra: None };
            let waits = Waiter::minted(request, terms, index, WaiterState::Queued, seq, now);
            Waiter { deadline, due: deadline, waker, ..waits }
        });
        if deadline != Moment::FAR {
            self.unfiled_waits.note(id);
        }
        self.waiting += 1;
        self.counters.queued += 1;
        slot.queue.push_back(&mut self.waiters, id);
        let depth = slot.queue.len;
        if depth == 1 {
            self.file_as_urgent(index);
        }
        self.tally.queued(Mode::Exclusive, depth, self.now);
        Some((WaiterId { index: id, seat: 0, seq: self.waiter_seq }, end.min(deadline)))
    }

    /// Ends an ordinary grant and makes that of the ordinary waiter who is next (T2). `None` leaves it to
    /// [`release`](Table::release), also where nobody waits, or where `is_short` says that the next deadline is not to be
    /// dated by the coarse time that it is now.
    #[inline]
    pub(crate) fn pass_on(
        &mut self,
        grant: &Grant,
        end: End,
        now: Moment,
        is_short: impl FnOnce(Ttl) -> bool,
    ) -> Option<PassedOn> {
        self.advance_clock(now);
        let slot = self.slots.get_mut(grant.slot)?;
        let next = slot.queue.first()?;
        let is_ordinary = slot.is_ordinary() && !self.slow_path;
        let holder = slot.holder.as_mut().filter(|holder| holder.fence() == grant.fence)?;
        if !is_ordinary || !holder.grant_state.forgets(end) || holder.deadline <= self.now {
            return None;
        }
        let waiter = self.waiters.get_mut(next)?;
        let ttl = waiter.terms.ttl;
        let is_ordinary = waiter.terms.extra.is_none() && waiter.kept_token().is_none();
        if !is_ordinary || waiter.deadline <= self.now || is_short(ttl) {
            return None;
        }
        waiter.state = WaiterState::Granted;
        let to = (!waiter.is_for_ticket).then_some(WaiterId { index: next, seat: 0, seq: waiter.seq });
        let (waker, waited) = (waiter.waker.take(), self.now.nanos_since(waiter.queued_at));
        let links = waiter.take_links();
        if waiter.timeout.is_filed() {
            self.timeouts.remove(&mut self.waiters, next);
        }
        slot.queue.unlink(&mut self.waiters, next, links);
        self.waiting -= 1;

        let (granted_at, filed) = (holder.granted_at, holder.deadline);
        let held = self.now.nanos_since(granted_at);
        let (fence, ended_at) = (grant.fence, self.now);
        let record = EndRecord { key_hash: slot.hash, end, fence, proof: Some(fence), granted_at, ended_at };
        self.history.push(record, AskedBy::Nobody, None);

        let deadline = self.now.after(ttl);
        *holder = make_holder(&mut self.fence, ttl, self.now, deadline, GrantState::Unseen(next));
        let fence = holder.fence();
        let is_last = slot.queue.len == 0;
        let add = |c: &mut Counters| {
            c.end(end, held);
            c.attempts += 1;
            c.grants += 1;
            c.handoffs += 1;
            c.wait_nanos = c.wait_nanos.saturating_add(waited);
        };
        if let Some(traffic) = slot.traffic_mut() {
            add(traffic);
        }
        add(&mut self.counters);
        self.tally.left_queue(Mode::Exclusive);
        self.tally.held_for(held);
        self.tally.waited_for(AttemptOutcome::Acquired, waited);
        // Filed under an earlier deadline it comes up early, and is filed anew then. Among those that somebody waits for it
        // stays also when nobody does any more, as after a wait that was given up.
        if deadline < filed {
            self.expiries.update(&mut self.slots, grant.slot);
        }
        let due = if is_last { Moment::FAR } else { deadline };
        Some(PassedOn { waker, due, offered: to.map(|to| Offered { to, slot: grant.slot, fence, deadline }) })
    }

    /// A waiter has taken the grant that holds `slot`, which it was offered.
    #[inline]
    pub(crate) fn note_seen(&mut self, to: WaiterId, slot: u32) {
        if let Some(holder) = self.slots.get_mut(slot).and_then(|slot| slot.holder.as_mut()) {
            holder.grant_state = GrantState::Guard(TokenOrigin::Minted);
        }
        self.waiters.remove(to.index);
    }

    /// Gives a waiter its grant, if it has one that is an ordinary one. `None` leaves it to
    /// [`poll_waiter`](Table::poll_waiter).
    #[inline]
    pub(crate) fn see_grant(&mut self, id: WaiterId, grant_state: GrantState, now: Moment) -> Option<Grant> {
        self.advance_clock(now);
        let waiter = self.waiters.get(id.index).filter(|waiter| waiter.seq == id.seq)?;
        let is_ordinary = waiter.kept_token().is_none() && waiter.state == WaiterState::Granted;
        if !is_ordinary || self.slow_path {
            return None;
        }
        let index = waiter.slot;
        let slot = self.slots.get_mut(index)?;
        if !slot.is_ordinary() {
            return None;
        }
        let holder = slot.holder.as_mut().filter(|holder| holder.deadline > self.now)?;
        holder.grant_state = grant_state;
        let fence = holder.fence();
        self.waiters.remove(id.index);
        Some(Grant { slot: index, fence, proof: Some(fence) })
    }
}
