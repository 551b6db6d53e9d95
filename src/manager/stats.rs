//! The totals that can be asked of a manager.

use crate::key::Key;
use crate::table::Counters;

/// Declares [`Stats`]: each field with where it comes from. The names in the first line stand for the counters, for what
/// is so now, and for two sums.
macro_rules! stats {
    (|$c:ident, $active:ident, $waiting:ident, $timed_out:ident, $failed:ident|
        $(#[$meta:meta])* pub struct Stats { $($(#[$field_meta:meta])* $field:ident: $type:ty = $value:expr;)* }) => {
        $(#[$meta])*
        pub struct Stats {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl Stats {
            pub(crate) fn new($c: &Counters, $active: u64, $waiting: u64) -> Self {
                let $timed_out = $c.timed_out + $c.polls_exhausted;
                let turned_away = $c.rejected + $c.refused_by_shutdown + $c.deadlocked + $c.outlived;
                let $failed = $timed_out.saturating_sub($c.continued) + turned_away;
                Self { $($field: $value,)* }
            }
        }
    };
}

stats! {
    |c, active, waiting, timed_out, failed|
    /// Totals since a manager was built (or since a key became contended), and what is so now.
    ///
    /// Every field is counted under the shard's mutex, so two balances hold at any time (T8):
    /// `granted = released + dropped + expired + forced + lost + shut_down + active`, and
    /// `queued = handoffs + timed_out_in_queue + cancelled_in_queue + refused_by_shutdown + deadlocked + session_ended +
    /// waiting`.
    #[derive(Debug, Clone, Copy, PartialEq)]
    #[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
    #[non_exhaustive]
    pub struct Stats {
        /// Requests that came to their end, whatever it was.
        attempts: u64 = c.attempts;
        /// Locks granted.
        #[cfg_attr(feature = "http", serde(rename = "total"))]
        granted: u64 = c.grants;
        /// Of these, locks granted while the store did not answer ([`FailMode::Local`](crate::FailMode::Local)).
        degraded: u64 = c.degraded;
        /// Locks held now.
        active: u64 = active;
        /// Requests in queues now.
        waiting: u64 = waiting;

        /// Requests that wanted to wait and ended without a lock: timed out, over a bound, bad input, shutdown. None of
        /// `busy`, `cancelled` and `continued` is a failure.
        failed: u64 = failed;
        /// Requests refused at once because another held the key, as they had asked.
        busy: u64 = c.busy;
        /// Requests that timed out, in the queue or polling.
        timed_out: u64 = timed_out;
        /// Of these, those whose client asked again over HTTP within ten seconds, with the same key and token: rounds of a
        /// longer wait.
        continued: u64 = c.continued;
        /// Requests whose caller went away.
        cancelled: u64 = c.cancelled + c.cancelled_polls;

        /// Locks released by their holders' unlock, by their token, or with the end of their session.
        #[cfg_attr(feature = "http", serde(rename = "unlocked"))]
        released: u64 = c.released;
        /// Locks released by dropping the guard.
        dropped: u64 = c.dropped;
        /// Locks whose deadline passed.
        expired: u64 = c.expired;
        /// Locks released by an operator.
        forced: u64 = c.forced;
        /// Locks that the manager took from their holders to break a deadlock.
        lost: u64 = c.lost;
        /// Locks that outlived a shutdown's grace.
        shut_down: u64 = c.ended_by_shutdown;
        /// Requests answered with a lock that their session already held.
        reentered: u64 = c.reentered;

        /// Refreshes that were written.
        refreshed: u64 = c.refreshed;
        /// Refreshes that came before `refresh_after` and wrote nothing.
        refresh_skipped: u64 = c.refresh_skipped;
        /// Refreshes of locks that had ended.
        refresh_lost: u64 = c.refresh_lost;
        /// Automatic refreshes that came later than their timeout.
        refresh_late: u64 = c.refresh_late;

        /// Requests that had to queue.
        queued: u64 = c.queued;
        /// Grants to a waiter at another's release.
        handoffs: u64 = c.handoffs;
        /// Waiters that timed out.
        timed_out_in_queue: u64 = c.timed_out;
        /// Waiters whose caller went away.
        cancelled_in_queue: u64 = c.cancelled;
        /// Waiters refused by shutdown.
        refused_by_shutdown: u64 = c.refused_by_shutdown;
        /// Waiters refused to break a deadlock.
        deadlocked: u64 = c.deadlocked;
        /// Waiters whose session ended.
        session_ended: u64 = c.outlived;

        /// Calls of `singleflight` that did the work, and of `singleflight_lock` that began the acquisition.
        flights_led: u64 = c.flights_led;
        /// Calls of `singleflight` that shared another's value, and of `singleflight_lock` that joined another's
        /// acquisition.
        flights_shared: u64 = c.flights_shared;

        /// `granted / (granted + failed)`; 1 before the first.
        success_rate: f64 = ratio(c.grants, c.grants + failed).unwrap_or(1.0);
        /// `(queued + busy) / (attempts + waiting)`, the waiting being attempts under way; 0 before the first.
        contention_rate: f64 = ratio(c.queued + c.busy, c.attempts + waiting).unwrap_or(0.0);
        /// Mean time from grant to end, in milliseconds, of the locks that ended. Exact to a kernel tick each.
        average_hold_ms: f64 = ratio(c.hold_nanos, c.ends()).unwrap_or(0.0) / 1e6;
        /// Mean time in the queue, in milliseconds, of the waiters that were granted.
        average_wait_ms: f64 = ratio(c.wait_nanos, c.handoffs).unwrap_or(0.0) / 1e6;
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// How often requests for a key had to wait or were refused lately.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HotKey {
    /// The key.
    pub key: Key,
    /// How often; see [`hot_keys`](crate::LockManager::hot_keys) for how exactly.
    pub contentions: u64,
}
