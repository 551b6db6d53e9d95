//! Every way in which a grant ends, and the one place where it does.

use std::time::Duration;

use super::acquire::return_quota;
use super::events::EventKind;
use super::group::Group;
use super::history::{AskedBy, End, EndRecord};
use super::holder::{GrantState, Holder};
use super::queue::Rejection;
use super::slot::Terms;
use super::tick::Slice;
use super::{Effects, Grant, HOLDERS_AT_ONCE, Release, Table, steps};
use crate::clock::Moment;
use crate::key::{FencingToken, Key, Token};

/// How far a look at the holders of a key has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HoldersCursor {
    /// The shard's last fence when it began.
    newest: Option<FencingToken>,
    /// The last holder seen, by the order of deadlines. One that is refreshed meanwhile comes again.
    after: Option<(Moment, u32)>,
}

impl Table {
    /// Some of the grants that hold the key now and held it at the first call, from `cursor` on; and the cursor of the
    /// next call, if there may be more.
    pub(crate) fn grants_on(
        &mut self,
        key: &Key,
        hash: u32,
        cursor: HoldersCursor,
        now: Moment,
        fx: &mut Effects,
    ) -> (Vec<Grant>, Option<HoldersCursor>) {
        self.advance_clock(now);
        // What was granted since then, to a waiter, is not what the caller meant.
        let newest = cursor.newest.unwrap_or(self.fence);
        let Some(index) = self.find_live(hash, key, fx) else { return (Vec::new(), None) };
        let members = self.slots[index].group().into_iter().flat_map(|group| group.dated_after(cursor.after));
        let members: Vec<(Moment, u32)> = members.take(HOLDERS_AT_ONCE).inspect(|_| steps::count()).collect();
        let first = Some(index).filter(|_| cursor.newest.is_none());
        let grants = first.into_iter().chain(members.iter().map(|(_, member)| *member));
        let grants = grants.filter_map(|at| self.grant_in(at));
        let grants = grants.filter(|grant| grant.fence <= newest && !self.slots[grant.slot].is_pending()).collect();
        let more = members.len() == HOLDERS_AT_ONCE;
        (grants, more.then_some(HoldersCursor { newest: Some(newest), after: members.last().copied() }))
    }

    /// Ends a grant against its holder's will. `AlreadyGone` if it is not the holder any more.
    pub(crate) fn end_grant(&mut self, grant: &Grant, end: End, now: Moment, fx: &mut Effects) -> Release {
        match self.live(grant, now, fx) {
            Some(_) => {
                self.end(grant.slot, end, fx);
                Release::Released
            }
            None => Release::AlreadyGone,
        }
    }

    /// Asks a holder for its lock, and takes that at `at` unless it is released before.
    pub(crate) fn give_notice(&mut self, grant: &Grant, at: Moment, now: Moment, fx: &mut Effects) {
        let Some(deadline) = self.live(grant, now, fx) else { return };
        let extras = self.slots[grant.slot].extras_mut();
        let at = extras.notice.map_or(at, |earlier| earlier.min(at));
        extras.notice = Some(at);
        if let Some(watcher) = extras.watcher.clone() {
            fx.revocation_notice(watcher, at);
        }
        if deadline > at {
            self.set_deadline(grant.slot, at);
            fx.due(at);
        }
    }

    /// When a grant will be taken from its holder, if notice was given.
    pub(crate) fn notice_of(&self, grant: &Grant) -> Option<Moment> {
        self.holder_of(grant)?;
        self.slots[grant.slot].extras.as_ref()?.notice
    }

    /// Ends some of the holders of a key whose deadlines have passed; `More` if there may be others left. Whoever comes
    /// to a key that many share has this done first, step by step, so that no holder past its deadline counts (T1).
    pub(crate) fn expire_some(&mut self, key: &Key, hash: u32, now: Moment, fx: &mut Effects) -> Slice {
        self.advance_clock(now);
        let Some(index) = self.find(hash, key).filter(|index| self.slots[*index].group().is_some()) else {
            return Slice::Done;
        };
        let ended = self.expire_group(index, fx);
        if ended < HOLDERS_AT_ONCE { Slice::Done } else { Slice::More }
    }

    /// The slot of a key, once its holders whose deadlines have passed are ended (C1): all of them, unless they are more
    /// than one step may end.
    pub(super) fn find_live(&mut self, hash: u32, key: &Key, fx: &mut Effects) -> Option<u32> {
        let index = self.find(hash, key)?;
        if self.expire_if_due(index, fx) { self.find(hash, key) } else { Some(index) }
    }

