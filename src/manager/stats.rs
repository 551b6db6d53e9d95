//! The totals that can be asked of a manager.

use crate::key::Key;
use crate::table::Counters;

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
    pub attempts: u64,
    /// Locks granted.
    #[cfg_attr(feature = "http", serde(rename = "total"))]
    pub granted: u64,
    /// Of these, locks granted while the store did not answer ([`FailMode::Local`](crate::FailMode::Local)).
    pub degraded: u64,
    /// Locks held now.
    pub active: u64,
    /// Requests in queues now.
    pub waiting: u64,

    /// Requests that wanted to wait and ended without a lock: timed out, over a bound, bad input, shutdown. None of
    /// `busy`, `cancelled` and `continued` is a failure.
    pub failed: u64,
    /// Requests refused at once because another held the key, as they had asked.
    pub busy: u64,
    /// Requests that timed out, in the queue or polling.
    pub timed_out: u64,
    /// Of these, those whose client asked again over HTTP within ten seconds, with the same key and token: rounds of a
    /// longer wait.
    pub continued: u64,
    /// Requests whose caller went away.
    pub cancelled: u64,

    /// Locks released by their holders' unlock, by their token, or with the end of their session.
    #[cfg_attr(feature = "http", serde(rename = "unlocked"))]
    pub released: u64,
    /// Locks released by dropping the guard.
    pub dropped: u64,
    /// Locks whose deadline passed.
    pub expired: u64,
    /// Locks released by an operator.
    pub forced: u64,
    /// Locks that the manager took from their holders to break a deadlock.
    pub lost: u64,
    /// Locks that outlived a shutdown's grace.
    pub shut_down: u64,
    /// Requests answered with a lock that their session already held.
    pub reentered: u64,

    /// Refreshes that were written.
    pub refreshed: u64,
    /// Refreshes that came before `refresh_after` and wrote nothing.
    pub refresh_skipped: u64,
    /// Refreshes of locks that had ended.
    pub refresh_lost: u64,
    /// Automatic refreshes that came later than their timeout.
    pub refresh_late: u64,

    /// Requests that had to queue.
    pub queued: u64,
    /// Grants to a waiter at another's release.
    pub handoffs: u64,
    /// Waiters that timed out.
    pub timed_out_in_queue: u64,
    /// Waiters whose caller went away.
    pub cancelled_in_queue: u64,
    /// Waiters refused by shutdown.
    pub refused_by_shutdown: u64,
    /// Waiters refused to break a deadlock.
    pub deadlocked: u64,
    /// Waiters whose session ended.
    pub session_ended: u64,

    /// Calls of `singleflight` that did the work, and of `singleflight_lock` that began the acquisition.
    pub flights_led: u64,
    /// Calls of `singleflight` that shared another's value, and of `singleflight_lock` that joined another's
    /// acquisition.
    pub flights_shared: u64,

    /// `granted / (granted + failed)`; 1 before the first.
    pub success_rate: f64,
    /// `(queued + busy) / (attempts + waiting)`, the waiting being attempts under way; 0 before the first.
    pub contention_rate: f64,
    /// Mean time from grant to end, in milliseconds, of the locks that ended. Exact to a kernel tick each.
    pub average_hold_ms: f64,
    /// Mean time in the queue, in milliseconds, of the waiters that were granted.
    pub average_wait_ms: f64,
}

impl Stats {
    pub(crate) fn new(counters: &Counters, active: u64, waiting: u64) -> Self {
        let c = counters;
        let timed_out = c.timed_out + c.polls_exhausted;
        let failed =
            timed_out.saturating_sub(c.continued) + c.rejected + c.refused_by_shutdown + c.deadlocked + c.outlived;
        Self {
            attempts: c.attempts,
            granted: c.grants,
            degraded: c.degraded,
            active,
            waiting,
            failed,
            busy: c.busy,
            timed_out,
            continued: c.continued,
            cancelled: c.cancelled + c.cancelled_polls,
            released: c.released,
            dropped: c.dropped,
            expired: c.expired,
            forced: c.forced,
            lost: c.lost,
            shut_down: c.ended_by_shutdown,
            reentered: c.reentered,
            refreshed: c.refreshed,
            refresh_skipped: c.refresh_skipped,
            refresh_lost: c.refresh_lost,
            refresh_late: c.refresh_late,
            queued: c.queued,
            handoffs: c.handoffs,
            timed_out_in_queue: c.timed_out,
            cancelled_in_queue: c.cancelled,
            refused_by_shutdown: c.refused_by_shutdown,
            deadlocked: c.deadlocked,
            session_ended: c.outlived,
            flights_led: c.flights_led,
            flights_shared: c.flights_shared,
            success_rate: ratio(c.grants, c.grants + failed).unwrap_or(1.0),
            contention_rate: ratio(c.queued + c.busy, c.attempts + waiting).unwrap_or(0.0),
            average_hold_ms: ratio(c.hold_nanos, c.ends()).unwrap_or(0.0) / 1e6,
            average_wait_ms: ratio(c.wait_nanos, c.handoffs).unwrap_or(0.0) / 1e6,
        }
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
