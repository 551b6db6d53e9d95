//! Fears about what people copy, the examples and the README: one file each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(all(feature = "server", unix))]
#[path = "../support/binary.rs"]
mod binary;
#[cfg(feature = "http")]
#[path = "../support/http_server.rs"]
mod http_server;
#[cfg(feature = "redis")]
#[path = "../support/redis/mod.rs"]
mod kit;

mod clients;
mod pages;
mod programs;
mod readme;
mod scenarios;
