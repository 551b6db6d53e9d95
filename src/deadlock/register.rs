//! What each owner waits for, now; under one mutex of the detector's.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;

use super::follow::Following;
use super::graph::Step;
use crate::error::WaitEdge;
use crate::key::Key;
use crate::shard::Shard;
use crate::table::{Effects, Grant, Mode, Owner, OwnerId, OwnerSet, Scope, UpgradeSeat, WaiterId};

/// Names a wait in the register.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct WaitId(pub(super) NonZeroU64);

#[derive(Debug, Default)]
pub(super) struct Register {
    pub(super) waits: HashMap<WaitId, Wait>,
    /// What each owner waits for; those that wait for nothing are not here.
    pub(super) by_owner: HashMap<OwnerId, BTreeSet<WaitId>>,
    /// Those of them that held something when last looked at: only they can be waited for by somebody in vain. One that
    /// is granted something later is looked at again for that grant.
    pub(super) blocked: OwnerSet,
    last: Option<NonZeroU64>,
}

#[derive(Debug)]
pub(super) struct Wait {
    pub(super) owner: Arc<Owner>,
    pub(super) shard: u32,
    pub(super) key: Key,
    pub(super) hash: u32,
    pub(super) how: WaitKind,
    /// Whether other processes may take it for a part of a cycle.
    pub(super) is_suspected: bool,
}

/// How an owner waits for a key.
#[derive(Clone, Debug)]
pub(super) enum WaitKind {
    Queued(WaiterId),
    Polling(Mode, Scope),
    /// For the value of a call that another makes.
    Following(Arc<Following>),
    /// For the other shares of a key of which it has this one.
    Upgrading(Grant, UpgradeSeat),
    /// It waits no more: its wait would be part of this.
    Refused(Arc<[WaitEdge]>),
}

impl Register {
    pub(super) fn add(&mut self, wait: Wait) -> WaitId {
        let id = WaitId(self.last.map_or(NonZeroU64::MIN, |last| last.saturating_add(1)));
        self.last = Some(id.0);
        self.by_owner.entry(wait.owner.id).or_default().insert(id);
        self.waits.insert(id, wait);
        id
    }

    pub(super) fn remove(&mut self, id: WaitId) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        if let Some(waits) = self.by_owner.get_mut(&wait.owner.id) {
            waits.remove(&id);
            if waits.is_empty() {
                self.by_owner.remove(&wait.owner.id);
                self.blocked.remove(&wait.owner.id);
            }
        }
        self.shrink();
        Some(wait)
    }

    /// Gives memory back after a spike.
    fn shrink(&mut self) {
        shrink_if_sparse!(self.waits);
        shrink_if_sparse!(self.by_owner);
        shrink_if_sparse!(self.blocked);
    }

    pub(super) fn refusal(&self, id: WaitId) -> Option<Arc<[WaitEdge]>> {
        match &self.waits.get(&id)?.how {
            WaitKind::Refused(cycle) => Some(Arc::clone(cycle)),
            WaitKind::Queued(_) | WaitKind::Polling(..) | WaitKind::Following(_) | WaitKind::Upgrading(..) => None,
        }
    }

    /// Ends a wait that is part of a cycle.
    pub(super) fn refuse(&mut self, shards: &[Arc<Shard>], id: WaitId, cycle: Arc<[WaitEdge]>, fx: &mut Effects) {
        let Some(wait) = self.waits.get_mut(&id) else { return };
        match &wait.how {
            WaitKind::Queued(waiter) => shards[wait.shard as usize].break_wait(*waiter, cycle, fx),
            WaitKind::Polling(..) => wait.how = WaitKind::Refused(cycle),
            WaitKind::Upgrading(grant, seat) => {
                shards[wait.shard as usize].call_off_upgrade((grant, *seat), &cycle, fx);
                wait.how = WaitKind::Refused(cycle);
            }
            WaitKind::Following(following) => {
                following.take_waker().into_iter().for_each(|waker| fx.wake(waker));
                wait.how = WaitKind::Refused(cycle);
            }
            WaitKind::Refused(_) => {}
        }
    }

    pub(super) fn edges(&self, steps: &[Step<WaitId>]) -> Arc<[WaitEdge]> {
        let waits = steps.iter().filter_map(|step| self.waits.get(&step.wait));
        waits.map(|wait| WaitEdge { owner: wait.owner.label(), key: wait.key.clone() }).collect()
    }
}
