//! What the metrics' reporter reads of a table.

use super::histogram::{Buckets, Samples, Tally, add};
use super::slot::Slot;
use super::{Counters, Table};
use crate::clock::Moment;
use crate::error::AttemptOutcome;
use crate::mode::ModeLabel;

/// What a reporter reads at once, of a table or of several.
#[derive(Clone, Debug, Default)]
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

impl Reading {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.tally.merge(&other.tally);
        self.holds.merge(&other.holds);
        add(&mut self.held, &other.held);
        add(&mut self.waiting, &other.waiting);
        add(&mut self.entries, &other.entries);
        self.deepest = self.deepest.max(other.deepest);
    }

    /// Requests refused, or locks taken, to break a deadlock.
    pub(crate) fn deadlocks(&self) -> u64 {
        let refused = self.tally.outcomes.iter().map(|mode| mode[AttemptOutcome::Deadlock as usize]).sum::<u64>();
        refused + self.tally.deadlocks_by_revocation
    }

    /// The same once the manager is gone: nothing is held or waits.
    pub(crate) fn end(&mut self) {
        (self.held, self.waiting, self.entries) = ([0; 3], [0; 3], [0; 3]);
        (self.tally.claims, self.tally.claims_idle, self.deepest) = (0, 0, 0);
    }
}

/// The oldest of those looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Oldest {
    pub(crate) holder: Option<Moment>,
    pub(crate) waiter: Option<Moment>,
    /// Since when the oldest waiter waits for a holder of this process that neither refreshes nor releases. Who stands by
    /// for a holder that refreshes waits as it should.
    pub(crate) stalled: Option<Moment>,
}

/// When the holder in a slot was granted its lock, or refreshed it last; `None` if there is none.
fn last_move(slot: &Slot) -> Option<Moment> {
    let holder = slot.holder.as_ref().filter(|_| !slot.is_pending())?;
    let deadline = slot.session().map_or(Ok(holder.deadline), |session| session.deadline()).unwrap_or(holder.deadline);
    // A refresh sets the deadline to a TTL from then.
    let ttl = u64::try_from(holder.ttl.as_duration().as_nanos()).unwrap_or(u64::MAX);
    Some(Moment::from_nanos(deadline.as_nanos().saturating_sub(ttl)).max(holder.granted_at))
}

impl Table {
    pub(crate) fn reading(&mut self, now: Moment) -> Reading {
        self.advance_clock(now);
        let mut tally = self.tally.clone();
        let (mut held, mut waiting, mut entries) = (tally.held, tally.waiting, tally.held);
        let exclusive = ModeLabel::Exclusive as usize;
        held[exclusive] = self.held() as u64 - held.iter().sum::<u64>();
        waiting[exclusive] = self.waiting as u64 - waiting.iter().skip(1).sum::<u64>();
        for (entries, headless) in entries.iter_mut().zip(tally.headless) {
            *entries += headless;
        }
        entries[exclusive] = self.slots.len() as u64 - entries.iter().sum::<u64>();
        let acquired = AttemptOutcome::Acquired as usize;
        let together = tally.outcomes.iter().skip(1).map(|mode| mode[acquired]).sum::<u64>();
        tally.outcomes[exclusive][acquired] = self.counters.grants + self.counters.reentered - together;
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
        let window = self.slots.window(cursor, budget);
        let end = window.end;
        for index in window {
            let Some(slot) = self.slots.get(index) else { continue };
            let earlier = |known: Option<Moment>, found: Moment| Some(known.map_or(found, |known| known.min(found)));
            if let Some(holder) = slot.holder.as_ref().filter(|_| !slot.is_pending()) {
                oldest.holder = earlier(oldest.holder, holder.granted_at);
            }
            // Who came first stands first.
            if let Some(first) = slot.queue.first() {
                let since = self.waiters[first].queued_at;
                oldest.waiter = earlier(oldest.waiter, since);
                if let Some(moved) = last_move(slot) {
                    oldest.stalled = earlier(oldest.stalled, since.max(moved));
                }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{LockManager, ManualClock};

    /// For how long the oldest waiter has waited, and has waited for nothing that moves.
    fn ages(locks: &LockManager) -> (u64, u64) {
        let mut oldest = Oldest::default();
        locks.shards().iter().for_each(|shard| shard.look_for_oldest(&mut oldest));
        let age = |since: Option<Moment>| since.map_or(0, |since| locks.now().saturating_since(since).as_secs());
        (age(oldest.waiter), age(oldest.stalled))
    }

    #[actix_rt::test]
    async fn who_stands_by_for_a_holder_that_refreshes_is_not_stalled() {
        let clock = ManualClock::new();
        let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
        let (ttl, minute) = (Duration::from_secs(30), Duration::from_secs(60));
        let leader = locks.lock("k").ttl(ttl).await.unwrap();
        let session = locks.session("s").ttl(ttl);
        let _its = session.lock("s").await.unwrap();
        let mut standbys = ["k", "s"].map(|key| Box::pin(locks.lock(key).wait_forever().into_future()));
        for standby in &mut standbys {
            assert!(futures_util::poll!(standby).is_pending());
        }
        for _ in 0..60 {
            clock.advance(Duration::from_secs(10));
            leader.refresh().await.unwrap();
            session.heartbeat().await.unwrap();
        }
        clock.advance(Duration::from_secs(5));
        assert_eq!(ages(&locks), (605, 5));
        drop(leader.detach());
        let stuck = locks.lock("x").ttl(60 * minute).await.unwrap();
        let mut waits = Box::pin(locks.lock("x").wait_forever().into_future());
        assert!(futures_util::poll!(&mut waits).is_pending());
        for _ in 0..40 {
            clock.advance(Duration::from_secs(15));
            session.heartbeat().await.unwrap();
        }
        assert_eq!(ages(&locks).1, 600);
        drop(stuck);
    }
}
