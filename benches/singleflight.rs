//! What does sharing a call cost, beside libraries that do only that?
//!
//! * `shared_call`: 64 callers ask for the same key while one call runs, and all get its value. An iteration is one
//!   flight: one task polls them all, the call yields once, so that everybody is in before it ends.
//! * `lone_calls`: one caller, 1,024 keys in turn, nobody to share with.
//!
//! The rivals keep callers of one process from calling twice, and no more: no lock on the key that others respect, no
//! TTL, fence, bound on the wait or totals. What `singleflight` costs us beyond its lock is the distance to
//! `leasehold_run`, which does not share. `cargo bench --bench singleflight`

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
    targets = shared_call, lone_calls
}
criterion_main!(questions);
