//! What the benches of the stores share: a lock that is taken and released in several ways, and how often that can be done.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use leasehold::store::{AcquireRequest, Acquired, OnHeld, Released, Store};
use leasehold::{Key, LockManager, Mode, Release, Token, Ttl};
use redis::aio::MultiplexedConnection;

pub(crate) const TTL_MS: u64 = 30_000;
/// The shortest scripts that other libraries use.
pub(crate) const SHORT_ACQUIRE: &str =
    "if redis.call('SET',KEYS[1],ARGV[1],'NX','PX',ARGV[2]) then return 1 else return 0 end";
pub(crate) const SHORT_RELEASE: &str =
    "if redis.call('GET',KEYS[1])==ARGV[1] then return redis.call('DEL',KEYS[1]) else return 0 end";

/// Takes a lock and releases it.
pub(crate) type Pair<'a> = Box<dyn Fn() -> BoxFuture<'a, ()> + 'a>;

/// Which scripts are sent without the store.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scripts {
    Ours,
    Shortest,
}

pub(crate) fn ttl() -> Ttl {
    Ttl::new(Duration::from_millis(TTL_MS)).unwrap()
}

pub(crate) async fn through_the_store(store: &dyn Store, key: &Key) {
    let token = Token::random();
    let answer = store
        .acquire(AcquireRequest { key, token, ttl: ttl(), on_held: OnHeld::Fail, mode: Mode::Exclusive, note: &[] })
        .await;
    assert!(matches!(answer, Acquired::Granted { fence: Some(_), .. }), "{answer:?}");
    assert_eq!(store.release(key, token).await, Released::Released);
}

pub(crate) async fn through_the_manager(locks: &LockManager, key: &Key) {
    let lock = locks.lock(key.as_str()).await.unwrap();
    assert_eq!(lock.unlock().await, Release::Released);
}

pub(crate) async fn through_rslock(locks: &rslock::LockManager, key: &Key) {
    let lock = locks.lock(key.as_str(), Duration::from_millis(TTL_MS)).await.unwrap();
    locks.unlock(&lock).await;
}

/// Runs `total` pairs with so many in flight on distinct keys; answers pairs per second.
pub(crate) async fn pairs_per_second(in_flight: usize, total: usize, pair: &Pair<'_>) -> f64 {
    let began = Instant::now();
    let mut running: FuturesUnordered<_> = (0..in_flight).map(|_| pair()).collect();
    let mut started = in_flight;
    while running.next().await.is_some() {
        if started < total {
            running.push(pair());
            started += 1;
        }
    }
    total as f64 / began.elapsed().as_secs_f64()
}

pub(crate) fn median(runs: &mut [f64]) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

/// A runtime with one thread beside the caller's.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(1024);
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

pub(crate) fn names(prefix: &str) -> Vec<Key> {
    (0..512).map(|n| Key::new(format!("{prefix}:{n}")).unwrap()).collect()
}
