//! What does a share of a key cost over Redis, and what a permit?
//!
//! A share that nobody contends for beside an exclusive lock; a share that rides on one which its process has beside one in
//! memory; and permits of one semaphore beside those of npm `redis-semaphore`, which keeps a sorted set of holders by their
//! ends, dated by the client, and polls. All in turn; medians of the rounds. `report` holds the figures to their targets.

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/redis/mod.rs"]
mod kit;
#[path = "support/stores.rs"]
#[allow(dead_code, reason = "each bench uses a part of it")]
mod stores;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use figures::keep;
use kit::Server;
use leasehold::store::ClaimReuse;
use leasehold::store::redis::RedisStore;
use leasehold::{Key, LockManager, Mode, Release};
use stores::{Pair, median, names, pairs_per_second, runtime};

const LIMIT: u32 = 4;
/// Riders that are timed in a row: less than a second of them, after which one asks the store.
const RIDES: u32 = 20_000;

/// How long and how often is measured.
struct Plan {
    rounds: usize,
    pairs: usize,
    rides: u32,
    permits_for: Duration,
}

/// Takes a key in a mode and releases it.
async fn take(locks: &LockManager, key: &Key, mode: Mode) {
    let lock = match mode {
        Mode::Exclusive => locks.lock(key.as_str()).await,
        Mode::Shared => locks.read(key.as_str()).await,
        Mode::Permits { limit, permits } => locks.semaphore(key.as_str(), limit).permits(permits).await,
    };
    assert_eq!(lock.unwrap().unlock().await, Release::Released);
}

/// Pairs per second in a mode, with so many in flight.
async fn pairs(locks: &LockManager, keys: &[Key], mode: Mode, in_flight: usize, total: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let pair: Pair<'_> = Box::new(|| {
        let key = &keys[next.fetch_add(1, Ordering::Relaxed) % keys.len()];
        Box::pin(take(locks, key, mode))
    });
    pairs_per_second(in_flight, total, &pair).await
}

/// Nanoseconds of a share and its release, beside one that this process has.
async fn further_share(locks: &LockManager, rides: u32) -> f64 {
    let held = locks.read("shared").await.unwrap();
    let began = Instant::now();
    for _ in 0..rides {
        drop(locks.read("shared").await.unwrap());
    }
    let each = began.elapsed().as_secs_f64() * 1e9 / f64::from(rides);
    drop(held);
    each
}

/// Permits per second that so many tasks take of one semaphore.
async fn permits(locks: &LockManager, tasks: usize, time: Duration) -> f64 {
    let end = Instant::now() + time;
    let loops = (0..tasks).map(|_| async {
        let (mut taken, key) = (0_u32, Key::new("pool").unwrap());
        while Instant::now() < end {
            take(locks, &key, Mode::Permits { limit: LIMIT, permits: 1 }).await;
            taken += 1;
        }
        taken
    });
    let taken: u32 = futures::future::join_all(loops).await.into_iter().sum();
    f64::from(taken) / time.as_secs_f64()
}

/// The same by npm `redis-semaphore`; `None` if it is not installed (`tests/support/foreign/prepare-node`).
fn rival_permits(url: &str, modules: &Path, tasks: usize, time: Duration) -> f64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/support/semaphore.cjs");
    let arguments = [LIMIT.to_string(), tasks.to_string(), time.as_millis().to_string()];
    let output = Command::new("node").arg(script).arg(url).args(arguments).env("NODE_PATH", modules).output();
    let output = output.expect("node is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let taken: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    taken / time.as_secs_f64()
}

/// Where npm's packages were installed.
fn modules() -> Option<PathBuf> {
    let binary = std::env::current_exe().ok()?;
    let modules = binary.ancestors().nth(3)?.join("node/node_modules");
    modules.join("redis-semaphore").exists().then_some(modules)
}

fn commands(server: &Server) -> f64 {
    server.info("total_commands_processed").parse().unwrap()
}

fn main() {
    // `cargo test` passes no `--bench`.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let plan = if is_bench {
        Plan { rounds: 11, pairs: 4_000, rides: RIDES, permits_for: Duration::from_secs(1) }
    } else {
        Plan { rounds: 1, pairs: 64, rides: 100, permits_for: Duration::from_millis(50) }
    };
    let server = Server::start(&[]);
    let figures = runtime().block_on(async {
        let mut figures = alone(&server, &plan).await;
        figures.extend(beside_another(&server, &plan).await);
        figures.extend(of_a_semaphore(&server, &plan).await);
        figures
    });
    if is_bench {
        keep("shares.json", &figures).expect("the target folder is writable");
    }
}

