//! Orders to refresh a grant at intervals: its holder's ([`Table::auto_refresh`]), and one of the manager's own
//! ([`Table::keep_refreshed`]), by which a `run` or a session keeps its lock.
//!
//! | orders          | the grant is refreshed        | the holder's stops, or is replaced | the manager's own stops  |
//! |-----------------|-------------------------------|------------------------------------|--------------------------|
//! | the holder's    | as that says                  | nothing is left; the newer one is  | -                        |
//! | the manager's   | every third of the TTL; over a store all locks of a session at the same moments | - | nothing is left |
//! | both            | as the holder's says          | the manager's; the newer, and it   | the holder's is left     |
//!
//! For a grant that the lane has just made, the manager's own is no more than a mark until the next tick
//! ([`Table::keep_from_next_tick`]): most of those locks are released by then.
//!
//! An order is stopped by its own number, so that one which was replaced stops nobody else's.

use std::time::Duration;

use super::holder::Keep;
use super::refresh_order::{AutoRefresh, AutoRefreshId, DueAction, Own};
use super::slot::Refreshes;
use super::{Effects, Grant, RefreshRequest, Table};
use crate::clock::Moment;
use crate::error::Loss;
use crate::key::Ttl;

/// Whether there is a new standing order to refresh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AutoRefreshStart {
    Started(AutoRefreshId),
    /// There was one already, or the grant has no use for one.
    Unchanged,
}

impl Table {
    fn new_order(&mut self) -> AutoRefreshId {
        self.last_order = self.last_order.next();
        self.last_order
    }

