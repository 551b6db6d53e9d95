//! Grants whose token others know, and so other processes over the same store: what they do with it there counts here.
//!
//! | there | here |
//! |---|---|
//! | it is extended | this process asks the store [a while](LEAD) before the deadline that it knows, and again the closer that comes; the deadline moves with the answer |
//! | it is released | found out by the same question, or by any other one that is put to the store |
//! | it goes on after this process's own deadline | what has run out here is left alone in the store, where it has an end of its own |
//!
//! A guard's token is known to nobody else: none of this is done for it.

use std::time::Duration;

use super::claim::{ClaimFilter, StoreCommand};
use super::history::End;
use super::holder::GrantState;
use super::refresh_order::AutoRefresh;
use super::slot::Refreshes;
use super::{Effects, Grant, Table, TokenOrigin};
use crate::clock::Moment;
use crate::key::{Key, Token};

/// So long before a deadline the store is first asked, or a quarter of the TTL if that is less.
const LEAD: Duration = Duration::from_secs(1);
/// So short before a deadline an answer would not help any more.
const LAST: Duration = Duration::from_millis(10);

impl GrantState {
    /// Whether nobody but this process can know the token.
    const fn keeps_the_token(self) -> bool {
        matches!(self, Self::Guard(TokenOrigin::Minted) | Self::Claiming(_))
    }
}

impl Table {
    /// Files a grant that the store keeps to be confirmed in time, unless there is something else to do for it.
    pub(super) fn confirm_before_the_end(&mut self, index: u32) -> Option<Moment> {
        let slot = &self.slots[index];
        let has_order = slot.extras.as_ref().is_some_and(|extras| extras.auto.is_some());
        let holder = slot.holder.as_ref()?;
        let left = holder.deadline.saturating_since(self.now);
        let is_own = slot.extras.as_ref().is_some_and(|extras| extras.claim.is_some() || extras.rides_on.is_some());
        if has_order || is_own || !self.is_by_store(index) || slot.session().is_some() || left <= LAST {
            return None;
        }
        let lead = LEAD.min(holder.ttl.as_duration() / 4);
        // The first time by that much before the deadline, then each time by a quarter of what is left.
        let pause = if left > lead { left.saturating_sub(lead) } else { left / 4 * 3 };
        let due = self.now.saturating_add(pause);
        self.slots[index].extras_mut().auto = Some(AutoRefresh::confirm(due));
        self.refreshes.insert(&mut Refreshes(&mut self.slots), index);
        Some(due)
    }

    /// The time for that has come; the deadline may have moved meanwhile.
    pub(super) fn confirm_now(&mut self, grant: Grant, fx: &mut Effects) {
        let index = grant.slot;
        self.drop_auto(index);
        let slot = &self.slots[index];
        let Some(holder) = slot.holder.as_ref() else { return };
        if holder.grant_state.keeps_the_token() {
            return;
        }
        let is_near = holder.deadline.saturating_since(self.now) <= LEAD.min(holder.ttl.as_duration() / 4);
        if is_near {
            let (key, token) = (slot.key.clone(), self.own_token(index));
            self.send(StoreCommand::Confirm { grant, key, token }, fx);
        }
        if let Some(due) = self.confirm_before_the_end(index) {
            fx.due(due);
        }
    }

    /// The store has confirmed a grant until `deadline`.
    pub(crate) fn confirmed(&mut self, grant: &Grant, deadline: Moment, now: Moment, fx: &mut Effects) {
        let Some(known) = self.live(grant, now, fx) else { return };
        let deadline = deadline.min(self.slots[grant.slot].last_deadline());
        if deadline > known {
            self.set_deadline(grant.slot, deadline);
            fx.due(deadline);
        }
    }

    /// Whether the store is to keep what ends here so: somebody else may have extended it.
    pub(super) fn may_go_on_elsewhere(&self, index: u32, end: End) -> bool {
        let slot = &self.slots[index];
        let Some(holder) = slot.holder.as_ref() else { return false };
        let has_run_out = end == End::Expired && slot.session().is_none() && holder.deadline < slot.last_deadline();
        has_run_out && !holder.grant_state.keeps_the_token()
    }

    /// The store does not keep the key for this grant any more: it is lost, at once (peer bug 31).
    pub(crate) fn claim_lost(&mut self, grant: &Grant, end: End, now: Moment, fx: &mut Effects) {
        if self.claimant(grant).is_none() && self.live(grant, now, fx).is_some() {
            self.end_with_riders(grant.slot, end, fx);
        }
    }

    /// The grants that the store has given, for it to be asked whether it still keeps them: up to `budget` slots from `cursor` on.
    pub(crate) fn claims(
        &self,
        which: ClaimFilter,
        cursor: u32,
        budget: u32,
        mut found: impl FnMut(Grant, Key, Token),
    ) -> Option<u32> {
        let window = self.slots.window(cursor, budget);
        let end = window.end;
        for index in window {
            if let Some(slot) = self.slots.get(index)
                && self.is_by_store(index)
                && (which == ClaimFilter::All || self.slots[self.key_slot(index)].queue.len > 0)
                && let Some(grant) = self.grant_in(index)
                && self.claimant(&grant).is_none()
                && let Some(token) = self.store_token(index)
            {
                found(grant, slot.key.clone(), token);
            }
        }
        (end < self.slots.bound()).then_some(end)
    }

    /// What the store keeps the key of a grant under, if it has given it.
    pub(crate) fn claim_of(&self, grant: &Grant) -> Option<Token> {
        let is_given = self.is_by_store(grant.slot) && self.claimant(grant).is_none();
        self.store_token(grant.slot).filter(|_| is_given && self.holder_of(grant).is_some())
    }
}
