//! From a share to the key alone, without letting go of it in between.
//!
//! | of a key's holders                   | newcomers and the queue           | leaves it by                            |
//! |--------------------------------------|-----------------------------------|-----------------------------------------|
//! | `Open`: they share it                | come in if they go together       | `upgrade`                               |
//! | `Closing`: one waits for the others  | wait, whoever they are            | the others' end and a poll -> `Alone`; the last seat's leaving, a deadlock -> `Open` |
//! | `Alone`: one has it                  | wait                              | `downgrade` -> `Open`; its end          |
//!
//! The one that waits stands in no queue: it holds the key already, and comes before all who queue (T2). Once the others
//! have gone it is woken, and the key is its own as soon as it looks; until then nobody comes in. Its bound (T9): there is
//! one for each key that several hold, and no more than [`MAX_SEATS`] requests of that one.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::group::Group;
use super::owner::{Owner, OwnerSet};
use super::slot::Scope;
use super::tick::Slice;
use super::{Blocker, Effects, Grant, HOLDERS_AT_ONCE, MAX_SEATS, Table};
use crate::clock::Moment;
use crate::error::{LockError, WaitEdge};
use crate::key::FencingToken;
use crate::mode::{Kind, Mode, ModeConflict};

/// How those who hold a key together treat others.
#[derive(Debug, Default)]
pub(crate) enum Company {
    /// Whoever goes together with them comes in.
    #[default]
    Open,
    /// The one in this slot waits for the others to go. Its requests, with their wakers: an owner may hold one grant by
    /// several guards.
    Closing { by: u32, since: Moment, seats: Vec<(UpgradeSeat, Waker)> },
    /// The only one of them was upgraded.
    Alone,
}

/// Names one request to upgrade, in its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UpgradeSeat(u64);

/// What a request to upgrade finds.
#[derive(Debug, PartialEq)]
pub(crate) enum UpgradeOutcome {
    /// The key is its holder's alone, under this fence.
    Alone(Option<FencingToken>),
    /// Others hold shares of it.
    Waits(UpgradeSeat),
    /// It waits no more: it was called off, and who did so knows why.
    CalledOff,
    Refused(LockError),
}

impl Table {
    /// Makes a share the only hold of its key: at once if it is that already, or once the others have gone, if there is
    /// a waker. It takes a new fence then, above those of all shares that there were beside it (T4).
    pub(crate) fn upgrade(
        &mut self,
        grant: &Grant,
        waker: Option<&Waker>,
        now: Moment,
        fx: &mut Effects,
    ) -> UpgradeOutcome {
        if let Err(why) = self.check_for_upgrade(grant, now, fx) {
            return UpgradeOutcome::Refused(why);
        }
        let key_slot = self.key_slot(grant.slot);
        let Some(group) = self.slots[key_slot].group() else { return UpgradeOutcome::Alone(self.proof_in(grant.slot)) };
        let by_other = match group.company {
            Company::Alone => return UpgradeOutcome::Alone(self.proof_in(grant.slot)),
            Company::Closing { by, .. } => Some(by).filter(|by| *by != grant.slot),
            Company::Open => None,
        };
        if group.used == 1 {
            return self.leave_alone(grant.slot, key_slot, None, fx);
        }
        let Some(waker) = waker else { return UpgradeOutcome::Refused(LockError::Held) };
        if let Some(first) = by_other {
            return UpgradeOutcome::Refused(self.refuse_second(grant.slot, first, fx));
        }
        self.take_upgrade_seat(grant.slot, key_slot, waker, fx)
    }

    /// Whether a grant can be upgraded at all.
    fn check_for_upgrade(&mut self, grant: &Grant, now: Moment, fx: &mut Effects) -> Result<(), LockError> {
        self.check(grant, now, fx).map_err(LockError::Lost)?;
        let key_slot = self.key_slot(grant.slot);
        if self.slots[key_slot].kind() != Kind::ReadWrite {
            return Err(ModeConflict::Permits.into());
        }
        let is_share = self.slots[grant.slot].mode(&self.slots[key_slot]) == Mode::Shared;
        if is_share && self.is_by_store(grant.slot) { Err(ModeConflict::Upgrade.into()) } else { Ok(()) }
    }

    /// Ends some of the holders beside this one whose deadlines have passed (C1); `More` if there may be others left.
    pub(crate) fn expire_beside(&mut self, grant: &Grant, now: Moment, fx: &mut Effects) -> Slice {
        if self.live(grant, now, fx).is_none() {
            return Slice::Done;
        }
        let key_slot = self.key_slot(grant.slot);
        let shared = self.slots[key_slot].group().is_some();
        if shared && self.expire_group(key_slot, fx) == HOLDERS_AT_ONCE { Slice::More } else { Slice::Done }
    }

