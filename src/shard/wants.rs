//! What the deadlock check asks of a shard to tell other processes.

use super::Shard;
use crate::key::Key;
use crate::table::{HeldPart, Mode, OwnerSet, Scope, WaiterId, Want};

impl Shard {
    /// What a request waits for; `None` if it has its answer, or its wait is over.
    pub(crate) fn want_of(&self, id: WaiterId) -> Option<Want> {
        let now = self.clock.now();
        self.state().table.want_of(id, now)
    }

    /// The same for one that only polls.
    pub(crate) fn want_of_poller(&self, key: &Key, hash: u32, mode: Mode, scope: Scope) -> Want {
        self.state().table.want_of_poller(key, hash, mode, scope)
    }

    /// The grants of a key that these owners have. Those that were made without the store exclude nobody elsewhere.
    pub(crate) fn held_by(&self, key: &Key, hash: u32, owners: &OwnerSet) -> Vec<HeldPart> {
        let now = self.clock.now();
        let mut held = self.state().table.held_by(key, hash, owners, now);
        held.retain(|part| !self.is_degraded(&part.grant));
        held
    }
}
