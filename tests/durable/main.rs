//! Fears about locks in a directory that one process keeps: one file each.
#![cfg(feature = "durable")]

mod kit;
mod restarts;
#[cfg(feature = "test-util")]
mod store;
