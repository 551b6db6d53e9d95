//! Question 1: what does a free lock cost, asked for at once and dropped again, everything on?
//!
//! One task, 1,024 keys of 12 to 16 bytes in a shuffled order. Target: half the time of lockable, or less.
//! `uncontended` polls a new future each time, as criterion does; `uncontended_in_a_task` locks and lets go in the loop of
//! a task, as a handler writes it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use criterion::async_executor::FuturesExecutor;
use leasehold::LockManager;
use lockable::LockPool;

use crate::rivals::{BareMap, DashMapCleaned, DashMapKept, Echo, Ping, cycle, keys, one_after_the_other};

pub(crate) fn uncontended(c: &mut Criterion) {
    let keys = keys(1_024);
    let mut group = c.benchmark_group("uncontended");

    let locks = LockManager::builder().build().expect("the defaults are valid");
    group.bench_function("leasehold", |b| {
        let mut next = cycle(&keys);
        b.to_async(FuturesExecutor).iter(|| {
            let request = locks.try_lock(next());
            async { drop(black_box(request.await.expect("nobody else locks"))) }
        });
    });

    let pool = LockPool::<String>::new();
    group.bench_function("lockable", |b| {
        one_after_the_other(b, &keys, |key| drop(black_box(pool.try_lock(key.to_owned()).expect("nobody else locks"))));
    });

    let kept = DashMapKept::default();
    group.bench_function("dashmap_kept", |b| {
        one_after_the_other(b, &keys, |key| {
            drop(black_box(kept.mutex(key).try_lock_owned().expect("nobody else locks")))
        });
    });

    let cleaned = DashMapCleaned::default();
    group.bench_function("dashmap_cleaned", |b| {
        one_after_the_other(b, &keys, |key| {
            let guard = cleaned.mutex(key).try_lock_owned().expect("nobody else locks");
            cleaned.release(key, black_box(guard));
        });
    });

    let map = BareMap::new();
    group.bench_function("bare_map", |b| {
        one_after_the_other(b, &keys, |key| map.insert_and_remove(key));
    });

    let echo = Echo::start_on_its_own_thread();
    group.bench_function("actix_round_trip", |b| {
        b.to_async(FuturesExecutor).iter(|| async { echo.send(Ping).await.expect("the actor lives") });
    });
    group.finish();
}

/// Has a task of a tokio runtime call `round` so many times.
fn in_a_task(rounds: u64, task: impl AsyncFnOnce(u64)) -> Duration {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime of one thread");
    runtime.block_on(async {
        let began = Instant::now();
        task(rounds).await;
        began.elapsed()
    })
}

pub(crate) fn uncontended_in_a_task(c: &mut Criterion) {
    let keys = keys(1_024);
    let mut group = c.benchmark_group("uncontended_in_a_task");

    let locks = LockManager::builder().build().expect("the defaults are valid");
    group.bench_function("leasehold", |b| {
        let mut next = cycle(&keys);
        b.iter_custom(|rounds| {
            in_a_task(rounds, async |rounds| {
                for _ in 0..rounds {
                    drop(black_box(locks.try_lock(next()).await.expect("nobody else locks")));
                }
            })
        });
    });

    let pool = LockPool::<String>::new();
    group.bench_function("lockable", |b| {
        let mut next = cycle(&keys);
        b.iter_custom(|rounds| {
            in_a_task(rounds, async |rounds| {
                for _ in 0..rounds {
                    drop(black_box(pool.try_lock(next().to_owned()).expect("nobody else locks")));
                }
            })
        });
    });

    let map = BareMap::new();
    group.bench_function("bare_map", |b| {
        let mut next = cycle(&keys);
        b.iter_custom(|rounds| {
            in_a_task(rounds, async |rounds| {
                for _ in 0..rounds {
                    map.insert_and_remove(black_box(next()));
                }
            })
        });
    });
    group.finish();
}
