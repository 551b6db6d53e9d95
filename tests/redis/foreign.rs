//! Fear: another library's lock on the same key and ours do not exclude each other, or one waits for the other in vain.
//!
//! The other libraries run in processes of their own: `rslock` in this binary, run again; redis-py in a Python that
//! `tests/support/foreign/prepare` makes (`tests/run` calls it). Both are asked the same, a command a line.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use leasehold::store::drift;
use leasehold::store::redis::RedisStore;
use leasehold::{Lock, LockError, LockManager, Release};

use crate::kit::{Server, until};
use crate::processes::{MARK, Process};

/// Longer than any test is patient.
const LONG: Duration = Duration::from_mins(5);
const LONG_MS: u64 = 300_000;

/// A client of another library, in its own process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    Rslock,
    RedisPy,
}

impl Client {
    pub(crate) fn start(self, server: &Server) -> Process {
        match self {
            Self::Rslock => Process::worker("foreign::rslock_process", &[("LEASEHOLD_URL", &server.url())]),
            Self::RedisPy => {
                // Beside this binary's `debug/deps`.
                let binary = std::env::current_exe().unwrap();
                let python =
                    binary.ancestors().nth(3).expect("it lies in a target directory").join("python/bin/python");
                assert!(
                    python.exists(),
                    "no Python with redis-py at {}: run tests/support/foreign/prepare, or tests/run",
                    python.display()
                );
                let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/foreign/redis_py.py");
                let mut command = Command::new(python);
                command.arg(script).arg(server.url());
                Process::start(command)
            }
        }
    }
}

/// What a foreign process does: the commands that `redis_py.py` knows.
struct Rslock {
    locks: rslock::LockManager,
    client: redis::aio::MultiplexedConnection,
    held: HashMap<String, rslock::Lock>,
}

