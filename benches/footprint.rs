//! Questions 4 and 5: what does a lock weigh, what does a waiter, and what does it cost to keep locks refreshed?
//!
//! Bytes are those that the allocator was asked for, guards and futures included; CPU time is the whole process's.
//! Prints one line per answer and leaves them in `footprint.json` beside criterion's, for `report`.

#[path = "support/figures.rs"]
mod figures;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use figures::keep;
use leasehold::{Builder, LockManager};
use lockable::LockPool;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// How much of everything.
struct Scale {
    locks: usize,
    waiters: usize,
    refreshed: usize,
    steady: Duration,
}

const MEASURED: Scale =
    Scale { locks: 1_000_000, waiters: 1_000_000, refreshed: 100_000, steady: Duration::from_secs(20) };
/// Enough to see that it runs.
const TESTED: Scale = Scale { locks: 2_000, waiters: 2_000, refreshed: 200, steady: Duration::from_millis(50) };
/// Keys that the waiters queue for.
const WAITED_FOR: usize = 1_000;

fn main() {
    let measures = std::env::args().any(|arg| arg == "--bench");
    let scale = if measures { MEASURED } else { TESTED };
    let mut figures = Vec::new();
    let mut say = |name: &str, value: f64, unit: &str| {
        println!("{name:<45} {value:>10.1} {unit}");
        figures.push((name.to_owned(), value));
    };

    say("bytes_per_lock/leasehold", ours_held(&scale), "bytes");
    say("bytes_per_lock/lockable", lockable_held(&scale), "bytes");
    say("bytes_per_waiter/leasehold", ours_waiting(&scale), "bytes");
    say("bytes_per_waiter/lockable", lockable_waiting(&scale), "bytes");
    say("cpu_of_refreshing/leasehold", ours_refreshing(&scale), "% of a core");
    say("cpu_of_refreshing/tokio_tasks", tokio_refreshing(&scale), "% of a core");

    if measures {
        keep("footprint.json", &figures).expect("the target folder is writable");
    }
}

fn key(n: usize) -> String {
    format!("order:{}", 100_000 + n)
}

/// The bytes that `make` leaves allocated, per piece. What it makes is dropped before the next measurement.
fn bytes_each<T>(pieces: usize, make: impl FnOnce() -> T) -> f64 {
    let before = settled();
    let made = make();
    let bytes = ALLOCATED.current_usage() as f64 - before as f64;
    drop(made);
    bytes / pieces as f64
}

/// The bytes that are allocated once nobody frees any more: the thread of a manager that was dropped gives back its own
/// while we go on.
fn settled() -> usize {
    let mut before = usize::MAX;
    loop {
        let now = ALLOCATED.current_usage();
        if now == before {
            return now;
        }
        before = now;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Collects without room to spare, so that the collection weighs what its members do.
fn exactly<T>(count: usize, make: impl FnMut(usize) -> T) -> Vec<T> {
    let mut all = Vec::with_capacity(count);
    all.extend((0..count).map(make));
    all
}

/// A manager whose bounds and TTL are out of the way, on any number of shards, of which each has its part of the bounds.
fn roomy() -> Builder {
    LockManager::builder()
        .ttl(Duration::from_hours(1))
        .wait(Duration::from_hours(1))
        .max_keys(1 << 23)
        .max_waiters(1 << 22)
}

fn ours_held(scale: &Scale) -> f64 {
    let locks = roomy().build().expect("valid settings");
    bytes_each(scale.locks, || exactly(scale.locks, |n| locks.try_lock_now(key(n)).expect("every key is there once")))
}

fn lockable_held(scale: &Scale) -> f64 {
    let pool = LockPool::<String>::new();
    bytes_each(scale.locks, || exactly(scale.locks, |n| pool.try_lock(key(n)).expect("every key is there once")))
}

/// Boxes a future and polls it once, so that it queues.
fn queue<'a, T>(future: impl Future<Output = T> + 'a) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    let mut future: Pin<Box<dyn Future<Output = T> + 'a>> = Box::pin(future);
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "the key is held");
    future
}

fn ours_waiting(scale: &Scale) -> f64 {
    let locks = roomy().build().expect("valid settings");
    let _held = exactly(WAITED_FOR, |n| locks.try_lock_now(key(n)).expect("every key is there once"));
    bytes_each(scale.waiters, || exactly(scale.waiters, |n| queue(locks.lock(key(n % WAITED_FOR)).into_future())))
}

fn lockable_waiting(scale: &Scale) -> f64 {
    let pool = LockPool::<String>::new();
    let _held = exactly(WAITED_FOR, |n| pool.try_lock(key(n)).expect("every key is there once"));
    bytes_each(scale.waiters, || exactly(scale.waiters, |n| queue(pool.async_lock(key(n % WAITED_FOR)))))
}

/// The share of one core that the process uses while the calling thread sleeps.
fn cpu_percent(time: Duration) -> f64 {
    let (began, used) = (Instant::now(), ProcessTime::now());
    std::thread::sleep(time);
    used.elapsed().as_secs_f64() / began.elapsed().as_secs_f64() * 100.0
}

fn ours_refreshing(scale: &Scale) -> f64 {
    let locks = LockManager::builder().ttl(Duration::from_secs(30)).build().expect("valid settings");
    let held = exactly(scale.refreshed, |n| {
        let lock = locks.try_lock_now(key(n)).expect("every key is there once");
        lock.auto_refresh(Duration::from_secs(10), Duration::from_secs(5)).expect("it fits the TTL");
        lock
    });
    let percent = cpu_percent(scale.steady);
    assert!(held.iter().all(|lock| lock.is_held()), "no lock is lost meanwhile");
    // The last round may still be under way.
    let rounds = (scale.steady.as_secs() / 10).saturating_sub(1);
    assert!(locks.stats().refreshed >= rounds * scale.refreshed as u64, "the locks are refreshed, not only held");
    percent
}

/// What one would write without us: a task per lock that wakes to refresh it. These have nothing to refresh.
fn tokio_refreshing(scale: &Scale) -> f64 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("the machine has a thread to give");
    for _ in 0..scale.refreshed {
        runtime.spawn(async {
            let mut interval = tokio::time::interval(Duration::from_secs(10));
            loop {
                interval.tick().await;
            }
        });
    }
    cpu_percent(scale.steady)
}
