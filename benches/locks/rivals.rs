//! Whom we are compared with, and the keys that all are given.
//!
//! * `lockable`: a pool of keyed tokio mutexes; no TTL, token, fence or totals.
//! * `dashmap`: what people write themselves, a map of tokio mutexes; `DashMapKept` never forgets a key,
//!   `DashMapCleaned` removes it when nobody uses it.
//! * bare map: insert and remove in a sharded hash map, with our number of shards and our hasher; the limit.
//! * actix: one message to an actor on another thread and its answer; the reason for the express lane.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::{Arc, mpsc};

use actix::{Actor, Addr, Context, Handler, Message};
use criterion::Bencher;
use criterion::async_executor::FuturesExecutor;
use crossbeam_utils::CachePadded;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

/// Keys of 12 to 16 bytes, each once, in no order.
pub(crate) fn keys(count: usize) -> Vec<String> {
    let mut keys: Vec<String> = (0..count).map(|n| format!("order:{}", 100_000 + n * 7_919)).collect();
    fastrand::Rng::with_seed(42).shuffle(&mut keys);
    keys
}

/// The keys one after the other, without end.
pub(crate) fn cycle<'a>(keys: &'a [String]) -> impl FnMut() -> &'a str {
    let mut at = 0;
    move || {
        at = if at + 1 < keys.len() { at + 1 } else { 0 };
        &keys[at]
    }
}

/// Measures `pair`, which takes and releases a lock, with one key after the other.
pub(crate) fn one_after_the_other(b: &mut Bencher<'_>, keys: &[String], mut pair: impl FnMut(&str)) {
    let mut next = cycle(keys);
    b.to_async(FuturesExecutor).iter(|| {
        pair(next());
        async {}
    });
}

type Keys = HashSet<String, foldhash::fast::RandomState>;

pub(crate) struct BareMap {
    shards: Box<[CachePadded<Mutex<Keys>>]>,
    hasher: foldhash::fast::RandomState,
}

impl BareMap {
    pub(crate) fn new() -> Self {
        // As many as the manager has by default.
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        let shards = (cores * 4).next_power_of_two().clamp(64, 1024);
        Self { shards: (0..shards).map(|_| CachePadded::default()).collect(), hasher: Default::default() }
    }

    /// Whether the key was free.
    pub(crate) fn insert(&self, key: &str) -> bool {
        self.shard(key).lock().insert(key.to_owned())
    }

    pub(crate) fn remove(&self, key: &str) {
        self.shard(key).lock().remove(key);
    }

    pub(crate) fn insert_and_remove(&self, key: &str) {
        assert!(self.insert(key), "nobody else has the key");
        self.remove(key);
    }

    fn shard(&self, key: &str) -> &Mutex<Keys> {
        let hash = self.hasher.hash_one(key);
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }
}

type Mutexes = DashMap<String, Arc<tokio::sync::Mutex<()>>>;

#[derive(Default)]
pub(crate) struct DashMapKept(Mutexes);

impl DashMapKept {
    pub(crate) fn mutex(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        if let Some(mutex) = self.0.get(key) {
            return Arc::clone(&mutex);
        }
        Arc::clone(&self.0.entry(key.to_owned()).or_default())
    }
}

#[derive(Default)]
pub(crate) struct DashMapCleaned(Mutexes);

impl DashMapCleaned {
    pub(crate) fn mutex(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.0.entry(key.to_owned()).or_default())
    }

    pub(crate) fn release(&self, key: &str, guard: OwnedMutexGuard<()>) {
        drop(guard);
        self.0.remove_if(key, |_, mutex| Arc::strong_count(mutex) == 1);
    }
}

#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Ping;

pub(crate) struct Echo;

impl Actor for Echo {
    type Context = Context<Self>;
}

impl Handler<Ping> for Echo {
    type Result = ();
    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

impl Echo {
    /// Starts the actor on a thread of its own, which lives as long as the process.
    pub(crate) fn start_on_its_own_thread() -> Addr<Self> {
        let (started, start) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runner = actix_rt::System::new();
            let address = runner.block_on(async { Self.start() });
            started.send(address).expect("the bench waits for the address");
            runner.run().expect("nobody stops this system");
        });
        start.recv().expect("the thread sends the address")
    }
}
