//! What can be seen of the table from outside: never a token, but by the store that keeps it.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::Grant;
use super::holder::GrantState;
use super::queue::Waiter;
use super::slot::Slot;
use super::{Counters, EndRecord, Table};
use crate::clock::Moment;
use crate::key::{FencingToken, Key, Token};
use crate::mode::Mode;

/// One held key.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: Key,
    /// Those of the holders that are shown, by fence: one at least.
    pub(crate) holders: Vec<HolderInfo>,
    /// How many hold it.
    pub(crate) held_by: usize,
    pub(crate) waiting: u32,
    /// For how long the first of the queue has waited: it came before the others (T2).
    pub(crate) longest_wait: Option<Duration>,
    pub(crate) contended: Option<Counters>,
    /// The first waiters, in order.
    pub(crate) queue: Vec<WaiterInfo>,
}

/// One who holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HolderInfo {
    /// Who said that they hold it.
    pub owner: Option<Arc<str>>,
    /// How.
    pub mode: Mode,
    /// The fencing token of the grant; `None` where its store promises none.
    pub fencing_token: Option<FencingToken>,
    /// For how long it has been held.
    pub age: Duration,
    /// The time until its deadline.
    pub remaining: Duration,
    /// The TTL it was asked for with.
    pub ttl: Duration,
    /// How often it was refreshed.
    pub refreshes: u32,
    /// The time until an operator takes it, if [notice](crate::ForceRelease::notice) was given.
    pub revocation_notice: Option<Duration>,
    /// For how long it has waited for the others to let go, if it is being [upgraded](crate::Lock::upgrade).
    pub upgrading: Option<Duration>,
}

/// One who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaiterInfo {
    /// The place in the queue; the first is 1.
    pub position: usize,
    /// Who said that they wait.
    pub owner: Option<Arc<str>>,
    /// For what.
    pub mode: Mode,
    /// For how long.
    pub waited: Duration,
}

/// A held key, as far as a list needs it to decide whether to show it: looked at without a copy of anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) key: &'a Key,
    pub(crate) owner: Option<&'a str>,
    pub(crate) age: Duration,
    pub(crate) remaining: Duration,
    pub(crate) waiting: usize,
    pub(crate) longest_wait: Option<Duration>,
}

impl<'a> From<&'a Row> for Candidate<'a> {
    fn from(row: &'a Row) -> Self {
        let first = &row.holders[0];
        Self {
            key: &row.key,
            owner: first.owner.as_deref(),
            age: first.age,
            remaining: first.remaining,
            waiting: row.waiting as usize,
            longest_wait: row.longest_wait,
        }
    }
}

/// Those of this process who wait for a key that is held elsewhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Awaiting {
    pub(crate) waiting: u32,
    pub(crate) contended: Option<Counters>,
    /// The first of them, in order.
    pub(crate) queue: Vec<WaiterInfo>,
}

impl Table {
    /// Who waits here for a key that nobody here holds: the one that it is being taken for, and those behind it.
    pub(crate) fn awaiting(&self, key: &Key, hash: u32, now: Moment, shown: usize) -> Awaiting {
        let Some(slot) = self.find(hash, key).map(|index| &self.slots[index]) else { return Awaiting::default() };
        let claimant = slot.holder.as_ref().and_then(|holder| match holder.grant_state {
            GrantState::Claiming(id) => Some(&self.waiters[id]),
            _ => None,
        });
        let joins = slot.joins().into_iter().flat_map(|joins| joins.waiters()).map(|id| &self.waiters[id]);
        let claimants: Vec<&Waiter> = claimant.into_iter().chain(joins).collect();
        let queued = slot.queue.iter(&self.waiters).map(|(_, waiter)| waiter);
        Awaiting {
            waiting: slot.queue.len + u32::try_from(claimants.len()).unwrap_or(u32::MAX),
            contended: contended(slot),
            queue: shown_waiters(claimants.into_iter().chain(queued), shown, now),
        }
    }

    /// The lock on a key, with the first so many of its holders and waiters, unless all deadlines have passed.
    pub(crate) fn look(&mut self, key: &Key, hash: u32, now: Moment, shown: usize) -> Option<Row> {
        self.advance_clock(now);
        self.row(self.find(hash, key)?, self.now, shown)
    }

    /// The token under which the store keeps a key that is held here, or kept idle.
    pub(crate) fn token_at(&self, key: &Key, hash: u32) -> Option<Token> {
        let Some(index) = self.find(hash, key) else { return self.idle_token(key, hash) };
        let member = || self.slots[index].group()?.members().next();
        self.store_token(index).or_else(|| self.store_token(member()?))
    }

