//! What a shard counts (T8): plain additions under the mutex that the lane already holds.

use super::ended::End;

/// Totals since the start of a shard, or of one contended key.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Requests that came to their end, whatever it was.
    pub(crate) attempts: u64,

    pub(crate) grants: u64,
    /// Of these, those made without the store's word.
    pub(crate) degraded: u64,
    pub(crate) released: u64,
    pub(crate) dropped: u64,
    pub(crate) expired: u64,
    pub(crate) forced: u64,
    /// Taken from their holders by the manager itself.
    pub(crate) lost: u64,
    pub(crate) ended_by_shutdown: u64,
    /// Requests answered with a grant that their owner already had.
    pub(crate) reentered: u64,

    pub(crate) queued: u64,
    pub(crate) handoffs: u64,
    pub(crate) timed_out: u64,
    pub(crate) cancelled: u64,
    pub(crate) refused_by_shutdown: u64,
    /// Waiters refused to break a deadlock.
    pub(crate) deadlocked: u64,
    /// Waiters whose session ended.
    pub(crate) outlived: u64,

    /// Refused at once: somebody else held the key, and the request was not to wait.
    pub(crate) busy: u64,
    /// Refused at once by a bound or a rule, or by shutdown.
    pub(crate) rejected: u64,
    /// Pollers whose caller went away.
    pub(crate) cancelled_polls: u64,
    /// Pollers that gave up.
    pub(crate) polls_exhausted: u64,

    pub(crate) refreshed: u64,
    pub(crate) refresh_skipped: u64,
    pub(crate) refresh_lost: u64,
    pub(crate) refresh_late: u64,
    /// Refreshes that the store did not answer.
    pub(crate) refresh_unknown: u64,

    /// Calls that filled a flight, and calls that shared what another filled.
    pub(crate) flights_led: u64,
    pub(crate) flights_shared: u64,
    /// Of these, those that shared a lock.
    pub(crate) coalesced: u64,

    /// Nanoseconds from grant to end, over all grants that ended.
    pub(crate) hold_nanos: u64,
    /// Nanoseconds in the queue, over all waiters that were granted.
    pub(crate) wait_nanos: u64,
}

impl Counters {
    /// Counts a grant that ended after so long.
    pub(super) fn end(&mut self, end: End, held_nanos: u64) {
        self.hold_nanos = self.hold_nanos.saturating_add(held_nanos);
        *match end {
            End::Released | End::ByToken | End::SessionEnded => &mut self.released,
            End::Dropped => &mut self.dropped,
            End::Expired => &mut self.expired,
            End::Forced => &mut self.forced,
            End::Revoked | End::Vanished => &mut self.lost,
            End::ShutDown => &mut self.ended_by_shutdown,
        } += 1;
    }

    /// Grants that have ended.
    pub(crate) fn ends(&self) -> u64 {
        self.released + self.dropped + self.expired + self.forced + self.lost + self.ended_by_shutdown
    }

    /// Waiters that have left the queue.
    #[cfg(test)]
    pub(crate) fn left_queue(&self) -> u64 {
        self.handoffs + self.timed_out + self.cancelled + self.refused_by_shutdown + self.deadlocked + self.outlived
    }

    /// Adds another shard's totals.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            attempts,
            grants,
            degraded,
            released,
            dropped,
            expired,
            forced,
            lost,
            ended_by_shutdown,
            reentered,
            queued,
            handoffs,
            timed_out,
            cancelled,
            refused_by_shutdown,
            deadlocked,
            outlived,
            busy,
            rejected,
            cancelled_polls,
            polls_exhausted,
            refreshed,
            refresh_skipped,
            refresh_lost,
            refresh_late,
            refresh_unknown,
            flights_led,
            flights_shared,
            coalesced,
            hold_nanos,
            wait_nanos,
        } = *other;
        self.attempts += attempts;
        self.grants += grants;
        self.degraded += degraded;
        self.released += released;
        self.dropped += dropped;
        self.expired += expired;
        self.forced += forced;
        self.lost += lost;
        self.ended_by_shutdown += ended_by_shutdown;
        self.reentered += reentered;
        self.queued += queued;
        self.handoffs += handoffs;
        self.timed_out += timed_out;
        self.cancelled += cancelled;
        self.refused_by_shutdown += refused_by_shutdown;
        self.deadlocked += deadlocked;
        self.outlived += outlived;
        self.busy += busy;
        self.rejected += rejected;
        self.cancelled_polls += cancelled_polls;
        self.polls_exhausted += polls_exhausted;
        self.refreshed += refreshed;
        self.refresh_skipped += refresh_skipped;
        self.refresh_lost += refresh_lost;
        self.refresh_late += refresh_late;
        self.refresh_unknown += refresh_unknown;
        self.flights_led += flights_led;
        self.flights_shared += flights_shared;
        self.coalesced += coalesced;
        self.hold_nanos = self.hold_nanos.saturating_add(hold_nanos);
        self.wait_nanos = self.wait_nanos.saturating_add(wait_nanos);
    }
}
