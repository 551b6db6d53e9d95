//! How many requests may wait in all the shards of a manager together, or how many holders may share keys (T9).
//!
//! One counter for all, so that one hot key may use the whole bound. A shard takes permits from it in batches and keeps
//! a few that came free, so that most queueing touches nothing shared. Permits kept count as taken: the bound is never
//! passed, but a queue may be full up to two batches per shard early. Under a small bound a batch is one permit.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// The most permits that a shard takes at a time.
const BATCH: usize = 64;
/// A batch is at most this share of the bound, over all shards together.
const SHARE: usize = 32;

#[derive(Debug)]
pub(crate) struct WaiterBudget {
    taken: CachePadded<AtomicUsize>,
    max: usize,
    batch: usize,
}

impl WaiterBudget {
    pub(crate) fn new(max: usize, shards: usize) -> Self {
        let batch = (max / (shards * SHARE)).clamp(1, BATCH);
        Self { taken: CachePadded::new(AtomicUsize::new(0)), max, batch }
    }

    /// Takes a batch, or what is left of the bound.
    fn take(&self) -> usize {
        let more = |taken: usize| self.batch.min(self.max.saturating_sub(taken));
        // Relaxed: the counter guards nothing but itself.
        let before = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| Some(taken + more(taken)));
        before.map_or(0, more)
    }
}

/// The permits that one shard has taken; under its mutex.
#[derive(Debug, Default)]
pub(crate) struct WaiterPermits(usize);

impl WaiterPermits {
    /// How many more may wait here now, at least one if the budget has a permit left.
    pub(super) fn room(&mut self, budget: &WaiterBudget, waiting: usize) -> usize {
        if self.0 <= waiting {
            self.0 += budget.take();
        }
        self.at_hand(waiting)
    }

    /// The same without a look at the budget: what is left of those that were taken before.
    #[inline]
    pub(super) fn at_hand(&self, waiting: usize) -> usize {
        self.0.saturating_sub(waiting)
    }

    /// Keeps less than a batch for the next waiters once two batches are free.
    pub(super) fn give_back(&mut self, budget: &WaiterBudget, waiting: usize) {
        let spare = self.0.saturating_sub(waiting);
        if spare > 2 * (budget.batch - 1) {
            let back = spare - (budget.batch - 1);
            self.0 -= back;
            budget.taken.fetch_sub(back, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_shards_share_the_bound_and_never_pass_it() {
        for max in [1, 2, 100, 10_000] {
            let budget = WaiterBudget::new(max, 2);
            let mut shards = [(WaiterPermits::default(), 0), (WaiterPermits::default(), 0)];
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..5 * max {
                let (permits, waiting) = &mut shards[random.usize(..2)];
                // Fills up two steps in three.
                if random.usize(..3) > 0 && permits.room(&budget, *waiting) > 0 {
                    *waiting += 1;
                } else {
                    *waiting = waiting.saturating_sub(1);
                }
                permits.give_back(&budget, *waiting);
                let taken = budget.taken.load(Ordering::Relaxed);
                assert!(taken <= max);
                assert_eq!(shards.iter().map(|(permits, _)| permits.0).sum::<usize>(), taken);
                assert!(shards.iter().all(|(permits, waiting)| *waiting <= permits.0));
            }
            for (permits, _) in &mut shards {
                permits.give_back(&budget, 0);
            }
            assert!(budget.taken.load(Ordering::Relaxed) <= 2 * (budget.batch - 1), "what nobody needs is given back");
        }
    }

    #[test]
    fn a_small_bound_is_used_to_its_last_permit() {
        let budget = WaiterBudget::new(3, 16);
        let mut shards: Vec<WaiterPermits> = (0..4).map(|_| WaiterPermits::default()).collect();
        let rooms: Vec<usize> = shards.iter_mut().map(|permits| permits.room(&budget, 0)).collect();
        assert_eq!(rooms, [1, 1, 1, 0]);
        shards[0].give_back(&budget, 0);
        assert_eq!(shards[3].room(&budget, 0), 1);
    }
}
