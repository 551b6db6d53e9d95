//! What does a lock in Redis cost over the two scripts that it consists of, and how soon is a waiter woken?
//!
//! The first table is acquire + release, against a real server on this machine: through the manager (`leasehold`), through the
//! store alone, and by `rslock` (a plain SET, no fence, no waiting). The baselines send the same scripts, and the shortest
//! ones that other libraries use, by EVALSHA over one multiplexed connection that lives on another thread, as the
//! store's does. Runs alternate, and the medians are shown.
//!
//! Numbers on the command line name how many pairs are in flight in the first table, and leave the others out.
//!
//! The second lets two processes pass one key to and fro. The third counts what waiting tasks cost the server.
//! `report` holds the figures to their targets.

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/redis/mod.rs"]
mod kit;
#[path = "support/stores.rs"]
mod stores;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use figures::keep;
use kit::{Server, until};
use leasehold::conformance::store::Stores;
use leasehold::store::Store;
use leasehold::store::redis::RedisStore;
use leasehold::{LockManager, Token};
use redis::aio::MultiplexedConnection;
use stores::{
    Pair, SHORT_ACQUIRE, SHORT_RELEASE, Scripts, TTL_MS, connect, median, names, pairs_per_second, runtime,
    through_rslock, through_the_manager, through_the_store,
};

/// A script of the store's, with what stands before it.
macro_rules! ours {
    ($($file:literal),+) => {
        concat!($(include_str!(concat!("../src/store/redis/ops/", $file))),+)
    };
}

/// Two scripts, and a connection whose task runs on another thread.
struct Raw {
    connection: MultiplexedConnection,
    acquire: redis::Script,
    release: redis::Script,
    kind: Scripts,
}

impl Raw {
    async fn over(connection: MultiplexedConnection, kind: Scripts) -> Self {
        let (acquire, release) = match kind {
            Scripts::Ours => (
                ours!(
                    "prelude.lua",
                    "each.lua",
                    "mint.lua",
                    "shared/marker.lua",
                    "queue.lua",
                    "take_all.lua",
                    "acquire.lua"
                ),
                ours!(
                    "prelude.lua",
                    "each.lua",
                    "shared/marker.lua",
                    "mint.lua",
                    "queue.lua",
                    "hand_over.lua",
                    "end_all.lua",
                    "release.lua"
                ),
            ),
            Scripts::Shortest => (SHORT_ACQUIRE, SHORT_RELEASE),
        };
        let (acquire, release) = (redis::Script::new(acquire), redis::Script::new(release));
        let mut loading = connection.clone();
        acquire.load_async(&mut loading).await.unwrap();
        release.load_async(&mut loading).await.unwrap();
        Self { connection, acquire, release, kind }
    }

    async fn lock_and_release(&self, key: &str) {
        let token = Token::random().to_string();
        let (lock, fence) = (format!("lock:{key}"), format!("leasehold:fence:{{lock:{key}}}"));
        let (queue, tickets) = (format!("leasehold:queue:{{lock:{key}}}"), format!("leasehold:tickets:{{lock:{key}}}"));
        let late = 9_000_000_000_000_000_u64;
        let mut connection = self.connection.clone();
        let mut acquire = redis::cmd("EVALSHA");
        acquire.arg(self.acquire.get_hash());
        let mut release = redis::cmd("EVALSHA");
        release.arg(self.release.get_hash());
        if self.kind == Scripts::Ours {
            acquire
                .arg(4)
                .arg(&lock)
                .arg(&queue)
                .arg(&fence)
                .arg(&tickets)
                .arg(late)
                .arg(0)
                .arg(86_400_000)
                .arg("bench");
            acquire.arg(&token).arg(TTL_MS).arg(format!("{late} 0 0 0"));
            release
                .arg(4)
                .arg(&lock)
                .arg(&tickets)
                .arg(&queue)
                .arg(&fence)
                .arg(late)
                .arg(0)
                .arg("leasehold:")
                .arg(&token)
                .arg(late);
        } else {
            acquire.arg(1).arg(&lock).arg(&token).arg(TTL_MS);
            release.arg(1).arg(&lock).arg(&token);
        }
        connection.send_packed_command(&acquire).await.unwrap();
        connection.send_packed_command(&release).await.unwrap();
    }
}

#[derive(Default)]
struct Runs {
    per_second: Vec<f64>,
    client_us: Vec<f64>,
    server_us: Vec<f64>,
}

/// Seconds of processor time that the server has used.
fn cpu_of(server: &Server) -> f64 {
    ["used_cpu_user", "used_cpu_sys"].iter().map(|what| server.info(what).parse::<f64>().unwrap()).sum()
}

async fn manager(url: &str) -> LockManager {
    LockManager::builder().store(RedisStore::new(url).unwrap()).build_and_connect().await.unwrap()
}

