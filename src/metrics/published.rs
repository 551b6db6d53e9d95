//! The handles that a reporter publishes through, taken once: a handle taken before there is a recorder is dead.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use parking_lot::Mutex;

use super::names;
use super::totals::Totals;
use crate::LockManager;
use crate::error::AttemptOutcome;
use crate::store::{Health, Warning};
use crate::table::{OUTCOMES, Samples};

/// The labels of modes, in the order of `ModeLabel`.
pub(super) const MODES: [&str; 3] = ["exclusive", "shared", "permits"];

/// What the manager has as a whole.
pub(super) struct PublishedManager {
    rejections: Counter,
    listeners: Gauge,
    sessions: Gauge,
    store: Option<StoreUp>,
}

/// Whether the store answers, and each of its servers.
struct StoreUp {
    up: Gauge,
    warnings: [(&'static str, Gauge); Warning::NAMES.len()],
    node: Box<dyn Fn(&str) -> Gauge + Send + Sync>,
    /// Known since the first answer.
    nodes: Mutex<HashMap<Arc<str>, Gauge>>,
}

impl PublishedManager {
    pub(super) fn new(manager: &str, store: Option<&'static str>) -> Self {
        gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "features" => features()).set(1.0);
        Self {
            rejections: counter!(names::FENCING_REJECTIONS),
            listeners: gauge!(names::EVENT_LISTENERS, "manager" => manager.to_owned()),
            sessions: gauge!(names::SESSIONS, "manager" => manager.to_owned()),
            store: store.map(|store| StoreUp::new(manager.to_owned(), store)),
        }
    }

    /// `locks`: the manager, while there is one.
    pub(super) fn publish(&self, locks: Option<&LockManager>) {
        self.rejections.absolute(crate::fence::refusals());
        self.listeners.set(locks.map_or(0, LockManager::listeners) as f64);
        self.sessions.set(locks.map_or(0, LockManager::open_sessions) as f64);
    }

    /// What the store answered when it was asked; `None`: it cannot be asked any more.
    pub(super) fn store_is(&self, health: Option<&Health>) {
        if let Some(store) = &self.store {
            store.is(health);
        }
    }
}

impl StoreUp {
    fn new(manager: String, store: &'static str) -> Self {
        Self {
            up: gauge!(names::STORE_UP, "manager" => manager.clone(), "store" => store),
            warnings: Warning::NAMES.map(|warning| {
                let gauge =
                    gauge!(names::STORE_WARNING, "manager" => manager.clone(), "store" => store, "warning" => warning);
                (warning, gauge)
            }),
            node: Box::new(
                move |node| gauge!(names::STORE_NODE_UP, "manager" => manager.clone(), "store" => store, "node" => node.to_owned()),
            ),
            nodes: Mutex::default(),
        }
    }

