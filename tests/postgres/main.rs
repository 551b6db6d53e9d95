//! Fears about locks in PostgreSQL: one file each.
#![cfg(feature = "postgres")]

#[path = "../support/redis/mod.rs"]
mod kit;
#[path = "../support/postgres.rs"]
mod pg;

mod contract;
