//! Fear: processes that are killed and stopped at any moment hold one key together, hold it up for ever, or pass on a
//! fence that falls; or the more of them want a key, the more each grant costs the server.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::join;
use leasehold::store::redis::RedisStore;
use leasehold::{BuildError, Clock, Lock, LockError, LockManager, Loss, Release};

use crate::history::{Event, Log, Outcome, check, holds};
use crate::kit::{self, Server, until};
use crate::processes::{MARK, Process};

const PROCESSES: usize = 4;
const TASKS: usize = 64;
/// Longer than any test is patient.
const LONG: Duration = Duration::from_mins(5);

/// One seed a run, told on failure: the environment variable names one to have again.
fn seed() -> u64 {
    match std::env::var("LEASEHOLD_CHAOS_SEED") {
        Ok(seed) => seed.parse().expect("the seed is a number"),
        Err(_) => fastrand::u64(..),
    }
}

/// How long a chaos lasts.
fn chaos() -> Duration {
    let secs = std::env::var("LEASEHOLD_CHAOS_SECS").map_or(8, |secs| secs.parse().expect("a number of seconds"));
    Duration::from_secs(secs)
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} tells a worker what to do"))
}

fn now() -> u64 {
    // Counts from the machine's start: one clock for all its processes.
    Clock::system().now().as_nanos()
}

