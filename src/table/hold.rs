//! What a holder does with its grant.

use std::sync::Arc;
use std::time::Duration;

use super::events::EventKind;
use super::history::{AskedBy, End, EndRecord};
use super::holder::{GrantState, Holder};
use super::minted::ToldUnder;
use super::request::{RefreshRequest, Refreshed};
use super::slot::Watcher;
use super::{Effects, Grant, Table};
use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::key::{FencingToken, Key, Token, Ttl};

/// What a release found. All of them leave the caller without the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Release {
    /// The lock was held, and is released now.
    Released,
    /// The lock had ended before. If the caller worked under it, the work was not protected to its end.
    AlreadyGone,
    /// The lock was let go here, and the store has not answered within its operation timeout: the key may still be
    /// held there, or may have been lost before. The store goes on releasing it until it is answered or the key has
    /// run out; there is nothing to repeat. Only where there is a store.
    Unknown,
}

impl Table {
    /// Ends a grant for its guard. `AlreadyGone` if it is not the holder any more (T5). One that its owner asked for
    /// several times ends with the last release.
    #[inline]
    pub(crate) fn release(&mut self, grant: &Grant, end: End, now: Moment, fx: &mut Effects) -> Release {
        if self.live(grant, now, fx).is_none() {
            return Release::AlreadyGone;
        }
        match self.slots[grant.slot].extras.as_mut() {
            Some(extras) if extras.reentries > 0 => {
                extras.reentries -= 1;
                let depth = extras.reentries;
                self.stop_orders(grant.slot, |_, given_at| given_at > depth, fx);
            }
            _ => self.end(grant.slot, end, fx),
        }
        Release::Released
    }

    /// Ends a grant that nobody waits for, watches or asks about: the lane's whole way out when there is no contention.
    /// Changes nothing otherwise.
    #[inline]
    pub(crate) fn release_if_alone(&mut self, grant: &Grant, end: End, now: Moment) -> Option<Release> {
        self.advance_clock(now);
        let slot = self.slots.get(grant.slot)?;
        let holder = slot.holder.as_ref()?;
        let is_plain = slot.extras.is_none() && slot.member_of().is_none();
        let alone = slot.queue.len == 0 && is_plain && !self.slow_path;
        if !alone || holder.fence() != grant.fence || holder.deadline <= self.now {
            return None;
        }
        let asked_by = match holder.grant_state {
            state if state.forgets(end) => AskedBy::Nobody,
            // Views of the lock may ask, by its fence as long as nobody was told its token.
            GrantState::Guard(_) if holder.told == ToldUnder::NOBODY => AskedBy::Guard,
            _ => return None,
        };
        let (granted_at, fence, key_hash) = (holder.granted_at, holder.fence(), slot.hash);
        let is_filed = slot.expiry.is_filed();
        let held = self.now.nanos_since(granted_at);
        self.counters.end(end, held);
        self.tally.held_for(held);
        let record = EndRecord { key_hash, end, fence, proof: Some(fence), granted_at, ended_at: self.now };
        self.history.push(record, asked_by, None);
        if is_filed {
            self.expiries.remove(&mut self.slots, grant.slot);
        }
        self.remove_slot(grant.slot);
        Some(Release::Released)
    }

    /// The TTL of the grant that a release of this one would make.
    pub(crate) fn next_ttl(&self, grant: &Grant) -> Option<Ttl> {
        self.holder_of(grant)?;
        let next = self.slots[self.key_slot(grant.slot)].queue.first()?;
        Some(self.waiters[next].terms.ttl)
    }

