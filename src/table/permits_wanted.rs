//! The permits that the waiters of one semaphore want, for the deadlock check.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;

use super::steps;

/// How many permits the waiters of one semaphore want: the most first, and of those who want the same the first to
/// have come.
#[derive(Debug, Default)]
pub(crate) struct PermitsWanted(BTreeSet<(Reverse<u32>, u64, u32)>);

impl PermitsWanted {
    /// A waiter joins the queue: how much it wants, its sequence number and its index.
    pub(super) fn insert(&mut self, permits: u32, seq: u64, id: u32) {
        self.0.insert((Reverse(permits), seq, id));
    }

    pub(super) fn remove(&mut self, permits: u32, seq: u64, id: u32) {
        self.0.remove(&(Reverse(permits), seq, id));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The most that a waiter before this sequence number wants whose wait goes on. Costs one step for each number of
    /// permits that only later waiters want, and for each wait that is over and not yet swept.
    pub(super) fn most_before(&self, seq: u64, goes_on: impl Fn(u32) -> bool) -> u32 {
        let mut after = Bound::Unbounded;
        while let Some(&(permits, earliest, id)) = self.0.range((after, Bound::Unbounded)).next() {
            steps::count();
            if earliest >= seq {
                after = Bound::Excluded((permits, u64::MAX, u32::MAX));
            } else if goes_on(id) {
                return permits.0;
            } else {
                after = Bound::Excluded((permits, earliest, id));
            }
        }
        0
    }
}
