//! What does a lock over five nodes cost over the ten scripts that it consists of?
//!
//! Each line is acquire + release, against five real servers on this machine. The baselines send five scripts at once
//! and await them all, twice: the same scripts, and the shortest ones that other libraries use, by EVALSHA over
//! multiplexed connections that live on another thread, as the store's do. `rslock` has the same five nodes. Runs
//! alternate, and the medians are shown. On a machine that others use too, wall-clock times say little; so what a
//! pair costs in CPU time, of this process and of the five servers, stands beside them.
//!
//! The second table is the time of one acquire while one of the nodes answers 50 ms late. `report` holds the figures to
//! their targets.

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/redis/mod.rs"]
mod kit;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "support/stores.rs"]
mod stores;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use figures::keep;
use futures::future::join_all;
use kit::{Direction, Proxy, Server};
use leasehold::conformance::store::Stores;
use leasehold::store::redlock::RedlockStore;
use leasehold::store::{AcquireRequest, Acquired, OnHeld, Released, Store};
use leasehold::{Key, LockManager, Mode, Token};
use nodes::initialise;
use redis::aio::MultiplexedConnection;
use stores::{
    Pair, SHORT_ACQUIRE, SHORT_RELEASE, Scripts, TTL_MS, connect, median, names, pairs_per_second, runtime,
    through_rslock, through_the_manager, through_the_store, ttl,
};

const NODES: usize = 5;

/// Two scripts, and a connection to each node whose task runs on another thread.
struct Raw {
    connections: Vec<MultiplexedConnection>,
    acquire: redis::Script,
    release: redis::Script,
    kind: Scripts,
    /// The next fence: higher than any that is made of a clock's time.
    fence: AtomicU64,
}

impl Raw {
    async fn over(urls: Vec<String>, kind: Scripts) -> Self {
        let (acquire, release) = match kind {
            Scripts::Ours => (
                include_str!("../src/store/redlock/ops/acquire.lua"),
                concat!(
                    include_str!("../src/store/redlock/ops/queue.lua"),
                    include_str!("../src/store/redlock/ops/release.lua")
                ),
            ),
            Scripts::Shortest => (SHORT_ACQUIRE, SHORT_RELEASE),
        };
        let (acquire, release) = (redis::Script::new(acquire), redis::Script::new(release));
        let mut connections = join_all(urls.iter().map(|url| connect(url))).await;
        for connection in &mut connections {
            acquire.load_async(connection).await.unwrap();
            release.load_async(connection).await.unwrap();
        }
        Self { connections, acquire, release, kind, fence: AtomicU64::new(4_000_000_000_000_000) }
    }

    async fn lock_and_release(&self, key: &str) {
        let token = Token::random().to_string();
        let (lock, fence) = (format!("lock:{key}"), format!("leasehold:fence:{{lock:{key}}}"));
        let (queue, wake) = (format!("leasehold:queue:{{lock:{key}}}"), format!("leasehold:wake:{{lock:{key}}}"));
        let late = 9_000_000_000_000_000_u64;
        let (mut acquire, mut release) = (redis::cmd("EVALSHA"), redis::cmd("EVALSHA"));
        acquire.arg(self.acquire.get_hash());
        release.arg(self.release.get_hash());
        if self.kind == Scripts::Ours {
            acquire.arg(4).arg("leasehold:quarantine").arg(&lock).arg(&fence).arg(&queue);
            acquire.arg(self.fence.fetch_add(1, Ordering::Relaxed)).arg(86_400_000).arg(60_000).arg(1);
            acquire.arg("raw").arg(1_500).arg(&token).arg(TTL_MS).arg(0).arg(late);
            release.arg(2).arg(&lock).arg(&queue).arg(&token).arg(&wake).arg(late);
        } else {
            acquire.arg(1).arg(&lock).arg(&token).arg(TTL_MS);
            release.arg(1).arg(&lock).arg(&token);
        }
        self.to_all(&acquire).await;
        self.to_all(&release).await;
    }

    async fn to_all(&self, command: &redis::Cmd) {
        let answers = join_all(self.connections.iter().map(|connection| {
            let mut connection = connection.clone();
            async move { connection.send_packed_command(command).await }
        }));
        assert!(answers.await.iter().all(Result::is_ok));
    }
}

/// On a machine that others use too, no answer is late before a second has passed.
fn store_over(urls: &[String]) -> RedlockStore {
    RedlockStore::builder(urls).node_timeout(Duration::from_secs(1)).build().unwrap()
}

/// How many scripts the nodes have run.
fn scripts(servers: &[Server]) -> f64 {
    let calls = |line: &str| line.split(&['=', ','][..]).nth(1).and_then(|calls| calls.parse::<f64>().ok());
    let of = |server: &Server| {
        let stats: String = server.ask("INFO commandstats");
        stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(calls).sum::<f64>()
    };
    servers.iter().map(of).sum()
}

/// The CPU time that some processes have used, in microseconds: what `/proc` says, in hundredths of a second.
fn cpu_us(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().unwrap_or(0.0));
        ticks.sum::<f64>() * 1e4
    };
    pids.iter().map(of).sum()
}

