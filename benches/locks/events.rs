//! Question 9: what do listeners cost the lock? A free lock with nobody listening, one listener to another key, one to
//! everything, a hundred.

use std::hint::black_box;

use criterion::async_executor::FuturesExecutor;
use criterion::{BenchmarkId, Criterion};
use leasehold::{Events, LockManager};

use crate::rivals::{cycle, keys};

pub(crate) fn events(c: &mut Criterion) {
    let keys = keys(1_024);
    let mut group = c.benchmark_group("events");
    for (name, listeners) in [("no_listener", 0), ("1_listener", 1), ("100_listeners", 100)] {
        let locks = LockManager::builder().build().expect("the defaults are valid");
        let _listening: Vec<Events> = (0..listeners).map(|_| locks.events()).collect();
        group.bench_function(BenchmarkId::new("leasehold", name), |b| {
            let mut next = cycle(&keys);
            b.to_async(FuturesExecutor).iter(|| {
                let request = locks.try_lock(next());
                async { drop(black_box(request.await.expect("nobody else locks"))) }
            });
        });
    }
    let locks = LockManager::builder().build().expect("the defaults are valid");
    let _elsewhere = locks.watch("another key").expect("a valid key");
    group.bench_function(BenchmarkId::new("leasehold", "1_watcher_of_another_key"), |b| {
        let mut next = cycle(&keys);
        b.to_async(FuturesExecutor).iter(|| {
            let request = locks.try_lock(next());
            async { drop(black_box(request.await.expect("nobody else locks"))) }
        });
    });
    group.finish();
}
