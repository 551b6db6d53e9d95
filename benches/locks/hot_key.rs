//! Question 3: what does a lock cost that everybody wants?
//!
//! Many tasks on two tokio workers lock the same key in turn and yield once while they hold it. An iteration is one
//! round by every task. Targets: no slower than lockable; from 64 tasks on at most 1.2 times a plain tokio mutex.
//! The bare map cannot wait: it asks again after a yield, first come or not.

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use leasehold::LockManager;
use lockable::LockPool;
use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio::task::{JoinSet, yield_now};

use crate::rivals::{BareMap, DashMapCleaned, DashMapKept, Echo, Ping};

const HOT: &str = "order:100000";

static WORKERS: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("the machine has two threads to give")
});

/// Has every task do so many rounds, and times them from the moment when all have started.
fn crowd<R, F>(tasks: usize, rounds: u64, round: R) -> Duration
where
    R: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    WORKERS.block_on(async {
        let start = Arc::new(Barrier::new(tasks + 1));
        let mut crowd = JoinSet::new();
        for _ in 0..tasks {
            let (start, round) = (Arc::clone(&start), round.clone());
            crowd.spawn(async move {
                start.wait().await;
                for _ in 0..rounds {
                    round().await;
                }
            });
        }
        start.wait().await;
        let began = Instant::now();
        while let Some(task) = crowd.join_next().await {
            task.expect("no round panics");
        }
        began.elapsed()
    })
}

pub(crate) fn hot_key(c: &mut Criterion) {
    let mut group = c.benchmark_group("hot_key");
    for tasks in [2, 8, 64, 1_000] {
        group.throughput(Throughput::Elements(tasks as u64));
        let mut bench = |name: &str, run: &dyn Fn(u64) -> Duration| {
            group.bench_function(BenchmarkId::new(name, tasks), |b| b.iter_custom(run));
        };

        let locks = LockManager::builder().build().expect("the defaults are valid");
        bench("leasehold", &|rounds| {
            let locks = locks.clone();
            crowd(tasks, rounds, move || {
                let locks = locks.clone();
                async move {
                    let lock = locks.lock(HOT).await.expect("everybody's turn comes");
                    yield_now().await;
                    drop(lock);
                }
            })
        });

        let pool = Arc::new(LockPool::<String>::new());
        bench("lockable", &|rounds| {
            let pool = Arc::clone(&pool);
            crowd(tasks, rounds, move || {
                let pool = Arc::clone(&pool);
                async move {
                    let guard = pool.async_lock(HOT.to_owned()).await;
                    yield_now().await;
                    drop(guard);
                }
            })
        });

        let mutex = Arc::new(tokio::sync::Mutex::new(()));
        bench("tokio_mutex", &|rounds| {
            let mutex = Arc::clone(&mutex);
            crowd(tasks, rounds, move || {
                let mutex = Arc::clone(&mutex);
                async move {
                    let guard = mutex.lock().await;
                    yield_now().await;
                    drop(guard);
                }
            })
        });

        let kept = Arc::new(DashMapKept::default());
        bench("dashmap_kept", &|rounds| {
            let kept = Arc::clone(&kept);
            crowd(tasks, rounds, move || {
                let mutex = kept.mutex(HOT);
                async move {
                    let guard = mutex.lock_owned().await;
                    yield_now().await;
                    drop(guard);
                }
            })
        });

        let cleaned = Arc::new(DashMapCleaned::default());
        bench("dashmap_cleaned", &|rounds| {
            let cleaned = Arc::clone(&cleaned);
            crowd(tasks, rounds, move || {
                let cleaned = Arc::clone(&cleaned);
                async move {
                    let guard = cleaned.mutex(HOT).lock_owned().await;
                    yield_now().await;
                    cleaned.release(HOT, guard);
                }
            })
        });

        let map = Arc::new(BareMap::new());
        bench("bare_map", &|rounds| {
            let map = Arc::clone(&map);
            crowd(tasks, rounds, move || {
                let map = Arc::clone(&map);
                async move {
                    while !map.insert(HOT) {
                        yield_now().await;
                    }
                    yield_now().await;
                    map.remove(HOT);
                }
            })
        });

        let echo = Echo::start_on_its_own_thread();
        bench("actix_round_trip", &|rounds| {
            let echo = echo.clone();
            crowd(tasks, rounds, move || {
                let echo = echo.clone();
                async move { echo.send(Ping).await.expect("the actor lives") }
            })
        });
    }
    group.finish();
}
