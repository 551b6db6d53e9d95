//! Fears about locks over several nodes: one file each.
#![cfg(all(feature = "redis", feature = "test-util"))]

#[cfg(all(feature = "server", unix))]
#[path = "../support/binary.rs"]
mod binary;
#[cfg(all(feature = "server", unix))]
#[path = "../support/exposition.rs"]
mod exposition;
#[path = "../support/redis/mod.rs"]
mod kit;
#[path = "../support/redis_store.rs"]
mod redis_store;
#[path = "../support/redlock.rs"]
mod redlock;
#[cfg(all(feature = "server", unix))]
#[path = "../support/scraped.rs"]
mod scraped;

mod faults;
mod foreign;
mod locks;
mod notice;
mod server;
mod store;
mod votes;