    /// Finds the live grant that a token proves, for callers without a guard.
    ///
    /// # Errors
    /// `NotHeld` if another grant holds the key, `Lost` if this one ended (or, on a free key, is not remembered).
    pub(crate) fn grant_of(
        &mut self,
        key: &Key,
        hash: u32,
        token: Token,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<Grant, LockError> {
        self.advance_clock(now);
        let found = self.find_live(hash, key, fx);
        let slot = found.and_then(|index| self.holder_with(index, token));
        // Of many on one key not all that are over are ended yet.
        let slot = slot.filter(|slot| !self.end_if_over(*slot, fx));
        match slot.and_then(|slot| self.grant_in(slot)) {
            Some(grant) => Ok(grant),
            None => Err(match (self.history.end_of_token(token, hash), found) {
                (Some(end), _) => LockError::Lost(end.as_loss()),
                (None, Some(_)) => LockError::NotHeld,
                (None, None) => LockError::Lost(Loss::Unknown),
            }),
        }
    }

    /// Whether a grant can still be refreshed; one that cannot is counted.
    pub(super) fn live_for_refresh(&mut self, grant: &Grant, now: Moment, fx: &mut Effects) -> Result<(), Loss> {
        if self.live(grant, now, fx).is_none() {
            self.counters.refresh_lost += 1;
            return Err(self.loss_of(grant.fence));
        }
        Ok(())
    }

    /// Moves a deadline on: never back, never past `max_hold`, never for a lock past its deadline (T6). For a lock of
    /// a session it is the session's that is moved.
    pub(crate) fn refresh(
        &mut self,
        grant: &Grant,
        request: RefreshRequest,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<Refreshed, Loss> {
        self.live_for_refresh(grant, now, fx)?;
        if let Some(skipped) = self.skips_refresh(grant, request) {
            return Ok(skipped);
        }
        let slot = &self.slots[grant.slot];
        let holder = slot.holder.as_ref().expect("the deadline came from this holder");
        let ttl = match request {
            RefreshRequest::To(ttl) => ttl,
            RefreshRequest::IfDue => holder.ttl,
        };
        let asked = match slot.session() {
            Some(session) => session.heartbeat(ttl, self.now)?,
            None => self.now.after(ttl),
        };
        let asked = asked.min(slot.last_deadline());
        Ok(self.refreshed(grant, asked, fx))
    }

    /// The answer to a refresh that comes before its share of the TTL has passed.
    pub(super) fn skips_refresh(&mut self, grant: &Grant, request: RefreshRequest) -> Option<Refreshed> {
        if request != RefreshRequest::IfDue {
            return None;
        }
        let slot = &self.slots[grant.slot];
        let share = slot.extra_terms()?.refresh_after?;
        let (holder, deadline) = (slot.holder.as_ref()?, self.deadline_of(grant)?);
        let untouched = holder.ttl.as_duration().mul_f32(1.0 - share);
        if deadline.saturating_since(self.now) < untouched {
            return None;
        }
        let count = holder.refreshes;
        self.count(self.key_slot(grant.slot), |c| c.refresh_skipped += 1);
        Some(Refreshed { deadline, written: false, count })
    }

    /// Writes a refresh: the deadline never goes back (T6).
    pub(super) fn refreshed(&mut self, grant: &Grant, asked: Moment, fx: &mut Effects) -> Refreshed {
        let Some(holder) = self.slots[grant.slot].holder.as_mut() else { unreachable!("a live grant has its holder") };
        holder.refreshes = holder.refreshes.saturating_add(1);
        let (deadline, count) = (holder.deadline.max(asked), holder.refreshes);
        self.set_deadline(grant.slot, deadline);
        self.count(self.key_slot(grant.slot), |c| c.refreshed += 1);
        if self.slow_path {
            self.publish(grant.slot, EventKind::Refreshed { remaining: deadline.saturating_since(self.now) }, fx);
        }
        Refreshed { deadline, written: true, count }
    }

    /// Files a holder under a new deadline.
    pub(super) fn set_deadline(&mut self, index: u32, deadline: Moment) {
        let slot = &mut self.slots[index];
        let Some(holder) = slot.holder.as_mut() else { return };
        let before = std::mem::replace(&mut holder.deadline, deadline);
        if let Some(key_slot) = slot.member_of()
            && let Some(group) = self.slots[key_slot].group_mut()
        {
            group.set_deadline(index, before, deadline);
        }
        self.expiries.update(&mut self.slots, index);
        let slot = &self.slots[index];
        if slot.queue.len > 0 || slot.extras.as_ref().is_some_and(|extras| extras.watcher.is_some()) {
            self.file_as_urgent(index);
        }
    }

    /// Caps the hold of a live grant; the deadline it has already stands (T6).
    pub(crate) fn cap_hold(
        &mut self,
        grant: &Grant,
        max_hold: Duration,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<(), Loss> {
        let deadline = self.check(grant, now, fx)?;
        // The lock of a session may be filed under an earlier deadline than its session's. Filed under that one, it keeps
        // it, whatever the cap is.
        self.set_deadline(grant.slot, deadline);
        self.slots[grant.slot].extras_mut().cap = Some(max_hold);
        Ok(())
    }

    /// The watcher of a live grant, made on first use; or how the grant ended, if that is still known.
    pub(crate) fn watch(
        &mut self,
        grant: &Grant,
        make: impl FnOnce() -> Arc<dyn Watcher>,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<Arc<dyn Watcher>, Option<End>> {
        let deadline = self.live(grant, now, fx).ok_or_else(|| self.history.end_of_fence(grant.fence))?;
        fx.due(deadline);
        self.file_as_urgent(grant.slot);
        Ok(self.slots[grant.slot].extras_mut().watcher.get_or_insert_with(make).clone())
    }

    /// The deadline of a grant that is still good; one whose deadline has passed is ended here and now (C1).
    #[inline]
    pub(super) fn live(&mut self, grant: &Grant, now: Moment, fx: &mut Effects) -> Option<Moment> {
        self.advance_clock(now);
        self.holder_of(grant)?;
        if self.end_if_over(grant.slot, fx) { None } else { self.deadline_in(grant.slot) }
    }

    /// The same, with the reason why it is not good.
    pub(crate) fn check(&mut self, grant: &Grant, now: Moment, fx: &mut Effects) -> Result<Moment, Loss> {
        self.live(grant, now, fx).ok_or_else(|| self.loss_of(grant.fence))
    }

    /// Lets a grant travel by its token alone, or gives it a guard again.
    pub(crate) fn set_grant_state(&mut self, grant: &Grant, grant_state: GrantState) {
        if self.holder_of(grant).is_some()
            && let Some(holder) = self.slots[grant.slot].holder.as_mut()
        {
            holder.grant_state = grant_state;
            self.confirm_before_the_end(grant.slot);
        }
    }

    /// Has the end of a grant be remembered, as somebody else than its guard may ask for it now.
    pub(crate) fn remember_end(&mut self, grant: &Grant) {
        if self.grant_state(grant) == Some(GrantState::Guard(super::TokenOrigin::Minted)) {
            self.set_grant_state(grant, GrantState::Guard(super::TokenOrigin::ByClient));
        }
    }

    pub(crate) fn grant_state(&self, grant: &Grant) -> Option<GrantState> {
        self.holder_of(grant).map(|holder| holder.grant_state)
    }

    /// The holder that a grant made, be it past its deadline or not.
    #[inline]
    pub(super) fn holder_of(&self, grant: &Grant) -> Option<&Holder> {
        // Fences are unique in a shard, so the fence alone tells this grant from a later one in the same slot.
        self.slots.get(grant.slot)?.holder.as_ref().filter(|holder| holder.fence() == grant.fence)
    }

    /// The deadline of a grant that holds its key, be it past or not: for a lock of a session, the session's, if that
    /// is not over.
    pub(crate) fn deadline_of(&self, grant: &Grant) -> Option<Moment> {
        self.holder_of(grant)?;
        self.deadline_in(grant.slot)
    }

    /// The same for whatever holds a slot.
    #[inline]
    pub(super) fn deadline_in(&self, index: u32) -> Option<Moment> {
        let slot = &self.slots[index];
        let holder = slot.holder.as_ref()?;
        Some(match slot.session() {
            None => holder.deadline,
            // Settled: what was seen as past stays past, also for a heartbeat that read the clock before (T6).
            Some(session) => {
                let until = session.settle(self.now).unwrap_or(Moment::ZERO);
                if self.is_by_store(index) { until.min(holder.deadline) } else { slot.within_cap(holder, until) }
            }
        })
    }

    /// The grant that holds a slot.
    pub(super) fn grant_in(&self, slot: u32) -> Option<Grant> {
        let holder = self.slots[slot].holder.as_ref()?;
        Some(Grant { slot, fence: holder.fence(), proof: self.proof_in(slot) })
    }

    /// Why a grant that holds nothing any more ended.
    pub(crate) fn loss_of(&self, fence: FencingToken) -> Loss {
        self.history.end_of_fence(fence).map_or(Loss::Unknown, End::as_loss)
    }
}
