//! The reporter, which publishes what the shards have counted.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::metric_names;
use super::published::{Published, PublishedManager, Sampled};
use crate::clock::{Moment, wall_micros};
use crate::engine::{Engine, LockManager};
use crate::shard::Shard;
use crate::store::Store;
use crate::supervise::supervise;
use crate::table::{Oldest, Reading};

/// How often a reporter publishes by itself, looks for the oldest, and asks the store how it is.
pub(super) const EVERY: Duration = Duration::from_secs(10);

/// Publishes what a manager counts, every ten seconds for as long as the manager lives, and whenever
/// [`Reporter::publish`] is called.
///
/// Start it once for each manager, after the process's recorder is installed. It goes on without being kept.
#[derive(Clone)]
pub struct Reporter {
    publisher: Arc<Publisher>,
}

struct Publisher {
    name: String,
    manager: Weak<Engine>,
    published: PublishedManager,
    /// In the order of the manager's.
    namespaces: Box<[Namespace]>,
    /// One for each namespace, as of the last time.
    last: Mutex<Vec<Reading>>,
}

struct Namespace {
    #[cfg(feature = "prometheus")]
    label: String,
    published: Published,
    /// Where the times go to the recorder, and not into the exposition's own text.
    sampled: Option<Sampled>,
}

/// Where the histograms of holds and waits are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    Recorder,
    #[cfg(feature = "prometheus")]
    Exposition,
}

impl Reporter {
    /// Starts to publish to the process's recorder, whoever's it is.
    pub fn start(locks: &LockManager) -> Self {
        Self::named("default", locks)
    }

    /// The same for one of several managers; the name is its label `manager`.
    pub fn named(name: &str, locks: &LockManager) -> Self {
        Self::with(name, locks, Times::Recorder)
    }

    pub(super) fn with(name: &str, locks: &LockManager, times: Times) -> Self {
        metric_names::describe();
        let observed = locks.client().map(|client| client.observed());
        let store = observed.map(|observed| observed.name());
        let namespace = |label: &str| Namespace {
            #[cfg(feature = "prometheus")]
            label: label.to_owned(),
            published: Published::new(name, label, store),
            sampled: (times == Times::Recorder).then(|| Sampled::new(name, label)),
        };
        let publisher = Publisher {
            name: name.to_owned(),
            manager: locks.downgrade(),
            published: PublishedManager::new(name, store),
            namespaces: locks.namespaces().map(|(label, _)| namespace(label)).collect(),
            last: Mutex::default(),
        };
        if let Some(observed) = observed {
            observed.meter(name);
        }
        let reporter = Self { publisher: Arc::new(publisher) };
        reporter.publisher.sweep();
        reporter.publish();
        if let Some(runtime) = locks.runtime() {
            let publisher = Arc::clone(&reporter.publisher);
            runtime.spawn(async move { supervise("metrics", || Arc::clone(&publisher).run()).await });
        }
        reporter
    }

    /// Publishes now: before a scrape.
    pub fn publish(&self) {
        self.publisher.publish();
    }

    /// The labels of its manager and of each namespace, with the totals as of the last time.
    #[cfg(feature = "prometheus")]
    pub(super) fn totals(&self) -> Vec<(&str, &str, Reading)> {
        let Publisher { name, namespaces, last, .. } = &*self.publisher;
        let last = last.lock().clone();
        namespaces.iter().zip(last).map(|(namespace, totals)| (&**name, &*namespace.label, totals)).collect()
    }
}

impl Publisher {
    async fn run(self: Arc<Self>) {
        loop {
            self.ask_store().await;
            tokio::time::sleep(EVERY).await;
            if self.manager.strong_count() == 0 {
                return;
            }
            self.sweep();
            self.publish();
        }
    }

    fn manager(&self) -> Option<LockManager> {
        self.manager.upgrade().map(LockManager::from_engine)
    }

    fn publish(&self) {
        // One at a time: a later reading must not be overwritten by an earlier one.
        let mut last = self.last.lock();
        let manager = self.manager();
        match &manager {
            Some(locks) => {
                *last = locks.namespaces().map(|(_, shards)| totals(shards)).collect();
                for (namespace, (_, shards)) in self.namespaces.iter().zip(locks.namespaces()) {
                    if let Some(sampled) = &namespace.sampled {
                        shards.iter().for_each(|shard| sampled.record(&shard.take_samples()));
                    }
                }
            }
            None => {
                last.iter_mut().for_each(Reading::end);
                self.published.store_is(None);
                self.namespaces.iter().for_each(|namespace| namespace.published.oldest(0.0, 0.0, 0.0));
            }
        }
        self.published.publish(manager.as_ref());
        self.namespaces.iter().zip(&*last).for_each(|(namespace, totals)| namespace.published.publish(totals));
    }

    /// Looks through the tables for the oldest.
    fn sweep(&self) {
        let Some(locks) = self.manager() else { return };
        for (namespace, (_, shards)) in self.namespaces.iter().zip(locks.namespaces()) {
            let mut oldest = Oldest::default();
            shards.iter().for_each(|shard| shard.look_for_oldest(&mut oldest));
            let (now, wall) = (locks.now(), wall_micros() as f64 / 1e6);
            let timestamp =
                |since: Option<Moment>| since.map_or(0.0, |since| wall - now.saturating_since(since).as_secs_f64());
            namespace.published.oldest(timestamp(oldest.holder), timestamp(oldest.waiter), timestamp(oldest.stalled));
        }
    }

    async fn ask_store(&self) {
        let client = self.manager().and_then(|locks| locks.client().cloned());
        if let Some(client) = client {
            self.published.store_is(client.health().await.as_ref());
        }
    }
}

/// All shards of a namespace, read and added up.
fn totals(shards: &[Arc<Shard>]) -> Reading {
    let mut totals = Reading::default();
    shards.iter().for_each(|shard| totals.merge(&shard.reading()));
    totals
}

debug_of!(Reporter, |it| manager: it.publisher.name);
