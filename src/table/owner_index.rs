//! What one session holds and waits for in this shard, so that its end finds all of it without a search.

use std::sync::Arc;

use hashbrown::HashSet;

use super::history::End;
use super::owner::{Owner, OwnerId};
use super::queue::Rejection;
use super::slot::ExtraTerms;
use super::tick::Slice;
use super::{Effects, Grant, Table};
use crate::clock::Moment;

type Ids = HashSet<u32, foldhash::fast::RandomState>;

#[derive(Debug, Default)]
pub(crate) struct OwnerIndex {
    /// The slots of its grants.
    pub(crate) grants: Ids,
    /// Its waiters that are queued.
    pub(crate) waiters: Ids,
}

impl Table {
    pub(super) fn index_of(&mut self, owner: &Arc<Owner>) -> &mut OwnerIndex {
        self.owner_index.entry(owner.id).or_default()
    }

    /// Notes down the grant in a slot as its owner's, if it has one.
    pub(super) fn index_grant(&mut self, at: u32) {
        let Some(owner) = self.slots[at].owner().cloned() else { return };
        owner.add_grant();
        if owner.is_session() {
            self.index_of(&owner).grants.insert(at);
        }
    }

    /// Makes a grant its owner's that was nobody's in particular, on no terms but its TTL. One that has ended, or is on other
    /// terms, stays as it is.
    pub(crate) fn give_owner(&mut self, grant: &Grant, owner: &Arc<Owner>, now: Moment, fx: &mut Effects) {
        if self.live(grant, now, fx).is_none() {
            return;
        }
        let slot = &mut self.slots[grant.slot];
        let is_plain = slot.extra_terms().is_none() && slot.member_of().is_none() && slot.group().is_none();
        if !is_plain || !owner.locks.take() {
            return;
        }
        let terms = ExtraTerms { owner: Some(Arc::clone(owner)), ..ExtraTerms::default() };
        slot.extras_mut().terms = Some(Arc::new(terms));
        self.index_grant(grant.slot);
    }

    /// Forgets the grant that was in a slot on these terms.
    pub(super) fn unindex_grant(&mut self, at: u32, terms: &ExtraTerms) {
        let Some(owner) = terms.owner.as_ref() else { return };
        owner.drop_grant();
        if owner.is_session() {
            self.remove_from_index(owner.id, |owner_index| &mut owner_index.grants, at);
        }
    }

    pub(super) fn remove_from_index(&mut self, owner: OwnerId, of: impl FnOnce(&mut OwnerIndex) -> &mut Ids, id: u32) {
        if let Some(owner_index) = self.owner_index.get_mut(&owner) {
            of(owner_index).remove(&id);
            if owner_index.grants.is_empty() && owner_index.waiters.is_empty() {
                self.owner_index.remove(&owner);
            }
        }
    }

    /// Ends up to `budget` grants and waits of an owner that has ended.
    pub(crate) fn end_owner(&mut self, owner: &Owner, budget: usize, now: Moment, fx: &mut Effects) -> Slice {
        self.advance_clock(now);
        for _ in 0..budget {
            let Some(owner_index) = self.owner_index.get(&owner.id) else { return Slice::Done };
            // The waiters first: a key that it lets go must not come back to it.
            if let Some(&waiter) = owner_index.waiters.iter().next() {
                let index = self.waiters[waiter].slot;
                self.reject_waiter(index, waiter, Rejection::SessionEnded, fx);
                self.hand_off_if_shared(index, fx);
            } else if let Some(&grant) = owner_index.grants.iter().next() {
                let end = owner.deadline().err().map_or(End::SessionEnded, End::from);
                self.end(grant, end, fx);
            }
        }
        Slice::More
    }
}
