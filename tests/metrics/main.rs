//! Fears about the metrics: one file each.
#![cfg(feature = "prometheus")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(all(feature = "server", unix))]
#[path = "../support/binary.rs"]
mod binary;
#[cfg(any(all(feature = "server", unix), feature = "test-util"))]
#[path = "../support/exposition.rs"]
mod exposition;
#[cfg(any(all(feature = "redis", feature = "test-util"), all(feature = "server", unix)))]
#[path = "../support/redis/mod.rs"]
mod kit;
#[cfg(all(feature = "server", unix))]
#[path = "../support/scraped.rs"]
mod scraped;

mod embedded;
mod server;
mod store_truth;
mod truth;
