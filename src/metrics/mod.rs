//! What operators see: the [families](FAMILIES), published to whatever [`metrics`](https://docs.rs/metrics) recorder the
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
//! [`FAMILIES`] has them all. `manager` is the name that the reporter was given. `lock_namespace` is one of the prefixes
//! that the [builder](crate::Builder::namespaces) was given, or `other`; with none given, always `other`, and so is a
//! request whose key is none. Under the [`Exposition`] every number is exact. Under a recorder of somebody else's, whose
//! histograms cannot be handed counts, `wait_seconds` has each wait (up to 1,024 per shard between two reports) and
//! `hold_seconds` one hold of 64 (as bounded).

#[cfg(feature = "prometheus")]
mod prometheus;
mod published;
mod reporter;
#[cfg(feature = "http")]
mod requests;
mod rows;

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