    /// Ends the holders of a key whose deadlines have passed.
    #[inline]
    pub(super) fn expire_if_due(&mut self, index: u32, fx: &mut Effects) -> bool {
        if self.slots[index].group().is_some() {
            return self.expire_group(index, fx) > 0;
        }
        self.end_if_over(index, fx)
    }

    /// Ends holders of a key whose deadlines have passed, the members first; answers how many. What is left over is in
    /// the wheel, and a later step ends it.
    pub(super) fn expire_group(&mut self, index: u32, fx: &mut Effects) -> usize {
        let mut ended = 0;
        for _ in 0..HOLDERS_AT_ONCE {
            let first = self.slots[index].group_mut().and_then(Group::note_first_due);
            let Some((_, member)) = first.filter(|(due, _)| *due <= self.now) else {
                return ended + usize::from(self.end_if_over(index, fx));
            };
            steps::count();
            // One that its session keeps alive is filed under a later deadline now, and comes again when that has passed.
            if self.is_over(member) {
                // As long as there is a group, there is its key.
                let last = self.slots[index].group().is_some_and(|group| group.len() == 1);
                let alone = last && self.slots[index].holder.is_none();
                self.end_over(member, fx);
                ended += 1;
                if alone {
                    return ended;
                }
            }
        }
        // As many as one step may look at: there may be more.
        fx.due(self.now);
        HOLDERS_AT_ONCE
    }

    /// Ends the holder of a slot if its deadline has passed.
    #[inline(always)]
    pub(super) fn end_if_over(&mut self, index: u32, fx: &mut Effects) -> bool {
        let over = self.is_over(index);
        if over {
            self.end_over(index, fx);
        }
        over
    }

    /// Ends a holder whose deadline has passed.
    #[inline(never)]
    fn end_over(&mut self, index: u32, fx: &mut Effects) {
        let slot = &self.slots[index];
        // Whichever came first, however late this is seen: its own deadline, or the moment that notice was given for.
        let notice = slot.extras.as_ref().and_then(|extras| extras.notice);
        let noticed = notice.is_some_and(|at| self.deadline_in(index).is_some_and(|deadline| at <= deadline));
        let session = slot.session().and_then(|session| session.deadline().err());
        let end = match session {
            Some(loss) => End::from(loss),
            None if noticed => End::Forced,
            None => End::Expired,
        };
        self.end(index, end, fx);
    }

    /// Whether a holder's deadline has passed.
    #[inline(always)]
    pub(super) fn is_over(&mut self, index: u32) -> bool {
        let slot = &self.slots[index];
        match slot.holder.as_ref() {
            Some(_) if slot.extra_terms().is_some() => self.is_over_with_session(index),
            Some(holder) => holder.deadline <= self.now,
            None => false,
        }
    }

    /// The same where the holder may be a session's. One whose session lives on is filed under its new deadline.
    fn is_over_with_session(&mut self, index: u32) -> bool {
        let slot = &self.slots[index];
        let Some(holder) = slot.holder.as_ref() else { return false };
        let Some(session) = slot.session() else { return holder.deadline <= self.now };
        let Ok(until) = session.settle(self.now) else { return true };
        let (filed, deadline) = (holder.deadline, slot.within_cap(holder, until));
        if self.is_by_store(index) {
            // The deadline that the store gave counts as well, and moves when the store has answered.
            return filed <= self.now;
        }
        if deadline > filed && filed <= self.now {
            self.set_deadline(index, deadline);
        }
        deadline <= self.now
    }

    /// The one way out: ends the holder of a slot, then hands its key on.
    pub(super) fn end(&mut self, index: u32, end: End, fx: &mut Effects) {
        if let Some(key_slot) = self.take_out(index, end, fx) {
            self.hand_off(key_slot, fx);
        }
    }

