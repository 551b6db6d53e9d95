//! The short ways in beside [`grant_if_free`](Shard::grant_if_free): of a share, and of a lock that the manager keeps refreshed.
//! What they do not take, they leave as it was.

use std::sync::Arc;

use super::{Shard, is_short};
use crate::table::{AcquireRequest, Grant, Owner};

impl Shard {
    /// Grants an ordinary share of a key that is free, or that others share and nobody waits for. The terms of the request
    /// do not say that it is for a share.
    #[inline]
    pub(crate) fn grant_share(&self, request: &AcquireRequest<'_>) -> Option<Grant> {
        let mut state = self.mutex.lock();
        let now = if is_short(request.terms.ttl) { state.clock.now() } else { state.clock.coarse() };
        let there = state.table.members();
        let more = state.member_permits.at_hand(there);
        state.table.admit_members(more);
        state.table.grant_share(request, now)
    }

    /// Grants a key that nobody holds, and has it refreshed every third of its TTL until it is released.
    #[inline]
    pub(crate) fn grant_kept(&self, request: &AcquireRequest<'_>) -> Option<Grant> {
        let mut state = self.mutex.lock();
        let now = if is_short(request.terms.ttl) { state.clock.now() } else { state.clock.coarse() };
        let grant = state.table.grant_if_free(request, now).ok()?;
        if let Some(due) = state.table.keep_from_next_tick(&grant) {
            state.keep_within = state.keep_within.min(due.saturating_since(now));
            self.unlock(state, due);
        }
        Some(grant)
    }

    /// Makes an owner's what was granted to nobody in particular.
    pub(crate) fn give_owner(&self, grant: &Grant, owner: &Arc<Owner>) {
        let now = self.clock.now();
        self.with(|state, fx| state.table.give_owner(grant, owner, now, fx));
    }
}
