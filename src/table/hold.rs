//! What a holder does with its grant, and every way in which a grant ends.

use std::sync::Arc;
use std::time::Duration;

use super::ended::End;
use super::expiry::Links;
use super::slot::{self, AutoRefresh, Holder, Keeper, Refreshes, Watcher};
use super::{Effects, Grant, Table};
use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::key::{FencingToken, Key, Token, Ttl};

/// What a release found. Both leave the caller without the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Release {
    /// The lock was held, and is released now.
    Released,
    /// The lock had ended before. If the caller worked under it, the work was not protected to its end.
    AlreadyGone,
}

/// What a refresh asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum RefreshAsk {
    /// The TTL of the grant, and only once its share of the TTL has passed (`refresh_after`).
    IfDue,
    /// This TTL, now.
    To(Ttl),
}

/// What a refresh did; both leave the lock held until the deadline given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refreshed {
    pub(crate) deadline: Moment,
    pub(crate) written: bool,
    pub(crate) count: u32,
}

impl Table {
    /// Ends a grant for its guard. `AlreadyGone` if it is not the holder any more (T5).
    pub(crate) fn release(&mut self, grant: &Grant, end: End, now: Moment, fx: &mut Effects) -> Release {
        match self.live(grant, now, fx) {
            Some(_) => {
                self.end(grant.slot, end, fx);
                Release::Released
            }
            None => Release::AlreadyGone,
        }
    }

    /// Ends a grant that nobody waits for, watches or asks about: the lane's whole way out when there is no contention.
    /// Changes nothing otherwise.
    #[inline]
    pub(crate) fn release_if_alone(&mut self, grant: &Grant, end: End, now: Moment) -> Option<Release> {
        self.see(now);
        let slot = self.slots.get(grant.slot)?;
        let holder = slot.holder.as_ref()?;
        let alone = slot.queue.len == 0 && slot.extras.is_none() && holder.keeper.forgets(end);
        if !alone || holder.fence != grant.fence || holder.deadline <= self.now {
            return None;
        }
        self.counters.end(end, self.now.nanos_since(holder.granted_at));
        self.expiries.remove(&mut self.slots, grant.slot);
        self.remove_slot(grant.slot);
        Some(Release::Released)
    }

    /// The TTL of the grant that a release of this one would make.
    pub(crate) fn next_ttl(&self, grant: &Grant) -> Option<Ttl> {
        let next = self.slots.get(grant.slot)?.queue.first()?;
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
        self.see(now);
        let mut found = self.find(hash, key);
        if let Some(index) = found
            && self.expire_if_due(index, fx)
        {
            found = self.find(hash, key);
        }
        let holder = found.and_then(|index| Some((index, self.slots[index].holder.as_ref()?)));
        match holder {
            Some((slot, holder)) if holder.token == token => {
                Ok(Grant { slot, token: holder.token, fence: holder.fence })
            }
            _ => Err(match (self.ended.find(token, hash), found) {
                (Some(end), _) => LockError::Lost(end.as_loss()),
                (None, Some(_)) => LockError::NotHeld,
                (None, None) => LockError::Lost(Loss::Unknown),
            }),
        }
    }

