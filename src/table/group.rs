//! The holders of a key that several may hold at once.
//!
//! The key's own slot holds the first of them, like any lock; each further one has a slot of its own that the index
//! does not know, a *member*, which names the key's slot. So everything that is done with one grant (refresh, watch,
//! expire) is the same for all kinds of lock; only granting and ending look at the group.
//!
//! It finds its members by deadline, by owner, and by token where that is known. Most shares are let go long before anybody
//! looks for them so: the lane puts them in a short list, which is looked through, and what becomes too old for that is
//! filed.

use std::collections::BTreeSet;
use std::ops::Bound;

use hashbrown::HashMap;

use super::claim::Carriers;
use super::owner::{OwnerId, OwnerSet};
use super::slot::Scope;
use super::upgrade::Company;
use crate::clock::Moment;
use crate::key::Token;
use crate::mode::{Kind, Mode};

/// As many members are looked through.
const RECENT: usize = if cfg!(test) { 2 } else { 16 };

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    /// How far the locks of all reach.
    pub(crate) scope: Scope,
    /// The weights of all holders, the one in the key's own slot included.
    pub(crate) used: u64,
    /// Whether further holders may join.
    pub(super) company: Company,
    /// Shares of the store that several of them hold the key under.
    pub(in crate::table) carriers: Option<Box<Carriers>>,
    /// The last members that the lane let in, by deadline and slot, the youngest at the end. They have no owners, and are not in
    /// `deadlines`.
    recent: Vec<(Moment, u32)>,
    /// No member's deadline comes before this moment. It may be earlier than the first of them: then the lane leaves more
    /// to the full functions than it must. Were it later, a share past its deadline would count (T1).
    none_due_before: Moment,
    /// The slots of those members whose token others know.
    named: HashMap<Token, u32, foldhash::fast::RandomState>,
    /// The same by deadline: who comes to the key ends those that are over first (C1).
    deadlines: BTreeSet<(Moment, u32)>,
    /// The same by owner, of those that have one.
    owners: BTreeSet<(OwnerId, u32)>,
}

impl Group {
    pub(crate) fn new(kind: Kind, scope: Scope) -> Self {
        Self {
            kind,
            scope,
            used: 0,
            company: Company::Open,
            carriers: None,
            recent: Vec::new(),
            none_due_before: Moment::FAR,
            named: HashMap::default(),
            deadlines: BTreeSet::new(),
            owners: BTreeSet::new(),
        }
    }

    /// Whether a further holder of this mode has room beside those who are there, and those to whom so much of the key
    /// is being given.
    pub(crate) fn has_room(&self, joining: u64, mode: Mode) -> bool {
        matches!(self.company, Company::Open) && self.kind.has_room(self.used + joining, mode)
    }