    /// Takes the holder out of a slot; answers the slot of its key.
    #[inline(always)]
    fn take_out(&mut self, index: u32, end: End, fx: &mut Effects) -> Option<u32> {
        let holder = self.slots[index].holder.as_ref()?;
        let (fence, grant_state) = (holder.fence(), holder.grant_state);
        let Holder { deadline, granted_at, ttl, .. } = *holder;
        if let GrantState::Claiming(waiter) = grant_state {
            let reason = match end {
                End::ShutDown => Rejection::ShutDown,
                _ => Rejection::SessionEnded,
            };
            self.reject_waiter(index, waiter, reason, fx);
            return None;
        }
        if self.is_by_store(index) {
            self.tally.unclaimed();
            self.release_claim(index, fence, end, fx);
        }
        self.expiries.remove(&mut self.slots, index);
        self.drop_auto(index);
        if let GrantState::Unseen(waiter) = grant_state {
            // A dropped future has taken its waiter along; any other end is its answer (T3).
            if end != End::Dropped {
                self.lose_grant(waiter, end, fx);
            }
        }
        let hash = self.slots[index].hash;
        let ended_at = self.end_of_hold(index);
        let held = ended_at.nanos_since(granted_at);
        if self.slow_path {
            self.publish(index, EventKind::ended(end, Duration::from_nanos(held)), fx);
        }
        let proof = self.proof_in(index);
        let slot = &self.slots[index];
        if slot.extras.is_some() || slot.member_of().is_some() {
            self.end_upgrade_of(index, fx);
        }
        let token = self.known_token(index);
        let slot = &mut self.slots[index];
        slot.holder = None;
        let key_slot = slot.member_of().unwrap_or(index);
        let mut owner = None;
        let mut terms = Terms { ttl, extra: None };
        let mut is_plain = key_slot == index;
        if let Some(extras) = slot.extras.as_mut() {
            is_plain &= extras.terms.is_none() && extras.group.is_none();
            terms.extra = extras.terms.take();
            if let Some(watcher) = extras.forget_holder() {
                fx.ended(watcher, end);
            }
        }
        if !is_plain {
            self.settle_terms(index, key_slot, token, deadline, &terms);
            self.wake_upgrade(key_slot, fx);
            owner = terms.owner_label().cloned();
        }
        let asked_by = match token {
            _ if grant_state.forgets(end) => AskedBy::Nobody,
            None => AskedBy::Guard,
            Some(token) => AskedBy::Anybody(token),
        };
        self.history.push(EndRecord { key_hash: hash, end, fence, proof, granted_at, ended_at }, asked_by, owner);
        self.count(key_slot, |c| c.end(end, held));
        self.tally.held_for(held);
        match end {
            End::Vanished => self.tally.revoked_by_store(),
            End::Revoked => self.tally.revoked_for_deadlock(),
            _ => {}
        }
        Some(key_slot)
    }

    /// Until when a holder that ends now has held: not beyond its deadline, however late that is noticed.
    fn end_of_hold(&self, index: u32) -> Moment {
        let slot = &self.slots[index];
        let Some(holder) = slot.holder.as_ref() else { return self.now };
        let until = match slot.session() {
            None => holder.deadline,
            Some(session) => {
                let until = session.until().unwrap_or(Moment::FAR);
                if self.is_by_store(index) { until.min(holder.deadline) } else { slot.within_cap(holder, until) }
            }
        };
        until.min(self.now).max(holder.granted_at)
    }

    /// Gives back what a grant on these terms took besides its key.
    #[inline(never)]
    fn settle_terms(&mut self, index: u32, key_slot: u32, token: Option<Token>, deadline: Moment, terms: &Terms) {
        return_quota(terms);
        if let Some(extra) = terms.extra.as_deref() {
            self.unindex_grant(index, extra);
        }
        self.leave_group(key_slot, index, token, deadline, terms);
    }

    /// Gives the room of a grant back to the group of its key, if it has one, and the slot of a member back.
    fn leave_group(&mut self, key_slot: u32, at: u32, token: Option<Token>, deadline: Moment, terms: &Terms) {
        let Some(group) = self.slots[key_slot].group_mut() else { return };
        group.used -= u64::from(terms.mode().weight());
        self.tally.left_group(group.kind);
        let kind = group.kind;
        if at != key_slot {
            group.remove(token, at, deadline, terms.owner().map(|owner| owner.id));
        }
        let (members, left) = (group.len(), self.slots[key_slot].holder.is_some());
        if at != key_slot {
            if members == 0 && !left {
                self.headless -= 1;
                self.tally.has_a_head_or_none(kind);
            }
            self.slots.remove(at);
        } else if members > 0 {
            self.headless += 1;
            self.tally.lost_its_head(kind);
        }
        if members == 0 && !left {
            let slot = &mut self.slots[key_slot];
            slot.extras_mut().group = None;
            self.bare += usize::from(slot.is_bare());
        }
    }
}
