//! The names of all families, their types and labels: the one place where they are declared.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

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

const WAIT: &[f64] =
    &[1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const HOLD: &[f64] =
    &[1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
const STORE: &[f64] = &[2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $buckets:expr, $help:literal;)*) => {
        $(
            #[allow(dead_code, reason = "some are counted only with the features that they belong to")]
            pub(crate) const $constant: &str = $name;
        )*

        /// Every family that this crate publishes.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: $name,
            kind: FamilyKind::$kind,
            labels: &[$($label),*],
            buckets: $buckets,
            help: $help,
        }),*];
    };
}

families! {
    BUILD_INFO: Gauge "leasehold_build_info" ["version", "features"] &[], "The version and features of leasehold; always 1.";
    ACQUIRE: Counter "leasehold_acquire_total" ["manager", "lock_namespace", "mode", "outcome"] &[], "Attempts to lock that came to their end.";
    ACQUIRE_PATH: Counter "leasehold_acquire_path_total" ["manager", "lock_namespace", "path"] &[], "How callers came by their locks.";
    WAIT_SECONDS: Histogram "leasehold_wait_seconds" ["manager", "lock_namespace", "outcome"] WAIT, "Waits of the attempts that had to wait.";
    WAITS_CONTINUED: Counter "leasehold_waits_continued_total" ["manager", "lock_namespace"] &[], "Timeouts after which the same client asked again with the same token: rounds of a longer wait.";
    HOLD_SECONDS: Histogram "leasehold_hold_seconds" ["manager", "lock_namespace"] HOLD, "Times from grant to end.";
    LOCKS_HELD: Gauge "leasehold_locks_held" ["manager", "lock_namespace", "mode"] &[], "Locks held now.";
    WAITERS: Gauge "leasehold_waiters" ["manager", "lock_namespace", "mode"] &[], "Requests in queues now.";
    TABLE_ENTRIES: Gauge "leasehold_table_entries" ["manager", "lock_namespace", "mode"] &[], "Entries in the lock tables now.";
    QUEUE_DEPTH_MAX: Gauge "leasehold_queue_depth_max" ["manager", "lock_namespace"] &[], "The deepest queue of the last minute.";
    OLDEST_WAITER: Gauge "leasehold_oldest_waiter_timestamp_seconds" ["manager", "lock_namespace"] &[], "Since when the oldest waiter waits; 0: nobody does.";
    STALLED_WAITER: Gauge "leasehold_stalled_waiter_timestamp_seconds" ["manager", "lock_namespace"] &[], "Since when the oldest waiter waits for a holder that does not refresh; 0: nobody does.";
    OLDEST_HOLDER: Gauge "leasehold_oldest_holder_timestamp_seconds" ["manager", "lock_namespace"] &[], "Since when the oldest lock is held; 0: none is.";
    RELEASES: Counter "leasehold_releases_total" ["manager", "lock_namespace", "reason"] &[], "Locks that ended.";
    REFRESHES: Counter "leasehold_refreshes_total" ["manager", "lock_namespace", "outcome"] &[], "Refreshes of locks.";
    HANDOFFS: Counter "leasehold_handoffs_total" ["manager", "lock_namespace"] &[], "Grants to a waiter.";
    DEADLOCKS: Counter "leasehold_deadlocks_total" ["manager", "lock_namespace"] &[], "Requests refused, or locks taken, to break a deadlock.";
    FENCING_REJECTIONS: Counter "leasehold_fencing_rejections_total" [] &[], "Stale fences that the guards of this process refused.";
    SINGLEFLIGHT: Counter "leasehold_singleflight_total" ["manager", "lock_namespace", "role"] &[], "Callers of flights.";
    STORE_OPERATIONS: Counter "leasehold_store_operations_total" ["manager", "store", "op", "outcome"] &[], "Calls to the store.";
    STORE_SECONDS: Histogram "leasehold_store_operation_seconds" ["manager", "store", "op"] STORE, "How long calls to the store took.";
    STORE_ERRORS: Counter "leasehold_store_errors_total" ["manager", "store", "cause"] &[], "Calls that the store did not answer with yes or no, by what kept it from that.";
    STORE_WARNING: Gauge "leasehold_store_warning" ["manager", "store", "warning"] &[], "Whether the store has found something in its set-up that endangers or slows locks.";
    STORE_UP: Gauge "leasehold_store_up" ["manager", "store"] &[], "Whether the store answered when it was asked last.";
    STORE_NODE_UP: Gauge "leasehold_store_node_up" ["manager", "store", "node"] &[], "Whether the server of the store answered, and votes, when it was asked last; NaN: it has left the store.";
    CLAIMS_HELD: Gauge "leasehold_claims_held" ["manager", "lock_namespace", "store"] &[], "Locks held by the store's word now.";
    CLAIM_HANDOFFS: Counter "leasehold_claim_handoffs_total" ["manager", "lock_namespace", "store"] &[], "Grants by the store's word to a waiter of this process.";
    CLAIM_REVOCATIONS: Counter "leasehold_claim_revocations_total" ["manager", "lock_namespace", "store"] &[], "Locks that the store did not keep.";
    CONNECTIONS_OPEN: Gauge "leasehold_connections_open" [] &[], "Connections to the server that are open now.";
    CONNECTIONS_EVICTED: Counter "leasehold_connections_evicted_total" [] &[], "Idle connections that were closed to make room.";
    CONNECTIONS_REFUSED: Counter "leasehold_connections_refused_total" ["reason"] &[], "Connections that were closed as they came.";
    BAD_CLIENTS: Counter "leasehold_bad_clients_total" ["wrong"] &[], "Connections whose clients did not speak as they should.";
    RELOADS: Counter "leasehold_reloads_total" ["what", "outcome"] &[], "How often the server read its files again.";
    LOG_LINES_DROPPED: Counter "leasehold_log_lines_dropped_total" ["reason"] &[], "Lines of the server's log that could not be written.";
    HTTP_REQUESTS: Counter "leasehold_http_requests_total" ["route", "method", "code"] &[], "Answers of the HTTP routes.";
    HTTP_REFUSALS: Counter "leasehold_http_refusals_total" ["reason"] &[], "HTTP requests refused for want of a right or of room.";
    EVENT_LISTENERS: Gauge "leasehold_event_listeners" ["manager"] &[], "Streams of all events that are open now.";
    SESSIONS: Gauge "leasehold_sessions" ["manager"] &[], "Registered sessions that are open now.";
    HTTP_SECONDS: Histogram "leasehold_http_request_duration_seconds" ["route", "method"] WAIT, "How long HTTP requests took.";
}

/// The family of that name.
#[cfg(any(test, feature = "prometheus"))]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{HOLD_BOUNDS, WAIT_BOUNDS};

    #[test]
    fn the_declared_buckets_are_those_that_shards_count_in() {
        let seconds = |bounds: &[u64]| bounds.iter().map(|nanos| *nanos as f64 / 1e9).collect::<Vec<_>>();
        assert_eq!(family(WAIT_SECONDS).buckets, seconds(&WAIT_BOUNDS));
        assert_eq!(family(HOLD_SECONDS).buckets, seconds(&HOLD_BOUNDS));
    }
}
