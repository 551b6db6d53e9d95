//! What does sharing a call cost, beside libraries that do only that?
//!
//! * `shared_call`: 64 callers ask for the same key while one call runs, and all get its value. An iteration is one
//!   flight: one task polls them all, the call yields once, so that everybody is in before it ends.
//! * `across_processes` (feature `redis`): 16 callers in each of several managers over one Redis, as many processes would
//!   have them, ask for one key at a time; a call takes 20 ms. An iteration is the time from the end of the first call
//!   until the last of all has its value. How often was called for how many who asked is written beside it.
//! * `lone_calls`: one caller, 1,024 keys in turn, nobody to share with.
//!
//! The rivals keep callers of one process from calling twice, and no more: no lock on the key that others respect, no
//! TTL, fence, bound on the wait or totals. What `singleflight` costs us beyond its lock is the distance to
//! `leasehold_run`, which does not share. `cargo bench --bench singleflight --features redis`

#[cfg(feature = "redis")]
#[path = "../tests/support/redis/mod.rs"]
mod kit;

use std::future::Future;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_singleflight::UnaryGroup;
use criterion::async_executor::FuturesExecutor;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use leasehold::LockManager;
use singleflight_async::SingleFlight;
use tokio::task::yield_now;

const CALLERS: usize = 64;
const HOT: &str = "order:100000";

fn keys() -> Vec<String> {
    let mut keys: Vec<String> = (0..1_024).map(|n| format!("order:{}", 100_000 + n * 7_919)).collect();
    fastrand::Rng::with_seed(42).shuffle(&mut keys);
    keys
}

/// How often the shared call was made.
#[derive(Default)]
struct Calls(AtomicU64);

impl Calls {
    async fn call(&self) -> u64 {
        yield_now().await;
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// One flight: everybody gets the value of the same one call.
    async fn share<F: Future<Output = u64>>(&self, ask: impl Fn() -> F) {
        let before = self.0.load(Ordering::Relaxed);
        let values = join_all((0..CALLERS).map(|_| ask())).await;
        assert!(values.iter().all(|value| *value == before));
        assert_eq!(self.0.load(Ordering::Relaxed), before + 1);
    }
}

fn shared_call(c: &mut Criterion) {
    let mut group = c.benchmark_group("shared_call");
    group.throughput(Throughput::Elements(CALLERS as u64));
    let calls = &Calls::default();

    let locks = LockManager::builder().build().expect("the defaults are valid");
    let ours = || async { locks.singleflight(HOT, || calls.call()).await.expect("nobody else locks") };
    group.bench_function("leasehold", |b| b.to_async(FuturesExecutor).iter(|| calls.share(ours)));

    let flights = UnaryGroup::<String, u64>::new();
    let ask = || flights.work(HOT, calls.call());
    group.bench_function("async_singleflight", |b| b.to_async(FuturesExecutor).iter(|| calls.share(ask)));

    let flights = SingleFlight::<String, u64>::new();
    let ask = || flights.work(HOT.to_owned(), || calls.call());
    group.bench_function("singleflight_async", |b| b.to_async(FuturesExecutor).iter(|| calls.share(ask)));
    group.finish();
}

#[cfg(feature = "redis")]
mod across {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use criterion::{BenchmarkId, Criterion};
    use futures_util::future::join_all;
    use leasehold::store::redis::RedisStore;
    use leasehold::{Codec, CodecError, LockManager};
    use parking_lot::Mutex;

    use super::HOT;
    use super::kit::Server;

    const CALLERS: usize = 16;
    const CALL: Duration = Duration::from_millis(20);
    /// Longer than the bench is patient.
    const LONG: Duration = Duration::from_mins(1);

    struct Number;

    impl Codec<u64> for Number {
        fn encode(&self, number: &u64) -> Result<Vec<u8>, CodecError> {
            Ok(number.to_le_bytes().into())
        }

        fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
            Ok(u64::from_le_bytes(bytes.try_into()?))
        }
    }

