//! How does one key fare that tasks of several processes want all the time?
//!
//! Each line is a number of processes and of tasks in each, over one Redis and over five Redlock nodes: grants per
//! second, scripts and commands that a server ran for each grant (its own count; of five nodes, for one node), how even
//! the processes' shares are (Jain's index: 1 is even; and the smallest share over the greatest), the longest time that a
//! process was without a grant, and the longest wait of a task. `report` holds the figures to their targets.
//! Over one Redis with claims that are not reused (`redis`), that are handed on (`hand_off`), and that also linger
//! (`linger`), and by `rslock`, which polls.
//! `cargo bench --bench contended --features redis,test-util -- [redis | hand_off | linger | rslock | redlock]
//! [PROCESSES]` runs some of it.

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/redis/mod.rs"]
mod kit;
#[path = "support/nodes.rs"]
mod nodes;
#[path = "../tests/support/processes.rs"]
mod processes;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use figures::keep;
use kit::Server;
use leasehold::store::ClaimReuse;
use leasehold::store::redis::RedisStore;
use leasehold::store::redlock::RedlockStore;
use leasehold::{LockError, LockManager};
use nodes::initialise;
use processes::{MARK, Process};

const URLS: &str = "LEASEHOLD_CONTENDED_URLS";
const CONTENDER: &str = "LEASEHOLD_CONTENDED_BY";
const TASKS: &str = "LEASEHOLD_CONTENDED_TASKS";
/// Who takes part.
struct Contender {
    name: &'static str,
    servers: usize,
    /// How many processes, and tasks in each.
    crowds: &'static [(usize, usize)],
}

const GROWING: &[(usize, usize)] = &[(1, 8), (2, 8), (8, 8), (32, 8)];
const REUSING: &[(usize, usize)] = &[(1, 8), (2, 8), (4, 8), (8, 8), (1, 64), (2, 32)];
const CONTENDERS: [Contender; 5] = [
    Contender { name: "redis", servers: 1, crowds: GROWING },
    Contender { name: "hand_off", servers: 1, crowds: REUSING },
    Contender { name: "linger", servers: 1, crowds: REUSING },
    Contender { name: "rslock", servers: 1, crowds: &[(1, 64), (2, 32)] },
    Contender { name: "redlock", servers: 5, crowds: GROWING },
];
/// Longer than the bench is patient.
const LONG: Duration = Duration::from_mins(10);
const MAX_TTL: Duration = Duration::from_mins(1);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// One URL is a server, several are nodes.
async fn manager(urls: &str, contender: &str) -> LockManager {
    let urls: Vec<&str> = urls.split(',').collect();
    // On a busy machine no answer is late before a second has passed.
    let patience = Duration::from_secs(1);
    let builder = match &urls[..] {
        [url] => {
            let reuse = match contender {
                "hand_off" => ClaimReuse::hand_off(),
                "linger" => ClaimReuse::linger(),
                _ => ClaimReuse::Off,
            };
            let store = RedisStore::builder(url).operation_timeout(patience).claim_reuse(reuse);
            LockManager::builder().store(store.build().unwrap())
        }
        urls => {
            let nodes = RedlockStore::builder(urls).max_ttl(MAX_TTL).node_timeout(patience);
            LockManager::builder().store(nodes.build().unwrap())
        }
    };
    builder.build_and_connect().await.unwrap()
}

/// What the tasks of a process share.
struct Work {
    began: Instant,
    over: AtomicBool,
    /// Microseconds from the beginning to the last grant of any of them, and the longest time between two.
    last_us: AtomicU64,
    longest_without_us: AtomicU64,
}