    /// Has the table refresh the grant by itself: `every` from now on, until it ends. Replaces its holder's last order.
    pub(crate) fn auto_refresh(
        &mut self,
        grant: &Grant,
        every: Duration,
        timeout: Duration,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<AutoRefreshId, Loss> {
        self.check(grant, now, fx)?;
        self.begin_kept(grant.slot, fx);
        let id = self.new_order();
        let extras = self.slots[grant.slot].extras_mut();
        let depth = extras.reentries;
        let own = extras.auto.as_ref().and_then(|auto| {
            let itself = Own { id: auto.id, every: auto.every, depth: auto.depth };
            if auto.is_own { Some(itself) } else { auto.own }
        });
        let due = self.now.saturating_add(every);
        let order = Own { id, every, depth };
        self.order(grant.slot, AutoRefresh { is_own: false, timeout, own, ..AutoRefresh::of(order, due) }, fx);
        Ok(id)
    }

    /// Has the table refresh the grant every third of its TTL, also when its holder's own order is stopped; unless there
    /// is such an order already, or none is of use. One that has less than half of its TTL left, as a session's may, is
    /// refreshed at once.
    pub(crate) fn keep_refreshed(
        &mut self,
        grant: &Grant,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<AutoRefreshStart, Loss> {
        let deadline = self.check(grant, now, fx)?;
        self.begin_kept(grant.slot, fx);
        let slot = &self.slots[grant.slot];
        let ttl = slot.holder.as_ref().expect("the deadline came from this holder").ttl;
        let third = ttl.as_duration() / 3;
        let auto = slot.extras.as_ref().and_then(|extras| extras.auto.as_ref());
        let auto = auto.filter(|auto| auto.what == DueAction::Refresh);
        let is_kept = auto.is_some_and(|auto| auto.is_own || auto.own.is_some());
        if is_kept || third < Ttl::MIN || deadline >= slot.last_deadline() {
            return Ok(AutoRefreshStart::Unchanged);
        }
        let is_by_store = self.is_by_store(grant.slot);
        if auto.is_none() && !is_by_store && deadline.saturating_since(self.now) < ttl.as_duration() / 2 {
            self.refresh(grant, RefreshRequest::To(ttl), now, fx)?;
        }
        let depth = self.slots[grant.slot].extras_mut().reentries;
        Ok(AutoRefreshStart::Started(self.begin_order(grant.slot, third, depth, fx)))
    }

    /// The same for a grant that [`grant_if_free`](Table::grant_if_free) has just made: the next tick gives the order, if
    /// the lock is held still. Answers when that has to come at the latest; `None` if no order is of use.
    #[inline]
    pub(crate) fn keep_from_next_tick(&mut self, grant: &Grant) -> Option<Moment> {
        let slot = self.slots.get_mut(grant.slot).filter(|slot| slot.extras.is_none() && slot.is_to_be_filed())?;
        let holder = slot.holder.as_mut().filter(|holder| holder.fence() == grant.fence)?;
        let third = holder.ttl.as_duration() / 3;
        if third < Ttl::MIN {
            return None;
        }
        holder.keep = Keep::FromNextTick;
        Some(holder.granted_at.saturating_add(third))
    }

    /// Gives the order that a grant is marked for.
    pub(super) fn begin_kept(&mut self, index: u32, fx: &mut Effects) {
        let Some(holder) = self.slots.get_mut(index).and_then(|slot| slot.holder.as_mut()) else { return };
        if std::mem::replace(&mut holder.keep, Keep::Unordered) == Keep::Unordered {
            return;
        }
        let every = holder.ttl.as_duration() / 3;
        let due = holder.granted_at.saturating_add(every);
        let order = Own { id: self.new_order(), every, depth: 0 };
        self.order(index, AutoRefresh::of(order, due), fx);
    }

    /// The manager's own order, in force from now on, or below the holder's.
    pub(super) fn begin_order(&mut self, index: u32, every: Duration, depth: u32, fx: &mut Effects) -> AutoRefreshId {
        let id = self.new_order();
        let auto = self.slots[index].extras_mut().auto.as_mut();
        if let Some(auto) = auto.filter(|auto| auto.what == DueAction::Refresh) {
            auto.own = Some(Own { id, every, depth });
        } else {
            let due = self.next_refresh(index, every);
            let order = AutoRefresh::of(Own { id, every, depth }, due);
            self.order(index, order, fx);
        }
        id
    }

    /// When the manager refreshes a grant by itself: the store is asked for all locks of a session at once.
    pub(super) fn next_refresh(&self, index: u32, every: Duration) -> Moment {
        match self.slots[index].session() {
            Some(session) if self.is_by_store(index) => session.beat_after(self.now, every),
            _ => self.now.saturating_add(every),
        }
    }

    /// Puts an order in force, in place of what is.
    fn order(&mut self, index: u32, mut order: AutoRefresh, fx: &mut Effects) {
        if let Some(due) = self.slots[index].extras.as_ref().and_then(|extras| extras.extension) {
            // The end that it has comes earlier than the order counts on.
            order.due = order.due.min(due);
        }
        self.drop_auto(index);
        fx.due(order.due);
        self.slots[index].extras_mut().auto = Some(order);
        self.refreshes.insert(&mut Refreshes(&mut self.slots), index);
    }

    /// Stops one order, if it still stands.
    pub(crate) fn stop_order(&mut self, grant: &Grant, id: AutoRefreshId, fx: &mut Effects) {
        if self.holder_of(grant).is_some() {
            self.stop_orders(grant.slot, |order, _| order == id, fx);
        }
    }

    /// Stops those orders of a slot that `which` picks by their names and depths. If that is the holder's alone, the
    /// manager's own, which stood below it, is in force again.
    pub(super) fn stop_orders(&mut self, index: u32, which: impl Fn(AutoRefreshId, u32) -> bool, fx: &mut Effects) {
        let Some(auto) = self.slots[index].extras.as_mut().and_then(|extras| extras.auto.as_mut()) else { return };
        auto.own = auto.own.filter(|own| !which(own.id, own.depth));
        if !which(auto.id, auto.depth) {
            return;
        }
        let own = auto.own;
        self.drop_auto(index);
        if let Some(own) = own {
            // The holder's may have refreshed less often: this one begins at once.
            self.order(index, AutoRefresh::of(own, self.now), fx);
        } else if !self.file_extension(index, fx) {
            self.confirm_before_the_end(index);
        }
    }

    /// Stops all orders of a grant.
    pub(crate) fn stop_auto_refresh(&mut self, grant: &Grant, fx: &mut Effects) {
        if self.holder_of(grant).is_some() {
            self.slots[grant.slot].holder.iter_mut().for_each(|holder| holder.keep = Keep::Unordered);
            self.drop_auto(grant.slot);
            if !self.file_extension(grant.slot, fx) {
                self.confirm_before_the_end(grant.slot);
            }
        }
    }

    #[inline]
    pub(super) fn drop_auto(&mut self, index: u32) {
        if self.slots[index].extras.as_ref().is_some_and(|extras| extras.auto.is_some()) {
            self.refreshes.remove(&mut Refreshes(&mut self.slots), index);
            self.slots[index].extras_mut().auto = None;
        }
    }
}