async fn manager(server: &Server, reuse: ClaimReuse) -> LockManager {
    let store = RedisStore::builder(&server.url()).claim_reuse(reuse).build().unwrap();
    LockManager::builder().store(store).build_and_connect().await.unwrap()
}

/// A share that nobody contends for, beside an exclusive lock.
async fn alone(server: &Server, plan: &Plan) -> Vec<(String, f64)> {
    let (locks, keys) = (manager(server, ClaimReuse::Off).await, names("alone"));
    let mut figures = Vec::new();
    for in_flight in [1, 64] {
        let total = if in_flight == 1 { plan.pairs / 4 } else { plan.pairs };
        let (mut exclusive, mut shared) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            exclusive.push(1e6 / pairs(&locks, &keys, Mode::Exclusive, in_flight, total).await);
            shared.push(1e6 / pairs(&locks, &keys, Mode::Shared, in_flight, total).await);
        }
        let (exclusive, shared) = (median(&mut exclusive), median(&mut shared));
        let ratio = shared / exclusive;
        println!("{in_flight:>2} in flight: exclusive {exclusive:.1} us, shared {shared:.1} us: {ratio:.2}");
        figures.push((format!("redis_share/leasehold/exclusive_{in_flight}"), exclusive));
        figures.push((format!("redis_share/leasehold/shared_{in_flight}"), shared));
    }
    figures
}

/// A share beside one that this process has, in memory and riding on that.
async fn beside_another(server: &Server, plan: &Plan) -> Vec<(String, f64)> {
    let memory = LockManager::builder().build().unwrap();
    let riding = manager(server, ClaimReuse::hand_off()).await;
    // The word that the connection has just come up puts in doubt what was granted before.
    take(&riding, &Key::new("shared").unwrap(), Mode::Shared).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (mut here, mut there, mut asked) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..plan.rounds {
        here.push(further_share(&memory, plan.rides).await);
        let before = commands(server);
        there.push(further_share(&riding, plan.rides).await);
        asked += commands(server) - before;
    }
    let (here, there) = (median(&mut here), median(&mut there));
    let per_share = asked / (plan.rounds as f64 * f64::from(plan.rides));
    println!("a further share: {here:.0} ns in memory, {there:.0} ns over Redis: {:.2}", there / here);
    println!("commands that the server ran for each: {per_share:.4}");
    vec![("local_share/leasehold/in_memory".to_owned(), here), ("local_share/leasehold/riding".to_owned(), there)]
}

/// Permits of one semaphore.
async fn of_a_semaphore(server: &Server, plan: &Plan) -> Vec<(String, f64)> {
    let Some(modules) = modules() else {
        println!("no npm redis-semaphore: tests/support/foreign/prepare-node installs it");
        return Vec::new();
    };
    let locks = manager(server, ClaimReuse::Off).await;
    let mut figures = Vec::new();
    for tasks in [1, 4, 16] {
        let (mut ours, mut rival, mut asked) = (Vec::new(), Vec::new(), [0.0, 0.0]);
        for _ in 0..plan.rounds {
            let before = commands(server);
            ours.push(permits(&locks, tasks, plan.permits_for).await);
            asked[0] += (commands(server) - before) / (ours[ours.len() - 1] * plan.permits_for.as_secs_f64());
            let before = commands(server);
            server.ask::<i64>("DEL pool lock:pool");
            rival.push(rival_permits(&server.url(), &modules, tasks, plan.permits_for));
            asked[1] += (commands(server) - before) / (rival[rival.len() - 1] * plan.permits_for.as_secs_f64());
        }
        let [of_ours, of_rival] = asked.map(|asked| asked / plan.rounds as f64);
        let (ours, rival) = (median(&mut ours), median(&mut rival));
        println!(
            "permits of {LIMIT}, {tasks:>2} tasks: {ours:.0}/s, redis-semaphore {rival:.0}/s: {:.2}; commands of the \
             server for each {of_ours:.1} and {of_rival:.1}",
            ours / rival
        );
        figures.push((format!("permits/leasehold/{tasks}"), ours));
        figures.push((format!("permits/redis_semaphore/{tasks}"), rival));
    }
    figures
}