    /// Moves a deadline on: never back, never past `max_hold`, never for a lock past its deadline (T6).
    pub(crate) fn refresh(
        &mut self,
        grant: &Grant,
        ask: RefreshAsk,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<Refreshed, Loss> {
        if self.live(grant, now, fx).is_none() {
            self.counters.refresh_lost += 1;
            return Err(self.loss_of(grant.fence));
        }
        let now = self.now;
        let slot = &mut self.slots[grant.slot];
        let (max_hold, share) = (slot.max_hold(), slot.extra_terms().and_then(|extra| extra.refresh_after));
        let holder = slot.holder.as_mut().expect("the deadline came from this holder");
        let ttl = match ask {
            RefreshAsk::To(ttl) => ttl,
            RefreshAsk::IfDue => {
                if let Some(share) = share {
                    let untouched = holder.ttl.as_duration().mul_f32(1.0 - share);
                    if holder.deadline.saturating_since(now) >= untouched {
                        let (deadline, count) = (holder.deadline, holder.refreshes);
                        self.count(grant.slot, |c| c.refresh_skipped += 1);
                        return Ok(Refreshed { deadline, written: false, count });
                    }
                }
                holder.ttl
            }
        };
        let asked = slot::deadline(ttl, max_hold, holder.granted_at, now).min(self.claim.horizon());
        holder.deadline = holder.deadline.max(asked);
        holder.refreshes = holder.refreshes.saturating_add(1);
        let refreshed = Refreshed { deadline: holder.deadline, written: true, count: holder.refreshes };
        self.expiries.update(&mut self.slots, grant.slot);
        self.count(grant.slot, |c| c.refreshed += 1);
        Ok(refreshed)
    }

    /// Has the table refresh the grant by itself: `every` from now on, until it ends.
    pub(crate) fn auto_refresh(
        &mut self,
        grant: &Grant,
        every: Duration,
        timeout: Duration,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<(), Loss> {
        self.check(grant, now, fx)?;
        self.stop_auto_refresh(grant);
        let due = self.now.saturating_add(every);
        self.slots[grant.slot].extras_mut().auto = Some(AutoRefresh { every, timeout, due, links: Links::NEW });
        self.refreshes.insert(&mut Refreshes(&mut self.slots), grant.slot);
        fx.due(due);
        Ok(())
    }

    pub(crate) fn stop_auto_refresh(&mut self, grant: &Grant) {
        if self.deadline_of(grant).is_some() {
            self.drop_auto(grant.slot);
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
        self.check(grant, now, fx)?;
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
        let deadline = self.live(grant, now, fx).ok_or_else(|| self.ended.find_fence(grant.fence))?;
        fx.due(deadline);
        Ok(self.slots[grant.slot].extras_mut().watcher.get_or_insert_with(make).clone())
    }

    /// The deadline of a grant that is still good; one whose deadline has passed is ended here and now (C1).
    fn live(&mut self, grant: &Grant, now: Moment, fx: &mut Effects) -> Option<Moment> {
        self.see(now);
        let deadline = self.deadline_of(grant)?;
        if deadline <= self.now {
            self.end(grant.slot, End::Expired, fx);
            return None;
        }
        Some(deadline)
    }

    /// The same, with the reason why it is not good.
    pub(crate) fn check(&mut self, grant: &Grant, now: Moment, fx: &mut Effects) -> Result<Moment, Loss> {
        self.live(grant, now, fx).ok_or_else(|| self.loss_of(grant.fence))
    }

    /// Lets a grant travel by its token alone, or gives it a guard again.
    pub(crate) fn set_keeper(&mut self, grant: &Grant, keeper: Keeper) {
        if self.deadline_of(grant).is_some()
            && let Some(holder) = self.slots[grant.slot].holder.as_mut()
        {
            holder.keeper = keeper;
        }
    }

    pub(crate) fn keeper(&self, grant: &Grant) -> Option<Keeper> {
        self.deadline_of(grant)?;
        self.slots[grant.slot].holder.as_ref().map(|holder| holder.keeper)
    }

    /// The deadline of a grant that holds its key, be it past or not.
    pub(crate) fn deadline_of(&self, grant: &Grant) -> Option<Moment> {
        let holder = self.slots.get(grant.slot)?.holder.as_ref()?;
        // Fences are unique in a shard, so the fence alone tells this grant from a later one in the same slot.
        (holder.fence == grant.fence).then_some(holder.deadline)
    }

    /// Why a grant that holds nothing any more ended.
    pub(crate) fn loss_of(&self, fence: FencingToken) -> Loss {
        self.ended.find_fence(fence).map_or(Loss::Unknown, End::as_loss)
    }

    /// Ends whatever holds the key. `AlreadyGone` if nothing did.
    pub(crate) fn force_release(&mut self, key: &Key, hash: u32, now: Moment, fx: &mut Effects) -> Release {
        self.see(now);
        let Some(index) = self.find(hash, key) else { return Release::AlreadyGone };
        if self.expire_if_due(index, fx) {
            // What is here now was granted a moment ago, to a waiter: that is not the lock that was to be forced.
            return Release::AlreadyGone;
        }
        self.end(index, End::Forced, fx);
        Release::Released
    }

    /// Ends the holder of a slot if its deadline has passed.
    pub(super) fn expire_if_due(&mut self, index: u32, fx: &mut Effects) -> bool {
        let due = self.slots[index].holder.as_ref().is_some_and(|holder| holder.deadline <= self.now);
        if due {
            self.end(index, End::Expired, fx);
        }
        due
    }

    /// The one way out: ends the holder of a slot, then hands the key on.
    pub(super) fn end(&mut self, index: u32, end: End, fx: &mut Effects) {
        self.expiries.remove(&mut self.slots, index);
        self.drop_auto(index);
        let slot = &mut self.slots[index];
        let hash = slot.hash;
        let Some(Holder { token, fence, granted_at, keeper, .. }) = slot.holder else { return };
        slot.holder = None;
        if let Some(extras) = slot.extras.as_mut() {
            (extras.terms, extras.cap) = (None, None);
            if let Some(watcher) = extras.watcher.take() {
                fx.notice(watcher, end);
            }
        }
        if let Keeper::Unseen(waiter) = keeper {
            // A dropped future has taken its waiter along; any other end leaves word for it (T3).
            if self.waiters.get(waiter).is_some_and(|waiter| waiter.token == token) && end != End::Dropped {
                self.refuse(waiter, LockError::Lost(end.as_loss()), fx);
            }
        }
        if !keeper.forgets(end) {
            self.ended.push(token, hash, fence, end);
        }
        let held = self.now.nanos_since(granted_at);
        self.count(index, |c| c.end(end, held));
        self.hand_off(index, fx);
    }

    pub(super) fn drop_auto(&mut self, index: u32) {
        if self.slots[index].extras.as_ref().is_some_and(|extras| extras.auto.is_some()) {
            self.refreshes.remove(&mut Refreshes(&mut self.slots), index);
            self.slots[index].extras_mut().auto = None;
        }
    }
}
