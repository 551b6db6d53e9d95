//! The lane of shares: of a key that nobody holds, or that others share, while nobody waits for it.
//!
//! Ordinary is a share on no terms but its TTL, under a token that nobody chose or was told, which nobody watches and nobody
//! listens to, without a store. Of anything else these functions change nothing, and leave it to the full ones, whose work
//! they do. What they make has no terms in its slot, no place but in the short list of its group, and no deadline in the
//! wheel until the next tick ([`unfiled`](super::unfiled)).

use super::acquire::Grant;
use super::group::Group;
use super::history::{AskedBy, End, EndRecord};
use super::hold::Release;
use super::holder::{Asked, Holder};
use super::minted::ToldUnder;
use super::request::AcquireRequest;
use super::slot::{Extras, Scope, Slot};
use super::{Counters, Table};
use crate::clock::Moment;
use crate::mode::{Kind, Mode};

impl Table {
    /// Grants a share to an ordinary request, whose terms do not say that it is one: it is what the request is for.
    /// `None` leaves it to [`acquire`](Table::acquire).
    #[inline]
    pub(crate) fn grant_share(&mut self, request: &AcquireRequest<'_>, now: Moment) -> Option<Grant> {
        self.advance_clock(now);
        if self.slow_path {
            return None;
        }
        let found = self.find(request.hash, request.key);
        if !found.map_or(!self.is_full_of_keys(), |index| self.takes_a_share(index)) {
            return None;
        }
        let ttl = request.terms.ttl;
        let holder = self.new_holder(ttl, self.now.after(ttl), request.grant_state).who_asked_for(Asked::Share);
        let fence = holder.fence();
        let at = match found {
            None => self.begin_group(request, holder),
            Some(index) => self.join(index, holder),
        };
        self.unfiled.note(at);
        self.tally.acquired(Mode::Shared);
        self.tally.joined_group(Kind::ReadWrite);
        Some(Grant { slot: at, fence, proof: Some(fence) })
    }

    /// Whether a key has room for one more share, in the table too, and nobody on it may be over or wait.
    #[inline]
    fn takes_a_share(&self, index: u32) -> bool {
        let slot = &self.slots[index];
        let has_room = match slot.holder.as_ref() {
            Some(first) => first.deadline > self.now && self.members() < self.limits.members,
            None => true,
        };
        let takes = slot.group().is_some_and(|group| group.takes_a_share(self.now));
        has_room && takes && slot.joins().is_none() && slot.queue.len == 0
    }

    /// The first share of a key.
    fn begin_group(&mut self, request: &AcquireRequest<'_>, holder: Holder) -> u32 {
        let mut group = Box::new(Group::new(Kind::ReadWrite, Scope::Everywhere));
        group.used = 1;
        let extras = Extras { group: Some(group), ..Extras::default() };
        self.counters.attempts += 1;
        self.counters.grants += 1;
        self.insert_slot(Slot::of_key(request.key.clone(), request.hash, Some(holder), Some(Box::new(extras))))
    }

    /// One more share of a key; answers its slot: the key's own where that has no holder, else a member's.
    #[inline]
    fn join(&mut self, index: u32, holder: Holder) -> u32 {
        let deadline = holder.deadline;
        self.count(index, |c| {
            c.attempts += 1;
            c.grants += 1;
        });
        let slot = &mut self.slots[index];
        if slot.holder.is_none() {
            slot.holder = Some(holder);
            slot.group_mut().into_iter().for_each(|group| group.used += 1);
            self.headless -= 1;
            self.tally.has_a_head_or_none(Kind::ReadWrite);
            return index;
        }
        let member = slot.of_member(index, holder, None);
        let at = self.slots.insert(member);
        let group = self.slots[index].group_mut().expect("who joins has looked at it");
        group.used += 1;
        group.insert_recent(at, deadline);
        at
    }

    /// Ends an ordinary share of a key that nobody waits for. `None` leaves it to [`release`](Table::release).
    #[inline]
    pub(crate) fn release_share(&mut self, grant: &Grant, end: End, now: Moment) -> Option<Release> {
        self.advance_clock(now);
        let slot = self.slots.get(grant.slot)?;
        let holder = slot.holder.as_ref().filter(|holder| holder.fence() == grant.fence)?;
        let is_unknown = holder.told == ToldUnder::NOBODY && holder.grant_state.forgets(end);
        if !slot.is_ordinary_share() || !is_unknown || self.slow_path || holder.deadline <= self.now {
            return None;
        }
        let (granted_at, deadline, key_hash) = (holder.granted_at, holder.deadline, slot.hash);
        let is_filed = slot.expiry.is_filed();
        let index = slot.member_of().unwrap_or(grant.slot);
        let key = &self.slots[index];
        let others = key.group().filter(|group| group.is_open_to_shares())?.used - 1;
        if key.queue.len > 0 || key.joins().is_some() {
            return None;
        }
        let held = self.now.nanos_since(granted_at);
        let fence = grant.fence;
        let record = EndRecord { key_hash, end, fence, proof: Some(fence), granted_at, ended_at: self.now };
        self.history.push(record, AskedBy::Nobody, None);
        self.count(index, |c: &mut Counters| c.end(end, held));
        self.tally.held_for(held);
        self.tally.left_group(Kind::ReadWrite);
        if is_filed {
            self.expiries.remove(&mut self.slots, grant.slot);
        }
        self.leave(grant, index, (deadline, others));
        Some(Release::Released)
    }

    /// Takes a share out of its slot, and with the last of them the key out of the table.
    #[inline]
    fn leave(&mut self, grant: &Grant, index: u32, (deadline, others): (Moment, u64)) {
        let is_first = grant.slot == index;
        if !is_first {
            let group = self.slots[index].group_mut().expect("a member has its group");
            group.used = others;
            group.remove(None, grant.slot, deadline, None);
            self.slots.remove(grant.slot);
        } else if others > 0 {
            let slot = &mut self.slots[index];
            slot.holder = None;
            slot.group_mut().into_iter().for_each(|group| group.used = others);
            self.headless += 1;
            self.tally.lost_its_head(Kind::ReadWrite);
        }
        if others == 0 {
            if !is_first {
                self.headless -= 1;
                self.tally.has_a_head_or_none(Kind::ReadWrite);
            }
            self.remove_slot(index);
        }
    }
}
