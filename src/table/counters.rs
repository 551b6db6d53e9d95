//! What a shard counts (T8): plain additions under the mutex that the lane already holds. `telemetry::metric_names`
//! says which of them are published.

use super::history::End;

/// Declares the counters, and how those of two shards are added up.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Totals since the start of a shard, or of one contended key.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        #[repr(C)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl Counters {
            /// Adds another shard's totals.
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }
        }
    };
}

counters! {
    /// Nanoseconds from grant to end, over all grants that ended.
    hold_nanos,
    // These eight are what a hand-off adds to, and lie together for its sake.
    /// Requests that came to their end, whatever it was.
    attempts,
    grants,
    queued,
    handoffs,
    released,
    dropped,
    /// Nanoseconds in the queue, over all waiters that were granted.
    wait_nanos,

    /// Grants that this process alone made, while the store gave no answer.
    degraded,
    expired,
    forced,
    /// Taken from their holders by the manager itself.
    lost,
    ended_by_shutdown,
    /// Requests answered with a grant that their owner already had.
    reentered,

    timed_out,
    /// Requests that took up the wait of an earlier one, of the same key and token, that had timed out.
    continued,
    cancelled,
    refused_by_shutdown,
    /// Waiters refused to break a deadlock.
    deadlocked,
    /// Waiters whose session ended.
    outlived,

    /// Refused at once: somebody else held the key, and the request was not to wait.
    busy,
    /// Refused at once by a bound or a rule, or by shutdown.
    rejected,
    /// Pollers whose caller went away.
    cancelled_polls,
    /// Pollers that gave up.
    polls_exhausted,

    refreshed,
    refresh_skipped,
    refresh_lost,
    refresh_late,
    /// Refreshes that the store did not answer.
    refresh_unknown,

    /// Calls that filled a flight, and calls that shared what another filled.
    flights_led,
    flights_shared,
    /// Of these, those that shared a lock.
    coalesced,
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
}