    /// A further poll of a request that waits.
    pub(crate) fn poll_upgrade(
        &mut self,
        grant: &Grant,
        seat: UpgradeSeat,
        waker: &Waker,
        now: Moment,
        fx: &mut Effects,
    ) -> UpgradeOutcome {
        if let Err(loss) = self.check(grant, now, fx) {
            return UpgradeOutcome::Refused(LockError::Lost(loss));
        }
        let key_slot = self.key_slot(grant.slot);
        let sole = match self.slots[key_slot].group_mut() {
            None => return UpgradeOutcome::Alone(self.proof_in(grant.slot)),
            Some(Group { company: Company::Alone, .. }) => return UpgradeOutcome::Alone(self.proof_in(grant.slot)),
            Some(Group { company: Company::Open, .. }) => return UpgradeOutcome::CalledOff,
            Some(Group { company: Company::Closing { seats, .. }, used, .. }) => {
                let Some((_, own)) = seats.iter_mut().find(|(other, _)| *other == seat) else {
                    return UpgradeOutcome::CalledOff;
                };
                if !own.will_wake(waker) {
                    fx.discard([std::mem::replace(own, waker.clone())]);
                }
                *used == 1
            }
        };
        if sole { self.leave_alone(grant.slot, key_slot, Some(seat), fx) } else { UpgradeOutcome::Waits(seat) }
    }

    /// Ends a wait: its share stays as it is. With the last request of it those are let in who were kept out.
    pub(crate) fn cancel_upgrade(&mut self, grant: &Grant, seat: UpgradeSeat, now: Moment, fx: &mut Effects) {
        self.leave_upgrade_seat(grant, seat, now, fx).into_iter().for_each(|waker| fx.discard([waker]));
    }

    /// The same to break a deadlock: whoever waits is woken. That of another is none to break.
    pub(crate) fn call_off_upgrade(
        &mut self,
        (grant, seat): (&Grant, UpgradeSeat),
        cycle: &Arc<[WaitEdge]>,
        now: Moment,
        fx: &mut Effects,
    ) {
        let Some(waker) = self.leave_upgrade_seat(grant, seat, now, fx) else { return };
        fx.wake(waker);
        let slot = &self.slots[grant.slot];
        self.tell_deadlock(&slot.key, slot.hash, slot.owner_label(), cycle, fx);
    }

    fn leave_upgrade_seat(&mut self, grant: &Grant, seat: UpgradeSeat, now: Moment, fx: &mut Effects) -> Option<Waker> {
        self.advance_clock(now);
        self.holder_of(grant)?;
        let key_slot = self.key_slot(grant.slot);
        let group = self.slots[key_slot].group_mut()?;
        let Company::Closing { seats, .. } = &mut group.company else { return None };
        let at = seats.iter().position(|(other, _)| *other == seat)?;
        let (_, waker) = seats.swap_remove(at);
        if seats.is_empty() {
            group.company = Company::Open;
            self.hand_off(key_slot, fx);
        }
        Some(waker)
    }

    fn take_upgrade_seat(&mut self, at: u32, key_slot: u32, waker: &Waker, fx: &mut Effects) -> UpgradeOutcome {
        self.upgrade_seq += 1;
        let (seat, now) = (UpgradeSeat(self.upgrade_seq), self.now);
        let group = self.slots[key_slot].group_mut().expect("others hold shares of it");
        if !matches!(group.company, Company::Closing { .. }) {
            group.company = Company::Closing { by: at, since: now, seats: Vec::new() };
        }
        let Company::Closing { seats, .. } = &mut group.company else { unreachable!("it was made so") };
        if seats.len() >= MAX_SEATS as usize {
            return UpgradeOutcome::Refused(LockError::QueueFull);
        }
        seats.push((seat, waker.clone()));
        self.expect_the_others(key_slot, fx);
        UpgradeOutcome::Waits(seat)
    }

    /// Has the actor end the next of the holders in time.
    fn expect_the_others(&mut self, key_slot: u32, fx: &mut Effects) {
        fx.due(self.first_end(key_slot));
        self.file_first_as_urgent(key_slot);
    }

    /// The only holder of a shared key has it alone from now on. `seen`: the request that is told so now.
    fn leave_alone(&mut self, at: u32, key_slot: u32, seen: Option<UpgradeSeat>, fx: &mut Effects) -> UpgradeOutcome {
        let headless = self.slots[key_slot].holder.is_none();
        let group = self.slots[key_slot].group_mut().expect("a share is one of a group");
        let company = std::mem::replace(&mut group.company, Company::Alone);
        let seats = if let Company::Closing { seats, .. } = company { seats } else { Vec::new() };
        for (seat, waker) in seats {
            // Those of its other guards find it so.
            if Some(seat) == seen { fx.discard([waker]) } else { fx.wake(waker) }
        }
        let kind = group.kind;
        self.tally.left_group(kind);
        if headless {
            self.tally.has_a_head_or_none(kind);
        }
        let fence = self.next_fence();
        self.slots[at].extras_mut().proof = Some(fence);
        // Who polls for a share waits for this holder from now on. Its own wait, which is over, is still counted.
        let known = u32::from(seen.is_some());
        if let Some(owner) = self.slots[at].owner().filter(|owner| owner.waits() > known) {
            fx.recheck(owner.clone());
        }
        UpgradeOutcome::Alone(Some(fence))
    }

