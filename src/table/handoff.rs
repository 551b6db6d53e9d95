//! How a key passes on: the grants that are made, and the waiters that are sent away.

use super::acquire::Grant;
use super::events::EventKind;
use super::group::Group;
use super::holder::{GrantState, Holder};
use super::index::find_from;
use super::queue::Rejection;
use super::request::AcquireRequest;
use super::slot::{Extras, Scope, Slot, Terms};
use super::{Effects, HAND_OFFS, Table, steps};
use crate::clock::Moment;
use crate::error::{AttemptOutcome, Loss};
use crate::key::{FencingToken, Token, Ttl};
use crate::mode::Mode;

impl Table {
    /// Hands a key that has room to the waiters whose turn it is (T2), or takes it out of the table if nobody is left
    /// (T7). The key is never free in between.
    ///
    /// Of many who share it only some are let in at once; a later [`tick`](Table::tick), which this has the actor take
    /// now, goes on. Whoever comes meanwhile queues behind those who wait still.
    #[inline]
    pub(super) fn hand_off(&mut self, index: u32, fx: &mut Effects) {
        let mut left = HAND_OFFS;
        while let Some(next) = self.slots[index].queue.first() {
            if left == 0 && !self.slots[index].is_free() {
                self.postpone_hand_off(index, next, fx);
                break;
            }
            left = left.saturating_sub(1);
            steps::count();
            if self.reject_if_over(index, next, fx) {
                continue;
            }
            if self.closed {
                self.reject_waiter(index, next, Rejection::ShutDown, fx);
                continue;
            }
            let mode = self.waiters[next].terms.mode();
            if !self.slots[index].has_room(mode) {
                break;
            }
            if self.awaits_carrier(index, next) {
                break;
            }
            self.leave_queue(index, next);
            if self.claim.is_stored() && self.waiters[next].terms.needs_claim() {
                if mode != Mode::Exclusive {
                    if self.ride_from_queue(index, next, fx) {
                        continue;
                    }
                    // A claim that the last holder left is no share: it is given up.
                    self.hand_on_claim(index, next, fx);
                    self.claim_for(index, next, fx);
                    continue;
                }
                if !self.hand_on_claim(index, next, fx) {
                    self.claim_for(index, next, fx);
                }
                break;
            }
            self.grant_waiter(index, next, None, fx);
            if mode == Mode::Exclusive {
                // Nobody else has room.
                break;
            }
        }
        let slot = &self.slots[index];
        if slot.queue.len > 0 {
            fx.due(self.first_end(index));
            self.file_first_as_urgent(index);
        } else if slot.is_free() {
            self.settle_claim(index, fx);
            self.remove_slot(index);
        }
    }

    /// Leaves the rest of a hand-off to a later step, if there is more to be done for it.
    #[cold]
    fn postpone_hand_off(&mut self, index: u32, next: u32, fx: &mut Effects) {
        if self.closed || self.slots[index].has_room(self.waiters[next].terms.mode()) {
            self.handing_off.push_back(index);
            fx.due(self.now);
        }
    }

    /// Goes on with a hand-off that an earlier step has left unfinished; `false` if there is none.
    pub(super) fn resume_hand_off(&mut self, fx: &mut Effects) -> bool {
        let Some(index) = self.handing_off.pop_front() else { return false };
        let is_key = |slot: &Slot| slot.member_of().is_none() && !slot.is_free();
        if self.slots.get(index).is_some_and(is_key) {
            self.hand_off(index, fx);
        }
        true
    }

    /// Lets those in who waited behind one that has left the queue, if they go together with who is there.
    pub(super) fn hand_off_if_shared(&mut self, index: u32, fx: &mut Effects) {
        let shared = self.slots[index].group().is_some_and(|group| !group.is_alone());
        if shared || self.slots[index].joins().is_some() {
            self.hand_off(index, fx);
        }
    }

    /// Grants a key to a waiter that has just left its queue. `until`: the deadline, where it does not follow from the
    /// waiter's terms.
    #[inline(always)]
    pub(super) fn grant_waiter(&mut self, index: u32, next: u32, until: Option<Moment>, fx: &mut Effects) {
        let waiter = &mut self.waiters[next];
        let waited = self.now.nanos_since(waiter.queued_at);
        let mode = waiter.terms.mode();
        let (token, terms) = (waiter.kept_token(), Terms { ttl: waiter.terms.ttl, extra: waiter.terms.extra.take() });
        if terms.extra.is_none() {
            // An exclusive lock for nobody in particular: the key is free, and stays where it is.
            let deadline = self.first_deadline(&terms, until);
            let holder = self.new_holder(terms.ttl, deadline, GrantState::Unseen(next));
            let slot = &mut self.slots[index];
            slot.holder = Some(holder);
            if token.is_some() {
                slot.extras_mut().token = token;
            }
            if slot.queue.len == 0 {
                self.expiries.insert(&mut self.slots, index);
            } else {
                self.expiries.insert_urgent(&mut self.slots, index);
            }
            self.grant_to_waiter(next, index, fx);
            if self.slow_path {
                self.granted(index, index, 0, fx);
            }
        } else {
            self.grant_waiter_on_terms(index, next, token, (&terms, until), fx);
        }
        self.count(index, |c| {
            c.attempts += 1;
            c.grants += 1;
            c.handoffs += 1;
            c.wait_nanos = c.wait_nanos.saturating_add(waited);
        });
        self.tally.acquired(mode);
        self.tally.waited_for(AttemptOutcome::Acquired, waited);
    }