impl Work {
    fn begin() -> Self {
        let began = Instant::now();
        Self { began, over: AtomicBool::new(false), last_us: AtomicU64::new(0), longest_without_us: AtomicU64::new(0) }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// One of the tasks has the key. There are no two at a time.
    fn granted(&self) {
        let now = self.began.elapsed().as_micros() as u64;
        let before = self.last_us.swap(now, Ordering::Relaxed);
        self.longest_without_us.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
    }
}

/// Takes the key and lets it go, over and over.
async fn work(locks: LockManager, work: Arc<Work>) -> (u64, Duration) {
    let (mut grants, mut longest) = (0, Duration::ZERO);
    while !work.is_over() {
        let asked = Instant::now();
        match locks.lock("hot").wait(LONG).await {
            Ok(lock) => {
                work.granted();
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

/// The same by `rslock`, as its user would: it gives up after some tries, and is asked again.
async fn work_by_rslock(locks: rslock::LockManager, work: Arc<Work>) -> (u64, Duration) {
    let (mut grants, mut longest) = (0, Duration::ZERO);
    let mut asked = Instant::now();
    while !work.is_over() {
        if let Ok(lock) = locks.lock("hot", Duration::from_secs(30)).await {
            work.granted();
            longest = longest.max(asked.elapsed());
            locks.unlock(&lock).await;
            grants += 1;
            asked = Instant::now();
        }
    }
    (grants, longest)
}

/// A process of the bench: works between two lines of its input.
fn worker(urls: &str) {
    let runtime = runtime();
    let set = |name| std::env::var(name).expect("the parent sets it");
    let (contender, tasks) = (set(CONTENDER), set(TASKS).parse::<usize>().expect("a number"));
    let line = || std::io::stdin().read_line(&mut String::new()).unwrap();
    let ready = || {
        println!("{MARK}ready");
        line();
    };
    let (locks, shared, tasks): (_, _, Vec<_>) = if contender == "rslock" {
        let locks = rslock::LockManager::new(vec![urls]);
        ready();
        let shared = Arc::new(Work::begin());
        let spawn = |_| runtime.spawn(work_by_rslock(locks.clone(), Arc::clone(&shared)));
        let tasks = (0..tasks).map(spawn).collect();
        (None, shared, tasks)
    } else {
        let locks = runtime.block_on(manager(urls, &contender));
        ready();
        let shared = Arc::new(Work::begin());
        let spawn = |_| runtime.spawn(work(locks.clone(), Arc::clone(&shared)));
        let tasks = (0..tasks).map(spawn).collect();
        (Some(locks), shared, tasks)
    };
    line();
    shared.over.store(true, Ordering::Relaxed);
    let (mut grants, mut longest) = (0, Duration::ZERO);
    for task in tasks {
        let (more, wait) = runtime.block_on(task).unwrap();
        (grants, longest) = (grants + more, longest.max(wait));
    }
    if let Some(locks) = locks {
        // Before the parent ends this process: a claim that is kept idle would be in the way of the next ones.
        runtime.block_on(locks.shutdown(Duration::from_secs(1)));
    }
    println!("{MARK}{grants} {} {}", longest.as_micros(), shared.longest_without_us.load(Ordering::Relaxed));
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

/// What one crowd came to.
struct Line {
    name: &'static str,
    crowd: (usize, usize),
    per_second: f64,
    scripts: f64,
    jain: f64,
    /// The least share over the greatest.
    shares: f64,
    /// The longest that a process was without a grant.
    without_ms: f64,
}

fn measure(name: &'static str, servers: &[Server], (processes, tasks): (usize, usize), time: Duration) -> Line {
    let urls = servers.iter().map(Server::url).collect::<Vec<_>>().join(",");
    let mut workers: Vec<Process> = (0..processes)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(URLS, &urls).env(CONTENDER, name).env(TASKS, tasks.to_string());
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
    let (mut shares, mut longest, mut without_ms) = (Vec::new(), 0.0_f64, 0.0_f64);
    for worker in &workers {
        let said = worker.hear().expect("it says what it did");
        let numbers: Vec<f64> = said.split(' ').map(|number| number.parse().unwrap()).collect();
        shares.push(numbers[0]);
        (longest, without_ms) = (longest.max(numbers[1] / 1e3), without_ms.max(numbers[2] / 1e3));
    }
    let total: f64 = shares.iter().sum();
    let jain = total * total / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>());
    let greatest = shares.iter().copied().fold(0.0, f64::max);
    let least = shares.iter().copied().fold(f64::MAX, f64::min) / greatest;
    let (scripts, commands) = ((after.0 - before.0) / total, (after.1 - before.1) / total);
    println!(
        "{name:<8} {processes:>3} x {tasks:<2}  {:>8.0} grants/s  {scripts:>7.1} scripts  {commands:>7.1} commands  \
         shares {jain:>5.3}, least {least:>5.2}  without {without_ms:>7.1} ms  longest wait {longest:>8.1} ms",
        total / seconds
    );
    Line { name, crowd: (processes, tasks), per_second: total / seconds, scripts, jain, shares: least, without_ms }
}

/// What `report` is told of a line. What `rslock` does is beside both ways to reuse claims.
fn figures_of(line: &Line) -> Vec<(String, f64)> {
    let crowd = format!("{}x{}", line.crowd.0, line.crowd.1);
    if line.name == "rslock" {
        let beside = |name: &str| (format!("{name}_grants/rslock/{crowd}"), line.per_second);
        return ["hand_off", "linger"].map(beside).into();
    }
    let figures = [
        ("grants", line.per_second),
        ("scripts", line.scripts),
        ("jain", line.jain),
        ("shares", line.shares),
        ("without", line.without_ms),
    ];
    figures.map(|(what, figure)| (format!("{}_{what}/leasehold/{crowd}", line.name), figure)).into()
}

fn main() {
    if let Ok(urls) = std::env::var(URLS) {
        return worker(&urls);
    }
    // `cargo test` passes no `--bench`.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let wants = |name: &str| {
        let named = |arg: &String| CONTENDERS.iter().any(|contender| arg == contender.name);
        let mut names = std::env::args().filter(named).peekable();
        names.peek().is_none() || names.any(|arg| arg == name)
    };
    let only: Option<usize> = std::env::args().find_map(|arg| arg.parse().ok());
    let time = if is_bench { Duration::from_secs(5) } else { Duration::from_millis(200) };
    let mut lines = Vec::new();
    for Contender { name, servers: nodes, crowds } in CONTENDERS.into_iter().filter(|contender| wants(contender.name)) {
        let servers: Vec<Server> = (0..nodes).map(|_| Server::start(&[])).collect();
        if nodes > 1 {
            let urls: Vec<String> = servers.iter().map(Server::url).collect();
            let store = RedlockStore::builder(urls).max_ttl(MAX_TTL).build().unwrap();
            runtime().block_on(initialise(&store));
        }
        let crowds = crowds.iter().filter(|(processes, _)| only.is_none_or(|only| only == *processes));
        for crowd in crowds.take(if is_bench { usize::MAX } else { 1 }) {
            lines.push(measure(name, &servers, *crowd, time));
        }
    }
    if is_bench {
        let figures: Vec<_> = lines.iter().flat_map(figures_of).collect();
        keep("contended.json", &figures).expect("the target folder is writable");
    }
}
