//! Fear: a key that a process keeps between two of its locks is held by two, or kept from those who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use leasehold::store::redis::RedisStore;
use leasehold::store::{ClaimReuse, KeyTemplate};
use leasehold::{FencingToken, Location, Lock, LockError, LockManager, Release, Token};

use crate::foreign::Client;
use crate::kit::{Server, until};

/// Longer than any test is patient.
const LONG: Duration = Duration::from_mins(5);
const TTL: Duration = Duration::from_secs(30);
/// Kept for as long as a test may take.
const KEPT: ClaimReuse = ClaimReuse::Linger { idle: TTL, max_time: Duration::from_mins(1) };

async fn manager(server: &Server, reuse: ClaimReuse) -> LockManager {
    let store = RedisStore::builder(&server.url()).claim_reuse(reuse).build().unwrap();
    let listening = listeners(server);
    let locks = LockManager::builder().ttl(TTL).store(store).build_and_connect().await.unwrap();
    if reuse != ClaimReuse::Off {
        // What it took before would be in doubt.
        until("its listening connection", || listeners(server) > listening);
    }
    locks
}

/// How many processes can be asked for their claims.
fn listeners(server: &Server) -> usize {
    server.ask::<Vec<String>>("PUBSUB CHANNELS leasehold:claims:*").len()
}

async fn two(server: &Server, reuse: ClaimReuse) -> (LockManager, LockManager) {
    (manager(server, reuse).await, manager(server, reuse).await)
}

/// Takes a key and lets it go; answers the fence.
async fn relock(locks: &LockManager, key: &str) -> FencingToken {
    let lock = locks.lock(key).wait(LONG).await.unwrap();
    let fence = lock.fencing_token().unwrap();
    assert_eq!(lock.unlock().await, Release::Released);
    fence
}

fn exists(server: &Server, key: &str) -> bool {
    server.ask::<i64>(&format!("EXISTS {key}")) == 1
}

