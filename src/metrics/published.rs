//! The handles that a reporter publishes through, taken once: a handle taken before there is a recorder is dead.

use std::collections::HashMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use parking_lot::Mutex;

use super::metric_names;
use super::rows::Rows;
use crate::LockManager;
use crate::error::AttemptOutcome;
use crate::mode::ModeLabel;
use crate::store::{Health, Warning};
use crate::table::{OUTCOMES, Reading, Samples};

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
        gauge!(metric_names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "features" => features()).set(1.0);
        Self {
            rejections: counter!(metric_names::FENCING_REJECTIONS),
            listeners: gauge!(metric_names::EVENT_LISTENERS, "manager" => manager.to_owned()),
            sessions: gauge!(metric_names::SESSIONS, "manager" => manager.to_owned()),
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
            up: gauge!(metric_names::STORE_UP, "manager" => manager.clone(), "store" => store),
            warnings: Warning::NAMES.map(|warning| {
                let gauge =
                    gauge!(metric_names::STORE_WARNING, "manager" => manager.clone(), "store" => store, "warning" => warning);
                (warning, gauge)
            }),
            node: Box::new(
                move |node| gauge!(metric_names::STORE_NODE_UP, "manager" => manager.clone(), "store" => store, "node" => node.to_owned()),
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
    rows: Rows,
    oldest_waiter: Gauge,
    stalled_waiter: Gauge,
    oldest_holder: Gauge,
}

/// Histograms of somebody else's recorder.
pub(super) struct Sampled {
    waits: [Histogram; OUTCOMES],
    holds: Histogram,
}

impl Published {
    pub(super) fn new(manager: &str, namespace: &str, store: Option<&'static str>) -> Self {
        let (name, space) = (|| manager.to_owned(), || namespace.to_owned());
        let oldest = |family: &'static str| gauge!(family, "manager" => name(), "lock_namespace" => space());
        Self {
            acquire: ModeLabel::ALL.map(|mode| {
                let mode = mode.as_str();
                AttemptOutcome::ALL.map(|outcome| {
                    counter!(metric_names::ACQUIRE, "manager" => name(), "lock_namespace" => space(), "mode" => mode, "outcome" => outcome.as_str())
                })
            }),
            rows: Rows::new(manager, namespace, store),
            oldest_waiter: oldest(metric_names::OLDEST_WAITER),
            stalled_waiter: oldest(metric_names::STALLED_WAITER),
            oldest_holder: oldest(metric_names::OLDEST_HOLDER),
        }
    }

    pub(super) fn publish(&self, totals: &Reading) {
        for (handles, counts) in self.acquire.iter().zip(&totals.tally.outcomes) {
            handles.iter().zip(counts).for_each(|(handle, count)| handle.absolute(*count));
        }
        self.rows.publish(totals);
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
                .map(|outcome| histogram!(metric_names::WAIT_SECONDS, "manager" => name(), "lock_namespace" => space(), "outcome" => outcome.as_str())),
            holds: histogram!(metric_names::HOLD_SECONDS, "manager" => name(), "lock_namespace" => space()),
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
