//! What is under way at the store for the grants of one shard: [`UnderWay`], by the fence that the table knows them by.
//!
//! | of a grant | set | cleared |
//! |---|---|---|
//! | `cancel` | when the store begins to be asked for its key | by the call that asks, when it ends, or by who cancels it |
//! | `is_extending` | when a call begins to extend it | by that call, however it ends |
//! | `is_degraded` | when it is made without the store | when the store has answered for its key, or it has ended |

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::key::FencingToken;
use crate::table::LocalWaiters;

/// Cancels an acquisition.
pub(super) type Cancel = oneshot::Sender<LocalWaiters>;

#[derive(Default)]
pub(super) struct UnderWay(Mutex<HashMap<FencingToken, Grant, RandomState>>);

#[derive(Default)]
struct Grant {
    /// A call that does not find it here has been cancelled.
    cancel: Option<Cancel>,
    /// While the store does not answer, one call asks again, however often the grant comes due.
    is_extending: bool,
    /// If it stayed set, refreshes of a lock that the store keeps would not reach the store.
    is_degraded: bool,
}

impl Grant {
    fn is_idle(&self) -> bool {
        self.cancel.is_none() && !self.is_extending && !self.is_degraded
    }
}

impl UnderWay {
    /// Changes what is under way for a grant.
    fn change<R>(&self, fence: FencingToken, change: impl FnOnce(&mut Grant) -> R) -> R {
        match self.0.lock().entry(fence) {
            Entry::Vacant(vacant) => {
                let mut grant = Grant::default();
                let answer = change(&mut grant);
                if !grant.is_idle() {
                    vacant.insert(grant);
                }
                answer
            }
            Entry::Occupied(mut occupied) => {
                let answer = change(occupied.get_mut());
                if occupied.get().is_idle() {
                    occupied.remove();
                }
                answer
            }
        }
    }

    pub(super) fn begin_acquiring(&self, fence: FencingToken, cancel: Cancel) {
        self.change(fence, |grant| grant.cancel = Some(cancel));
    }

    /// The acquisition has ended, or is to end: what cancels it, unless it has ended before.
    pub(super) fn end_acquiring(&self, fence: FencingToken) -> Option<Cancel> {
        self.change(fence, |grant| grant.cancel.take())
    }

    /// Notes that a call extends the grant; whether none did before.
    pub(super) fn begin_extending(&self, fence: FencingToken) -> bool {
        self.change(fence, |grant| !std::mem::replace(&mut grant.is_extending, true))
    }

    pub(super) fn end_extending(&self, fence: FencingToken) {
        self.change(fence, |grant| grant.is_extending = false);
    }

    pub(super) fn set_degraded(&self, fence: FencingToken, is_degraded: bool) {
        self.change(fence, |grant| grant.is_degraded = is_degraded);
    }

    pub(super) fn is_degraded(&self, fence: FencingToken) -> bool {
        self.0.lock().get(&fence).is_some_and(|grant| grant.is_degraded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_forgotten_when_nothing_is_under_way_for_it() {
        let (under_way, fence) = (UnderWay::default(), FencingToken::at_least_one(7));
        let (cancel, _cancelled) = oneshot::channel();
        under_way.begin_acquiring(fence, cancel);
        under_way.set_degraded(fence, true);
        assert_eq!([under_way.begin_extending(fence), under_way.begin_extending(fence)], [true, false]);
        assert!(under_way.end_acquiring(fence).is_some() && under_way.end_acquiring(fence).is_none());
        under_way.end_extending(fence);
        assert!(under_way.is_degraded(fence) && under_way.begin_extending(fence));
        under_way.end_extending(fence);
        under_way.set_degraded(fence, false);
        assert!(!under_way.is_degraded(fence) && under_way.0.lock().is_empty());
    }
}