/// How often keys were set and deleted: not by what runs in the background.
fn scripts(server: &Server) -> u64 {
    let stats: String = server.ask("INFO commandstats");
    let line = stats.lines().find(|line| line.starts_with("cmdstat_set:")).map(str::to_owned).unwrap_or_default();
    line.split(&['=', ','][..]).nth(1).map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_lingers_is_taken_again_without_the_server_and_its_fences_rise() {
    let server = Server::start(&[]);
    let locks = manager(&server, KEPT).await;
    let mut last = relock(&locks, "k").await;
    // The word that the connection has just come up may put the first claim in doubt.
    let mut without = 0;
    while without < 500 {
        let before = scripts(&server);
        for _ in 0..100 {
            let fence = relock(&locks, "k").await;
            assert!(fence > last, "{fence:?} after {last:?}");
            last = fence;
            tokio::task::yield_now().await;
        }
        without = if scripts(&server) == before { without + 100 } else { 0 };
    }
    let other = manager(&server, ClaimReuse::Off).await;
    assert!(relock(&other, "k").await > last, "the next process's fence is above all of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_gets_a_key_that_lingers_when_it_asks() {
    let server = Server::start(&[]);
    let (one, two) = two(&server, KEPT).await;
    let mut last = relock(&one, "k").await;
    for round in 0..20 {
        let (here, there) = if round % 2 == 0 { (&two, &one) } else { (&one, &two) };
        let fence = relock(here, "k").await;
        assert!(fence > last);
        last = fence;
        // A single try asks as well; the key is there for one of the next.
        loop {
            match there.try_lock("k").await {
                Ok(lock) => {
                    assert!(lock.fencing_token().unwrap() > last);
                    last = lock.fencing_token().unwrap();
                    break;
                }
                Err(why) => assert_eq!(why, LockError::Held),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_of_one_process_pass_a_key_on_until_another_asks() {
    let server = Server::start(&[]);
    let endless = ClaimReuse::HandOff { max_count: u32::MAX, max_time: Duration::from_mins(1) };
    let (one, two) = two(&server, endless).await;
    let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (locks, over, rounds) = (one.clone(), Arc::clone(&over), Arc::clone(&rounds));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    relock(&locks, "k").await;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    until("locks", || rounds.load(Ordering::Relaxed) > 2_000);
    let (before, begun) = (scripts(&server), rounds.load(Ordering::Relaxed));
    until("more", || rounds.load(Ordering::Relaxed) > begun + 2_000);
    assert!(scripts(&server) - before < 200, "most of them went without the server");
    let mut last = relock(&two, "k").await;
    for _ in 0..10 {
        let fence = relock(&two, "k").await;
        assert!(fence > last);
        last = fence;
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_polls_gets_a_key_that_is_always_in_use() {
    let server = Server::start(&[]);
    let locks = manager(&server, ClaimReuse::linger()).await;
    let mut other = Client::RedisPy.start(&server);
    let over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (locks, over) = (locks.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    relock(&locks, "k").await;
                }
            })
        })
        .collect();
    until("the key", || exists(&server, "lock:k"));
    for _ in 0..2 {
        other.tell("wait lock:k 300000");
        assert_eq!(other.hear().as_deref(), Some("held"));
        assert_eq!(other.ask("release lock:k"), "released");
    }
    over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_lingers_is_no_lock_in_its_own_process() {
    let server = Server::start(&[]);
    let (one, two) = two(&server, KEPT).await;
    relock(&one, "k").await;
    assert!(exists(&server, "lock:k"));
    assert!(!one.is_locked("k").await.unwrap());
    assert_eq!(one.inspect("k").await.unwrap().map(|info| info.key), None);
    assert_eq!((one.stats().active, one.stats().waiting), (0, 0));
    // Others cannot tell.
    assert!(two.is_locked("k").await.unwrap());
    assert_eq!(two.inspect("k").await.unwrap().map(|info| info.location), Some(Location::Claimed));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_tell_what_may_only_be_kept_from_what_is_held_for_sure() {
    let server = Server::start(&[]);
    let (one, two) = two(&server, KEPT).await;
    let handing_on = manager(&server, ClaimReuse::hand_off()).await;
    relock(&one, "idle").await;
    let _ticket = one.lock("ticket").ticket().await.unwrap();
    let _long_ticket = one.lock("long ticket").ttl(Duration::from_mins(2)).ticket().await.unwrap();
    let _held = one.lock("held").await.unwrap();
    let _handed_on = handing_on.lock("handed on").await.unwrap();
    server.ask::<()>("SET lock:alike 00000000-0000-4000-8000-000000000000 PX 1000");
    server.ask::<()>("SET lock:longer 00000000-0000-8100-0000-000000000000-more PX 1000");
    until("what is held for a moment is extended", || server.ask::<i64>("PTTL lock:held") > 3_000);
    let mut wanted = vec![("alike", Location::Elsewhere), ("handed on", Location::Elsewhere)];
    wanted.extend([("held", Location::Elsewhere), ("idle", Location::Claimed), ("long ticket", Location::Elsewhere)]);
    wanted.extend([("longer", Location::Elsewhere), ("ticket", Location::Claimed)]);
    for (key, location) in &wanted {
        let info = two.inspect(*key).await.unwrap();
        assert_eq!(info.map(|info| info.location), Some(*location), "{key}");
    }
    let page = two.list_store("", None, 1_000).await.unwrap().unwrap();
    assert_eq!(page.next, None);
    let mut listed: Vec<_> = page.locks.iter().map(|info| (info.key.as_str(), info.location)).collect();
    listed.sort_unstable_by_key(|(key, _)| *key);
    assert_eq!(listed, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_client_chose_is_in_the_server_as_ever_and_never_handed_on() {
    let server = Server::start(&[]);
    let (one, two) = two(&server, KEPT).await;
    relock(&one, "k").await;
    let token = Token::random();
    let ticket = one.lock("k").token(token).wait(LONG).ticket().await.unwrap();
    assert_eq!(server.ask::<String>("GET lock:k"), token.to_string());
    // As with no claims: any process may end it that knows the token.
    assert_eq!(two.release("k", ticket.token()).await, Ok(Release::Released));
    assert!(!exists(&server, "lock:k"));
    let lock = two.try_lock("k").token(Token::random()).await.unwrap();
    assert_eq!(lock.unlock().await, Release::Released);
    assert!(!exists(&server, "lock:k"), "it does not linger");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forced_is_not_granted_again_by_the_process_that_kept_it() {
    let server = Server::start(&[]);
    let (one, two) = two(&server, KEPT).await;
    for _ in 0..20 {
        let last = relock(&one, "k").await;
        assert_eq!(two.force_release("k").await, Ok(Release::Released));
        let fence = relock(&two, "k").await;
        assert!(fence > last);
        // Kept here, and forced here: it is no lock, and nothing of it may be granted after the answer.
        assert_eq!(two.force_release("k").await, Ok(Release::AlreadyGone));
        let lock = two.lock("k").wait(LONG).await.unwrap();
        assert!(lock.fencing_token().unwrap() > fence && exists(&server, "lock:k"));
        assert_eq!(lock.unlock().await, Release::Released);
        assert!(two.force_release("k").await.is_ok());
        until("the first process hears of it", || !exists(&server, "lock:k"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_process_and_one_that_has_ended_keep_nothing() {
    let server = Server::start(&[]);
    let idle = ClaimReuse::Linger { idle: Duration::from_millis(50), max_time: Duration::from_secs(1) };
    let locks = manager(&server, idle).await;
    for n in 0..20 {
        relock(&locks, &format!("k{n}")).await;
    }
    let kept = || server.ask::<Vec<String>>("KEYS lock:*").len();
    until("the keys", || kept() == 0);
    let locks = manager(&server, KEPT).await;
    // The word that the connection has just come up has it give up what it keeps by then.
    while kept() < 20 {
        for n in 0..20 {
            relock(&locks, &format!("k{n}")).await;
        }
    }
    locks.shutdown(LONG).await;
    assert_eq!(kept(), 0, "a shutdown gives up what nobody holds");
    let locks = manager(&server, KEPT).await;
    relock(&locks, "k").await;
    drop(locks);
    until("what the last handle leaves", || kept() == 0);
}

/// R21: what may have been lost grants nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_server_may_have_forgotten_is_asked_for_anew() {
    let server = Server::start(&[]);
    let locks = manager(&server, KEPT).await;
    relock(&locks, "k").await;
    server.ask::<()>("FLUSHALL");
    server.ask::<i64>("CLIENT KILL TYPE pubsub");
    server.ask::<()>("SET lock:k theirs");
    // Until it has heard that it may have missed something, it cannot know.
    while let Ok(lock) = locks.try_lock("k").await {
        assert_eq!(lock.unlock().await, Release::Released);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.ask::<String>("GET lock:k"), "theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_ever_inside_with_another_whatever_the_processes_keep() {
    const ROUNDS: u64 = 200;
    let server = Server::start(&[]);
    let linger = ClaimReuse::Linger { idle: Duration::from_millis(5), max_time: Duration::from_millis(30) };
    let managers =
        [manager(&server, linger).await, manager(&server, ClaimReuse::hand_off()).await, manager(&server, KEPT).await];
    let mut other = Client::Rslock.start(&server);
    other.tell("count lock:k 10");
    let (inside, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..9)
        .map(|task| {
            let (locks, inside, last) = (managers[task % 3].clone(), Arc::clone(&inside), Arc::clone(&last));
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let lock: Lock = locks.lock("k").wait(LONG).await.unwrap();
                    assert!(!inside.swap(true, Ordering::SeqCst), "two are inside");
                    let fence = lock.fencing_token().unwrap().get();
                    assert!(last.swap(fence, Ordering::SeqCst) < fence, "a fence that does not rise");
                    if round % 8 == 0 {
                        tokio::task::yield_now().await;
                    }
                    inside.store(false, Ordering::SeqCst);
                    assert_eq!(lock.unlock().await, Release::Released);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(other.hear().as_deref(), Some("counted"));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let build = |reuse| RedisStore::builder("redis://127.0.0.1/").claim_reuse(reuse).build();
    let of = |max_time| ClaimReuse::Linger { idle: Duration::from_millis(1), max_time };
    assert!(build(of(Duration::from_micros(999))).is_err() && build(of(Duration::from_mins(2))).is_err());
    assert!(build(of(Duration::from_secs(1))).is_ok());
    let store = RedisStore::builder("redis://127.0.0.1/").claim_reuse(ClaimReuse::linger());
    let local = LockManager::builder().store(store.key_template(KeyTemplate::bare()).build().unwrap());
    let refused = local.fail_mode(leasehold::store::FailMode::Local).build();
    assert!(refused.is_err(), "what is granted without the store cannot be told from what was kept");
}
