//! Fear: a process is killed while it answers, and the next one knows less than it has said, or more.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use leasehold::store::file::{Durability, FileStore};
use leasehold::store::{Acquired, Extended, Released, Store, StoreError};
use leasehold::{Clock, Mode, Token, Ttl};

use crate::history::{Event, Log, Outcome, check, holds};
use crate::kit::{self, Dir, LONG, ask, key};
use crate::processes::{MARK, Process};

const TASKS: usize = 16;
const KEYS: usize = 6;

fn now() -> u64 {
    // Counts from the machine's start: one clock for all its processes.
    Clock::system().now().as_nanos()
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap()
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} tells a worker what to do"))
}

fn store(dir: &str, relaxed: bool) -> FileStore {
    let durability =
        if relaxed { Durability::Relaxed { every: Duration::from_millis(20) } } else { Durability::Synced };
    FileStore::builder(dir).durability(durability).build().unwrap()
}

/// Takes keys and lets them go, and says what it was answered.
struct Work {
    store: FileStore,
    log: File,
}

impl Work {
    fn write(&self, event: &Event) {
        // One call for a line: what is killed then has written it, or not.
        (&self.log).write_all(event.to_string().as_bytes()).unwrap();
    }

    fn run(&self, mut random: fastrand::Rng) {
        loop {
            let (name, token) = (format!("k{}", random.usize(..KEYS)), Token::random());
            let (key, asked, lasting) = (key(&name), now(), Duration::from_millis(random.u64(100..600)));
            match block_on(self.store.acquire(ask(&key, token, lasting, Mode::Exclusive))) {
                Acquired::Granted { fence: Some(fence), valid_for, .. } => {
                    let deadline = asked + nanos(valid_for);
                    let token = token.to_string();
                    self.write(&Event::Granted { at: now(), asked, key: name.clone(), token, fence, deadline });
                }
                Acquired::Denied { retry_in, .. } => {
                    std::thread::sleep(retry_in.unwrap_or_default().min(Duration::from_millis(2)));
                    continue;
                }
                answer => panic!("{answer:?}"),
            }
            if random.u8(..4) == 0 {
                let (asked, longer) = (now(), Ttl::new(lasting * 2).unwrap());
                if let Extended::Extended { valid_for } = block_on(self.store.extend(&key, token, longer)) {
                    let deadline = asked + nanos(valid_for);
                    self.write(&Event::Extended { at: now(), token: token.to_string(), deadline });
                }
            }
            // Some are left to run out.
            if random.u8(..3) > 0 {
                self.write(&Event::Releasing { at: now(), token: token.to_string(), attempt: 0 });
                let outcome = match block_on(self.store.release(&key, token)) {
                    Released::Released => Outcome::Released,
                    Released::AlreadyGone => Outcome::AlreadyGone,
                    answer => panic!("{answer:?}"),
                };
                self.write(&Event::Released { at: now(), token: token.to_string(), attempt: 0, outcome });
            }
        }
    }
}

#[test]
#[ignore = "a process that is killed, which the tests below run"]
fn worker() {
    let log = OpenOptions::new().create(true).append(true).open(setting("LEASEHOLD_LOG")).unwrap();
    let mut random = fastrand::Rng::with_seed(setting("LEASEHOLD_SEED").parse().unwrap());
    let store = store(&setting("LEASEHOLD_DIR"), setting("LEASEHOLD_RELAXED") == "true");
    assert_eq!(block_on(store.start()), Ok(()));
    let work = Arc::new(Work { store, log });
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (work, random) = (Arc::clone(&work), random.fork());
            std::thread::spawn(move || work.run(random))
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
}

/// A directory, and all who have worked in it.
struct Crashes {
    dir: Dir,
    relaxed: bool,
    logs: Vec<PathBuf>,
    random: fastrand::Rng,
}

impl Crashes {
    fn log(&self, at: usize) -> Log {
        // Not there yet: it has not begun.
        Log::parse(&std::fs::read_to_string(&self.logs[at]).unwrap_or_default())
    }