    fn is(&self, health: Option<&Health>) {
        self.up.set(one_if(health.is_some_and(|health| health.answer.is_ok())));
        for (name, gauge) in &self.warnings {
            gauge.set(one_if(health.is_some_and(|health| health.warnings.iter().any(|found| found.name() == *name))));
        }
        let mut gauges = self.nodes.lock();
        let Some(health) = health else { return gauges.values().for_each(|gauge| gauge.set(0.0)) };
        // A recorder cannot take a gauge back: one that is said to be down would be missed for ever.
        gauges.retain(|name, gauge| {
            let stays = health.nodes.iter().any(|node| node.name == *name);
            if !stays {
                gauge.set(f64::NAN);
            }
            stays
        });
        for node in &health.nodes {
            let gauge = gauges.entry(Arc::clone(&node.name)).or_insert_with(|| (self.node)(&node.name));
            gauge.set(one_if(node.answer.is_ok()));
        }
    }
}

fn one_if(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// What every namespace of it has.
pub(super) struct Published {
    acquire: [[Counter; OUTCOMES]; 3],
    paths: [Counter; 4],
    held: [Gauge; 3],
    waiting: [Gauge; 3],
    entries: [Gauge; 3],
    depth: Gauge,
    oldest_waiter: Gauge,
    stalled_waiter: Gauge,
    oldest_holder: Gauge,
    releases: [Counter; 6],
    refreshes: [Counter; 3],
    handoffs: Counter,
    deadlocks: Counter,
    flights: [Counter; 2],
    store: Option<PublishedStore>,
}

/// What one over a store has besides.
struct PublishedStore {
    held: Gauge,
    handoffs: Counter,
    revocations: Counter,
}

/// Histograms of somebody else's recorder.
pub(super) struct Sampled {
    waits: [Histogram; OUTCOMES],
    holds: Histogram,
}

impl Published {
    pub(super) fn new(manager: &str, namespace: &str, store: Option<&'static str>) -> Self {
        let (name, space) = (|| manager.to_owned(), || namespace.to_owned());
        let by_mode = |family: &'static str| {
            MODES.map(|mode| gauge!(family, "manager" => name(), "lock_namespace" => space(), "mode" => mode))
        };
        let plain = |family: &'static str| counter!(family, "manager" => name(), "lock_namespace" => space());
        Self {
            acquire: MODES.map(|mode| {
                AttemptOutcome::ALL.map(|outcome| {
                    counter!(names::ACQUIRE, "manager" => name(), "lock_namespace" => space(), "mode" => mode, "outcome" => outcome.as_str())
                })
            }),
            paths: ["fast", "queued", "reentrant", "coalesced"]
                .map(|path| counter!(names::ACQUIRE_PATH, "manager" => name(), "lock_namespace" => space(), "path" => path)),
            held: by_mode(names::LOCKS_HELD),
            waiting: by_mode(names::WAITERS),
            entries: by_mode(names::TABLE_ENTRIES),
            depth: gauge!(names::QUEUE_DEPTH_MAX, "manager" => name(), "lock_namespace" => space()),
            oldest_waiter: gauge!(names::OLDEST_WAITER, "manager" => name(), "lock_namespace" => space()),
            stalled_waiter: gauge!(names::STALLED_WAITER, "manager" => name(), "lock_namespace" => space()),
            oldest_holder: gauge!(names::OLDEST_HOLDER, "manager" => name(), "lock_namespace" => space()),
            releases: ["explicit", "drop", "expired", "forced", "lost", "shutdown"]
                .map(|reason| counter!(names::RELEASES, "manager" => name(), "lock_namespace" => space(), "reason" => reason)),
            refreshes: ["ok", "lost", "error"]
                .map(|outcome| counter!(names::REFRESHES, "manager" => name(), "lock_namespace" => space(), "outcome" => outcome)),
            handoffs: plain(names::HANDOFFS),
            deadlocks: plain(names::DEADLOCKS),
            flights: ["leader", "follower"]
                .map(|role| counter!(names::SINGLEFLIGHT, "manager" => name(), "lock_namespace" => space(), "role" => role)),
            store: store.map(|store| PublishedStore {
                held: gauge!(names::CLAIMS_HELD, "manager" => name(), "lock_namespace" => space(), "store" => store),
                handoffs: counter!(names::CLAIM_HANDOFFS, "manager" => name(), "lock_namespace" => space(), "store" => store),
                revocations: counter!(names::CLAIM_REVOCATIONS, "manager" => name(), "lock_namespace" => space(), "store" => store),
            }),
        }
    }

    pub(super) fn publish(&self, totals: &Totals) {
        let c = &totals.counters;
        for (handles, counts) in self.acquire.iter().zip(&totals.outcomes) {
            absolute(handles, counts);
        }
        absolute(&self.paths, &[c.grants - c.handoffs, c.handoffs, c.reentered, c.coalesced]);
        for (gauges, now) in
            [(&self.held, totals.held), (&self.waiting, totals.waiting), (&self.entries, totals.entries)]
        {
            gauges.iter().zip(now).for_each(|(gauge, now)| gauge.set(now as f64));
        }
        self.depth.set(f64::from(totals.deepest));
        absolute(&self.releases, &[c.released, c.dropped, c.expired, c.forced, c.lost, c.ended_by_shutdown]);
        absolute(&self.refreshes, &[c.refreshed, c.refresh_lost, c.refresh_unknown]);
        self.handoffs.absolute(c.handoffs);
        self.deadlocks.absolute(totals.deadlocks);
        absolute(&self.flights, &[c.flights_led, c.flights_shared]);
        if let Some(store) = &self.store {
            store.held.set(totals.claims as f64);
            store.handoffs.absolute(totals.claim_handoffs);
            store.revocations.absolute(totals.claims_revoked);
        }
    }

    /// Since when the oldest is held, waits, and waits for nothing that moves; 0 is none.
    pub(super) fn oldest(&self, holder: f64, waiter: f64, stalled: f64) {
        self.stalled_waiter.set(stalled);
        self.oldest_holder.set(holder);
        self.oldest_waiter.set(waiter);
    }
}

impl Sampled {
    pub(super) fn new(manager: &str, namespace: &str) -> Self {
        let (name, space) = (|| manager.to_owned(), || namespace.to_owned());
        Self {
            waits: AttemptOutcome::ALL
                .map(|outcome| histogram!(names::WAIT_SECONDS, "manager" => name(), "lock_namespace" => space(), "outcome" => outcome.as_str())),
            holds: histogram!(names::HOLD_SECONDS, "manager" => name(), "lock_namespace" => space()),
        }
    }