    /// The holder of a key has it no longer alone; whoever is let in by that is the caller's to let in.
    pub(super) fn open_company(&mut self, key_slot: u32) {
        let headless = self.slots[key_slot].holder.is_none();
        let Some(group) = self.slots[key_slot].group_mut() else { return };
        if matches!(group.company, Company::Alone) {
            group.company = Company::Open;
            let kind = group.kind;
            self.tally.joined_group(kind);
            if headless {
                self.tally.lost_its_head(kind);
            }
        }
    }

    /// Makes a group of the holder of a key, as a share of it.
    pub(super) fn begin_company(&mut self, index: u32, scope: Scope) {
        let group = Box::new(Group::new(Kind::ReadWrite, scope));
        let group = self.slots[index].extras_mut().group.insert(group);
        group.used = 1;
        self.tally.joined_group(Kind::ReadWrite);
    }

    /// The holder in a slot ends: what it had or wanted alone is over.
    pub(super) fn end_upgrade_of(&mut self, at: u32, fx: &mut Effects) {
        let key_slot = self.key_slot(at);
        self.open_company(key_slot);
        let Some(group) = self.slots[key_slot].group_mut() else { return };
        if matches!(group.company, Company::Closing { by, .. } if by == at)
            && let Company::Closing { seats, .. } = std::mem::take(&mut group.company)
        {
            seats.into_iter().for_each(|(_, waker)| fx.wake(waker));
        }
    }

    /// A holder has gone: was it the last that one waited for?
    pub(super) fn wake_upgrade(&mut self, key_slot: u32, fx: &mut Effects) {
        let Some(group) = self.slots[key_slot].group() else { return };
        let Company::Closing { seats, .. } = &group.company else { return };
        if group.used == 1 {
            seats.iter().for_each(|(_, waker)| fx.wake(waker.clone()));
        } else {
            self.expect_the_others(key_slot, fx);
        }
    }

    /// What keeps a request to upgrade from having its key alone; `None` if it waits no more.
    pub(crate) fn blocker_of_upgrade(
        &mut self,
        (grant, seat): (&Grant, UpgradeSeat),
        blocked: &OwnerSet,
        now: Moment,
    ) -> Option<Blocker> {
        self.advance_clock(now);
        self.holder_of(grant)?;
        let key_slot = self.key_slot(grant.slot);
        let Company::Closing { seats, .. } = &self.slots[key_slot].group()?.company else { return None };
        seats.iter().find(|(other, _)| *other == seat)?;
        let mut blocker = self.holders_among(key_slot, blocked);
        blocker.holders.retain(|(.., other)| other.slot != grant.slot);
        blocker.missing = blocker.holders.len() as u64;
        Some(blocker)
    }

    /// Two who both wait for each other's share would wait for ever.
    fn refuse_second(&self, second: u32, first: u32, fx: &mut Effects) -> LockError {
        let slot = &self.slots[second];
        let edge = |at: u32| WaitEdge { owner: self.name_of_holder(at), key: slot.key.clone() };
        let cycle: Arc<[WaitEdge]> = [second, first].map(edge).into();
        self.tell_deadlock(&slot.key, slot.hash, slot.owner_label(), &cycle, fx);
        LockError::Deadlock { cycle }
    }

    fn name_of_holder(&self, at: u32) -> Arc<str> {
        let slot = &self.slots[at];
        let fence = || self.proof_in(at).map_or(0, FencingToken::get);
        let label = slot.owner().map(|owner| owner.label()).or_else(|| slot.owner_label().cloned());
        label.unwrap_or_else(|| format!("the holder of fencing token {}", fence()).into())
    }

    /// The session or call whose grant it is.
    pub(crate) fn owner_of(&self, grant: &Grant) -> Option<Arc<Owner>> {
        self.holder_of(grant)?;
        self.slots[grant.slot].owner().cloned()
    }

    /// For how long a holder has waited to have its key alone.
    pub(super) fn upgrading_for(&self, at: u32, key_slot: u32, now: Moment) -> Option<Duration> {
        match self.slots[key_slot].group()?.company {
            Company::Closing { by, since, .. } if by == at => Some(now.saturating_since(since)),
            _ => None,
        }
    }
}
