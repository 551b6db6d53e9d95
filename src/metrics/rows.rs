//! Every number that a namespace publishes as it stands: they are listed with their families, in
//! `metric_names::PUBLISHED`. What is counted by mode and outcome, and times, are in `published`.

use metrics::{Counter, Gauge, Label, counter, gauge};

use super::metric_names::{self, FamilyKind, PUBLISHED};
use crate::table::Reading;

/// The handles of one namespace's numbers, taken once, and where each is read.
pub(super) struct Rows(Vec<(Handle, Read)>);

type Read = fn(&Reading) -> u64;

enum Handle {
    Counter(Counter),
    Gauge(Gauge),
}

impl Rows {
    /// What is asked of a store is published where there is one.
    pub(super) fn new(manager: &str, namespace: &str, store: Option<&'static str>) -> Self {
        let row = |row: &metric_names::Published| {
            let family = metric_names::family(row.family);
            let is_of_store = family.labels.contains(&"store");
            let store = store.filter(|_| is_of_store);
            if is_of_store && store.is_none() {
                return None;
            }
            let mut labels =
                vec![Label::new("manager", manager.to_owned()), Label::new("lock_namespace", namespace.to_owned())];
            let more = row.labels.iter().copied().chain(store.map(|store| ("store", store)));
            labels.extend(more.map(|(name, value)| Label::from_static_parts(name, value)));
            let handle = match family.kind {
                FamilyKind::Gauge => Handle::Gauge(gauge!(family.name, labels)),
                _ => Handle::Counter(counter!(family.name, labels)),
            };
            Some((handle, row.read))
        };
        Self(PUBLISHED.iter().filter_map(row).collect())
    }

    pub(super) fn publish(&self, totals: &Reading) {
        for (handle, read) in &self.0 {
            match handle {
                Handle::Counter(counter) => counter.absolute(read(totals)),
                Handle::Gauge(gauge) => gauge.set(read(totals) as f64),
            }
        }
    }
}
