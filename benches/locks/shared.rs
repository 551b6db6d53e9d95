//! Question 7: what do shared locks cost, beside `tokio::sync::RwLock`, which has no key, TTL, owner or fence?
//!
//! `alone`: one reader. `together`: a reader beside others that stay. `mixed`: 64 tasks on one thread, each locking one
//! key ten times, every hundredth time to write; each holds for one turn of the executor.

use std::hint::black_box;

use criterion::async_executor::FuturesExecutor;
use criterion::{BenchmarkId, Criterion};
use futures::future::join_all;
use leasehold::LockManager;
use tokio::sync::RwLock;

const TASKS: usize = 64;
const LOCKS_PER_TASK: usize = 10;
const ONE_WRITES_IN: usize = 100;

/// Gives the other tasks a turn.
async fn turn() {
    let mut turned = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut turned, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

pub(crate) fn shared(c: &mut Criterion) {
    let mut group = c.benchmark_group("shared");
    let locks = LockManager::builder().build().expect("the defaults are valid");
    let rival = RwLock::new(());

    for (name, others) in [("alone", 0), ("together", 8)] {
        group.bench_function(BenchmarkId::new("leasehold", name), |b| {
            let stay: Vec<_> = (0..others).map(|_| locks.read("config").now().expect("nobody writes")).collect();
            b.to_async(FuturesExecutor).iter(|| async {
                drop(black_box(locks.read("config").await.expect("nobody writes")));
            });
            drop(stay);
        });
        group.bench_function(BenchmarkId::new("tokio_rwlock", name), |b| {
            let stay: Vec<_> = (0..others).map(|_| rival.try_read().expect("nobody writes")).collect();
            b.to_async(FuturesExecutor).iter(|| async { drop(black_box(rival.read().await)) });
            drop(stay);
        });
    }

    group.bench_function(BenchmarkId::new("leasehold", "mixed"), |b| {
        b.to_async(FuturesExecutor).iter(|| {
            join_all((0..TASKS).map(|task| {
                let locks = &locks;
                async move {
                    for round in 0..LOCKS_PER_TASK {
                        let writes = (task * LOCKS_PER_TASK + round).is_multiple_of(ONE_WRITES_IN);
                        let request = if writes { locks.write("config") } else { locks.read("config") };
                        let lock = request.await.expect("the queue moves on");
                        turn().await;
                        drop(black_box(lock));
                    }
                }
            }))
        });
    });
    group.bench_function(BenchmarkId::new("tokio_rwlock", "mixed"), |b| {
        b.to_async(FuturesExecutor).iter(|| {
            join_all((0..TASKS).map(|task| {
                let rival = &rival;
                async move {
                    for round in 0..LOCKS_PER_TASK {
                        if (task * LOCKS_PER_TASK + round).is_multiple_of(ONE_WRITES_IN) {
                            let lock = rival.write().await;
                            turn().await;
                            drop(black_box(lock));
                        } else {
                            let lock = rival.read().await;
                            turn().await;
                            drop(black_box(lock));
                        }
                    }
                }
            }))
        });
    });
    group.finish();
}
