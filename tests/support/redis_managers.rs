//! Managers over Redis, and short words for what tests do with them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::future::IntoFuture;
use std::time::Duration;

use leasehold::store::redis::RedisStore;
use leasehold::{Builder, Lock, LockError, LockManager};

use crate::kit::Server;

/// Longer than any test is patient.
pub(crate) const LONG: Duration = Duration::from_mins(5);

pub(crate) fn builder(url: &str) -> Builder {
    LockManager::builder().ttl(LONG).store(RedisStore::new(url).unwrap())
}

pub(crate) async fn manager(server: &Server) -> LockManager {
    builder(&server.url()).build_and_connect().await.unwrap()
}

pub(crate) async fn two(server: &Server) -> (LockManager, LockManager) {
    (manager(server).await, manager(server).await)
}

pub(crate) fn exists(server: &Server, key: &str) -> bool {
    server.ask::<i64>(&format!("EXISTS {key}")) == 1
}

/// A request that queues while the test does something else.
pub(crate) fn queue(locks: &LockManager, key: &str) -> tokio::task::JoinHandle<Result<Lock, LockError>> {
    let (locks, key) = (locks.clone(), key.to_owned());
    tokio::spawn(async move { locks.lock(key).wait(LONG).await })
}

/// How many processes have a place in the queue of `k`.
pub(crate) fn places(server: &Server) -> usize {
    server.ask::<usize>("ZCARD leasehold:queue:{lock:k}")
}

/// Polls a request for a while, and drops it if it is not done by then.
pub(crate) async fn poll_some(request: impl IntoFuture, polls: u32) {
    tokio::select! {
        biased;
        () = async { for _ in 0..polls { tokio::task::yield_now().await; } } => {}
        _ = request.into_future() => {}
    }
}
