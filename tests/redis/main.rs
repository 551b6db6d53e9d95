//! Fears about locks in one Redis, a Sentinel's or a Cluster: one file each.
#![cfg(feature = "redis")]

#[path = "../support/history.rs"]
mod history;
#[path = "../support/redis/mod.rs"]
mod kit;
#[path = "../support/processes.rs"]
mod processes;
#[path = "../support/redis_managers.rs"]
mod redis_managers;
#[cfg(feature = "test-util")]
#[path = "../support/redis_store.rs"]
mod redis_store;

mod batches;
mod claims;
mod cluster;
mod dead_waiters;
mod deadlocks;
mod fail_local;
mod failovers;
mod faults;
mod flights;
mod foreign;
mod hand_over;
mod killed_processes;
mod kit_itself;
mod locks;
mod notice;
mod outages;
mod refusals;
mod riders;
mod sentinel;
mod sessions;
mod shared;
mod shares;
mod store;
mod waiting;
