//! Fears about locks in a directory that one process keeps: one file each.
#![cfg(feature = "durable")]

#[path = "../support/history.rs"]
mod history;
mod killed;
mod kit;
#[path = "../support/processes.rs"]
mod processes;
mod restarts;
#[cfg(feature = "test-util")]
mod store;