    /// Starts a process and kills it while it works.
    fn crash(&mut self) {
        let at = self.logs.len();
        self.logs.push(self.dir.path().join(format!("history.{at}")));
        let environment = [
            ("LEASEHOLD_DIR", self.dir.path().to_str().expect("a plain path")),
            ("LEASEHOLD_LOG", self.logs[at].to_str().expect("a plain path")),
            ("LEASEHOLD_SEED", &*self.random.u64(..).to_string()),
            ("LEASEHOLD_RELAXED", if self.relaxed { "true" } else { "false" }),
        ];
        let mut process = Process::worker("killed::worker", &environment);
        kit::until("a lock", || {
            assert_eq!(process.ended(), None, "it ended by itself");
            std::fs::metadata(&self.logs[at]).is_ok_and(|log| log.len() > 0)
        });
        // The one real sleep: this is the time that it has.
        std::thread::sleep(Duration::from_millis(self.random.u64(1..120)));
        process.kill9();
    }

    /// The next process is told all that the last one was answered.
    fn nothing_is_forgotten(&self) {
        let store = store(self.dir.path().to_str().unwrap(), self.relaxed);
        assert_eq!(block_on(store.start()), Ok(()));
        let log = self.log(self.logs.len() - 1);
        let mut released: Vec<&str> = Vec::new();
        for event in &log.events {
            match event {
                Event::Releasing { token, .. } => released.push(token),
                Event::Released { token, outcome: Outcome::Released, .. } => {
                    let key =
                        holds(std::slice::from_ref(&log)).into_iter().find(|hold| hold.token == *token).unwrap().key;
                    let left = block_on(store.confirm(&kit::key(&key), token.parse().unwrap()));
                    assert_eq!(left, Extended::Lost, "a release was undone");
                }
                _ => {}
            }
        }
        for hold in holds(std::slice::from_ref(&log)).iter().filter(|hold| !released.contains(&&*hold.token)) {
            let left = block_on(store.confirm(&key(&hold.key), hold.token.parse().unwrap()));
            if now() < hold.until {
                assert!(matches!(left, Extended::Extended { .. }), "it was granted, and is {left:?}: {hold:?}");
            }
        }
        block_on(store.stop());
    }
}

fn processes_are_killed(relaxed: bool, times: usize) {
    let times = std::env::var("LEASEHOLD_CRASHES").map_or(times, |times| times.parse().expect("a number"));
    let seed = std::env::var("LEASEHOLD_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("LEASEHOLD_SEED={seed}");
    let dir = Dir::new();
    std::fs::create_dir_all(dir.path()).unwrap();
    let mut crashes = Crashes { dir, relaxed, logs: Vec::new(), random: fastrand::Rng::with_seed(seed) };
    for _ in 0..times {
        crashes.crash();
        if !relaxed {
            crashes.nothing_is_forgotten();
        }
    }
    let logs: Vec<Log> = (0..crashes.logs.len()).map(|at| crashes.log(at)).collect();
    let grants = holds(&logs).len();
    println!("{grants} grants in {} processes", logs.len());
    let wrong = check(&logs);
    assert!(wrong.is_empty(), "{} things that cannot be, first {:#?}", wrong.len(), wrong[0]);
    assert!(grants > times, "{grants} grants show nothing");
}

#[test]
fn what_a_killed_process_has_answered_is_true_in_the_next_one() {
    processes_are_killed(false, 20);
}

/// D7: what it has forgotten excludes others all the same.
#[test]
fn a_relaxed_process_that_is_killed_has_nobody_hold_what_it_had_granted() {
    processes_are_killed(true, 4);
}

/// Opens the directory and says so.
#[test]
#[ignore = "a second process, which the test below runs"]
fn second() {
    let store = store(&setting("LEASEHOLD_DIR"), false);
    println!(
        "{MARK}{}",
        match block_on(store.start()) {
            Ok(()) => "open".to_owned(),
            Err(why) => format!("{why}"),
        }
    );
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// D8.
#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let dir = Dir::new();
    let name = dir.path().to_str().unwrap();
    let mut first = Process::worker("killed::second", &[("LEASEHOLD_DIR", name)]);
    assert_eq!(first.hear().as_deref(), Some("open"));
    let refused = block_on(dir.store().start()).unwrap_err();
    assert!(matches!(&refused, StoreError::Config(why) if why.contains(name) && why.contains("in use")), "{refused}");
    first.kill9();
    let began = Instant::now();
    let store = dir.store();
    assert_eq!(block_on(store.start()), Ok(()), "after {:?}", began.elapsed());
    assert!(matches!(
        block_on(store.acquire(ask(&key("k"), Token::random(), LONG, Mode::Exclusive))),
        Acquired::Granted { .. }
    ));
    block_on(store.stop());
}
