//! The handles that a reporter publishes through, taken once: a handle taken before there is a recorder is dead.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::names;
use super::totals::Totals;
use crate::error::AttemptOutcome;
use crate::table::{OUTCOMES, Samples};

/// The labels of modes, in the order of `ModeLabel`.
pub(super) const MODES: [&str; 3] = ["exclusive", "shared", "permits"];

/// What every manager has.
pub(super) struct Published {
    acquire: [[Counter; OUTCOMES]; 3],
    paths: [Counter; 4],
    held: [Gauge; 3],
    waiting: [Gauge; 3],
    entries: [Gauge; 3],
    depth: Gauge,
    pub(super) oldest_waiter: Gauge,
    pub(super) oldest_holder: Gauge,
    releases: [Counter; 6],
    refreshes: [Counter; 3],
    handoffs: Counter,
    deadlocks: Counter,
    rejections: Counter,
    flights: [Counter; 2],
    store: Option<PublishedStore>,
}

/// What one over a store has besides.
struct PublishedStore {
    up: Gauge,
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
    pub(super) fn new(manager: &str, store: Option<&'static str>) -> Self {
        let name = || manager.to_owned();
        let by_mode = |family: &'static str| MODES.map(|mode| gauge!(family, "manager" => name(), "mode" => mode));
        let plain = |family: &'static str| counter!(family, "manager" => name());
        gauge!(names::BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "features" => features()).set(1.0);
        Self {
            acquire: MODES.map(|mode| {
                AttemptOutcome::ALL.map(|outcome| {
                    counter!(names::ACQUIRE, "manager" => name(), "mode" => mode, "outcome" => outcome.as_str())
                })
            }),
            paths: ["fast", "queued", "reentrant", "coalesced"]
                .map(|path| counter!(names::ACQUIRE_PATH, "manager" => name(), "path" => path)),
            held: by_mode(names::LOCKS_HELD),
            waiting: by_mode(names::WAITERS),
            entries: by_mode(names::TABLE_ENTRIES),
            depth: gauge!(names::QUEUE_DEPTH_MAX, "manager" => name()),
            oldest_waiter: gauge!(names::OLDEST_WAITER, "manager" => name()),
            oldest_holder: gauge!(names::OLDEST_HOLDER, "manager" => name()),
            releases: ["explicit", "drop", "expired", "forced", "lost", "shutdown"]
                .map(|reason| counter!(names::RELEASES, "manager" => name(), "reason" => reason)),
            refreshes: ["ok", "lost", "error"]
                .map(|outcome| counter!(names::REFRESHES, "manager" => name(), "outcome" => outcome)),
            handoffs: plain(names::HANDOFFS),
            deadlocks: plain(names::DEADLOCKS),
            rejections: counter!(names::FENCING_REJECTIONS),
            flights: ["leader", "follower"]
                .map(|role| counter!(names::SINGLEFLIGHT, "manager" => name(), "role" => role)),
            store: store.map(|store| PublishedStore {
                up: gauge!(names::STORE_UP, "manager" => name(), "store" => store),
                held: gauge!(names::CLAIMS_HELD, "manager" => name(), "store" => store),
                handoffs: counter!(names::CLAIM_HANDOFFS, "manager" => name(), "store" => store),
                revocations: counter!(names::CLAIM_REVOCATIONS, "manager" => name(), "store" => store),
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
        self.depth.set(totals.deepest as f64);
        absolute(&self.releases, &[c.released, c.dropped, c.expired, c.forced, c.lost, c.ended_by_shutdown]);
        absolute(&self.refreshes, &[c.refreshed, c.refresh_lost, c.refresh_unknown]);
        self.handoffs.absolute(c.handoffs);
        self.deadlocks.absolute(totals.deadlocks);
        self.rejections.absolute(crate::fence::refusals());
        absolute(&self.flights, &[c.flights_led, c.flights_shared]);
        if let Some(store) = &self.store {
            store.held.set(totals.claims as f64);
            store.handoffs.absolute(totals.claim_handoffs);
            store.revocations.absolute(totals.claims_revoked);
        }
    }

    pub(super) fn store_is_up(&self, up: bool) {
        if let Some(store) = &self.store {
            store.up.set(f64::from(u8::from(up)));
        }
    }
}

impl Sampled {
    pub(super) fn new(manager: &str) -> Self {
        let name = || manager.to_owned();
        Self {
            waits: AttemptOutcome::ALL
                .map(|outcome| histogram!(names::WAIT_SECONDS, "manager" => name(), "outcome" => outcome.as_str())),
            holds: histogram!(names::HOLD_SECONDS, "manager" => name()),
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
        (cfg!(feature = "redis"), "redis"),
        (cfg!(feature = "redis-tls"), "redis-tls"),
        (cfg!(feature = "server"), "server"),
        (cfg!(feature = "test-util"), "test-util"),
    ];
    let names: Vec<_> = features.iter().filter(|(is_on, _)| *is_on).map(|(_, name)| *name).collect();
    names.join(",")
}
