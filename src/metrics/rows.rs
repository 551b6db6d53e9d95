//! Every number that a namespace publishes as it stands: its family, the label that tells it from the others of the
//! family, and where it is read. What is counted by mode and outcome, and times, are in `published`.
//!
//! A new counter takes a line here, its family in `metric_names`, and a field of [`Counters`](crate::table::Counters).

use metrics::{Counter, Gauge, Label, counter, gauge};

use super::metric_names;
use super::totals::Totals;

/// One number: its family, a label of its own, and where it is read.
struct Row<T>(&'static str, Option<(&'static str, &'static str)>, Read<T>);

/// Where a number is read.
type Read<T> = fn(&Totals) -> T;

/// What only rises.
const COUNTERS: &[Row<u64>] = &[
    Row(metric_names::ACQUIRE_PATH, Some(("path", "fast")), |t| t.counters.grants - t.counters.handoffs),
    Row(metric_names::ACQUIRE_PATH, Some(("path", "queued")), |t| t.counters.handoffs),
    Row(metric_names::ACQUIRE_PATH, Some(("path", "reentrant")), |t| t.counters.reentered),
    Row(metric_names::ACQUIRE_PATH, Some(("path", "coalesced")), |t| t.counters.coalesced),
    Row(metric_names::WAITS_CONTINUED, None, |t| t.counters.continued),
    Row(metric_names::RELEASES, Some(("reason", "explicit")), |t| t.counters.released),
    Row(metric_names::RELEASES, Some(("reason", "drop")), |t| t.counters.dropped),
    Row(metric_names::RELEASES, Some(("reason", "expired")), |t| t.counters.expired),
    Row(metric_names::RELEASES, Some(("reason", "forced")), |t| t.counters.forced),
    Row(metric_names::RELEASES, Some(("reason", "lost")), |t| t.counters.lost),
    Row(metric_names::RELEASES, Some(("reason", "shutdown")), |t| t.counters.ended_by_shutdown),
    Row(metric_names::REFRESHES, Some(("outcome", "ok")), |t| t.counters.refreshed),
    Row(metric_names::REFRESHES, Some(("outcome", "lost")), |t| t.counters.refresh_lost),
    Row(metric_names::REFRESHES, Some(("outcome", "error")), |t| t.counters.refresh_unknown),
    Row(metric_names::HANDOFFS, None, |t| t.counters.handoffs),
    Row(metric_names::DEADLOCKS, None, |t| t.deadlocks),
    Row(metric_names::SINGLEFLIGHT, Some(("role", "leader")), |t| t.counters.flights_led),
    Row(metric_names::SINGLEFLIGHT, Some(("role", "follower")), |t| t.counters.flights_shared),
];

/// The same of what is asked of a store; published where there is one.
const STORE_COUNTERS: &[Row<u64>] = &[
    Row(metric_names::CLAIM_HANDOFFS, None, |t| t.claim_handoffs),
    Row(metric_names::CLAIM_REVOCATIONS, None, |t| t.claims_revoked),
];

/// What is so now.
const GAUGES: &[Row<f64>] = &[
    Row(metric_names::LOCKS_HELD, Some(("mode", "exclusive")), |t| t.held[0] as f64),
    Row(metric_names::LOCKS_HELD, Some(("mode", "shared")), |t| t.held[1] as f64),
    Row(metric_names::LOCKS_HELD, Some(("mode", "permits")), |t| t.held[2] as f64),
    Row(metric_names::WAITERS, Some(("mode", "exclusive")), |t| t.waiting[0] as f64),
    Row(metric_names::WAITERS, Some(("mode", "shared")), |t| t.waiting[1] as f64),
    Row(metric_names::WAITERS, Some(("mode", "permits")), |t| t.waiting[2] as f64),
    Row(metric_names::TABLE_ENTRIES, Some(("mode", "exclusive")), |t| t.entries[0] as f64),
    Row(metric_names::TABLE_ENTRIES, Some(("mode", "shared")), |t| t.entries[1] as f64),
    Row(metric_names::TABLE_ENTRIES, Some(("mode", "permits")), |t| t.entries[2] as f64),
    Row(metric_names::QUEUE_DEPTH_MAX, None, |t| f64::from(t.deepest)),
];

/// The same where there is a store.
const STORE_GAUGES: &[Row<f64>] = &[Row(metric_names::CLAIMS_HELD, None, |t| t.claims as f64)];

/// The handles of one namespace's rows, taken once.
pub(super) struct Rows {
    counters: Vec<(Counter, Read<u64>)>,
    gauges: Vec<(Gauge, Read<f64>)>,
}

impl Rows {
    pub(super) fn new(manager: &str, namespace: &str, store: Option<&'static str>) -> Self {
        let labels = |own: Option<(&'static str, &'static str)>, store: Option<&'static str>| {
            let always = [("manager", manager), ("lock_namespace", namespace)];
            let always = always.map(|(name, value)| Label::new(name, value.to_owned()));
            let more = own.into_iter().chain(store.map(|store| ("store", store)));
            always
                .into_iter()
                .chain(more.map(|(name, value)| Label::from_static_parts(name, value)))
                .collect::<Vec<_>>()
        };
        let counter = |row: &Row<u64>, store| (counter!(row.0, labels(row.1, store)), row.2);
        let gauge = |row: &Row<f64>, store| (gauge!(row.0, labels(row.1, store)), row.2);
        let mut counters: Vec<_> = COUNTERS.iter().map(|row| counter(row, None)).collect();
        let mut gauges: Vec<_> = GAUGES.iter().map(|row| gauge(row, None)).collect();
        if store.is_some() {
            counters.extend(STORE_COUNTERS.iter().map(|row| counter(row, store)));
            gauges.extend(STORE_GAUGES.iter().map(|row| gauge(row, store)));
        }
        Self { counters, gauges }
    }

    pub(super) fn publish(&self, totals: &Totals) {
        self.counters.iter().for_each(|(counter, read)| counter.absolute(read(totals)));
        self.gauges.iter().for_each(|(gauge, read)| gauge.set(read(totals)));
    }
}