/// Answers the pairs per second of each contender, by their numbers in flight.
fn pairs(server: &Server, rounds: usize, pairs: usize, in_flight: &[usize]) -> Vec<(String, f64)> {
    let two = Stores::start(&|| Arc::new(RedisStore::new(&server.url()).unwrap()) as Arc<dyn Store>);
    let (here, elsewhere) = (runtime(), runtime());
    // Its task stays on the other thread.
    let raw = |kind| {
        let url = server.url();
        elsewhere.block_on(elsewhere.spawn(async move { Raw::over(connect(&url).await, kind).await })).unwrap()
    };
    let (same, shortest) = (raw(Scripts::Ours), raw(Scripts::Shortest));
    let locks = here.block_on(manager(&server.url()));
    let rival = rslock::LockManager::new(vec![server.url()]);
    let names = names("order");
    let number = AtomicU64::new(0);
    let name = || &names[number.fetch_add(1, Ordering::Relaxed) as usize % names.len()];
    let contenders: [(&str, Pair<'_>); 5] = [
        ("leasehold", Box::new(|| Box::pin(through_the_manager(&locks, name())))),
        ("store", Box::new(|| Box::pin(through_the_store(&*two.one, name())))),
        ("same scripts raw", Box::new(|| Box::pin(same.lock_and_release(name().as_str())))),
        ("shortest raw", Box::new(|| Box::pin(shortest.lock_and_release(name().as_str())))),
        ("rslock", Box::new(|| Box::pin(through_rslock(&rival, name())))),
    ];
    println!(
        "acquire + release, distinct keys: pairs/s, time of one, the manager's share, processor time here and there"
    );
    let mut figures = Vec::new();
    for &in_flight in in_flight {
        let pairs = if in_flight == 1 { pairs / 5 } else { pairs };
        let mut runs: [Runs; 5] = Default::default();
        for _ in 0..rounds {
            for ((_, pair), runs) in contenders.iter().zip(&mut runs) {
                let (client, served) = (ProcessTime::now(), cpu_of(server));
                runs.per_second.push(here.block_on(pairs_per_second(in_flight, pairs, pair)));
                runs.client_us.push(client.elapsed().as_secs_f64() * 1e6 / pairs as f64);
                runs.server_us.push((cpu_of(server) - served) * 1e6 / pairs as f64);
            }
        }
        let ours = median(&mut runs[0].per_second);
        for ((name, _), runs) in contenders.iter().zip(&mut runs) {
            let per_second = median(&mut runs.per_second);
            println!(
                "{in_flight:>4} in flight  {name:<17} {per_second:>8.0}/s  {:>6.1} us  {:>5.2}x  {:>5.1} us  {:>5.1} us",
                1e6 / per_second,
                ours / per_second,
                median(&mut runs.client_us),
                median(&mut runs.server_us),
            );
            figures.push((format!("redis_pairs/{name}/{in_flight}"), per_second));
            if in_flight == 1 {
                figures.push((format!("redis_one/{name}"), 1e6 / per_second));
            }
        }
    }
    figures
}

/// The other process of [`passing`]: as long as its standard input is open, it takes the key and lets it go.
fn partner(url: &str) {
    std::thread::spawn(|| {
        let _ = std::io::read_to_string(std::io::stdin());
        std::process::exit(0);
    });
    runtime().block_on(async {
        let locks = manager(url).await;
        loop {
            drop(locks.lock("passed").wait(Duration::from_mins(1)).await.unwrap());
        }
    });
}

/// Two processes take turns: each release wakes the other. Answers the median time of both ways, in microseconds.
fn passing(server: &Server, rounds: usize) -> f64 {
    let mut partner = Command::new(std::env::current_exe().unwrap())
        .env(PARTNER, server.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut runs = runtime().block_on(async {
        let locks = manager(&server.url()).await;
        let mut runs = Vec::new();
        for _ in 0..rounds {
            let lock = locks.lock("passed").wait(Duration::from_mins(1)).await.unwrap();
            // The partner's place in the queue.
            until("the partner", || server.ask::<i64>("ZCARD leasehold:queue:{lock:passed}") == 1);
            let fence = lock.fencing_token().unwrap().get();
            drop(lock);
            let began = Instant::now();
            let lock = locks.lock("passed").wait(Duration::from_mins(1)).await.unwrap();
            runs.push(began.elapsed().as_secs_f64() * 1e6);
            assert!(lock.fencing_token().unwrap().get() > fence);
        }
        runs
    });
    drop(partner.stdin.take());
    partner.wait().unwrap();
    let both_ways = median(&mut runs);
    println!("a key goes to a waiter in another process and comes back: {both_ways:.0} us for both ways");
    both_ways
}

/// What waiting tasks of one process cost the server.
fn waiting(server: &Server, watched: Duration) {
    let here = runtime();
    let commands = || server.info("total_commands_processed").parse::<u64>().unwrap();
    for tasks in [1, 1_000] {
        here.block_on(async {
            let (holder, locks) = (manager(&server.url()).await, manager(&server.url()).await);
            let lock = holder.lock("busy").await.unwrap();
            let waiting: Vec<_> = (0..tasks)
                .map(|_| {
                    let locks = locks.clone();
                    tokio::spawn(async move { locks.lock("busy").wait(Duration::from_mins(1)).await.is_ok() })
                })
                .collect();
            until("the queue", || locks.stats().waiting >= tasks - 1);
            let before = commands();
            tokio::time::sleep(watched).await;
            let per_second = (commands() - before) as f64 / watched.as_secs_f64();
            println!("{tasks:>5} waiting tasks: {per_second:.1} commands per second");
            waiting.iter().for_each(tokio::task::JoinHandle::abort);
            drop(lock);
        });
    }
}

/// Names the server to the partner process.
const PARTNER: &str = "LEASEHOLD_BENCH_PARTNER";

fn main() {
    if let Ok(url) = std::env::var(PARTNER) {
        return partner(&url);
    }
    // `cargo test` passes no `--bench`.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let server = Server::start(&[]);
    let (rounds, number) = if is_bench { (11, 20_000) } else { (1, 500) };
    let in_flight: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    if !in_flight.is_empty() {
        pairs(&server, rounds, number, &in_flight);
        return;
    }
    let mut figures = pairs(&server, rounds, number, &[1, 8, 64, 256]);
    figures.push(("redis_passing/leasehold".to_owned(), passing(&server, if is_bench { 501 } else { 5 })));
    waiting(&server, if is_bench { Duration::from_secs(5) } else { Duration::from_millis(100) });
    if is_bench {
        keep("redis.json", &figures).expect("the target folder is writable");
    }
}