    /// Whether its only holder was upgraded.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self.company, Company::Alone)
    }

    /// A further holder joins: its token if that is known, its slot, its deadline, and its owner if it has one.
    pub(crate) fn insert(&mut self, token: Option<Token>, member: u32, deadline: Moment, owner: Option<OwnerId>) {
        token.into_iter().for_each(|token| self.name(token, member));
        self.deadlines.insert((deadline, member));
        self.none_due_before = self.none_due_before.min(deadline);
        if let Some(owner) = owner {
            self.owners.insert((owner, member));
        }
    }

    /// Others know a member by this token from now on.
    pub(crate) fn name(&mut self, token: Token, member: u32) {
        self.named.insert(token, member);
    }

    /// The same as `insert` for one that the lane lets in, which nobody knows by a token.
    #[inline]
    pub(super) fn insert_recent(&mut self, member: u32, deadline: Moment) {
        if self.recent.len() >= RECENT {
            // The older half.
            self.deadlines.extend(self.recent.drain(..RECENT / 2));
        }
        self.recent.push((deadline, member));
        self.none_due_before = self.none_due_before.min(deadline);
    }

    pub(crate) fn remove(&mut self, token: Option<Token>, member: u32, deadline: Moment, owner: Option<OwnerId>) {
        if let Some(token) = token {
            self.named.remove(&token);
            shrink_if_sparse!(self.named);
        }
        if self.remove_recent(member) {
            return;
        }
        self.deadlines.remove(&(deadline, member));
        if let Some(owner) = owner {
            self.owners.remove(&(owner, member));
        }
    }

    /// Takes a member out if it is one of the last.
    #[inline]
    fn remove_recent(&mut self, member: u32) -> bool {
        let found = self.recent.iter().rposition(|(_, recent)| *recent == member);
        found.map(|at| self.recent.remove(at)).is_some()
    }

    /// A member's deadline has moved.
    pub(crate) fn set_deadline(&mut self, member: u32, before: Moment, after: Moment) {
        self.none_due_before = self.none_due_before.min(after);
        if let Some(recent) = self.recent.iter_mut().find(|(_, recent)| *recent == member) {
            recent.0 = after;
            return;
        }
        self.deadlines.remove(&(before, member));
        self.deadlines.insert((after, member));
    }

    pub(crate) fn member(&self, token: Token) -> Option<u32> {
        self.named.get(&token).copied()
    }

    /// Whether one more share goes together with those that there are, and none of them may be over.
    #[inline]
    pub(super) fn takes_a_share(&self, now: Moment) -> bool {
        self.is_open_to_shares() && self.none_due_before > now
    }

    /// Whether they share the key, and nobody waits for them to go.
    #[inline]
    pub(super) fn is_open_to_shares(&self) -> bool {
        self.kind == Kind::ReadWrite && matches!(self.company, Company::Open)
    }

    /// The member whose deadline comes first.
    pub(crate) fn first_due(&self) -> Option<(Moment, u32)> {
        [self.recent.iter().min(), self.deadlines.first()].into_iter().flatten().min().copied()
    }

    /// The same, noted down for the lane.
    pub(crate) fn note_first_due(&mut self) -> Option<(Moment, u32)> {
        let first = self.first_due();
        self.none_due_before = first.map_or(Moment::FAR, |(due, _)| due);
        first
    }

    /// The members' slots, the earliest deadline first.
    pub(crate) fn members(&self) -> impl Iterator<Item = u32> {
        self.dated_after(None).map(|(_, member)| member)
    }

    /// The slots of an owner's members.
    pub(crate) fn members_of(&self, owner: OwnerId) -> impl Iterator<Item = u32> {
        self.owners.range((owner, 0)..=(owner, u32::MAX)).map(|(_, member)| *member)
    }

    /// The slots of the members that are one of these owners', at the cost of the smaller number of owners.
    pub(crate) fn members_among(&self, owners: &OwnerSet) -> Vec<u32> {
        if self.owners.len() <= owners.len() {
            self.owners.iter().filter(|(owner, _)| owners.contains(owner)).map(|(_, member)| *member).collect()
        } else {
            owners.iter().flat_map(|owner| self.members_of(*owner)).collect()
        }
    }

    #[cfg(test)]
    pub(crate) fn none_due_before(&self) -> Moment {
        self.none_due_before
    }

    /// The owners' members, as the index has them.
    #[cfg(test)]
    pub(crate) fn owned(&self) -> Vec<(OwnerId, u32)> {
        self.owners.iter().copied().collect()
    }

    /// The members' slots with the deadlines that they are filed under, in that order, after one of them.
    pub(crate) fn dated_after(&self, entry: Option<(Moment, u32)>) -> impl Iterator<Item = (Moment, u32)> {
        let from = entry.map_or(Bound::Unbounded, Bound::Excluded);
        let mut filed = self.deadlines.range((from, Bound::Unbounded)).copied().peekable();
        let is_after = |recent: &(Moment, u32)| entry.is_none_or(|entry| *recent > entry);
        let mut recent: Vec<(Moment, u32)> = self.recent.iter().copied().filter(is_after).collect();
        recent.sort_unstable_by(|one, other| other.cmp(one));
        std::iter::from_fn(move || match (recent.last(), filed.peek()) {
            (Some(of_recent), Some(of_filed)) if of_filed < of_recent => filed.next(),
            (Some(_), _) => recent.pop(),
            (None, _) => filed.next(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.deadlines.len() + self.recent.len()
    }
}
