//! What operators see: the families below, published to whatever [`metrics`](https://docs.rs/metrics) recorder the
//! process has, and (feature `prometheus`) a text for Prometheus to scrape.
//!
//! The library counts in its own shards, by plain additions under the mutex that it holds anyhow. A [`Reporter`] reads
//! them every ten seconds and at every scrape. No family has a key, an owner or a token as a label: however many there
//! are, the text stays as long as it is. Called by the host app, or the `leasehold` binary.
//!
//! An app that has a recorder already needs one line, once that is installed: `Reporter::start(&locks)`. An app that
//! has none gets the whole of it like this:
//!
//! ```
//! # #[cfg(not(feature = "prometheus"))] fn main() {}
//! # #[cfg(feature = "prometheus")]
//! # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use leasehold::metrics::{Exposition, configure_prometheus};
//! use metrics_exporter_prometheus::PrometheusBuilder;
//!
//! let handle = configure_prometheus(PrometheusBuilder::new())?.install_recorder()?;
//! let locks = leasehold::LockManager::builder().build()?;
//! let exposition = Exposition::new(handle).report(&locks);
//!
//! let _lock = locks.try_lock("order:42").await?;
//! let held = "leasehold_locks_held{manager=\"default\",lock_namespace=\"other\",mode=\"exclusive\"} 1\n";
//! assert!(exposition.render().contains(held));
//! # Ok(()) }
//! ```
//!
//! # The families
//!
//! `manager` is the name that the reporter was given. `lock_namespace` is one of the prefixes that the
//! [builder](crate::Builder::namespaces) was given, or `other`; with none given, always `other`, and so is a
//! request whose key is none. Under the [`Exposition`] every number is exact. Under a recorder
//! of somebody else's, whose histograms cannot be handed counts, `wait_seconds` has each wait (up to 1,024 per shard
//! between two reports) and `hold_seconds` one hold of 64 (as bounded).
//!
//! | family | type | labels | meaning |
//! |---|---|---|---|
//! | `leasehold_build_info` | gauge | version, features | 1 |
//! | `leasehold_acquire_total` | counter | manager, lock_namespace, mode, outcome | every attempt that came to its end |
//! | `leasehold_acquire_path_total` | counter | manager, lock_namespace, path | how those that acquired came by the lock: fast, queued, reentrant; or coalesced, which are no attempts of their own |
//! | `leasehold_wait_seconds` | histogram | manager, lock_namespace, outcome | the time of those that had to wait, in the queue or for another process |
//! | `leasehold_waits_continued_total` | counter | manager, lock_namespace | of the attempts with the outcome timeout, those after which the same client asked again over HTTP within 10 s, by the same server, key and token: rounds of a longer wait, and no failures |
//! | `leasehold_hold_seconds` | histogram | manager, lock_namespace | from grant to end |
//! | `leasehold_locks_held` | gauge | manager, lock_namespace, mode | locks held now |
//! | `leasehold_waiters` | gauge | manager, lock_namespace, mode | requests in queues now |
//! | `leasehold_table_entries` | gauge | manager, lock_namespace, mode | entries in the tables now; with those that a store is asked about |
//! | `leasehold_queue_depth_max` | gauge | manager, lock_namespace | the deepest queue of the last minute |
//! | `leasehold_oldest_waiter_timestamp_seconds` | gauge | manager, lock_namespace | since when the oldest waiter waits, as of the last sweep (10 s); 0 is nobody |
//! | `leasehold_stalled_waiter_timestamp_seconds` | gauge | manager, lock_namespace | the same of those who wait for a holder of this process that has neither refreshed nor released since; who stands by for a holder that refreshes is none of them |
//! | `leasehold_oldest_holder_timestamp_seconds` | gauge | manager, lock_namespace | since when the oldest lock is held, as of the last sweep; 0 is none |
//! | `leasehold_releases_total` | counter | manager, lock_namespace, reason | locks that ended: explicit, drop, expired, forced, lost, shutdown |
//! | `leasehold_refreshes_total` | counter | manager, lock_namespace, outcome | refreshes: ok (written), lost, error (the store did not say) |
//! | `leasehold_handoffs_total` | counter | manager, lock_namespace | grants to a waiter |
//! | `leasehold_deadlocks_total` | counter | manager, lock_namespace | requests refused, or locks taken, to break a deadlock |
//! | `leasehold_fencing_rejections_total` | counter | | stale fences that the guards of this process refused |
//! | `leasehold_singleflight_total` | counter | manager, lock_namespace, role | callers of flights: leader, follower |
//! | `leasehold_store_operations_total` | counter | manager, store, op, outcome | calls to the store: done, refused, unknown |
//! | `leasehold_store_operation_seconds` | histogram | manager, store, op | how long they took |
//! | `leasehold_store_errors_total` | counter | manager, store, cause | calls that it did not answer with yes or no, by what kept it from that (`StoreCause`) |
//! | `leasehold_store_warning` | gauge | manager, store, warning | 1 while its set-up endangers or slows locks: `eviction`, `refused`, `no_channels` |
//! | `leasehold_store_up` | gauge | manager, store | 1 if the store answered when it was asked last (every 10 s) |
//! | `leasehold_store_node_up` | gauge | manager, store, node | of each server of the store, 1 if it answered then, and votes (Redlock: is in no quarantine); NaN once it is none of the store's any more |
//! | `leasehold_claims_held` | gauge | manager, lock_namespace, store | locks held by the store's word now |
//! | `leasehold_claim_handoffs_total` | counter | manager, lock_namespace, store | of these, grants to a waiter of this process |
//! | `leasehold_claim_revocations_total` | counter | manager, lock_namespace, store | of these, those that the store did not keep |
//! | `leasehold_connections_open` | gauge | | connections to the `leasehold` binary |
//! | `leasehold_connections_evicted_total` | counter | | idle ones that were closed to make room |
//! | `leasehold_connections_refused_total` | counter | reason | those that were closed as they came: full, address (it had as many as it may) |
//! | `leasehold_bad_clients_total` | counter | wrong | those whose clients sent no_http, no_tls, or a head_too_large |
//! | `leasehold_reloads_total` | counter | what, outcome | how often the `leasehold` binary read its tokens or its certificate again: done, failed (the old ones stay) |
//! | `leasehold_log_lines_dropped_total` | counter | reason | lines of the `leasehold` binary's log that came faster than they could be written (full) or that the system did not take (failed) |
//! | `leasehold_http_requests_total` | counter | route, method, code | answers of the HTTP routes |
//! | `leasehold_http_refusals_total` | counter | reason | of these, those that were refused for want of a right or of room, by their code: unauthenticated, forbidden, rate_limited, lock_quota, ... |
//! | `leasehold_event_listeners` | gauge | manager | streams of all events that are open now, over HTTP or in the process |
//! | `leasehold_sessions` | gauge | manager | registered sessions that are open now |
//! | `leasehold_http_request_duration_seconds` | histogram | route, method | how long they took, waiting included |

#[cfg(feature = "prometheus")]
mod prometheus;
mod published;
mod reporter;
#[cfg(feature = "http")]
mod requests;
mod rows;
mod totals;

#[cfg(feature = "prometheus")]
#[cfg_attr(docsrs, doc(cfg(feature = "prometheus")))]
pub use prometheus::{Exposition, configure_prometheus};
pub use reporter::Reporter;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use requests::HttpMetrics;
#[cfg(feature = "http")]
pub(crate) use requests::RequestCounter;

use crate::telemetry::metric_names;
pub use crate::telemetry::metric_names::{FAMILIES, Family, FamilyKind};
