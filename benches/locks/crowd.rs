//! Question 4, its time half: does a lock cost more beside a million held ones than alone?
//!
//! As `uncontended`, in tables that hold nothing and in tables that hold a million other keys. Target: 1.5 times.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::async_executor::FuturesExecutor;
use criterion::{BenchmarkId, Criterion};
use leasehold::{Lock, LockManager};
use lockable::{LockPool, Lockable};

use crate::rivals::{BareMap, cycle, keys, one_after_the_other};

/// A criterion bench that is not asked to measure runs everything once, as a test.
fn held_keys() -> usize {
    if std::env::args().any(|arg| arg == "--bench") { 1_000_000 } else { 1_000 }
}

pub(crate) fn crowd(c: &mut Criterion) {
    let mut keys = keys(held_keys() + 1_024);
    let held = keys.split_off(1_024);
    let mut group = c.benchmark_group("crowd");
    for (name, held) in [("alone", &held[..0]), ("beside_a_million", &held[..])] {
        let table = LazyCell::new(|| {
            let locks = LockManager::builder().ttl(std::time::Duration::from_hours(1)).build().expect("a valid TTL");
            let guards: Vec<Lock> =
                held.iter().map(|key| locks.try_lock_now(key).expect("every key is there once")).collect();
            (locks, guards)
        });
        group.bench_function(BenchmarkId::new("leasehold", name), |b| {
            let (locks, _guards) = &*table;
            let mut next = cycle(&keys);
            b.to_async(FuturesExecutor).iter(|| {
                let request = locks.try_lock(next());
                async { drop(black_box(request.await.expect("nobody else locks"))) }
            });
        });
        drop(table);

        let pool = LockPool::<String>::new();
        let guards = LazyCell::new(|| -> Vec<<LockPool<String> as Lockable<String, ()>>::Guard<'_>> {
            held.iter().map(|key| pool.try_lock(key.clone()).expect("every key is there once")).collect()
        });
        group.bench_function(BenchmarkId::new("lockable", name), |b| {
            LazyCell::force(&guards);
            one_after_the_other(b, &keys, |key| {
                drop(black_box(pool.try_lock(key.to_owned()).expect("nobody else locks")))
            });
        });
        drop(guards);

        let map = LazyCell::new(|| {
            let map = BareMap::new();
            held.iter().for_each(|key| assert!(map.insert(key)));
            map
        });
        group.bench_function(BenchmarkId::new("bare_map", name), |b| {
            let map = &*map;
            one_after_the_other(b, &keys, |key| map.insert_and_remove(key));
        });
    }
    group.finish();
}
