//! What a wait asks for, and who holds that here: what the deadlock check tells other processes.

use std::sync::Arc;

use super::acquire::Grant;
use super::owner::{Owner, OwnerSet};
use super::queue::WaiterId;
use super::slot::{Scope, Slot};
use super::{Table, steps};
use crate::clock::Moment;
use crate::key::Key;
use crate::mode::Mode;

/// What a request that waits asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Want {
    pub(crate) mode: Mode,
    pub(crate) scope: Scope,
    pub(crate) in_the_way: InTheWay,
}

/// Who may keep a request from its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InTheWay {
    /// Somebody of this process, and nobody else.
    Local,
    /// Perhaps somebody of another process.
    Foreign,
}

/// A grant of a key, as others may wait for it.
#[derive(Debug)]
pub(crate) struct HeldPart {
    pub(crate) owner: Arc<Owner>,
    pub(crate) mode: Mode,
    pub(crate) scope: Scope,
    pub(crate) grant: Grant,
}

impl Table {
    /// What a request waits for; `None` if it has its answer, or its wait is over.
    pub(crate) fn want_of(&mut self, id: WaiterId, now: Moment) -> Option<Want> {
        self.advance_clock(now);
        let index = self.waiter_slot(id)?;
        let waiter = &self.waiters[id.index];
        let waits = (waiter.is_queued() || waiter.is_claiming()) && waiter.waits_at(self.now);
        waits.then(|| self.want(Some(&self.slots[index]), waiter.terms.mode(), waiter.terms.needs_claim()))
    }

    /// The same for one that only polls.
    pub(crate) fn want_of_poller(&self, key: &Key, hash: u32, mode: Mode, scope: Scope) -> Want {
        let slot = self.find(hash, key).map(|index| &self.slots[index]);
        self.want(slot, mode, scope == Scope::Everywhere)
    }

    fn want(&self, slot: Option<&Slot>, mode: Mode, needs_claim: bool) -> Want {
        let is_everywhere = needs_claim && self.claim.is_stored();
        // One who has it for himself here has it everywhere.
        let is_alone = |slot: &Slot| slot.holder.is_some() && !slot.is_pending() && slot.group().is_none();
        let is_local = !is_everywhere || slot.is_some_and(is_alone);
        Want {
            mode,
            scope: if is_everywhere { Scope::Everywhere } else { Scope::Process },
            in_the_way: if is_local { InTheWay::Local } else { InTheWay::Foreign },
        }
    }

    /// The grants of a key that these owners have, and that have not run out.
    pub(crate) fn held_by(&mut self, key: &Key, hash: u32, owners: &OwnerSet, now: Moment) -> Vec<HeldPart> {
        self.advance_clock(now);
        let Some(index) = self.find(hash, key) else { return Vec::new() };
        let mut places = self.slots[index].group().map_or_else(Vec::new, |group| group.members_among(owners));
        places.push(index);
        let mut found = Vec::new();
        for at in places {
            steps::count();
            if self.slots[at].is_pending() || self.is_over(at) {
                continue;
            }
            let slot = &self.slots[at];
            let (Some(grant), Some(owner)) = (self.grant_in(at), slot.owner()) else { continue };
            if owners.contains(&owner.id) {
                let is_by_store = self.claim.is_stored() && self.slots[index].is_claimed();
                let scope = if is_by_store { Scope::Everywhere } else { Scope::Process };
                found.push(HeldPart { owner: owner.clone(), mode: slot.mode(&self.slots[index]), scope, grant });
            }
        }
        found
    }
}