/// Answers the pairs per second of each contender, by their numbers in flight.
fn pairs(servers: &[Server], rounds: usize, pairs: usize) -> Vec<(String, f64)> {
    let urls: &[String] = &servers.iter().map(Server::url).collect::<Vec<_>>();
    let nodes: Vec<u32> = servers.iter().map(Server::pid).collect();
    let two = Stores::start(&|| Arc::new(store_over(urls)) as Arc<dyn Store>);
    let (here, elsewhere) = (runtime(), runtime());
    // Their tasks stay on the other thread.
    let raw = |kind| elsewhere.block_on(elsewhere.spawn(Raw::over(urls.to_vec(), kind))).unwrap();
    let (same, shortest) = (raw(Scripts::Ours), raw(Scripts::Shortest));
    let builder = LockManager::builder().store(store_over(urls));
    let locks = here.block_on(builder.build_and_connect()).unwrap();
    let rival = rslock::LockManager::new(urls.to_vec());
    let (names, raw_names) = (names("order"), names("raw"));
    let number = AtomicU64::new(0);
    let next = || number.fetch_add(1, Ordering::Relaxed) as usize % names.len();
    let mut contenders: Vec<(&str, Pair<'_>)> = vec![
        ("store", Box::new(|| Box::pin(through_the_store(&*two.one, &names[next()])))),
        ("leasehold", Box::new(|| Box::pin(through_the_manager(&locks, &names[next()])))),
        ("same scripts raw", Box::new(|| Box::pin(same.lock_and_release(raw_names[next()].as_str())))),
        ("shortest raw", Box::new(|| Box::pin(shortest.lock_and_release(raw_names[next()].as_str())))),
        ("rslock", Box::new(|| Box::pin(through_rslock(&rival, &names[next()])))),
    ];
    println!("acquire + release over {NODES} nodes, distinct keys");
    println!("pairs/s, time of one, over the first one's; CPU time of a pair here and in the nodes; scripts of a node");
    // A number on the command line is the only number in flight, and a name the only contender.
    let only: Option<usize> = std::env::args().find_map(|arg| arg.parse().ok());
    let named: Vec<String> = std::env::args().collect();
    if contenders.iter().any(|(name, _)| named.iter().any(|arg| arg == name)) {
        contenders.retain(|(name, _)| named.iter().any(|arg| arg == name));
    }
    let mut figures = Vec::new();
    for in_flight in [1, 8, 64, 256].into_iter().filter(|number| only.is_none_or(|only| only == *number)) {
        let pairs = if in_flight == 1 { pairs / 5 } else { pairs };
        let mut runs = vec![Vec::new(); contenders.len()];
        let mut cpu = vec![(0.0, 0.0, 0.0); contenders.len()];
        for _ in 0..rounds {
            for (((_, pair), runs), cpu) in contenders.iter().zip(&mut runs).zip(&mut cpu) {
                let before = (cpu_us(&[std::process::id()]), cpu_us(&nodes), scripts(servers));
                runs.push(here.block_on(pairs_per_second(in_flight, pairs, pair)));
                cpu.0 += cpu_us(&[std::process::id()]) - before.0;
                cpu.1 += cpu_us(&nodes) - before.1;
                cpu.2 += scripts(servers) - before.2;
            }
        }
        let ours = median(&mut runs[0]);
        for (((name, _), runs), cpu) in contenders.iter().zip(&mut runs).zip(cpu) {
            let all = (rounds * pairs) as f64;
            let (client, nodes, scripts) = (cpu.0 / all, cpu.1 / all, cpu.2 / all / NODES as f64);
            let per_second = median(runs);
            let (us, share) = (1e6 * in_flight as f64 / per_second, per_second / ours);
            println!(
                "{in_flight:>4} in flight  {name:<17} {per_second:>8.0}/s  {us:>8.1} us  {share:>5.2}x  {client:>5.1} + {nodes:>5.1} us  {scripts:>5.2}"
            );
            figures.push((format!("redlock_pairs/{name}/{in_flight}"), per_second));
        }
    }
    figures
}

/// The median time of an acquire, in microseconds.
async fn acquire_us(store: &dyn Store, rounds: usize) -> f64 {
    let mut runs = Vec::new();
    for n in 0..rounds {
        let (key, token) = (Key::new(format!("slow:{}", n % 64)).unwrap(), Token::random());
        let began = Instant::now();
        let answer = store
            .acquire(AcquireRequest {
                key: &key,
                token,
                ttl: ttl(),
                on_held: OnHeld::Fail,
                mode: Mode::Exclusive,
                note: &[],
            })
            .await;
        runs.push(began.elapsed().as_secs_f64() * 1e6);
        assert!(matches!(answer, Acquired::Granted { .. }), "{answer:?}");
        assert_eq!(store.release(&key, token).await, Released::Released);
    }
    median(&mut runs)
}

/// One node of five answers late.
fn slow_node(servers: &[Server], rounds: usize) {
    let proxies: Vec<Proxy> = servers.iter().map(|server| Proxy::start(server.address())).collect();
    let urls: Vec<String> = proxies.iter().map(Proxy::url).collect();
    let two = Stores::start(&|| Arc::new(store_over(&urls)) as Arc<dyn Store>);
    let here = runtime();
    here.block_on(acquire_us(&*two.one, 100));
    let even = here.block_on(acquire_us(&*two.one, rounds));
    proxies[0].delay(Direction::ToClient, Duration::from_millis(50));
    let with_a_slow_one = here.block_on(acquire_us(&*two.one, rounds));
    println!(
        "an acquire through proxies: {even:.0} us; with one node 50 ms late: {with_a_slow_one:.0} us ({:.2}x)",
        with_a_slow_one / even
    );
}

fn main() {
    // `cargo test` passes no `--bench`.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let servers: Vec<Server> = (0..NODES).map(|_| Server::start(&[])).collect();
    let urls: Vec<String> = servers.iter().map(Server::url).collect();
    runtime().block_on(initialise(&RedlockStore::new(&urls).unwrap()));
    let (rounds, number) = if is_bench { (9, 5_000) } else { (1, 250) };
    let figures = pairs(&servers, rounds, number);
    if is_bench {
        keep("redlock.json", &figures).expect("the target folder is writable");
    }
    slow_node(&servers, if is_bench { 2_000 } else { 20 });
}