    #[inline(never)]
    fn grant_waiter_on_terms(
        &mut self,
        index: u32,
        next: u32,
        token: Option<Token>,
        (terms, until): (&Terms, Option<Moment>),
        fx: &mut Effects,
    ) {
        let until = until.or_else(|| terms.session().map(|session| session.deadline().unwrap_or(self.now)));
        let at = self.place(index, token, terms, GrantState::Unseen(next), until);
        self.grant_to_waiter(next, at, fx);
        // Its own wait is one that the deadlock check knows of.
        self.granted(at, index, 1, fx);
    }

    /// Tells of a grant that was just made, and has the deadlock check look at an owner that goes on waiting for more
    /// than `known` keys: this grant may have closed a cycle.
    #[inline(never)]
    pub(super) fn granted(&mut self, at: u32, index: u32, known: u32, fx: &mut Effects) {
        if let Some(owner) = self.slots[at].owner().filter(|owner| owner.waits() > known) {
            fx.recheck(owner.clone());
        }
        if self.slow_path {
            let (slot, key_slot) = (&self.slots[at], &self.slots[index]);
            let ttl = slot.holder.as_ref().map_or_else(Default::default, |holder| holder.ttl.as_duration());
            let mode = slot.mode(key_slot);
            self.publish(at, EventKind::Granted { mode, ttl }, fx);
            self.wake_for_listeners(at, fx);
        }
    }

    /// Makes a holder, as all but the lane do. Each takes the next fence (T4).
    #[inline]
    pub(super) fn new_holder(&mut self, ttl: Ttl, deadline: Moment, grant_state: GrantState) -> Holder {
        make_holder(&mut self.fence, ttl, self.now, deadline, grant_state)
    }

    /// Takes the next fence of the shard (T4).
    #[inline]
    pub(super) fn next_fence(&mut self) -> FencingToken {
        take_fence(&mut self.fence)
    }

    /// The first deadline of a grant on these terms. `until`: the deadline of the session that it belongs to.
    #[inline]
    fn first_deadline(&self, terms: &Terms, until: Option<Moment>) -> Moment {
        let deadline = until.unwrap_or_else(|| self.now.after(terms.ttl));
        terms.max_hold().map_or(deadline, |cap| deadline.min(self.now.saturating_add(cap)))
    }

    /// Grants a key that is not in the table to a request that needs no care, or answers its slot: the lane's. The key is
    /// looked for and put in by one look at the index.
    #[inline(always)]
    pub(super) fn grant_vacant(&mut self, request: &AcquireRequest<'_>) -> Result<(u32, FencingToken), u32> {
        let (bucket, chained) = self.index.place(&mut self.slots, request.hash);
        let is_key = |index: u32| self.slots[index].is_of(request.hash, request.key);
        if let Some(found) = find_from(&self.slots, chained, is_key) {
            return Err(found);
        }
        let (now, fence) = (self.now, take_fence(&mut self.fence));
        let AcquireRequest { key, hash, grant_state, .. } = *request;
        let ttl = request.terms.ttl;
        let index = self.slots.insert_with(|| {
            let holder = Holder::new(fence, ttl, now, now.after(ttl), grant_state);
            Slot::of_key(key.clone(), hash, Some(holder), None).before(chained)
        });
        self.index.put(bucket, index);
        self.unfiled.note(index);
        self.counters.attempts += 1;
        self.counters.grants += 1;
        Ok((index, fence))
    }

    /// Grants a key that is not in the table, to anybody.
    pub(super) fn grant_vacant_until(&mut self, request: &AcquireRequest<'_>, until: Option<Moment>) -> Grant {
        let deadline = self.first_deadline(request.terms, until);
        let holder = self.new_holder(request.terms.ttl, deadline, request.grant_state);
        let (terms, token) = (request.terms.extra.clone(), request.token);
        let has_extras = terms.is_some() || token.is_some();
        let extras = has_extras.then(|| Box::new(Extras { terms, token, ..Extras::default() }));
        let index = self.insert_slot(Slot::of_key(request.key.clone(), request.hash, Some(holder), extras));
        self.expiries.insert(&mut self.slots, index);
        self.counters.attempts += 1;
        self.counters.grants += 1;
        if request.terms.extra.is_some() {
            self.join_group(index, index, request.terms.mode());
        }
        Grant { slot: index, fence: self.fence, proof: Some(self.fence) }
    }

