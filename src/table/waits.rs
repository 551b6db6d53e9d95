//! What a waiter may ask, and what the deadlock check must know of it.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::Grant;
use super::ended::End;
use super::mode::{Kind, Mode};
use super::owner::Owner;
use super::queue::{Waiter, WaiterId, WaiterState};
use super::{Effects, Event, EventKind, Table};
use crate::clock::Moment;
use crate::error::{LockError, WaitEdge};
use crate::key::Key;

/// How far back a waiter looks for those ahead of it (T9).
const PLACES_COUNTED: usize = 1_000;

/// Where a waiter stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The first is 1.
    pub(crate) position: usize,
    pub(crate) estimate: Option<Duration>,
}

/// What keeps a request from its key.
#[derive(Debug, Default)]
pub(crate) struct Obstacle {
    /// How much of its holders' weight must come free.
    pub(crate) missing: u64,
    /// Those of them that are somebody, with their weights.
    pub(crate) holders: Vec<(Arc<Owner>, u32, Grant)>,
}

/// The waiter is not queued any more.
#[derive(Debug)]
pub(crate) struct Gone;

impl Table {
    /// Where a waiter stands in its queue, if it still does. Places beyond the first thousand count as the next one.
    pub(crate) fn place_of(&self, id: WaiterId) -> Option<Place> {
        let index = self.waiter_slot(id).filter(|_| self.waiters[id.index].state == WaiterState::Queued)?;
        let slot = &self.slots[index];
        let (mut position, mut at) = (1, id.index);
        while Some(at) != slot.queue.first() && position <= PLACES_COUNTED {
            position += 1;
            at = self.waiters[at].prev;
        }
        let ended = slot.extras.as_ref().and_then(|extras| extras.traffic.as_deref()).filter(|c| c.ends() > 0);
        let estimate = ended.map(|c| Duration::from_nanos((c.hold_nanos / c.ends()).saturating_mul(position as u64)));
        Some(Place { position, estimate })
    }

    /// Why a wait that ends now has brought nothing: somebody holds the key, or nothing is known (peer bug 38).
    pub(super) fn waited_in_vain(&self, index: u32, since: Moment) -> LockError {
        match self.slots[index].extras.as_ref() {
            Some(extras) if extras.unanswered => LockError::StoreUnavailable,
            _ => LockError::Timeout { waited: self.now.saturating_since(since) },
        }
    }

    /// What keeps a queued request from its key; `None` if it is not queued any more, or its wait is over.
    ///
    /// Like the next one it counts nothing that is over, noticed or not (C1), and nothing of that comes back: a
    /// deadlock is told of what is, not of what was.
    pub(crate) fn obstacle_of(&mut self, id: WaiterId, now: Moment) -> Option<Obstacle> {
        self.see(now);
        let index = self.waiter_slot(id).filter(|_| self.waiters[id.index].state == WaiterState::Queued)?;
        let own = self.waiters.get(id.index).filter(|waiter| waits_at(waiter, self.now))?.terms.mode();
        let up_to = self.slots[index].queue.iter(&self.waiters).take_while(|(at, _)| *at != id.index);
        let most_ahead = heaviest(up_to.map(|(_, waiter)| waiter), self.now);
        Some(self.obstacle(index, own, most_ahead))
    }

    /// What keeps a request that only polls from its key.
    pub(crate) fn obstacle_to(&mut self, key: &Key, hash: u32, mode: Mode, now: Moment) -> Obstacle {
        self.see(now);
        let Some(index) = self.find(hash, key) else { return Obstacle::default() };
        let slot = &self.slots[index];
        if slot.queue.len == 0 && slot.has_room(mode) {
            return Obstacle::default();
        }
        let most_ahead = heaviest(slot.queue.iter(&self.waiters).map(|(_, waiter)| waiter), self.now);
        self.obstacle(index, mode, most_ahead)
    }

    /// What keeps a request from its key, behind others of which the heaviest wants so much.
    fn obstacle(&mut self, index: u32, mode: Mode, most_ahead: u32) -> Obstacle {
        let members = self.slots[index].group().into_iter().flat_map(|group| group.members());
        let places: Vec<u32> = std::iter::once(index).chain(members).collect();
        let (mut holders, mut held) = (Vec::new(), 0);
        for at in places {
            if self.is_over(at) {
                continue;
            }
            let (Some(grant), Some(owner)) = (self.grant_in(at), self.slots[at].asker()) else { continue };
            let weight = self.slots[at].extra_terms().map_or(1, |terms| terms.mode.weight());
            held += u64::from(weight);
            holders.push((owner.clone(), weight, grant));
        }
        let missing = match self.slots[index].kind() {
            // All of them must let go.
            Kind::ReadWrite => held,
            // Holders that are nobody let go some time; the rest must come from these.
            Kind::Semaphore { limit } => {
                let most = most_ahead.max(mode.weight());
                (u64::from(most) + held).saturating_sub(u64::from(limit))
            }
        };
        Obstacle { missing, holders }
    }

    /// Turns a queued request away to break a deadlock. `Err` if it is not queued any more.
    pub(crate) fn break_wait(
        &mut self,
        id: WaiterId,
        why: LockError,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<(), Gone> {
        self.see(now);
        let queued = |_: &u32| self.waiters[id.index].state == WaiterState::Queued;
        let index = self.waiter_slot(id).filter(queued).ok_or(Gone)?;
        if let (LockError::Deadlock { cycle }, true) = (&why, self.attentive) {
            self.tell_deadlock(index, id.index, cycle.clone(), fx);
        }
        self.leave_queue(index, id.index);
        self.turn_away(index, id.index, why, |c| &mut c.deadlocked, fx);
        self.let_in(index, fx);
        Ok(())
    }

    /// Takes a grant from its holder to break a deadlock, if it still holds.
    pub(crate) fn revoke(&mut self, grant: &Grant, cycle: Arc<[WaitEdge]>, now: Moment, fx: &mut Effects) {
        if self.live(grant, now, fx).is_some() {
            if self.attentive {
                self.tell(grant.slot, EventKind::Deadlock { cycle }, fx);
            }
            self.end(grant.slot, End::Revoked, fx);
        }
    }

    fn tell_deadlock(&self, index: u32, waiter: u32, cycle: Arc<[WaitEdge]>, fx: &mut Effects) {
        let slot = &self.slots[index];
        if let Some(sink) = self.ears.hear(slot.hash) {
            let event = Event {
                sequence: sink.next(),
                key: slot.key.clone(),
                owner: self.waiters[waiter].terms.owner().cloned(),
                fencing_token: None,
                kind: EventKind::Deadlock { cycle },
            };
            fx.tell(sink.clone(), event);
        }
    }
}

/// Whether a queued waiter's wait goes on: neither it nor its session is over.
fn waits_at(waiter: &Waiter, now: Moment) -> bool {
    waiter.deadline > now && waiter.terms.session().is_none_or(|session| session.settle(now).is_ok())
}

/// The most that any of these wants whose wait goes on.
fn heaviest<'a>(waiters: impl Iterator<Item = &'a Waiter>, now: Moment) -> u32 {
    let waiting = waiters.filter(|waiter| waits_at(waiter, now));
    waiting.map(|waiter| waiter.terms.mode().weight()).max().unwrap_or(0)
}
