//! When an attempt that may have waited is tallied, and what the metrics' reporter reads of a table.

use super::Table;
#[cfg(feature = "metrics")]
use super::{Buckets, Counters, ModeLabel, Samples, Tally};
#[cfg(feature = "metrics")]
use crate::clock::Moment;
use crate::error::AttemptOutcome;

/// What a reporter reads at once.
#[cfg(feature = "metrics")]
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) counters: Counters,
    pub(crate) tally: Tally,
    pub(crate) holds: Buckets<18>,
    /// By mode.
    pub(crate) held: [u64; 3],
    pub(crate) waiting: [u64; 3],
    pub(crate) entries: [u64; 3],
    pub(crate) deepest: u32,
}

/// The oldest of those looked at.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Oldest {
    pub(crate) holder: Option<Moment>,
    pub(crate) waiter: Option<Moment>,
}

impl Table {
    /// Counts the end of an attempt that queued, before its waiter is told.
    pub(super) fn tally_wait(&mut self, id: u32, outcome: AttemptOutcome) {
        let waiter = &self.waiters[id];
        self.tally.attempt(waiter.terms.mode(), outcome);
        self.tally.waited_for(outcome, self.now.nanos_since(waiter.queued_at));
    }

    /// The same of one that the key was being taken for: maybe it had to wait for nobody.
    pub(super) fn tally_claimant(&mut self, id: u32, outcome: AttemptOutcome) {
        if self.waiters[id].was_behind() {
            self.tally_wait(id, outcome);
        } else {
            self.tally.attempt(self.waiters[id].terms.mode(), outcome);
        }
    }
}

#[cfg(feature = "metrics")]
impl Table {
    pub(crate) fn reading(&mut self, now: Moment) -> Reading {
        self.see(now);
        let tally = self.tally.clone();
        let (mut held, mut waiting, mut entries) = (tally.held, tally.waiting, tally.held);
        let exclusive = ModeLabel::Exclusive as usize;
        held[exclusive] = self.held() as u64 - held.iter().sum::<u64>();
        waiting[exclusive] = self.waiting as u64 - waiting.iter().skip(1).sum::<u64>();
        for (entries, headless) in entries.iter_mut().zip(tally.headless) {
            *entries += headless;
        }
        entries[exclusive] = self.slots.len() as u64 - entries.iter().sum::<u64>();
        let deepest = self.tally.deepest(self.now);
        Reading {
            counters: self.counters,
            holds: tally.all_holds(self.counters.ends()),
            tally,
            held,
            waiting,
            entries,
            deepest,
        }
    }

    /// Looks through up to `budget` entries from `cursor` on; answers where to go on.
    ///
    /// Queues that are deep and stand still are noticed here: nobody joins them.
    pub(crate) fn look_for_oldest(
        &mut self,
        cursor: u32,
        budget: u32,
        now: Moment,
        oldest: &mut Oldest,
    ) -> Option<u32> {
        let mut deepest = 0;
        let end = self.slots.bound().min(cursor.saturating_add(budget));
        for index in cursor..end {
            let Some(slot) = self.slots.get(index) else { continue };
            let earlier = |known: Option<Moment>, found: Moment| Some(known.map_or(found, |known| known.min(found)));
            if let Some(holder) = slot.holder.as_ref().filter(|_| !slot.is_pending()) {
                oldest.holder = earlier(oldest.holder, holder.granted_at);
            }
            // Who came first stands first.
            if let Some(first) = slot.queue.first() {
                oldest.waiter = earlier(oldest.waiter, self.waiters[first].queued_at);
            }
            deepest = deepest.max(slot.queue.len);
        }
        self.tally.saw_depth(deepest, now);
        (end < self.slots.bound()).then_some(end)
    }

    pub(crate) fn take_samples(&mut self) -> Samples {
        self.tally.take_samples(self.counters.ends())
    }
}
