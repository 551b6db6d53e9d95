//! Question 2: do two threads on different keys get in each other's way?
//!
//! Each thread has 512 keys of its own; the time is that of the slower one. Target: three times lockable's throughput.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use futures::executor::block_on;
use leasehold::LockManager;
use lockable::LockPool;

use crate::rivals::{BareMap, DashMapCleaned, DashMapKept, Echo, Ping, cycle, keys};

const THREADS: usize = 2;

/// Has each thread call `round` so many times with keys of its own.
fn race(keys: &[String], rounds: u64, round: impl Fn(&str) + Sync) -> Duration {
    let start = Barrier::new(THREADS);
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = keys
            .chunks(keys.len() / THREADS)
            .map(|own| {
                let (start, round) = (&start, &round);
                scope.spawn(move || {
                    let mut next = cycle(own);
                    start.wait();
                    let began = Instant::now();
                    (0..rounds).for_each(|_| round(next()));
                    began.elapsed()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no round panics")).max()
    });
    times.expect("there are threads")
}

pub(crate) fn two_threads(c: &mut Criterion) {
    let keys = keys(1_024);
    let mut group = c.benchmark_group("two_threads");
    group.throughput(Throughput::Elements(THREADS as u64));

    let locks = LockManager::builder().build().expect("the defaults are valid");
    group.bench_function("leasehold", |b| {
        b.iter_custom(|rounds| {
            race(&keys, rounds, |key| {
                drop(block_on(locks.try_lock(key).into_future()).expect("this key is this thread's"));
            })
        });
    });

    let pool = LockPool::<String>::new();
    group.bench_function("lockable", |b| {
        b.iter_custom(|rounds| {
            race(&keys, rounds, |key| {
                drop(pool.try_lock(key.to_owned()).expect("this key is this thread's"));
            })
        });
    });

    let kept = DashMapKept::default();
    group.bench_function("dashmap_kept", |b| {
        b.iter_custom(|rounds| {
            race(&keys, rounds, |key| {
                drop(kept.mutex(key).try_lock_owned().expect("this key is this thread's"));
            })
        });
    });

    let cleaned = DashMapCleaned::default();
    group.bench_function("dashmap_cleaned", |b| {
        b.iter_custom(|rounds| {
            race(&keys, rounds, |key| {
                let guard = cleaned.mutex(key).try_lock_owned().expect("this key is this thread's");
                cleaned.release(key, guard);
            })
        });
    });

    let map = BareMap::new();
    group.bench_function("bare_map", |b| {
        b.iter_custom(|rounds| {
            race(&keys, rounds, |key| {
                assert!(map.insert(key));
                map.remove(key);
            })
        });
    });

    let echo = Echo::start_on_its_own_thread();
    group.bench_function("actix_round_trip", |b| {
        b.iter_custom(|rounds| race(&keys, rounds, |_| block_on(echo.send(Ping)).expect("the actor lives")));
    });
    group.finish();
}
