//! What the table keeps of a standing order to refresh; `auto_refresh` has what is done with it.

use std::time::Duration;

use super::timer_wheel::Links;
use crate::clock::Moment;

/// Names a standing order among those of its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AutoRefreshId(u64);

impl AutoRefreshId {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What is done for a grant when its time comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DueAction {
    /// It is refreshed, because that was ordered.
    Refresh,
    /// No order: the store is asked whether its end still is where this process knows it.
    Confirm,
    /// No order: it was granted for less than its TTL, and is extended once.
    Extend,
}

/// What a grant is refreshed by; or, where it has no order, confirmed.
#[derive(Debug)]
pub(crate) struct AutoRefresh {
    pub(crate) what: DueAction,
    pub(crate) every: Duration,
    /// A refresh that comes later than this after it was due counts as failed, and is done all the same.
    pub(crate) timeout: Duration,
    pub(crate) due: Moment,
    pub(crate) links: Links,
    pub(super) id: AutoRefreshId,
    /// The grant's `reentries` when the order was given. A release that leaves fewer stops the order, because it was given
    /// through the lock that is released; were it higher than that, the first release would stop it too early.
    pub(crate) depth: u32,
    /// Whether it is the manager's own.
    pub(super) is_own: bool,
    /// The manager's own, while the holder's stands above it.
    pub(super) own: Option<Own>,
}

/// The manager's own order, where it is not in force: every so often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    pub(super) id: AutoRefreshId,
    pub(super) every: Duration,
    pub(super) depth: u32,
}

impl AutoRefresh {
    /// No order, but a question to the store.
    pub(super) const fn confirm(due: Moment) -> Self {
        let order = Own { id: AutoRefreshId(0), every: Duration::ZERO, depth: 0 };
        Self { what: DueAction::Confirm, is_own: false, timeout: Duration::MAX, ..Self::of(order, due) }
    }

    /// No order, but one extension.
    pub(super) const fn extend(due: Moment) -> Self {
        Self { what: DueAction::Extend, ..Self::confirm(due) }
    }

    /// The manager's own order, in force.
    pub(super) const fn of(order: Own, due: Moment) -> Self {
        let Own { id, every, depth } = order;
        Self {
            what: DueAction::Refresh,
            every,
            timeout: every,
            due,
            links: Links::NEW,
            id,
            depth,
            is_own: true,
            own: None,
        }
    }
}
