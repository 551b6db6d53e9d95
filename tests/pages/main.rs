//! Fears about what people look at: the status page, the dashboard, its alerts. One file each.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(all(feature = "server", unix))]
#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/browser.rs"]
mod browser;
#[path = "../support/http_server.rs"]
mod http_server;
#[cfg(feature = "redis")]
#[path = "../support/redis/mod.rs"]
mod kit;
#[path = "../support/page.rs"]
mod page;
#[cfg(all(feature = "server", unix))]
#[path = "../support/prometheus.rs"]
mod prometheus;
#[cfg(all(feature = "redis", feature = "test-util"))]
#[path = "../support/redis_managers.rs"]
mod redis_managers;
#[cfg(all(feature = "server", unix))]
#[path = "../support/scraped.rs"]
mod scraped;

mod alerts;
mod beside;
mod grafana;
mod grafana_preview;
mod narrow;
mod signs;
mod status;
mod words;