impl Rslock {
    async fn obey(&mut self, line: &str) -> &'static str {
        let words: Vec<&str> = line.split(' ').collect();
        let (name, key) = (words[0], words[1]);
        let number = || words[2].parse::<u64>().unwrap();
        match name {
            "try" | "wait" => {
                // One try; "wait" goes on as `acquire` of rslock does.
                self.locks.set_retry(1, Duration::from_millis(10));
                loop {
                    match self.locks.lock(key, Duration::from_millis(number())).await {
                        Ok(lock) => {
                            self.held.insert(key.to_owned(), lock);
                            return "held";
                        }
                        Err(rslock::LockError::Unavailable) if name == "wait" => {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        Err(rslock::LockError::Unavailable) => return "busy",
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            // It does not say what it found: compared beforehand, which nobody disturbs here.
            "release" => {
                let lock = self.held.remove(key).unwrap();
                let value: Option<Vec<u8>> = redis::cmd("GET").arg(key).query_async(&mut self.client).await.unwrap();
                let is_ours = value.is_some_and(|value| value == lock.val);
                self.locks.unlock(&lock).await;
                if is_ours { "released" } else { "lost" }
            }
            "extend" => match self.locks.extend(&self.held[key], Duration::from_millis(number())).await {
                Ok(_) => "extended",
                Err(_) => "lost",
            },
            "count" => {
                self.locks.set_retry(1, Duration::from_millis(2));
                for _ in 0..number() {
                    let guard = self.locks.acquire(key, Duration::from_secs(30)).await.unwrap();
                    count_up(&mut self.client).await;
                    guard.release().await;
                }
                "counted"
            }
            other => panic!("{other} is no command"),
        }
    }
}

/// Adds to a counter that only the lock protects.
async fn count_up(client: &mut redis::aio::MultiplexedConnection) {
    let seen: Option<u64> = redis::cmd("GET").arg("counter").query_async(client).await.unwrap();
    let next = seen.unwrap_or(0) + 1;
    redis::cmd("SET").arg("counter").arg(next).query_async::<()>(client).await.unwrap();
}

async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

#[test]
#[ignore = "the foreign process of the other tests, which run it"]
fn rslock_process() {
    let url = std::env::var("LEASEHOLD_URL").expect("the tests set it");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let locks = rslock::LockManager::new(vec![&*url]);
        let mut process = Rslock { locks, client: connect(&url).await, held: HashMap::new() };
        for line in std::io::stdin().lines() {
            let answer = process.obey(&line.unwrap()).await;
            println!("{MARK}{answer}");
        }
    });
}

async fn manager(server: &Server) -> LockManager {
    let store = RedisStore::new(&server.url()).unwrap();
    LockManager::builder().ttl(LONG).store(store).build_and_connect().await.unwrap()
}

fn exists(server: &Server, key: &str) -> bool {
    server.ask::<i64>(&format!("EXISTS {key}")) == 1
}

/// A request that queues while the test does something else.
fn queue(locks: &LockManager, key: &'static str) -> tokio::task::JoinHandle<Result<Lock, LockError>> {
    let locks = locks.clone();
    tokio::spawn(async move { locks.lock(key).wait(LONG).await })
}

fn places(server: &Server, key: &str) -> usize {
    server.ask::<usize>(&format!("ZCARD leasehold:queue:{{lock:{key}}}"))
}

async fn we_exclude_each_other(client: Client) {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let mut other = client.start(&server);
    assert_eq!(other.ask(&format!("try lock:k {LONG_MS}")), "held");
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    assert!(locks.is_locked("k").await.unwrap());
    let timeout = locks.lock("k").wait(Duration::from_millis(30)).await.unwrap_err();
    assert!(matches!(timeout, LockError::Timeout { .. }), "{timeout:?}");
    assert_eq!(other.ask("release lock:k"), "released");

    let lock = locks.try_lock("k").await.unwrap();
    assert_eq!(other.ask(&format!("try lock:k {LONG_MS}")), "busy");
    assert_eq!(lock.unlock().await, Release::Released);
    assert_eq!(other.ask(&format!("try lock:k {LONG_MS}")), "held");
    // What it holds we cannot end but by force.
    assert_eq!(locks.release("k", leasehold::Token::random()).await, Err(LockError::NotHeld));
    assert!(exists(&server, "lock:k"));
    assert_eq!(locks.force_release("k").await, Ok(Release::Released));
    assert_eq!(other.ask("release lock:k"), "lost");
}

async fn a_release_lets_the_other_in(client: Client) {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let mut other = client.start(&server);
    for _ in 0..3 {
        // It tells nobody: we hear of the key's end, or ask again.
        assert_eq!(other.ask(&format!("try lock:k {LONG_MS}")), "held");
        let waiter = queue(&locks, "k");
        until("the waiter's place", || places(&server, "k") == 1);
        assert!(!waiter.is_finished());
        assert_eq!(other.ask("release lock:k"), "released");
        let lock = waiter.await.unwrap().unwrap();

        other.tell(&format!("wait lock:k {LONG_MS}"));
        assert_eq!(lock.unlock().await, Release::Released);
        assert_eq!(other.hear().as_deref(), Some("held"));
        assert_eq!(other.ask("release lock:k"), "released");
    }
}

async fn times_are_kept(client: Client) {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let mut other = client.start(&server);
    let life = Duration::from_millis(700);
    // The server counts in whole milliseconds, from one that has begun.
    let least = life - drift(life);
    // Ours comes when theirs has run out, and not before.
    let before = Instant::now();
    assert_eq!(other.ask(&format!("try lock:k {}", life.as_millis())), "held");
    let lock = locks.lock("k").wait(LONG).await.unwrap();
    assert!(before.elapsed() >= least, "granted within the other's time");
    // Its late release and extension find ours, and leave it.
    let left: i64 = server.ask("PTTL lock:k");
    assert_eq!(other.ask("extend lock:k 1000"), "lost");
    assert_eq!(other.ask("release lock:k"), "lost");
    assert!(lock.refresh().await.is_ok() && exists(&server, "lock:k"));
    assert!(server.ask::<i64>("PTTL lock:k") > left - 60_000);
    assert_eq!(lock.unlock().await, Release::Released);

    // Theirs comes when ours has run out, and our late release leaves it.
    let before = Instant::now();
    let lock = locks.lock("k").ttl(life).await.unwrap();
    assert_eq!(other.ask(&format!("wait lock:k {LONG_MS}")), "held");
    assert!(before.elapsed() >= least, "granted within our time");
    assert!(!lock.is_held(), "our deadline comes before the key's end");
    assert_eq!(lock.unlock().await, Release::AlreadyGone);
    assert!(exists(&server, "lock:k"));
    // It extends its own as it likes; we wait for the new end.
    assert_eq!(other.ask("extend lock:k 500"), "extended");
    assert!(locks.lock("k").wait(LONG).await.is_ok());
}

async fn a_killed_one_holds_us_up_for_its_time_only(client: Client) {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let mut other = client.start(&server);
    assert_eq!(other.ask("try lock:k 1000"), "held");
    let waiter = queue(&locks, "k");
    until("the waiter's place", || places(&server, "k") == 1);
    other.kill9();
    assert!(waiter.await.unwrap().unwrap().is_held());
}

async fn nobody_is_ever_inside_with_another(client: Client) {
    const ROUNDS: u64 = 20;
    let server = Server::start(&[]);
    let managers = [manager(&server).await, manager(&server).await];
    let mut others = [client.start(&server), client.start(&server)];
    for other in &mut others {
        other.tell(&format!("count lock:k {ROUNDS}"));
    }
    let mut fences = Vec::new();
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let (locks, url) = (managers[task % 2].clone(), server.url());
            tokio::spawn(async move {
                let mut client = connect(&url).await;
                let mut fences = Vec::new();
                for _ in 0..ROUNDS {
                    let lock = locks.lock("k").wait(LONG).await.unwrap();
                    fences.push(lock.fencing_token().unwrap());
                    count_up(&mut client).await;
                    assert_eq!(lock.unlock().await, Release::Released);
                }
                fences
            })
        })
        .collect();
    for task in tasks {
        let own = task.await.unwrap();
        assert!(own.is_sorted(), "fences rise, whoever held the key in between");
        fences.extend(own);
    }
    for other in &mut others {
        assert_eq!(other.hear().as_deref(), Some("counted"));
    }
    assert_eq!(server.ask::<u64>("GET counter"), 6 * ROUNDS, "somebody's step was overwritten");
    fences.sort_unstable();
    fences.dedup();
    assert_eq!(fences.len() as u64, 4 * ROUNDS, "a fence was given twice");
}

