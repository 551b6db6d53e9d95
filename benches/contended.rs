//! How does one key fare that tasks of several processes want all the time?
//!
//! Each line is a number of processes with eight tasks each, over one Redis and over five Redlock nodes: grants per
//! second, scripts and commands that a server ran for each grant (its own count; of five nodes, for one node), how even
//! the processes' shares are (Jain's index: 1 is even; and the smallest share over the mean), and the longest wait.
//! `cargo bench --bench contended --features redis,test-util -- [redis | redlock] [PROCESSES]` runs some of it.

#[path = "../tests/support/redis/mod.rs"]
mod kit;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "../tests/support/processes.rs"]
mod processes;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kit::Server;
use leasehold::store::redis::RedisStore;
use leasehold::store::redlock::RedlockStore;
use leasehold::{LockError, LockManager};
use nodes::initialise;
use processes::{MARK, Process};

const TASKS: usize = 8;
const URLS: &str = "LEASEHOLD_CONTENDED_URLS";
/// Longer than the bench is patient.
const LONG: Duration = Duration::from_mins(10);
const MAX_TTL: Duration = Duration::from_mins(1);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// One URL is a server, several are nodes.
async fn manager(urls: &str) -> LockManager {
    let urls: Vec<&str> = urls.split(',').collect();
    // On a busy machine no answer is late before a second has passed.
    let patience = Duration::from_secs(1);
    let builder = match &urls[..] {
        [url] => LockManager::builder().store(RedisStore::builder(url).operation_timeout(patience).build().unwrap()),
        urls => {
            let nodes = RedlockStore::builder(urls).max_ttl(MAX_TTL).node_timeout(patience);
            LockManager::builder().store(nodes.build().unwrap())
        }
    };
    builder.build_and_connect().await.unwrap()
}

/// Takes the key and lets it go, over and over.
async fn work(locks: LockManager, over: Arc<AtomicBool>) -> (u64, Duration) {
    let (mut grants, mut longest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        match locks.lock("hot").wait(LONG).await {
            Ok(lock) => {
                longest = longest.max(asked.elapsed());
                lock.unlock().await;
                grants += 1;
            }
            Err(LockError::StoreUnavailable | LockError::Lost(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    (grants, longest)
}

/// A process of the bench: works between two lines of its input.
fn worker(urls: &str) {
    let runtime = runtime();
    let locks = runtime.block_on(manager(urls));
    let line = || std::io::stdin().read_line(&mut String::new()).unwrap();
    println!("{MARK}ready");
    line();
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS).map(|_| runtime.spawn(work(locks.clone(), Arc::clone(&over)))).collect();
    line();
    over.store(true, Ordering::Relaxed);
    let (mut grants, mut longest) = (0, Duration::ZERO);
    for task in tasks {
        let (more, wait) = runtime.block_on(task).unwrap();
        (grants, longest) = (grants + more, longest.max(wait));
    }
    println!("{MARK}{grants} {}", longest.as_micros());
    runtime.block_on(locks.shutdown(Duration::from_secs(1)));
}

/// How many scripts and commands the servers have run.
fn asked(servers: &[Server]) -> (f64, f64) {
    let calls = |line: &str| line.split(&['=', ','][..]).nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    let (mut scripts, mut commands) = (0.0, 0.0);
    for server in servers {
        let stats: String = server.ask("INFO commandstats");
        for line in stats.lines().filter(|line| line.starts_with("cmdstat_")) {
            commands += calls(line);
            if line.starts_with("cmdstat_eval") {
                scripts += calls(line);
            }
        }
    }
    (scripts / servers.len() as f64, commands / servers.len() as f64)
}

fn measure(name: &str, servers: &[Server], processes: usize, time: Duration) {
    let urls = servers.iter().map(Server::url).collect::<Vec<_>>().join(",");
    let mut workers: Vec<Process> = (0..processes)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(URLS, &urls);
            Process::start(command)
        })
        .collect();
    for worker in &workers {
        assert_eq!(worker.hear().as_deref(), Some("ready"));
    }
    let before = asked(servers);
    let began = Instant::now();
    workers.iter_mut().for_each(|worker| worker.tell("go"));
    std::thread::sleep(time);
    let (seconds, after) = (began.elapsed().as_secs_f64(), asked(servers));
    workers.iter_mut().for_each(|worker| worker.tell("stop"));
    let (mut shares, mut longest) = (Vec::new(), 0.0_f64);
    for worker in &workers {
        let said = worker.hear().expect("it says what it did");
        let (grants, wait) = said.split_once(' ').expect("two numbers");
        shares.push(grants.parse::<f64>().unwrap());
        longest = longest.max(wait.parse::<f64>().unwrap() / 1e3);
    }
    let total: f64 = shares.iter().sum();
    let jain = total * total / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>());
    let least = shares.iter().copied().fold(f64::MAX, f64::min) * shares.len() as f64 / total;
    let (scripts, commands) = ((after.0 - before.0) / total, (after.1 - before.1) / total);
    println!(
        "{name:<8} {processes:>3} x {TASKS}  {:>8.0} grants/s  {scripts:>7.1} scripts  {commands:>7.1} commands  \
         shares {jain:>5.3}, least {least:>5.2}  longest wait {longest:>8.1} ms",
        total / seconds
    );
}

fn main() {
    if let Ok(urls) = std::env::var(URLS) {
        return worker(&urls);
    }
    // `cargo test` passes no `--bench`.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let wants = |name: &str| {
        let named = |arg: &String| arg == "redis" || arg == "redlock";
        let mut names = std::env::args().filter(named).peekable();
        names.peek().is_none() || names.any(|arg| arg == name)
    };
    let only: Option<usize> = std::env::args().find_map(|arg| arg.parse().ok());
    let counts: &[usize] = if is_bench { &[1, 2, 8, 32] } else { &[2] };
    let time = if is_bench { Duration::from_secs(5) } else { Duration::from_millis(200) };
    for (name, nodes) in [("redis", 1), ("redlock", 5)].into_iter().filter(|(name, _)| wants(name)) {
        let servers: Vec<Server> = (0..nodes).map(|_| Server::start(&[])).collect();
        if nodes > 1 {
            let urls: Vec<String> = servers.iter().map(Server::url).collect();
            let store = RedlockStore::builder(urls).max_ttl(MAX_TTL).build().unwrap();
            runtime().block_on(initialise(&store));
        }
        for processes in counts.iter().copied().filter(|count| only.is_none_or(|only| only == *count)) {
            measure(name, &servers, processes, time);
        }
    }
}