    pub(super) fn record(&self, samples: &Samples) {
        for (outcome, nanos) in &samples.waits {
            self.waits[*outcome as usize].record(*nanos as f64 / 1e9);
        }
        for nanos in &samples.holds {
            self.holds.record(*nanos as f64 / 1e9);
        }
    }
}

fn absolute(handles: &[Counter], counts: &[u64]) {
    handles.iter().zip(counts).for_each(|(handle, count)| handle.absolute(*count));
}

/// The features that this was built with.
fn features() -> String {
    let features = [
        (cfg!(feature = "http"), "http"),
        (cfg!(feature = "metrics"), "metrics"),
        (cfg!(feature = "prometheus"), "prometheus"),
        (cfg!(feature = "redis"), "redis"),
        (cfg!(feature = "redis-tls"), "redis-tls"),
        (cfg!(feature = "server"), "server"),
        (cfg!(feature = "test-util"), "test-util"),
    ];
    let names: Vec<_> = features.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| *name).collect();
    names.join(",")
}

#[cfg(all(test, feature = "prometheus"))]
mod tests {
    use std::time::Duration;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::store::{NodeHealth, StoreError, Votes};

    #[test]
    fn a_node_that_has_left_the_store_is_neither_up_nor_down() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let published = PublishedManager::new("m", Some("s"));
            let node = |name: &str, answer| NodeHealth::new(name.into(), answer, Votes::default());
            let health = |nodes| Health::new(Ok(Duration::ZERO), Vec::new()).with_nodes(nodes);
            let shown = |name: &str, value: &str| {
                let line = format!("leasehold_store_node_up{{manager=\"m\",store=\"s\",node=\"{name}\"}} {value}\n");
                let text = recorder.handle().render();
                assert!(text.contains(&line), "{line}{text}");
            };
            published.store_is(Some(&health(vec![node("a", Ok(Duration::ZERO)), node("b", Err(StoreError::Timeout))])));
            shown("a", "1");
            shown("b", "0");
            published.store_is(Some(&health(vec![node("b", Ok(Duration::ZERO))])));
            shown("a", "NaN");
            shown("b", "1");
            published.store_is(None);
            shown("a", "NaN");
            shown("b", "0");
            published.store_is(Some(&health(vec![node("a", Ok(Duration::ZERO))])));
            shown("a", "1");
            shown("b", "NaN");
        });
    }
}
