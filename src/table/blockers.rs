//! What a waiter may ask, and what the deadlock check must know of it.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::Grant;
use super::history::End;
use super::owner::{Owner, OwnerSet};
use super::queue::{Rejection, WaiterId};
use super::{Effects, Event, EventKind, Table, steps};
use crate::clock::Moment;
use crate::error::{LockError, WaitEdge};
use crate::key::Key;
use crate::mode::{Kind, Mode};

/// How far back a waiter looks for those ahead of it (T9).
const POSITIONS_COUNTED: usize = 1_000;

/// Where a waiter stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueuePosition {
    /// The first is 1.
    pub(crate) position: usize,
    pub(crate) estimate: Option<Duration>,
}

/// What keeps a request from its key.
#[derive(Debug, Default)]
pub(crate) struct Blocker {
    /// How much of its holders' weight must come free.
    pub(crate) missing: u64,
    /// Those of them that are somebody, with their weights.
    pub(crate) holders: Vec<(Arc<Owner>, u32, Grant)>,
}

/// The waiter waits no more.
#[derive(Debug)]
pub(crate) struct Gone;

impl Table {
    /// Where a waiter stands in its queue, if it still does. Places beyond the first thousand count as the next one.
    pub(crate) fn position_of(&self, id: WaiterId) -> Option<QueuePosition> {
        let index = self.waiter_slot(id).filter(|_| self.waiters[id.index].is_queued())?;
        let slot = &self.slots[index];
        let (mut position, mut at) = (1, id.index);
        while Some(at) != slot.queue.first() && position <= POSITIONS_COUNTED {
            position += 1;
            at = self.waiters[at].prev;
        }
        let ended = slot.traffic().filter(|c| c.ends() > 0);
        let estimate = ended.map(|c| Duration::from_nanos((c.hold_nanos / c.ends()).saturating_mul(position as u64)));
        Some(QueuePosition { position, estimate })
    }

    /// Why a wait that ends now has brought nothing: somebody holds the key, or nothing is known (peer bug 38).
    pub(super) fn reason_at_timeout(&self, index: u32, since: Moment) -> LockError {
        match self.slots[index].extras.as_ref() {
            Some(extras) if extras.unanswered => LockError::StoreUnavailable,
            _ => LockError::Timeout { waited: self.now.saturating_since(since) },
        }
    }

    /// What keeps a queued request from its key; `None` if it is not queued any more, or its wait is over.
    ///
    /// Like the next one it counts nothing that is over, noticed or not (C1), and nothing of that comes back: a
    /// deadlock is reported as it is now, not as it was.
    ///
    /// Of the holders only those count whose owner is among `blocked`: everybody else runs, and lets go some time. So
    /// the cost is that of the blocked holders, not that of all of them, nor of the queue.
    pub(crate) fn blocker_of(&mut self, id: WaiterId, blocked: &OwnerSet, now: Moment) -> Option<Blocker> {
        self.advance_clock(now);
        let index = self.waiter_slot(id).filter(|_| self.waiters[id.index].is_queued())?;
        let own = self.waiters.get(id.index).filter(|waiter| waiter.waits_at(self.now))?.terms.mode();
        Some(self.blocker(index, own, Some(id), blocked))
    }

    /// What keeps a request that only polls from its key.
    pub(crate) fn blocker_to(&mut self, key: &Key, hash: u32, mode: Mode, blocked: &OwnerSet, now: Moment) -> Blocker {
        self.advance_clock(now);
        let Some(index) = self.find(hash, key) else { return Blocker::default() };
        let slot = &self.slots[index];
        if slot.queue.len == 0 && slot.has_room(mode) {
            return Blocker::default();
        }
        self.blocker(index, mode, None, blocked)
    }

    /// What keeps a request from its key: a waiter, or one that comes after all waiters.
    fn blocker(&mut self, index: u32, mode: Mode, waiter: Option<WaiterId>, blocked: &OwnerSet) -> Blocker {
        let Blocker { missing: held, holders } = self.holders_among(index, blocked);
        if holders.is_empty() {
            return Blocker::default();
        }
        let missing = match self.slots[index].kind() {
            Kind::ReadWrite if self.goes_in_with_holders(index, mode, waiter) => return Blocker::default(),
            // All of them must let go.
            Kind::ReadWrite => held,
            // The other holders let go some time; the rest must come from these.
            Kind::Semaphore { limit } => {
                let most = self.most_permits_ahead(index, waiter).max(mode.weight());
                (u64::from(most) + held).saturating_sub(u64::from(limit))
            }
        };
        Blocker { missing, holders }
    }

