//! The families of metrics, each declared once: its name, kind, labels and help, and which numbers of the shards it
//! publishes. The table in the documentation of [`FAMILIES`] is made from it.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use crate::table::{HOLD_BUCKETS, Reading, WAIT_BUCKETS};

/// What a family is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FamilyKind {
    /// It only rises.
    Counter,
    /// It is as it is now.
    Gauge,
    /// Times, counted in buckets.
    Histogram,
}

/// A family of metrics.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Family {
    /// Its full name.
    pub name: &'static str,
    /// What it is.
    pub kind: FamilyKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The upper bounds of its buckets, in seconds; of a histogram only.
    pub buckets: &'static [f64],
    /// What it says, for people.
    pub help: &'static str,
}

const STORE_BUCKETS: [f64; 13] = [2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// A number that shards keep anyway, published as it stands: its family, the labels that tell it from others of the
/// family, and where it is read.
pub(crate) struct Published {
    pub(crate) family: &'static str,
    pub(crate) labels: &'static [(&'static str, &'static str)],
    pub(crate) read: fn(&Reading) -> u64,
}

/// Declares the families. Each line says what a family is; in braces, which numbers of the shards it publishes.
macro_rules! families {
    (@buckets) => { &[] };
    (@buckets $buckets:ident) => { &$buckets };
    ($(
        $constant:ident: $kind:ident $(in $buckets:ident)? $name:literal [$($label:literal),*] $help:literal
        $({ $($($own:literal = $value:literal)? |$shards:ident| $read:expr),* })?;
    )*) => {
        $(
            #[allow(dead_code, reason = "some are counted only with the features that they belong to")]
            pub(crate) const $constant: &str = $name;
        )*

        /// Every family that this crate publishes.
        ///
        /// | family | kind | labels | meaning |
        /// |---|---|---|---|
        $(#[doc = concat!("| `", $name, "` | ", stringify!($kind), " | ", $("`", $label, "` ",)* "| ", $help, " |")])*
        pub const FAMILIES: &[Family] = &[$(Family {
            name: $name,
            kind: FamilyKind::$kind,
            labels: &[$($label),*],
            buckets: families!(@buckets $($buckets)?),
            help: $help,
        }),*];

        /// The families, or parts of them, that are a number of the shards.
        pub(crate) const PUBLISHED: &[Published] = &[$($($(
            Published { family: $name, labels: &[$(($own, $value))?], read: |$shards| $read },
        )*)?)*];
    };
}

families! {
    BUILD_INFO: Gauge "leasehold_build_info" ["version", "features"]
        "The version and features of leasehold; always 1.";
    ACQUIRE: Counter "leasehold_acquire_total" ["manager", "lock_namespace", "mode", "outcome"]
        "Attempts to lock that came to their end.";
    ACQUIRE_PATH: Counter "leasehold_acquire_path_total" ["manager", "lock_namespace", "path"]
        "How those that acquired came by the lock: fast, queued, reentrant; or coalesced, which are no attempts of their own."
        {
            "path" = "fast" |r| r.counters.grants - r.counters.handoffs,
            "path" = "queued" |r| r.counters.handoffs,
            "path" = "reentrant" |r| r.counters.reentered,
            "path" = "coalesced" |r| r.counters.coalesced
        };
    WAIT_SECONDS: Histogram in WAIT_BUCKETS "leasehold_wait_seconds" ["manager", "lock_namespace", "outcome"]
        "How long those waited that had to wait, in the queue or for another process.";
    WAITS_CONTINUED: Counter "leasehold_waits_continued_total" ["manager", "lock_namespace"]
        "Attempts with the outcome timeout after which the same client asked again over HTTP within 10 s, by the same server, key and token: rounds of a longer wait, and no failures."
        { |r| r.counters.continued };
    HOLD_SECONDS: Histogram in HOLD_BUCKETS "leasehold_hold_seconds" ["manager", "lock_namespace"]
        "Times from grant to end.";
    LOCKS_HELD: Gauge "leasehold_locks_held" ["manager", "lock_namespace", "mode"]
        "Locks held now."
        {
            "mode" = "exclusive" |r| r.held[0],
            "mode" = "shared" |r| r.held[1],
            "mode" = "permits" |r| r.held[2]
        };
    WAITERS: Gauge "leasehold_waiters" ["manager", "lock_namespace", "mode"]
        "Requests in queues now."
        {
            "mode" = "exclusive" |r| r.waiting[0],
            "mode" = "shared" |r| r.waiting[1],
            "mode" = "permits" |r| r.waiting[2]
        };
    TABLE_ENTRIES: Gauge "leasehold_table_entries" ["manager", "lock_namespace", "mode"]
        "Entries in the lock tables now, those included that a store is asked about."
        {
            "mode" = "exclusive" |r| r.entries[0],
            "mode" = "shared" |r| r.entries[1],
            "mode" = "permits" |r| r.entries[2]
        };
    QUEUE_DEPTH_MAX: Gauge "leasehold_queue_depth_max" ["manager", "lock_namespace"]
        "The deepest queue of the last minute."
        { |r| r.deepest.into() };
    OLDEST_WAITER: Gauge "leasehold_oldest_waiter_timestamp_seconds" ["manager", "lock_namespace"]
        "Since when the oldest waiter waits, as of the last sweep (every 10 s); 0: nobody does.";
    STALLED_WAITER: Gauge "leasehold_stalled_waiter_timestamp_seconds" ["manager", "lock_namespace"]
        "Since when the oldest waiter waits for a holder of this process that has neither refreshed nor released since; 0: nobody does.";
    OLDEST_HOLDER: Gauge "leasehold_oldest_holder_timestamp_seconds" ["manager", "lock_namespace"]
        "Since when the oldest lock is held, as of the last sweep (every 10 s); 0: none is.";
    RELEASES: Counter "leasehold_releases_total" ["manager", "lock_namespace", "reason"]
        "Locks that ended: explicit, drop, expired, forced, lost, shutdown."
        {
            "reason" = "explicit" |r| r.counters.released,
            "reason" = "drop" |r| r.counters.dropped,
            "reason" = "expired" |r| r.counters.expired,
            "reason" = "forced" |r| r.counters.forced,
            "reason" = "lost" |r| r.counters.lost,
            "reason" = "shutdown" |r| r.counters.ended_by_shutdown
        };
    REFRESHES: Counter "leasehold_refreshes_total" ["manager", "lock_namespace", "outcome"]
        "Refreshes of locks: ok (written), lost, error (the store did not say)."
        {
            "outcome" = "ok" |r| r.counters.refreshed,
            "outcome" = "lost" |r| r.counters.refresh_lost,
            "outcome" = "error" |r| r.counters.refresh_unknown
        };
    HANDOFFS: Counter "leasehold_handoffs_total" ["manager", "lock_namespace"]
        "Grants to a waiter."
        { |r| r.counters.handoffs };
    DEADLOCKS: Counter "leasehold_deadlocks_total" ["manager", "lock_namespace"]
        "Requests refused, or locks taken, to break a deadlock."
        { |r| r.deadlocks() };
    FENCING_REJECTIONS: Counter "leasehold_fencing_rejections_total" []
        "Stale fences that the guards of this process refused.";
    SINGLEFLIGHT: Counter "leasehold_singleflight_total" ["manager", "lock_namespace", "role"]
        "Callers of flights: leader, follower."
        {
            "role" = "leader" |r| r.counters.flights_led,
            "role" = "follower" |r| r.counters.flights_shared
        };
    STORE_OPERATIONS: Counter "leasehold_store_operations_total" ["manager", "store", "op", "outcome"]
        "Calls to the store: done, refused, unknown.";
    STORE_SECONDS: Histogram in STORE_BUCKETS "leasehold_store_operation_seconds" ["manager", "store", "op"]
        "How long calls to the store took.";
    STORE_ERRORS: Counter "leasehold_store_errors_total" ["manager", "store", "cause"]
        "Calls that the store did not answer with yes or no, by what kept it from that (`StoreCause`).";
    STORE_WARNING: Gauge "leasehold_store_warning" ["manager", "store", "warning"]
        "1 while the set-up of the store endangers or slows locks: eviction, refused, no_channels, volatile, unheard.";
    STORE_UP: Gauge "leasehold_store_up" ["manager", "store"]
        "1 if the store answered when it was asked last (every 10 s).";
    STORE_NODE_UP: Gauge "leasehold_store_node_up" ["manager", "store", "node"]
        "1 if the server of the store answered when it was asked last, and votes (Redlock: is in no quarantine); NaN: it has left the store.";
    CLAIMS_HELD: Gauge "leasehold_claims_held" ["manager", "lock_namespace", "store"]
        "Locks held now that the store has granted."
        { |r| r.tally.claims };
    CLAIM_HANDOFFS: Counter "leasehold_claim_handoffs_total" ["manager", "lock_namespace", "store"]
        "Grants of the store to a waiter of this process."
        { |r| r.tally.claim_handoffs };
    CLAIMS_IDLE: Gauge "leasehold_claims_idle" ["manager", "lock_namespace", "store"]
        "Keys of the store that this process keeps between two locks; no locks."
        { |r| r.tally.claims_idle };
    CLAIMS_REUSED: Counter "leasehold_claims_reused_total" ["manager", "lock_namespace", "store"]
        "Locks that were granted under a claim of this process, without the store."
        { |r| r.tally.claims_reused };
    CLAIMS_WANTED: Counter "leasehold_claims_wanted_total" ["manager", "lock_namespace", "store"]
        "How often another process asked for a key that this one had a claim on."
        { |r| r.tally.claims_wanted };
    CLAIM_REVOCATIONS: Counter "leasehold_claim_revocations_total" ["manager", "lock_namespace", "store"]
        "Locks that the store did not keep."
        { |r| r.tally.claims_revoked };
    CONNECTIONS_OPEN: Gauge "leasehold_connections_open" []
        "Connections to the `leasehold` binary that are open now.";
    CONNECTIONS_EVICTED: Counter "leasehold_connections_evicted_total" []
        "Idle connections that were closed to make room.";
    CONNECTIONS_REFUSED: Counter "leasehold_connections_refused_total" ["reason"]
        "Connections that were closed as they came: full, address (it had as many as it may).";
    BAD_CLIENTS: Counter "leasehold_bad_clients_total" ["wrong"]
        "Connections whose clients sent no_http, no_tls, or a head_too_large.";
    RELOADS: Counter "leasehold_reloads_total" ["what", "outcome"]
        "How often the `leasehold` binary read its tokens or its certificate again: done, failed (the old ones stay).";
    LOG_LINES_DROPPED: Counter "leasehold_log_lines_dropped_total" ["reason"]
        "Lines of the `leasehold` binary's log that came faster than they could be written (full) or that the system did not take (failed).";
    HTTP_REQUESTS: Counter "leasehold_http_requests_total" ["route", "method", "code"]
        "Answers of the HTTP routes.";
    HTTP_REFUSALS: Counter "leasehold_http_refusals_total" ["reason"]
        "HTTP requests refused for want of a right or of room, by their code: unauthenticated, forbidden, rate_limited, lock_quota, ...";
    EVENT_LISTENERS: Gauge "leasehold_event_listeners" ["manager"]
        "Streams of all events that are open now, over HTTP or in the process.";
    SESSIONS: Gauge "leasehold_sessions" ["manager"]
        "Registered sessions that are open now.";
    HTTP_SECONDS: Histogram in WAIT_BUCKETS "leasehold_http_request_duration_seconds" ["route", "method"]
        "How long HTTP requests took, waiting included.";
}

/// The family of that name.
pub(crate) fn family(name: &str) -> &'static Family {
    FAMILIES.iter().find(|family| family.name == name).expect("the names come from the list")
}

/// Tells the recorder what each family is.
pub(crate) fn describe() {
    for family in FAMILIES {
        match family.kind {
            FamilyKind::Counter => describe_counter!(family.name, family.help),
            FamilyKind::Gauge => describe_gauge!(family.name, family.help),
            FamilyKind::Histogram => describe_histogram!(family.name, Unit::Seconds, family.help),
        }
    }
}
