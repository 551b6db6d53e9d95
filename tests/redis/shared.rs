//! Fear: processes that share a lock, or its permits, hold it beside one that has it for itself, or hold more permits than
//! there are; whoever wants it for itself waits for ever; or a killed process takes the others' shares along.

use std::fs::{File, OpenOptions};
use std::future::IntoFuture;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold::store::ClaimReuse;
use leasehold::store::redis::RedisStore;
use leasehold::{Clock, Lock, LockError, LockManager, Loss, Mode, Release};

use crate::kit::{self, Server, until};
use crate::processes::{MARK, Process};
use crate::redis_managers::{LONG, builder, manager, queue, two};

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} tells a worker what to do"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

const HANDED_ON: ClaimReuse = ClaimReuse::HandOff { max_count: 1_000, max_time: Duration::from_mins(1) };
const KEPT: ClaimReuse = ClaimReuse::Linger { idle: Duration::from_secs(30), max_time: Duration::from_mins(1) };

/// A manager that keeps claims like this, and nothing of what it has is in doubt.
async fn reusing(server: &Server, reuse: ClaimReuse) -> LockManager {
    let listeners = || server.ask::<Vec<String>>("PUBSUB CHANNELS leasehold:claims:*").len();
    let listening = listeners();
    let store = RedisStore::builder(&server.url()).claim_reuse(reuse).build().unwrap();
    let locks = LockManager::builder().ttl(LONG).store(store).build_and_connect().await.unwrap();
    if reuse != ClaimReuse::Off {
        until("its listening connection", || listeners() > listening);
    }
    locks
}