    /// The holders of a key that are one of these owners', and their weight together.
    pub(super) fn holders_among(&mut self, index: u32, blocked: &OwnerSet) -> Blocker {
        let mut places = self.slots[index].group().map_or_else(Vec::new, |group| group.members_among(blocked));
        places.push(index);
        let mut found = Blocker::default();
        for at in places {
            steps::count();
            if self.is_over(at) {
                continue;
            }
            let (Some(grant), Some(owner)) = (self.grant_in(at), self.slots[at].owner()) else { continue };
            if !blocked.contains(&owner.id) {
                continue;
            }
            let weight = self.slots[at].extra_terms().map_or(1, |terms| terms.mode.weight());
            found.missing += u64::from(weight);
            found.holders.push((owner.clone(), weight, grant));
        }
        found
    }

    /// Whether a request for a share only waits until those before it have been let in, who want shares like it.
    fn goes_in_with_holders(&self, index: u32, mode: Mode, waiter: Option<WaiterId>) -> bool {
        let slot = &self.slots[index];
        if mode != Mode::Shared || !slot.has_room(mode) {
            return false;
        }
        let mut ahead = slot.queue.iter(&self.waiters).take_while(|(at, _)| Some(*at) != waiter.map(|id| id.index));
        // It is mostly the first who wants the key alone, and keeps the others waiting.
        !ahead.any(|(_, waiter)| {
            steps::count();
            waiter.terms.mode() == Mode::Exclusive && waiter.waits_at(self.now)
        })
    }

    /// The most that a waiter before this one wants, or any waiter.
    fn most_permits_ahead(&self, index: u32, waiter: Option<WaiterId>) -> u32 {
        let Some(wanted) = self.slots[index].extras.as_ref().and_then(|extras| extras.wanted.as_deref()) else {
            return 0;
        };
        wanted.most_before(waiter.map_or(u64::MAX, |id| id.seq), |id| self.waiters[id].waits_at(self.now))
    }

    /// Turns a request that waits away to break a deadlock. `Err` if it waits no more.
    pub(crate) fn break_wait(
        &mut self,
        id: WaiterId,
        why: LockError,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<(), Gone> {
        self.advance_clock(now);
        let index = self.waiter_slot(id).ok_or(Gone)?;
        let waiter = &self.waiters[id.index];
        let is_queued = waiter.is_queued();
        if !is_queued && !waiter.is_claiming() {
            return Err(Gone);
        }
        if let (LockError::Deadlock { cycle }, true) = (&why, self.slow_path) {
            let (slot, owner) = (&self.slots[index], self.waiters[id.index].terms.owner_label());
            self.tell_deadlock(&slot.key, slot.hash, owner, cycle, fx);
        }
        self.reject_waiter(index, id.index, Rejection::Deadlock(why), fx);
        if is_queued {
            self.hand_off_if_shared(index, fx);
        }
        Ok(())
    }

    /// Takes a grant from its holder to break a deadlock, if it still holds.
    pub(crate) fn revoke(&mut self, grant: &Grant, cycle: Arc<[WaitEdge]>, now: Moment, fx: &mut Effects) {
        if self.live(grant, now, fx).is_some() {
            if self.slow_path {
                self.publish(grant.slot, EventKind::Deadlock { cycle }, fx);
            }
            self.end(grant.slot, End::Revoked, fx);
        }
    }

    /// Tells of a request that is refused to break a deadlock.
    pub(crate) fn tell_deadlock(
        &self,
        key: &Key,
        hash: u32,
        owner: Option<&Arc<str>>,
        cycle: &Arc<[WaitEdge]>,
        fx: &mut Effects,
    ) {
        if let Some(sink) = self.subscriptions.sink_of(hash) {
            let event = Event {
                sequence: sink.next(),
                key: key.clone(),
                owner: owner.cloned(),
                fencing_token: None,
                kind: EventKind::Deadlock { cycle: Arc::clone(cycle) },
            };
            fx.publish(sink.clone(), event);
        }
    }
}