macro_rules! with_each_client {
    ($($fear:ident)*) => {
        mod rslock_and_we {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $fear() {
                super::$fear(super::Client::Rslock).await;
            })*
        }

        mod redis_py_and_we {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $fear() {
                super::$fear(super::Client::RedisPy).await;
            })*
        }
    };
}

with_each_client! {
    we_exclude_each_other
    a_release_lets_the_other_in
    times_are_kept
    a_killed_one_holds_us_up_for_its_time_only
    nobody_is_ever_inside_with_another
}

/// Values that no token of ours looks like, with an end and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_no_text_excludes_us_until_it_is_gone() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let values: [&[u8]; 5] = [b"\xff\xfe\x00\x80", b"", b"0", &[0xc3; 20], &[b'x'; 100_000]];
    for (value, ends) in values.iter().flat_map(|value| [(value, true), (value, false)]) {
        let mut set = redis::cmd("SET");
        set.arg("lock:k").arg(*value).arg("NX");
        if ends {
            set.arg("PX").arg(LONG_MS);
        }
        set.exec(&mut server.client()).unwrap();
        assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
        assert!(locks.is_locked("k").await.unwrap());
        let waiter = queue(&locks, "k");
        until("the waiter's place", || places(&server, "k") == 1);
        assert_eq!(server.ask::<Vec<u8>>("GET lock:k"), *value);
        assert_eq!(server.ask::<i64>("PTTL lock:k") == -1, !ends, "we leave its end alone");
        server.ask::<()>("DEL lock:k");
        assert_eq!(waiter.await.unwrap().unwrap().unlock().await, Release::Released);
    }
}

/// As Redisson and symfony keep theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_another_kind_excludes_us_until_it_is_gone() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let theirs = ["HSET lock:k 0f8fad5b:1 1", "ZADD lock:k 1 holder", "SADD lock:k holder", "RPUSH lock:k holder"];
    for command in theirs {
        server.ask::<()>(command);
        let kind: String = server.ask("TYPE lock:k");
        assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held, "{kind}");
        assert!(locks.is_locked("k").await.unwrap(), "{kind}");
        assert_eq!(locks.release("k", leasehold::Token::random()).await, Err(LockError::NotHeld), "{kind}");
        let waiter = queue(&locks, "k");
        until("the waiter's place", || places(&server, "k") == 1);
        assert_eq!(server.ask::<String>("TYPE lock:k"), kind, "we leave it alone");
        server.ask::<()>("PEXPIRE lock:k 300");
        assert_eq!(waiter.await.unwrap().unwrap().unlock().await, Release::Released, "{kind}");
        // An operator can end it, too.
        server.ask::<()>(command);
        assert_eq!(locks.force_release("k").await, Ok(Release::Released), "{kind}");
        assert!(locks.try_lock("k").await.is_ok(), "{kind}");
        until("the end of ours", || !exists(&server, "lock:k"));
    }
}

/// What a holder of ours finds when a client of another kind has deleted its key and taken it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_a_foreign_client_took_over_is_lost() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    for foreign in ["SET lock:k foreign PX 300000", "HSET lock:k holder 1"] {
        let lock = locks.lock("k").await.unwrap();
        server.ask::<()>("DEL lock:k");
        server.ask::<()>(foreign);
        assert!(matches!(lock.refresh().await, Err(LockError::Lost(_))));
        assert!(lock.lost().await.is_some());
        assert_eq!(lock.unlock().await, Release::AlreadyGone);
        assert!(exists(&server, "lock:k"), "it is not ours to end");
        server.ask::<()>("DEL lock:k");
    }
}
