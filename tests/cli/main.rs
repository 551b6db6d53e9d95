//! Fears about the command line: one file each.
#![cfg(all(feature = "server", unix))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/cli.rs"]
mod cli;
#[path = "../support/redis/mod.rs"]
mod kit;
#[path = "../support/postgres.rs"]
mod pg;
#[cfg(feature = "test-util")]
#[path = "../support/redlock.rs"]
mod redlock;

mod output;
mod restarts;
mod run;
mod stores;
mod terminal;
mod token;
mod verbs;
mod waits;
