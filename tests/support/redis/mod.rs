//! Real Redis for tests: single servers, Sentinel, Cluster, and a TCP proxy that misbehaves on order.
//!
//! Each process gets a port and a directory of its own and ends with the value that started it, by its own child
//! handle. Nothing here stands in for Redis, and nothing needs a runtime of the test's: every call blocks.
//! A test binary takes it with `#[path = "../support/redis/mod.rs"] mod kit;`, its files with `use crate::kit`.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

pub(crate) mod cluster;
pub(crate) mod port;
pub(crate) mod proxy;
pub(crate) mod resp;
pub(crate) mod sentinel;
pub(crate) mod server;

use std::time::{Duration, Instant};

pub(crate) use cluster::Cluster;
pub(crate) use port::Dir;
pub(crate) use proxy::{Direction, Proxy, Then};
pub(crate) use sentinel::Sentinels;
pub(crate) use server::{DURABLE, Server};

/// However loaded the machine is, a thing that has not come by then is not coming.
const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    until_some(what, || so().then_some(()));
}

/// Polls until there is an answer.
#[track_caller]
pub(crate) fn until_some<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_or(what, String::new, ask)
}

/// Polls until there is an answer; if none comes, shows what is `known` about it.
#[track_caller]
pub(crate) fn until_or<T>(what: &str, known: impl Fn() -> String, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "it never came: {what}{}", known());
        std::thread::sleep(Duration::from_millis(5));
    }
}