    /// Puts a grant on a key that is in the table and has room for it; answers the grant's slot: the key's own if
    /// nobody is there, else a member's. `token`: the one to be kept.
    pub(super) fn place(
        &mut self,
        index: u32,
        token: Option<Token>,
        terms: &Terms,
        grant_state: GrantState,
        until: Option<Moment>,
    ) -> u32 {
        let deadline = self.first_deadline(terms, until);
        let holder = self.new_holder(terms.ttl, deadline, grant_state);
        self.place_holder(index, holder, token, terms)
    }

    /// The same for a holder that was made before.
    pub(super) fn place_holder(&mut self, index: u32, holder: Holder, token: Option<Token>, terms: &Terms) -> u32 {
        let deadline = holder.deadline;
        let slot = &mut self.slots[index];
        self.bare -= usize::from(slot.is_bare());
        let at = if slot.holder.is_none() {
            if let Some(group) = slot.group() {
                self.tally.has_a_head_or_none(group.kind);
                self.headless -= 1;
            }
            slot.holder = Some(holder);
            if terms.extra.is_some() || token.is_some() || slot.extras.is_some() {
                let extras = slot.extras_mut();
                (extras.terms, extras.token) = (terms.extra.clone(), token);
            }
            index
        } else {
            let has_extras = terms.extra.is_some() || token.is_some();
            let extras = || Box::new(Extras { terms: terms.extra.clone(), token, ..Extras::default() });
            let member = slot.of_member(index, holder, has_extras.then(extras));
            let at = self.slots.insert(member);
            let group = self.slots[index].group_mut().expect("a key with room has a group");
            group.insert(token, at, deadline, terms.owner().map(|owner| owner.id));
            at
        };
        if terms.extra.is_some() {
            self.join_group(at, index, terms.mode());
        }
        self.expiries.insert(&mut self.slots, at);
        at
    }

    /// Takes a grant's room in the group of its key, and notes it down as its owner's.
    #[cold]
    fn join_group(&mut self, at: u32, index: u32, mode: Mode) {
        self.index_grant(at);
        if mode != Mode::Exclusive {
            self.tally.joined_group(mode.kind());
            let scope = self.slots[at].extra_terms().map_or(Scope::Everywhere, |extra| extra.scope);
            let extras = self.slots[index].extras_mut();
            let group = extras.group.get_or_insert_with(|| Box::new(Group::new(mode.kind(), scope)));
            group.used += u64::from(mode.weight());
        }
    }

    /// Files the first of a key's holders to end among those that somebody waits for.
    #[inline]
    pub(super) fn file_first_as_urgent(&mut self, index: u32) {
        let slot = &self.slots[index];
        let own = slot.holder.as_ref().map_or(Moment::FAR, |holder| holder.deadline);
        let at = match slot.group().and_then(|group| group.first_due()) {
            Some((due, member)) if due < own => member,
            _ => index,
        };
        self.file_as_urgent(at);
    }

    /// Files a holder among those that somebody waits for, if it is to be filed at all.
    pub(super) fn file_as_urgent(&mut self, at: u32) {
        let slot = &self.slots[at];
        if slot.expiry.is_plain() || slot.is_to_be_filed() {
            self.expiries.remove(&mut self.slots, at);
            self.expiries.insert_urgent(&mut self.slots, at);
        }
    }

    /// The moment by which the first of a key's holders ends unless refreshed.
    pub(super) fn first_end(&self, index: u32) -> Moment {
        let slot = &self.slots[index];
        let own = slot.holder.as_ref().map_or(Moment::FAR, |holder| holder.deadline);
        let members = slot.group().and_then(|group| group.first_due()).map_or(Moment::FAR, |(due, _)| due);
        own.min(members)
    }
}

/// A holder with the fence after the `last` one of its shard.
#[inline]
pub(super) fn make_holder(
    last: &mut FencingToken,
    ttl: Ttl,
    now: Moment,
    deadline: Moment,
    grant_state: GrantState,
) -> Holder {
    Holder::new(take_fence(last), ttl, now, deadline, grant_state)
}

/// The one place where fences are made, of the last one.
#[inline]
fn take_fence(last: &mut FencingToken) -> FencingToken {
    *last = last.next();
    *last
}

impl From<Loss> for super::End {
    /// How a grant ended whose session ended so.
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::SessionEnded => Self::SessionEnded,
            _ => Self::Expired,
        }
    }
}