    /// The calls of all processes, and when the first of a round ended.
    #[derive(Default)]
    struct Calls(AtomicU64, Mutex<Option<Instant>>);

    async fn ask(locks: LockManager, calls: Arc<Calls>) -> u64 {
        let call = || async {
            tokio::time::sleep(CALL).await;
            calls.1.lock().get_or_insert_with(Instant::now);
            calls.0.fetch_add(1, Ordering::Relaxed)
        };
        locks.singleflight(HOT, call).across_processes(Number).wait(LONG).await.expect("the store answers")
    }

    async fn round(processes: &[LockManager], calls: &Arc<Calls>) -> Duration {
        *calls.1.lock() = None;
        let callers = processes.iter().flat_map(|locks| std::iter::repeat_n(locks, CALLERS));
        let callers = callers.map(|locks| tokio::spawn(ask(locks.clone(), Arc::clone(calls))));
        for told in join_all(callers).await {
            told.expect("no call panics");
        }
        calls.1.lock().expect("somebody has called").elapsed()
    }

    pub(super) fn across_processes(c: &mut Criterion) {
        let runtime = tokio::runtime::Runtime::new().expect("the machine has threads");
        let server = Server::start(&[]);
        let mut group = c.benchmark_group("across_processes");
        for processes in [2, 8, 32] {
            let manager = || async {
                let store = RedisStore::builder(&server.url()).operation_timeout(LONG).build().expect("a good URL");
                LockManager::builder().store(store).build_and_connect().await.expect("it is there")
            };
            let managers = runtime.block_on(join_all((0..processes).map(|_| manager())));
            let (calls, rounds) = (Arc::new(Calls::default()), AtomicU64::new(0));
            group.bench_function(BenchmarkId::from_parameter(processes), |b| {
                b.iter_custom(|iterations| {
                    rounds.fetch_add(iterations, Ordering::Relaxed);
                    runtime.block_on(async {
                        let mut told = Duration::ZERO;
                        for _ in 0..iterations {
                            told += round(&managers, &calls).await;
                        }
                        told
                    })
                });
            });
            let (calls, rounds) = (calls.0.load(Ordering::Relaxed), rounds.load(Ordering::Relaxed));
            println!("{processes} processes: {calls} calls for {} who asked", rounds * (processes * CALLERS) as u64);
        }
        group.finish();
    }
}

#[cfg(feature = "redis")]
use across::across_processes;

#[cfg(not(feature = "redis"))]
fn across_processes(_: &mut Criterion) {}

fn lone_calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("lone_calls");
    let keys = keys();
    let mut keys = keys.iter().cycle();
    let mut next = || keys.next().expect("a cycle has no end");

    let locks = LockManager::builder().build().expect("the defaults are valid");
    group.bench_function("leasehold", |b| {
        b.to_async(FuturesExecutor).iter(|| {
            let value = locks.singleflight(next(), async || 7_u64);
            async { black_box(value.await.expect("nobody else locks")) }
        });
    });

    group.bench_function("leasehold_run", |b| {
        b.to_async(FuturesExecutor).iter(|| {
            let ran = locks.run(next(), async |_| 7_u64);
            async { black_box(ran.await.expect("nobody else locks").value) }
        });
    });

    let flights = UnaryGroup::<String, u64>::new();
    group.bench_function("async_singleflight", |b| {
        b.to_async(FuturesExecutor).iter(|| {
            let value = flights.work(next().as_str(), async { 7_u64 });
            async { black_box(value.await) }
        });
    });

    let flights = SingleFlight::<String, u64>::new();
    group.bench_function("singleflight_async", |b| {
        b.to_async(FuturesExecutor).iter(|| {
            let value = flights.work(next().clone(), async || 7_u64);
            async { black_box(value.await) }
        });
    });
    group.finish();
}

fn config() -> Criterion {
    Criterion::default().sample_size(40).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = questions;
    config = config();
    targets = shared_call, across_processes, lone_calls
}
criterion_main!(questions);