/// Asks until it is so.
async fn soon(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG / 5, asking).await.unwrap_or_else(|_| panic!("it never came: {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_several_processes_hold_together_and_pass_nobody_who_waits_for_all_of_it() {
    let server = Server::start(&[]);
    let ((one, two), third) = (two(&server).await, manager(&server).await);
    let readers = [one.read("k").await.unwrap(), one.read("k").await.unwrap(), two.read("k").await.unwrap()];
    let fences: Vec<_> = readers.iter().map(|lock| lock.fencing_token().unwrap()).collect();
    assert!(fences.is_sorted() && fences[0] < fences[1] && fences[1] < fences[2], "{fences:?}");
    assert_eq!(one.try_lock("k").await.unwrap_err(), LockError::Held);
    let writer = queue(&third, "k");
    until("the writer waits", || server.ask::<i64>("ZCARD leasehold:queue:{lock:k}") == 1);
    assert_eq!(one.try_read("k").await.unwrap_err(), LockError::Held, "it would pass who waits");
    assert_eq!(third.try_read("k").await.unwrap_err(), LockError::Held, "in the same process too");
    let late = {
        let one = one.clone();
        tokio::spawn(async move { one.read("k").wait(LONG).await })
    };
    for lock in readers {
        assert!(lock.is_held() && !writer.is_finished());
        assert_eq!(lock.unlock().await, Release::Released);
    }
    let writer = writer.await.unwrap().unwrap();
    assert!(writer.fencing_token().unwrap() > fences[2] && !late.is_finished());
    assert_eq!(writer.unlock().await, Release::Released);
    let late = late.await.unwrap().unwrap();
    assert!(two.read("k").await.unwrap().fencing_token() > late.fencing_token());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_becomes_a_share_lets_readers_of_all_processes_in_and_no_writer() {
    for reuse in [ClaimReuse::Off, HANDED_ON, KEPT] {
        let server = Server::start(&[]);
        let (one, two) = (reusing(&server, reuse).await, reusing(&server, reuse).await);
        // The last of some locks under one claim: its fence was made here, and the server knows none so high.
        let mut lock = one.lock("k").wait(LONG).await.unwrap();
        for _ in 0..3 {
            let next = queue(&one, "k");
            until("the next", || one.stats().waiting == 1);
            drop(lock);
            lock = next.await.unwrap().unwrap();
        }
        let (token, fence, deadline) = (lock.token(), lock.fencing_token(), lock.deadline());
        let reader = |locks: &LockManager| {
            let locks = locks.clone();
            tokio::spawn(async move { locks.read("k").wait(LONG).await })
        };
        let foreign = reader(&two);
        until("the reader waits", || server.ask::<i64>("ZCARD leasehold:queue:{lock:k}") == 1);
        let mut local = Box::pin(one.read("k").wait(LONG).into_future());
        assert!(futures::poll!(&mut local).is_pending());
        assert_eq!((lock.downgrade().await, lock.downgrade().await), (Ok(()), Ok(())), "{reuse:?}");
        assert_eq!((lock.token(), lock.fencing_token()), (token, fence));
        assert!(lock.deadline() >= deadline);
        let (foreign, local) = (foreign.await.unwrap().unwrap(), local.await.unwrap());
        assert!(lock.is_held() && foreign.fencing_token() > fence && local.fencing_token() > fence, "{reuse:?}");
        let seen = two.inspect("k").await.unwrap().unwrap();
        assert_eq!((seen.mode, seen.held_by), (Mode::Shared, 3), "{reuse:?}");
        assert!(seen.holders.iter().any(|holder| holder.fencing_token == fence), "{reuse:?}: {seen:?}");
        assert!(lock.refresh().await.is_ok());
        let writer = queue(&two, "k");
        drop((foreign, local));
        soon("the others' end", async || one.inspect("k").await.unwrap().is_some_and(|seen| seen.held_by == 1)).await;
        assert!(!writer.is_finished());
        assert_eq!(lock.unlock().await, Release::Released);
        assert!(writer.await.unwrap().unwrap().fencing_token() > fence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_that_the_store_does_not_answer_leaves_the_lock_and_may_be_asked_for_again() {
    for reuse in [ClaimReuse::Off, KEPT] {
        let server = Server::start(&[]);
        let one = reusing(&server, reuse).await;
        let lock = one.lock("k").ttl(LONG).await.unwrap();
        server.stop();
        assert_eq!(lock.downgrade().await, Err(LockError::StoreUnavailable));
        assert!(lock.is_held());
        assert_eq!(one.inspect("k").await.map(|seen| seen.map(|seen| seen.mode)), Ok(Some(Mode::Exclusive)));
        server.cont();
        soon("the answer", async || lock.downgrade().await.is_ok()).await;
        let other = manager(&server).await;
        assert!(other.read("k").wait(LONG).await.is_ok());
        server.ask::<i64>("DEL leasehold:holds:{lock:k}");
        soon("its loss", async || lock.refresh_for(LONG).await.is_err()).await;
        assert_eq!(lock.downgrade().await, Err(LockError::Lost(Loss::Vanished)), "{reuse:?}");
        let gone = one.lock("other").ttl(LONG).await.unwrap();
        server.ask::<i64>("DEL lock:other");
        assert_eq!(gone.downgrade().await, Err(LockError::Lost(Loss::Vanished)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn permits_are_counted_over_processes_and_the_big_request_gets_its_turn() {
    let server = Server::start(&[]);
    let ((one, two), third) = (two(&server).await, manager(&server).await);
    let (small, other) = (one.semaphore("k", 4), two.semaphore("k", 4));
    let held = [small.permits(1).await.unwrap(), other.permits(1).await.unwrap()];
    let big = tokio::spawn(async move { third.semaphore("k", 4).permits(4).wait(LONG).await });
    until("the big one waits", || server.ask::<i64>("ZCARD leasehold:queue:{lock:k}") == 1);
    assert_eq!(small.try_permits(1).await.unwrap_err(), LockError::Held, "it would pass who waits");
    let refused = one.semaphore("k", 5).try_permits(1).await.unwrap_err();
    assert!(matches!(refused, LockError::WrongMode(_)), "another limit: {refused}");
    assert!(matches!(one.try_read("k").await.unwrap_err(), LockError::WrongMode(_)));
    for permit in held {
        assert_eq!(permit.unlock().await, Release::Released);
    }
    let big = big.await.unwrap().unwrap();
    assert_eq!(small.try_permits(1).await.unwrap_err(), LockError::Held);
    let seen = one.inspect("k").await.unwrap().expect("another process holds it");
    assert_eq!((seen.mode, seen.held_by), (Mode::Permits { limit: 4, permits: 4 }, 1));
    assert_eq!(seen.fencing_token, big.fencing_token());
    drop(big);
    assert!(small.permits(4).wait(LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_refreshed_lost_and_forced_as_any_lock_is() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let short = one.read("k").ttl(Duration::from_secs(20)).await.unwrap();
    let (kept, elsewhere) = (one.read("k").await.unwrap(), two.read("k").await.unwrap());
    let before = short.deadline();
    short.refresh_for(LONG).await.unwrap();
    assert!(short.deadline() > before);
    let seen = one.inspect("k").await.unwrap().unwrap();
    assert_eq!((seen.held_by, seen.holders.len()), (3, 3), "{seen:?}");
    // The server forgets those who share it: all are lost, and the key is free.
    server.ask::<i64>("DEL leasehold:holds:{lock:k}");
    assert!(matches!(short.refresh_for(LONG).await, Err(LockError::Lost(Loss::Vanished))));
    for lock in [&kept, &elsewhere] {
        soon("the others' loss", async || lock.refresh().await.is_err()).await;
    }
    let (mine, theirs) = (one.read("k").await.unwrap(), two.read("k").await.unwrap());
    assert_eq!(two.force_release("k").await, Ok(Release::Released));
    assert_eq!((mine.lost().await, theirs.lost().await), (Some(Loss::Forced), Some(Loss::Forced)));
    let noticed = one.read("k").await.unwrap();
    let also = two.read("k").await.unwrap();
    let notice = Duration::from_millis(300);
    let (forced, told) =
        futures::future::join(two.force_release("k").notice(notice).into_future(), noticed.lost()).await;
    assert_eq!((forced, told), (Ok(Release::Released), Some(Loss::Forced)));
    assert!(!also.is_held());
    assert!(one.try_lock("k").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_of_a_session_end_with_it_and_those_who_wait_are_served() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let session = one.session("s");
    let share = session.read("k").await.unwrap();
    let permit = session.semaphore("p", 2).permits(2).await.unwrap();
    let writer = queue(&two, "k");
    until("the writer waits", || server.ask::<i64>("ZCARD leasehold:queue:{lock:k}") == 1);
    session.end().await;
    assert!(!share.is_held() && !permit.is_held());
    assert!(writer.await.unwrap().is_ok());
    assert!(two.semaphore("p", 2).permits(2).wait(LONG).await.is_ok());
}

/// Takes a share of `k`, says so, and keeps it.
#[test]
#[ignore = "a process of the tests below, which run it"]
fn reader() {
    runtime().block_on(async {
        let locks = builder(&setting("LEASEHOLD_URL")).build_and_connect().await.unwrap();
        let lock = locks.read("k").ttl(Duration::from_secs(2)).await.unwrap();
        println!("{MARK}held");
        let mut lines = std::io::stdin().lines();
        while let Some(Ok(_)) = lines.next() {
            println!("{MARK}{}", lock.is_held());
        }
    });
}

#[test]
fn the_share_of_a_killed_or_stopped_process_ends_by_its_own_time_and_no_other_does() {
    let server = Server::start(&[]);
    let environment = [("LEASEHOLD_URL", &*server.url())];
    let [mut killed, mut stopped] = [(); 2].map(|()| Process::worker("shared::reader", &environment));
    for process in [&killed, &stopped] {
        assert_eq!(process.hear().as_deref(), Some("held"));
    }
    runtime().block_on(async {
        let locks = manager(&server).await;
        let mine = locks.read("k").await.unwrap();
        killed.kill9();
        stopped.stop();
        let count = || server.ask::<i64>("ZCARD leasehold:ends:{lock:k}");
        assert!(count() >= 1);
        soon("the ends of theirs", async || {
            // Whoever comes next takes out what is over.
            mine.refresh().await.unwrap();
            count() == 1
        })
        .await;
        assert!(mine.is_held());
        let writer = queue(&locks, "k");
        assert_eq!(mine.unlock().await, Release::Released);
        assert!(writer.await.unwrap().is_ok());
    });
    stopped.cont();
    assert_eq!(stopped.ask("is it held?"), "false");
}

/// A definite hold: since it was seen, until its release began or its deadline came.
struct Hold {
    from: u64,
    until: u64,
    /// The limit, and how many of it; `None`: all of it, alone.
    share: Option<(u32, u32)>,
}

fn now() -> u64 {
    // Counts from the machine's start: one clock for all its processes.
    Clock::system().now().as_nanos()
}

/// What is written of a hold: two moments and two small numbers.
const LONGEST_LINE: u64 = 2 * 17 + 2 * 2;

/// Holds a key in the modes of its kind, over and over, and writes down when.
async fn hold(locks: LockManager, mut log: File, key: &str, over: Arc<AtomicBool>, mut random: fastrand::Rng) {
    let is_pool = key.starts_with("pool");
    while !over.load(Ordering::Relaxed) {
        let ttl = Duration::from_millis(random.u64(200..1000));
        let permits = random.u32(1..=3);
        let (share, asked) = match (is_pool, random.u8(..5)) {
            (false, 0) => (None, locks.lock(key).ttl(ttl).wait(LONG).await),
            (false, _) => (Some((0, 1)), locks.read(key).ttl(ttl).wait(LONG).await),
            (true, _) => (Some((4, permits)), locks.semaphore(key, 4).permits(permits).ttl(ttl).wait(LONG).await),
        };
        let lock = match asked {
            Ok(lock) => lock,
            // Stopped until it was over.
            Err(LockError::Lost(_) | LockError::StoreUnavailable) => continue,
            Err(error) => panic!("{error}"),
        };
        let from = now();
        tokio::time::sleep(Duration::from_micros(random.u64(0..3000))).await;
        let deadline = lock.deadline().map_or(0, |deadline| deadline.as_nanos());
        let (limit, permits) = share.unwrap_or((0, 0));
        // One call for a line: what is killed then has written it, or not. It is written before the release.
        log.write_all(format!("{from} {} {limit} {permits}\n", now().min(deadline)).as_bytes()).unwrap();
        release(lock, &mut random).await;
    }
}

async fn release(lock: Lock, random: &mut fastrand::Rng) {
    if random.u8(..4) > 0 {
        let _ = lock.unlock().await;
    }
}

/// So many that are shared, and so many with permits.
fn keys_of_chaos(count: u64) -> impl Iterator<Item = String> {
    (0..count).flat_map(|n| [format!("rw{n}"), format!("pool{n}")])
}

#[test]
#[ignore = "a process of the chaos below, which runs it"]
fn worker() {
    let seed: u64 = setting("LEASEHOLD_SEED").parse().unwrap();
    runtime().block_on(async {
        // Those who ride on shares of their process, and those whose every lock is the server's.
        let reuse = if seed.is_multiple_of(2) { ClaimReuse::Off } else { ClaimReuse::hand_off() };
        let store = RedisStore::builder(&setting("LEASEHOLD_URL")).claim_reuse(reuse).build().unwrap();
        let locks = LockManager::builder().ttl(LONG).store(store).build_and_connect().await.unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let mut seeds = fastrand::Rng::with_seed(seed);
        let mut tasks = Vec::new();
        let keys = setting("LEASEHOLD_KEYS").parse().unwrap();
        for key in keys_of_chaos(keys) {
            for _ in 0..(8 / keys).max(2) {
                let file = Path::new(&setting("LEASEHOLD_DIR")).join(&key);
                let log = OpenOptions::new().create(true).append(true).open(file).unwrap();
                let (locks, over, random, key) = (locks.clone(), Arc::clone(&over), seeds.fork(), key.clone());
                tasks.push(tokio::spawn(async move { hold(locks, log, &key, over, random).await }));
            }
        }
        println!("{MARK}ready");
        tokio::task::spawn_blocking(|| std::io::stdin().lines().for_each(drop)).await.unwrap();
        over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        locks.shutdown(Duration::ZERO).await;
    });
}

fn holds(file: &Path) -> Vec<Hold> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let read = |line: &str| {
        let mut numbers = line.split(' ').map(|word| word.parse::<u64>().unwrap());
        let mut next = || numbers.next().unwrap();
        let (from, until, limit, permits) = (next(), next(), next(), next());
        let share = (permits > 0).then(|| (u32::try_from(limit).unwrap(), u32::try_from(permits).unwrap()));
        Hold { from, until, share }
    };
    text.lines().map(read).filter(|hold| hold.from < hold.until).collect()
}

/// Looks at every moment at which a hold begins.
fn check(holds: &[Hold]) -> (usize, usize) {
    let mut changes: Vec<(u64, bool, usize)> = Vec::new();
    for (at, hold) in holds.iter().enumerate() {
        // Those that end at a moment have ended when others begin.
        changes.extend([(hold.from, true, at), (hold.until, false, at)]);
    }
    changes.sort_unstable();
    let (mut held, mut together, mut alone) = (Vec::new(), 0, 0);
    for (moment, begins, at) in changes {
        if !begins {
            held.retain(|other| *other != at);
            continue;
        }
        held.push(at);
        let shares: Option<Vec<_>> = held.iter().map(|at| holds[*at].share).collect();
        match shares {
            None => assert_eq!(held.len(), 1, "at {moment} somebody has it for himself, and others hold it"),
            Some(shares) => {
                let used: u32 = shares.iter().map(|(_, permits)| permits).sum();
                let limit = shares[0].0;
                assert!(limit == 0 || used <= limit, "at {moment} {used} permits of {limit} are held");
            }
        }
        together += usize::from(held.len() > 1);
        alone += usize::from(holds[at].share.is_none());
    }
    (together, alone)
}

/// A number from the environment.
fn number(name: &str, or: impl FnOnce() -> u64) -> u64 {
    std::env::var(name).map_or_else(|_| or(), |number| number.parse().unwrap())
}

/// The long form, on more keys and with fewer faults in the same time:
/// `LEASEHOLD_CHAOS_HOLDS=1000000 cargo test --release --all-features --test redis processes_in_chaos_share -- --nocapture`
#[test]
fn processes_in_chaos_share_only_what_goes_together() {
    let seed = number("LEASEHOLD_CHAOS_SEED", || fastrand::u64(..));
    let secs = number("LEASEHOLD_CHAOS_SECS", || 5);
    let least = number("LEASEHOLD_CHAOS_HOLDS", || 0);
    let (keys, pauses) = if least == 0 { (1, 50..300) } else { (16, 1_000..5_000) };
    println!("LEASEHOLD_CHAOS_SEED={seed}");
    let (server, dir, mut random) = (Server::start(&[]), kit::Dir::make(), fastrand::Rng::with_seed(seed));
    let start = |seed: u64| {
        let (url, dir) = (server.url(), dir.path().to_str().unwrap().to_owned());
        let (seed, keys) = (seed.to_string(), keys.to_string());
        let environment = [
            ("LEASEHOLD_URL", &*url),
            ("LEASEHOLD_DIR", &*dir),
            ("LEASEHOLD_SEED", &*seed),
            ("LEASEHOLD_KEYS", &*keys),
        ];
        let process = Process::worker("shared::worker", &environment);
        assert_eq!(process.hear().as_deref(), Some("ready"));
        process
    };
    let mut alive: Vec<Process> = (0..3).map(|_| start(random.u64(..))).collect();
    let end = Instant::now() + Duration::from_secs(secs);
    let (mut kills, mut stops) = (0, 0);
    let bytes = |key: String| std::fs::metadata(dir.path().join(key)).map_or(0, |file| file.len());
    while Instant::now() < end || keys_of_chaos(keys).map(bytes).sum::<u64>() < least * LONGEST_LINE {
        // The one real sleep: this is the time that the processes have.
        std::thread::sleep(Duration::from_millis(random.u64(pauses.clone())));
        let victim = random.usize(..alive.len());
        if kills <= stops {
            alive.swap_remove(victim).kill9();
            alive.push(start(random.u64(..)));
            kills += 1;
        } else {
            alive[victim].stop();
            std::thread::sleep(Duration::from_millis(random.u64(10..1500)));
            alive[victim].cont();
            stops += 1;
        }
    }
    for process in &mut alive {
        process.finish();
        until("the end of a worker", || process.ended().is_some());
        assert!(process.ended().expect("it has ended").success());
    }
    let counts = keys_of_chaos(keys).map(|key| {
        let holds = holds(&dir.path().join(&key));
        (holds.len(), check(&holds))
    });
    let counts: Vec<_> = counts.collect();
    let all: usize = counts.iter().map(|(holds, _)| holds).sum();
    println!("{all} holds, {kills} kills, {stops} stops; of each key, together, alone: {counts:?}");
    assert!(kills > 0 && stops > 0, "a chaos that shows nothing");
    let is_shown = counts.iter().all(|(_, (together, _))| *together > 5) && counts[0].1.1 > 0;
    assert!(is_shown, "a chaos that shows nothing: {counts:?}");
    until("the end of all locks", || server.ask::<Vec<String>>("KEYS lock:*").is_empty());
    until("the end of all queues", || server.ask::<Vec<String>>("KEYS leasehold:queue:*").is_empty());
    until("the end of all shares", || server.ask::<Vec<String>>("KEYS leasehold:ends:*").is_empty());
}