async fn manager(url: &str) -> LockManager {
    loop {
        let builder = LockManager::builder().store(RedisStore::new(url).unwrap());
        match builder.build_and_connect().await {
            Ok(locks) => return locks,
            // The machine is busy, the server is there.
            Err(BuildError::Store(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a worker does with a key, over and over.
struct Work {
    locks: LockManager,
    log: File,
    keys: usize,
    over: Arc<AtomicBool>,
}

impl Work {
    fn write(&self, event: &Event) {
        // One call for a line: what is killed then has written it, or not.
        (&self.log).write_all(event.to_string().as_bytes()).unwrap();
    }

    async fn run(self: Arc<Self>, mut random: fastrand::Rng) {
        while !self.over.load(Ordering::Relaxed) {
            let key = format!("k{}", random.usize(..self.keys));
            let asked = now();
            match self.take(&key, &mut random).await {
                Ok(Some(lock)) => self.hold(&key, asked, lock, &mut random).await,
                Ok(None) => {}
                Err(LockError::Held | LockError::Timeout { .. } | LockError::StoreUnavailable) => {}
                // Granted, and stopped until it was over.
                Err(LockError::Lost(Loss::Expired)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn take(&self, key: &str, random: &mut fastrand::Rng) -> Result<Option<Lock>, LockError> {
        let ttl = Duration::from_millis(random.u64(200..1000));
        let short = Duration::from_micros(random.u64(0..40_000));
        match random.u8(..20) {
            0 | 1 => self.locks.try_lock(key).ttl(ttl).await.map(Some),
            2 | 3 => self.locks.lock(key).ttl(ttl).wait(short).await.map(Some),
            // Dropped somewhere on the way.
            4 | 5 => tokio::time::timeout(short, self.locks.lock(key).ttl(ttl).wait(LONG)).await.ok().transpose(),
            _ => self.locks.lock(key).ttl(ttl).wait(LONG).await.map(Some),
        }
    }

    async fn hold(&self, key: &str, asked: u64, lock: Lock, random: &mut fastrand::Rng) {
        let at = now();
        let token = lock.token().to_string();
        let fence = lock.fencing_token().expect("this store has fences").get();
        let deadline = |lock: &Lock| lock.deadline().map_or(0, |deadline| deadline.as_nanos());
        self.write(&Event::Granted {
            at,
            asked,
            key: key.into(),
            token: token.clone(),
            fence,
            deadline: deadline(&lock),
        });
        if random.u8(..10) == 0 && lock.refresh().await.is_ok() {
            self.write(&Event::Extended { at: now(), token: token.clone(), deadline: deadline(&lock) });
        }
        tokio::time::sleep(Duration::from_micros(random.u64(0..3000))).await;
        let releasing = |attempt| self.write(&Event::Releasing { at: now(), token: token.clone(), attempt });
        let released = |attempt, outcome| {
            let outcome = match outcome {
                Ok(Release::Released) => Outcome::Released,
                Ok(Release::AlreadyGone) => Outcome::AlreadyGone,
                Err(LockError::NotHeld) => Outcome::AlreadyGone,
                Ok(Release::Unknown) | Err(LockError::StoreUnavailable) => Outcome::Unknown,
                other => panic!("{other:?}"),
            };
            self.write(&Event::Released { at: now(), token: token.clone(), attempt, outcome });
        };
        match random.u8(..100) {
            // Held until it is lost.
            0 => {
                lock.lost().await;
                releasing(0);
                released(0, Ok(lock.unlock().await));
            }
            1..10 => {
                releasing(0);
                drop(lock);
            }
            // Released twice at a time, as by a client that asks again.
            10..25 => {
                let ticket = lock.detach();
                let release = async |attempt| {
                    releasing(attempt);
                    released(attempt, self.locks.release(key, ticket.token()).await);
                };
                join(release(0), release(1)).await;
            }
            _ => {
                releasing(0);
                released(0, Ok(lock.unlock().await));
            }
        }
    }
}

#[test]
#[ignore = "a process of the chaos tests, which run it"]
fn worker() {
    let log = OpenOptions::new().create(true).append(true).open(setting("LEASEHOLD_LOG")).unwrap();
    let seed: u64 = setting("LEASEHOLD_SEED").parse().unwrap();
    let keys = setting("LEASEHOLD_KEYS").parse().unwrap();
    runtime().block_on(async {
        let locks = manager(&setting("LEASEHOLD_URL")).await;
        let work = Arc::new(Work { locks, log, keys, over: Arc::default() });
        let mut seeds = fastrand::Rng::with_seed(seed);
        let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(Arc::clone(&work).run(seeds.fork()))).collect();
        let over = Arc::clone(&work.over);
        let input = tokio::task::spawn_blocking(move || {
            std::io::stdin().lines().for_each(drop);
            over.store(true, Ordering::Relaxed);
        });
        for task in tasks {
            task.await.unwrap();
        }
        input.await.unwrap();
        work.locks.shutdown(Duration::ZERO).await;
    });
}

/// The processes of one chaos, those that were killed included.
struct Crowd {
    server: Server,
    dir: kit::Dir,
    keys: usize,
    logs: Vec<PathBuf>,
    alive: Vec<Member>,
    random: fastrand::Rng,
}

struct Member {
    process: Process,
    log: usize,
    /// When it is thawed.
    stopped: Option<Instant>,
}

impl Crowd {
    fn start(keys: usize, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (server, dir) = (Server::start(&[]), kit::Dir::make());
        let mut this = Self { server, dir, keys, logs: Vec::new(), alive: Vec::new(), random };
        (0..PROCESSES).for_each(|_| this.add());
        this
    }

    fn add(&mut self) {
        let log = self.logs.len();
        self.logs.push(self.dir.path().join(format!("history.{log}")));
        let (seed, keys) = (self.random.u64(..).to_string(), self.keys.to_string());
        let environment = [
            ("LEASEHOLD_URL", &*self.server.url()),
            ("LEASEHOLD_LOG", self.logs[log].to_str().expect("a plain path")),
            ("LEASEHOLD_SEED", &seed),
            ("LEASEHOLD_KEYS", &keys),
        ];
        self.alive.push(Member {
            process: Process::worker("killed_processes::worker", &environment),
            log,
            stopped: None,
        });
    }

    /// Kills, stops and thaws at random.
    fn disturb(&mut self, until: Instant) -> (u32, u32) {
        let (mut kills, mut stops) = (0, 0);
        while Instant::now() < until {
            // The one real sleep: this is the time that the processes have.
            std::thread::sleep(Duration::from_millis(self.random.u64(20..250)));
            for member in &mut self.alive {
                if member.stopped.is_some_and(|end| end <= Instant::now()) {
                    member.process.cont();
                    member.stopped = None;
                }
                assert_eq!(member.process.ended(), None, "a worker ended by itself");
            }
            let victim = self.random.usize(..self.alive.len());
            match self.random.u8(..10) {
                // Also one that is stopped.
                0..3 => {
                    let mut member = self.alive.swap_remove(victim);
                    member.process.kill9();
                    kills += 1;
                    self.add();
                }
                3..7 if self.alive[victim].stopped.is_none() => {
                    let member = &mut self.alive[victim];
                    member.process.stop();
                    member.stopped = Some(Instant::now() + Duration::from_millis(self.random.u64(10..2500)));
                    stops += 1;
                }
                _ => {}
            }
        }
        (kills, stops)
    }

    fn log(&self, index: usize) -> Log {
        // Not there yet: it has not begun.
        Log::parse(&std::fs::read_to_string(&self.logs[index]).unwrap_or_default())
    }

    /// Thaws all, waits until each is granted something again, and has them finish.
    fn settle(&mut self) {
        for member in &mut self.alive {
            if member.stopped.take().is_some() {
                member.process.cont();
            }
        }
        let quiet = now();
        let is_new = |event: &Event| matches!(event, Event::Granted { asked, .. } if *asked > quiet);
        for member in &self.alive {
            until("a grant to each process", || self.log(member.log).events.iter().any(is_new));
        }
        for member in &mut self.alive {
            member.process.finish();
            until("the end of a worker", || member.process.ended().is_some());
            assert!(member.process.ended().expect("it has ended").success());
        }
    }
}

fn processes_in_chaos_on(keys: usize) {
    let seed = seed();
    println!("LEASEHOLD_CHAOS_SEED={seed}");
    let mut crowd = Crowd::start(keys, seed);
    let (kills, stops) = crowd.disturb(Instant::now() + chaos());
    crowd.settle();
    let logs: Vec<Log> = (0..crowd.logs.len()).map(|log| crowd.log(log)).collect();
    let grants = holds(&logs).len();
    println!("{grants} grants in {} processes, {kills} kills, {stops} stops", logs.len());
    let wrong = check(&logs);
    assert!(wrong.is_empty(), "{} things that cannot be, first {:#?}", wrong.len(), wrong[0]);
    assert!(kills > 0 && stops > 0 && grants > 100, "a chaos that shows nothing");
    // What the killed ones held runs out, as do their places.
    until("the end of all locks", || crowd.server.ask::<Vec<String>>("KEYS lock:*").is_empty());
    until("the end of all queues", || crowd.server.ask::<Vec<String>>("KEYS leasehold:queue:*").is_empty());
}

#[test]
fn processes_in_chaos_on_one_key_keep_their_promises() {
    processes_in_chaos_on(1);
}

#[test]
fn processes_in_chaos_on_16_keys_keep_their_promises() {
    processes_in_chaos_on(16);
}

#[test]
fn processes_in_chaos_on_1024_keys_keep_their_promises() {
    processes_in_chaos_on(1024);
}

/// What many a program is: it takes locks, drops their guards, and returns.
#[test]
#[ignore = "a short program, which the test below runs"]
fn short_program() {
    let runtime = runtime();
    runtime.block_on(async {
        let locks = manager(&setting("LEASEHOLD_URL")).await;
        let guards: Vec<Lock> = [locks.try_lock("short:1").await.unwrap(), locks.lock("short:2").await.unwrap()].into();
        // One that gives up before it is answered.
        let asking = locks.lock("short:3").into_future();
        tokio::select! {
            biased;
            _ = asking => {}
            () = std::future::ready(()) => {}
        }
        drop(guards);
    });
    // As after the end of `main`: no other thread gets a moment more.
    std::process::exit(0);
}

/// The release of a dropped guard was still to be sent when the process ended, and the key stayed for its whole TTL.
#[test]
fn a_program_that_drops_its_guards_and_returns_leaves_no_key_behind() {
    let server = Server::start(&[]);
    for _ in 0..5 {
        let mut process = Process::worker("killed_processes::short_program", &[("LEASEHOLD_URL", &server.url())]);
        until("its end", || process.ended().is_some());
        assert_eq!(process.ended().and_then(|status| status.code()), Some(0));
        assert_eq!(server.ask::<Vec<String>>("KEYS lock:short:*"), [""; 0]);
    }
}

/// Takes one key and lets it go, over and over, between two lines of its input; says how often.
#[test]
#[ignore = "a process of the test of costs, which runs it"]
fn taker() {
    let line = || std::io::stdin().read_line(&mut String::new()).unwrap();
    let runtime = runtime();
    let locks = runtime.block_on(manager(&setting("LEASEHOLD_URL")));
    println!("{MARK}ready");
    line();
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (locks, over) = (locks.clone(), Arc::clone(&over));
            runtime.spawn(async move {
                let mut grants = 0;
                while !over.load(Ordering::Relaxed) {
                    let lock = locks.lock("hot").wait(LONG).await.unwrap();
                    assert_eq!(lock.unlock().await, Release::Released);
                    grants += 1;
                }
                grants
            })
        })
        .collect();
    line();
    over.store(true, Ordering::Relaxed);
    let grants: u64 = tasks.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
    println!("{MARK}{grants}");
    runtime.block_on(locks.shutdown(Duration::ZERO));
}

/// Scripts and commands that the server has run.
fn asked(server: &Server) -> (f64, f64) {
    let calls = |line: &str| line.split(&['=', ','][..]).nth(1).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    let stats: String = server.ask("INFO commandstats");
    let of = |kind: &str| stats.lines().filter(|line| line.starts_with(kind)).map(calls).sum();
    (of("cmdstat_eval"), of("cmdstat_"))
}

/// What each grant cost while so many processes wanted the key: scripts, and all commands.
fn cost(processes: usize) -> (f64, f64) {
    let server = Server::start(&[]);
    let mut workers: Vec<Process> = (0..processes)
        .map(|_| Process::worker("killed_processes::taker", &[("LEASEHOLD_URL", &*server.url())]))
        .collect();
    workers.iter().for_each(|worker| assert_eq!(worker.hear().as_deref(), Some("ready")));
    let before = asked(&server);
    workers.iter_mut().for_each(|worker| worker.tell("go"));
    // The one real sleep: this is the time that the processes have.
    std::thread::sleep(Duration::from_secs(3));
    workers.iter_mut().for_each(|worker| worker.tell("stop"));
    let grants: Vec<f64> =
        workers.iter().map(|worker| worker.hear().expect("it says how often").parse().unwrap()).collect();
    let (after, total) = (asked(&server), grants.iter().sum::<f64>());
    let cost = ((after.0 - before.0) / total, (after.1 - before.1) / total);
    println!("{processes} processes: {grants:?} grants, {:.2} scripts, {:.1} commands", cost.0, cost.1);
    assert!(total > 100.0 && grants.iter().all(|grants| *grants > 0.0), "{grants:?}");
    cost
}

/// Every release woke every process: 3.6 scripts with two, 12.4 with eight, 46 with 32.
#[test]
fn what_a_grant_costs_does_not_grow_with_the_processes_that_wait() {
    let (two, eight) = (cost(2), cost(8));
    // Three scripts, and now and then a renewal of the tickets.
    assert!(two.0 < 3.7 && eight.0 < 3.7, "{two:?} {eight:?}");
    assert!(eight.1 < 40.0 && eight.1 < 1.3 * two.1, "{two:?} {eight:?}");
}
