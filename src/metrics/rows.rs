//! Every number that a namespace publishes as it stands. What shards count is listed with its family, in
//! `metric_names::COUNTED`; what a shard has now, or counts for its store, is listed here. What is counted by mode and
//! outcome, and times, are in `published`.

use metrics::{Counter, Gauge, Label, counter, gauge};

use super::metric_names::{self, COUNTED};
use super::totals::Totals;
use crate::table::Counters;

/// One number: its family, a label of its own, and where it is read.
struct Row<T>(&'static str, Labels, Read<T>);

/// The labels that tell a number from others of its family.
type Labels = &'static [(&'static str, &'static str)];

/// Where a number is read.
type Read<T, F = Totals> = fn(&F) -> T;

/// What only rises, and is more than one counter of the shards.
const COUNTERS: &[Row<u64>] = &[Row(metric_names::DEADLOCKS, &[], |t| t.deadlocks)];

/// The same of what is asked of a store; published where there is one.
const STORE_COUNTERS: &[Row<u64>] = &[
    Row(metric_names::CLAIM_HANDOFFS, &[], |t| t.claim_handoffs),
    Row(metric_names::CLAIM_REVOCATIONS, &[], |t| t.claims_revoked),
    Row(metric_names::CLAIMS_REUSED, &[], |t| t.claims_reused),
    Row(metric_names::CLAIMS_WANTED, &[], |t| t.claims_wanted),
];

/// What is so now.
const GAUGES: &[Row<f64>] = &[
    Row(metric_names::LOCKS_HELD, &[("mode", "exclusive")], |t| t.held[0] as f64),
    Row(metric_names::LOCKS_HELD, &[("mode", "shared")], |t| t.held[1] as f64),
    Row(metric_names::LOCKS_HELD, &[("mode", "permits")], |t| t.held[2] as f64),
    Row(metric_names::WAITERS, &[("mode", "exclusive")], |t| t.waiting[0] as f64),
    Row(metric_names::WAITERS, &[("mode", "shared")], |t| t.waiting[1] as f64),
    Row(metric_names::WAITERS, &[("mode", "permits")], |t| t.waiting[2] as f64),
    Row(metric_names::TABLE_ENTRIES, &[("mode", "exclusive")], |t| t.entries[0] as f64),
    Row(metric_names::TABLE_ENTRIES, &[("mode", "shared")], |t| t.entries[1] as f64),
    Row(metric_names::TABLE_ENTRIES, &[("mode", "permits")], |t| t.entries[2] as f64),
    Row(metric_names::QUEUE_DEPTH_MAX, &[], |t| f64::from(t.deepest)),
];

/// The same where there is a store.
const STORE_GAUGES: &[Row<f64>] = &[
    Row(metric_names::CLAIMS_HELD, &[], |t| t.claims as f64),
    Row(metric_names::CLAIMS_IDLE, &[], |t| t.claims_idle as f64),
];

/// The handles of one namespace's rows, taken once.
pub(super) struct Rows {
    counted: Vec<(Counter, Read<u64, Counters>)>,
    counters: Vec<(Counter, Read<u64>)>,
    gauges: Vec<(Gauge, Read<f64>)>,
}

impl Rows {
    pub(super) fn new(manager: &str, namespace: &str, store: Option<&'static str>) -> Self {
        let labels = |own: Labels, store: Option<&'static str>| {
            let always = [("manager", manager), ("lock_namespace", namespace)];
            let always = always.map(|(name, value)| Label::new(name, value.to_owned()));
            let more = own.iter().copied().chain(store.map(|store| ("store", store)));
            always
                .into_iter()
                .chain(more.map(|(name, value)| Label::from_static_parts(name, value)))
                .collect::<Vec<_>>()
        };
        let counter = |row: &Row<u64>, store| (counter!(row.0, labels(row.1, store)), row.2);
        let gauge = |row: &Row<f64>, store| (gauge!(row.0, labels(row.1, store)), row.2);
        let counted = COUNTED.iter().map(|row| (counter!(row.family, labels(row.labels, None)), row.read));
        let mut counters: Vec<_> = COUNTERS.iter().map(|row| counter(row, None)).collect();
        let mut gauges: Vec<_> = GAUGES.iter().map(|row| gauge(row, None)).collect();
        if store.is_some() {
            counters.extend(STORE_COUNTERS.iter().map(|row| counter(row, store)));
            gauges.extend(STORE_GAUGES.iter().map(|row| gauge(row, store)));
        }
        Self { counted: counted.collect(), counters, gauges }
    }

    pub(super) fn publish(&self, totals: &Totals) {
        self.counted.iter().for_each(|(counter, read)| counter.absolute(read(&totals.counters)));
        self.counters.iter().for_each(|(counter, read)| counter.absolute(read(totals)));
        self.gauges.iter().for_each(|(gauge, read)| gauge.set(read(totals)));
    }
}