    /// Up to `budget` slots from `cursor` on; answers where to go on, or `None` at the end. Only what is `wanted` is
    /// copied: most of a large table is not, and is looked at in some tens of nanoseconds.
    pub(crate) fn scan(
        &self,
        cursor: u32,
        budget: u32,
        now: Moment,
        mut wanted: impl FnMut(&Candidate<'_>) -> bool,
        mut found: impl FnMut(Row),
    ) -> Option<u32> {
        let now = now.max(self.now);
        let window = self.slots.window(cursor, budget);
        let end = window.end;
        for index in window {
            let Some(slot) = self.slots.get(index).filter(|slot| slot.member_of().is_none()) else { continue };
            if slot.group().is_none() {
                let candidate = self.candidate(index, now);
                if candidate.is_some_and(|candidate| wanted(&candidate))
                    && let Some(row) = self.row(index, now, 0)
                {
                    found(row);
                }
            } else if let Some(row) = self.row(index, now, 0)
                && wanted(&Candidate::from(&row))
            {
                found(row);
            }
        }
        (end < self.slots.bound()).then_some(end)
    }

    /// A key with one holder, if that one's deadline has not passed.
    fn candidate(&self, index: u32, now: Moment) -> Option<Candidate<'_>> {
        let slot = &self.slots[index];
        let holder = slot.holder.as_ref()?;
        let deadline = self.deadline_in(index).filter(|deadline| *deadline > now && !slot.is_pending())?;
        Some(Candidate {
            key: &slot.key,
            owner: slot.owner_label().map(|owner| &**owner),
            age: now.saturating_since(holder.granted_at),
            remaining: deadline.saturating_since(now),
            waiting: slot.queue.len as usize,
            longest_wait: self.longest_wait(slot, now),
        })
    }

    /// Whether a grant still holds its key, and until when. One that does not will not do so again: a refresh that read
    /// the clock before this and comes after it finds the table's time moved on.
    pub(crate) fn held_until(&mut self, grant: &Grant, now: Moment) -> Option<Moment> {
        self.advance_clock(now);
        self.deadline_of(grant).filter(|deadline| *deadline > self.now)
    }

    /// What is known of one grant.
    pub(crate) fn holding(&mut self, grant: &Grant, now: Moment) -> Option<HolderInfo> {
        self.held_until(grant, now)?;
        self.holding_in(grant.slot, self.now).map(|(_, holder)| holder)
    }

    /// How the last grants of a key ended, the last first.
    pub(crate) fn end_log(&self, hash: u32, limit: usize) -> Vec<(EndRecord, Option<Arc<str>>)> {
        self.history.ends_of_key(hash).take(limit).map(|(record, owner)| (*record, owner.cloned())).collect()
    }

    fn row(&self, index: u32, now: Moment, shown: usize) -> Option<Row> {
        let slot = &self.slots[index];
        let members = || slot.group().into_iter().flat_map(|group| group.members());
        let held = |at: &u32| self.deadline_in(*at).is_some_and(|deadline| deadline > now);
        let live = |at: &u32| held(at) && !self.slots[*at].is_pending();
        let holders = std::iter::once(index).chain(members()).filter(live).take(shown.max(1));
        let mut holders: Vec<(FencingToken, HolderInfo)> = holders.filter_map(|at| self.holding_in(at, now)).collect();
        holders.sort_unstable_by_key(|(fence, _)| *fence);
        if holders.is_empty() {
            return None;
        }
        // Those that are over come first among the members, and are few: whoever comes to the key ends them.
        let filed_over = |at: &u32| self.slots[*at].holder.as_ref().is_some_and(|holder| holder.deadline <= now);
        let over = members().take_while(filed_over).filter(|at| !live(at)).count();
        let held_by = slot.group().map_or(0, |group| group.len()) - over + usize::from(live(&index));
        Some(Row {
            key: slot.key.clone(),
            holders: holders.into_iter().map(|(_, holder)| holder).collect(),
            held_by,
            waiting: slot.queue.len,
            longest_wait: self.longest_wait(slot, now),
            contended: contended(slot),
            queue: shown_waiters(slot.queue.iter(&self.waiters).map(|(_, waiter)| waiter), shown, now),
        })
    }

    fn longest_wait(&self, slot: &Slot, now: Moment) -> Option<Duration> {
        slot.queue.first().map(|first| now.saturating_since(self.waiters[first].queued_at))
    }

    /// With its place among the shard's grants.
    fn holding_in(&self, at: u32, now: Moment) -> Option<(FencingToken, HolderInfo)> {
        let slot = &self.slots[at];
        let (holder, deadline) = (slot.holder.as_ref()?, self.deadline_in(at)?);
        let info = HolderInfo {
            owner: slot.owner_label().cloned(),
            mode: slot.mode(&self.slots[slot.member_of().unwrap_or(at)]),
            fencing_token: self.proof_in(at),
            age: now.saturating_since(holder.granted_at),
            remaining: deadline.saturating_since(now),
            ttl: holder.ttl.as_duration(),
            refreshes: holder.refreshes,
            revocation_notice: slot.extras.as_ref().and_then(|e| e.notice).map(|at| at.saturating_since(now)),
            upgrading: self.upgrading_for(at, slot.member_of().unwrap_or(at), now),
        };
        Some((holder.fence(), info))
    }
}

fn contended(slot: &Slot) -> Option<Counters> {
    slot.traffic().copied()
}

fn shown_waiters<'a>(queue: impl Iterator<Item = &'a Waiter>, shown: usize, now: Moment) -> Vec<WaiterInfo> {
    let info = |(at, waiter): (usize, &Waiter)| WaiterInfo {
        position: at + 1,
        owner: waiter.terms.owner_label().cloned(),
        mode: waiter.terms.mode(),
        waited: now.saturating_since(waiter.queued_at),
    };
    queue.take(shown).enumerate().map(info).collect()
}
