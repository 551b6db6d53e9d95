//! Fears about locks in PostgreSQL: one file each.
#![cfg(feature = "postgres")]

#[path = "../support/redis/mod.rs"]
mod kit;
#[path = "../support/postgres.rs"]
mod pg;

#[cfg(feature = "test-util")]
#[path = "../support/postgres_store.rs"]
mod stores;

mod contract;
mod failovers;
mod faults;
mod fences;
mod set_up;
