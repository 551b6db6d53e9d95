//! How many instructions does a free lock cost, a key that is handed on, and a call that nobody shares?
//!
//! Times of the same build differ from minute to minute on a busy machine; instructions hardly do. Each workload runs twice
//! under `valgrind --tool=callgrind`, for few rounds and for many: the difference is the rounds' own. All threads of the
//! process count. Without valgrind nothing is measured. The answers are left in `instructions.json`, for `report`.

#[path = "support/figures.rs"]
mod figures;
#[path = "locks/rivals.rs"]
#[allow(dead_code, reason = "it is shared with the bench of times")]
mod rivals;

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use async_singleflight::UnaryGroup;
use figures::keep;
use futures::executor::block_on;
use leasehold::LockManager;
use lockable::LockPool;
use rivals::{BareMap, cycle, keys};
use tokio::task::yield_now;

/// A name as `report` looks for it, and what it runs so many times.
type Workload = (&'static str, fn(usize));

const WORKLOADS: [Workload; 10] = [
    ("instructions/leasehold/free_lock", free_lock),
    ("instructions/lockable/free_lock", free_lock_of_lockable),
    ("instructions/bare_map/free_lock", insert_and_remove),
    ("instructions/leasehold/hand_off", hand_off),
    ("instructions/lockable/hand_off", hand_off_of_lockable),
    ("instructions/tokio_mutex/hand_off", hand_off_of_tokio),
    ("instructions/leasehold/lone_call", lone_call),
    ("instructions/leasehold_run/lone_call", lone_run),
    ("instructions/async_singleflight/lone_call", lone_call_of_async_singleflight),
    ("instructions/leasehold/lone_call_that_waits", lone_call_that_waits),
];

/// So many rounds are run, and so many more.
const ROUNDS: (usize, usize) = (2_000, 10_000);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, name, rounds] = &args[..]
        && word == "rounds"
    {
        let (_, work) = WORKLOADS.iter().find(|(of, _)| of == name).expect("a workload's name");
        return work(rounds.parse().expect("a number of rounds"));
    }
    if !args.iter().any(|arg| arg == "--bench") {
        WORKLOADS.iter().for_each(|(_, work)| work(3));
        return;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("not measured: there is no valgrind");
        return;
    }
    let filter = args[1..].iter().find(|arg| !arg.starts_with("--"));
    let asked = WORKLOADS.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter)));
    let figures: Vec<_> = asked
        .map(|(name, _)| {
            let (few, more) = (counted(name, ROUNDS.0), counted(name, ROUNDS.0 + ROUNDS.1));
            let each = (more - few) / ROUNDS.1 as f64;
            println!("{name:<45} {each:>10.0} instructions");
            (name, each)
        })
        .collect();
    keep("instructions.json", &figures).expect("the target folder is writable");
}

/// The instructions of a process that runs so many rounds.
fn counted(name: &str, rounds: usize) -> f64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.arg(std::env::current_exe().expect("it runs")).args(["rounds", name, &rounds.to_string()]);
    let output = valgrind.output().expect("valgrind is there");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("valgrind did not count {name}: {said}"))
}

fn manager() -> LockManager {
    LockManager::builder().build().expect("the defaults are valid")
}

fn free_lock(rounds: usize) {
    let (locks, keys) = (manager(), keys(1_024));
    let mut next = cycle(&keys);
    block_on(async {
        for _ in 0..rounds {
            drop(black_box(locks.try_lock(next()).await.expect("nobody else locks")));
        }
    });
}

fn free_lock_of_lockable(rounds: usize) {
    let (pool, keys) = (LockPool::<String>::new(), keys(1_024));
    let mut next = cycle(&keys);
    for _ in 0..rounds {
        drop(black_box(pool.try_lock(next().to_owned()).expect("nobody else locks")));
    }
}

fn insert_and_remove(rounds: usize) {
    let (map, keys) = (BareMap::new(), keys(1_024));
    let mut next = cycle(&keys);
    (0..rounds).for_each(|_| map.insert_and_remove(next()));
}

/// So many tasks of one thread want one key, and yield once while they hold it: all but the first of them wait for it.
const CROWD: usize = 8;

fn crowd<R, F>(rounds: usize, round: R)
where
    R: Fn() -> F + Clone + 'static,
    F: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("it needs nothing");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let each = |_| {
            let round = round.clone();
            tokio::task::spawn_local(async move {
                for _ in 0..rounds / CROWD {
                    round().await;
                }
            })
        };
        for task in (0..CROWD).map(each).collect::<Vec<_>>() {
            task.await.expect("no round panics");
        }
    });
}

fn hand_off(rounds: usize) {
    let locks = manager();
    crowd(rounds, move || {
        let locks = locks.clone();
        async move {
            let lock = locks.lock("order:100000").await.expect("everybody's turn comes");
            yield_now().await;
            drop(black_box(lock));
        }
    });
}

fn hand_off_of_lockable(rounds: usize) {
    let pool = Arc::new(LockPool::<String>::new());
    crowd(rounds, move || {
        let pool = Arc::clone(&pool);
        async move {
            let guard = pool.async_lock("order:100000".to_owned()).await;
            yield_now().await;
            drop(black_box(guard));
        }
    });
}

fn hand_off_of_tokio(rounds: usize) {
    let mutex = Arc::new(tokio::sync::Mutex::new(()));
    crowd(rounds, move || {
        let mutex = Arc::clone(&mutex);
        async move {
            let guard = mutex.lock().await;
            yield_now().await;
            drop(black_box(guard));
        }
    });
}

fn lone_call(rounds: usize) {
    let (locks, keys) = (manager(), keys(1_024));
    let mut next = cycle(&keys);
    block_on(async {
        for _ in 0..rounds {
            black_box(locks.singleflight(next(), async || 7_u64).await.expect("nobody else locks"));
        }
    });
}

/// The call yields once, as one does that waits for something.
fn lone_call_that_waits(rounds: usize) {
    let (locks, keys) = (manager(), keys(1_024));
    let mut next = cycle(&keys);
    let call = async || {
        yield_now().await;
        7_u64
    };
    block_on(async {
        for _ in 0..rounds {
            black_box(locks.singleflight(next(), call).await.expect("nobody else locks"));
        }
    });
}

fn lone_run(rounds: usize) {
    let (locks, keys) = (manager(), keys(1_024));
    let mut next = cycle(&keys);
    block_on(async {
        for _ in 0..rounds {
            let _ = black_box(locks.run(next(), async |_| 7_u64).await.expect("nobody else locks"));
        }
    });
}

fn lone_call_of_async_singleflight(rounds: usize) {
    let (flights, keys) = (UnaryGroup::<String, u64>::new(), keys(1_024));
    let mut next = cycle(&keys);
    block_on(async {
        for _ in 0..rounds {
            black_box(flights.work(next(), async { 7_u64 }).await);
        }
    });
}
