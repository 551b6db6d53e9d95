//! The manager as its shards see it: the deadlock check, and what requests do by default.

use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use super::Engine;
use crate::deadlock::{UpgradeRequest, WaitId};
use crate::error::LockError;
use crate::key::Key;
use crate::shard::upgrade::{Host, WaitOfOwner};
use crate::table::{Grant, Owner, UpgradeOutcome};

/// It does not keep the manager alive, which keeps its shards.
pub(super) struct ManagerOfShard(pub(super) Weak<Engine>);

struct UpgradeWait {
    engine: Arc<Engine>,
    id: WaitId,
}

impl Host for ManagerOfShard {
    fn recheck(&self, owners: Vec<Arc<Owner>>) {
        if let Some(engine) = self.0.upgrade() {
            engine.detector.recheck(&engine.shards, owners);
        }
    }

    fn default_wait(&self) -> Duration {
        self.0.upgrade().map_or(Duration::ZERO, |engine| engine.config.given.wait)
    }

    fn upgrade(
        &self,
        key: &Key,
        grant: &Grant,
        owner: &Arc<Owner>,
        waker: &Waker,
    ) -> (UpgradeOutcome, Option<Box<dyn WaitOfOwner>>) {
        let Some(engine) = self.0.upgrade() else {
            return (UpgradeOutcome::Refused(LockError::ShuttingDown), None);
        };
        let asked = UpgradeRequest { key, place: engine.router.of(key), grant, owner };
        let (outcome, id) = engine.detector.upgrade(&engine.shards, &asked, waker);
        (outcome, id.map(|id| Box::new(UpgradeWait { engine, id }) as Box<dyn WaitOfOwner>))
    }
}

impl WaitOfOwner for UpgradeWait {
    fn check(&self) -> Result<(), LockError> {
        self.engine.detector.check(self.id)
    }
}

impl Drop for UpgradeWait {
    fn drop(&mut self) {
        self.engine.detector.forget(self.id);
    }
}
