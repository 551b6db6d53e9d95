//! Fear: two managers over one Redis hold one key together, or wait for each other in vain; a lock outlives its holder
//! there, or its holder does not hear that it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::{future::join, poll};
use leasehold::store::StoreError;
use leasehold::store::redis::RedisStore;
use leasehold::{
    BuildError, Builder, Location, Lock, LockError, LockManager, Loss, ModeConflict, Outcome, Release, Token,
};
use tokio::task::block_in_place;

use crate::kit::{Proxy, Server, Then, until};

/// Longer than any test is patient.
const LONG: Duration = Duration::from_mins(5);

fn builder(url: &str) -> Builder {
    LockManager::builder().ttl(LONG).store(RedisStore::new(url).unwrap())
}

async fn manager(server: &Server) -> LockManager {
    builder(&server.url()).build_and_connect().await.unwrap()
}

async fn two(server: &Server) -> (LockManager, LockManager) {
    (manager(server).await, manager(server).await)
}

fn exists(server: &Server, key: &str) -> bool {
    server.ask::<i64>(&format!("EXISTS {key}")) == 1
}

/// A request that queues while the test does something else.
fn queue(locks: &LockManager, key: &'static str) -> tokio::task::JoinHandle<Result<Lock, LockError>> {
    let locks = locks.clone();
    tokio::spawn(async move { locks.lock(key).wait(LONG).await })
}

fn places(server: &Server) -> usize {
    server.ask::<usize>("ZCARD leasehold:queue:{lock:k}")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_managers_exclude_each_other() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    assert_eq!(two.try_lock("k").await.unwrap_err(), LockError::Held);
    assert_eq!(two.try_lock("lock:k").await.unwrap_err(), LockError::Held, "two spellings of one key");
    let timeout = two.lock("k").wait(Duration::from_millis(30)).await.unwrap_err();
    assert!(matches!(timeout, LockError::Timeout { .. }), "{timeout:?}");
    assert!(two.is_locked("k").await.unwrap());
    let fence = lock.fencing_token().unwrap();
    assert_eq!(lock.unlock().await, Release::Released);
    let next = two.try_lock("k").await.unwrap();
    assert!(next.fencing_token().unwrap() > fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_two_managers_never_hold_one_key_together() {
    const ROUNDS: u32 = 25;
    let server = Server::start(&[]);
    let managers = two(&server).await;
    let (inside, last, rounds) =
        (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU32::new(0)));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let locks = if task % 2 == 0 { managers.0.clone() } else { managers.1.clone() };
            let (inside, last, rounds) = (Arc::clone(&inside), Arc::clone(&last), Arc::clone(&rounds));
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    let lock = locks.lock("k").wait(LONG).await.unwrap();
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                    let fence = lock.fencing_token().unwrap().get();
                    assert!(last.swap(fence, Ordering::SeqCst) < fence, "the fence must rise");
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    rounds.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(lock.unlock().await, Release::Released);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(rounds.load(Ordering::SeqCst), 8 * ROUNDS);
    until("the end of the lock", || !exists(&server, "lock:k"));
    until("an empty queue", || places(&server) == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_wakes_the_waiter_of_the_other_manager() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let waiter = queue(&two, "k");
    until("the waiter's place", || places(&server) == 1);
    drop(lock);
    assert!(waiter.await.unwrap().unwrap().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_first_is_served_first_across_managers() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    for _ in 0..5 {
        let holder = one.lock("k").await.unwrap();
        let first = queue(&two, "k");
        until("the first place", || places(&server) == 1);
        let second = queue(&one, "k");
        until("the second in its own queue", || one.stats().waiting == 1);
        drop(holder);
        let first = first.await.unwrap().unwrap();
        until("the second place", || places(&server) == 1);
        assert!(!second.is_finished());
        let fence = first.fencing_token();
        drop(first);
        assert!(second.await.unwrap().unwrap().fencing_token() > fence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_holds_can_be_asked_about() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    assert_eq!(two.inspect("k").await.unwrap(), None);
    let lock = one.lock("k").owner("ann").await.unwrap();
    let here = one.inspect("k").await.unwrap().unwrap();
    assert_eq!((here.location, here.owner.as_deref()), (Location::Here, Some("ann")));
    let waiters = [queue(&two, "k"), queue(&two, "k")];
    until("the waiters", || places(&server) == 1 && two.stats().waiting == 1);
    let there = two.inspect("k").await.unwrap().unwrap();
    assert_eq!((there.location, there.owner, there.held_by), (Location::Elsewhere, None, 1));
    assert_eq!(there.fencing_token, lock.fencing_token());
    assert!(there.remaining > LONG / 2 && there.remaining <= LONG);
    assert_eq!((there.waiting, there.queue.len()), (2, 2), "those who wait here");
    assert_eq!(two.explain("k").await.unwrap().lock.unwrap().location, Location::Elsewhere);
    waiters.iter().for_each(tokio::task::JoinHandle::abort);
    // Another client's key, without an end.
    server.ask::<()>("SET lock:theirs x");
    let theirs = two.inspect("theirs").await.unwrap().unwrap();
    assert_eq!((theirs.location, theirs.remaining), (Location::Elsewhere, Duration::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn unlock_says_that_the_key_was_deleted_meanwhile() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let lock = locks.lock("k").await.unwrap();
    server.ask::<()>("DEL lock:k");
    assert_eq!(lock.unlock().await, Release::AlreadyGone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_extends_the_key_and_hears_that_it_is_gone() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let lock = locks.lock("k").ttl(Duration::from_mins(1)).await.unwrap();
    assert!(server.ask::<i64>("PTTL lock:k") <= 60_000);
    lock.refresh_for(LONG).await.unwrap();
    assert!(server.ask::<i64>("PTTL lock:k") > 60_000);
    assert!(lock.remaining() > Duration::from_mins(1));
    server.ask::<()>("DEL lock:k");
    assert_eq!(lock.refresh().await.unwrap_err(), LockError::Lost(Loss::Vanished));
    assert_eq!(lock.lost().await, Some(Loss::Vanished));
    assert!(!exists(&server, "lock:k"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auto_refreshed_lock_is_kept_and_one_that_is_not_ends() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    // Long for a machine that stalls, short for a test.
    let kept = one.lock("kept").ttl(Duration::from_secs(6)).await.unwrap();
    let left = one.lock("left").ttl(Duration::from_secs(1)).await.unwrap();
    let refreshing = kept.auto_refresh(Duration::from_millis(300), Duration::from_millis(500)).unwrap();
    assert_eq!(left.lost().await, Some(Loss::Expired));
    until("the end of the other", || !exists(&server, "lock:left"));
    assert!(kept.is_held());
    assert_eq!(two.try_lock("kept").await.unwrap_err(), LockError::Held);
    refreshing.stop();
    assert_eq!(kept.lost().await, Some(Loss::Expired));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_request_outlives_a_restart_and_a_try_does_not_wait_for_it() {
    let mut server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let waiter = queue(&two, "k");
    until("the waiter's place", || places(&server) == 1);
    server.kill9();
    assert_eq!(two.try_lock("other").await.unwrap_err(), LockError::StoreUnavailable);
    let ended = one.lock("other").wait(Duration::from_millis(30)).await.unwrap_err();
    assert_eq!(ended, LockError::StoreUnavailable, "not a timeout: nobody said no");
    assert!(lock.is_held() && !waiter.is_finished());
    server.restart();
    // It came back empty: the holder hears that, and the waiter is served.
    assert_eq!(lock.lost().await, Some(Loss::Vanished));
    assert!(waiter.await.unwrap().unwrap().is_held());
    assert!(two.try_lock("other").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_leaves_no_key() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let waiter = queue(&two, "k");
    until("the waiter's place", || places(&server) == 1);
    waiter.abort();
    until("the end of its place", || places(&server) == 0);
    drop(lock);
    until("the end of the lock", || !exists(&server, "lock:k"));
    // Dropped at any point of the way to the store and back.
    for polls in 0..40 {
        let request = one.lock("k").into_future();
        tokio::select! {
            biased;
            _ = request => {}
            () = async { for _ in 0..polls { tokio::task::yield_now().await; } } => {}
        }
    }
    until("the end of the lock", || !exists(&server, "lock:k"));
    assert_eq!(one.stats().active, 0);
    assert!(two.lock("k").wait(LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_release_tells_the_holder_in_the_other_manager() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    until("ears", || server.ask::<(String, i64)>("PUBSUB NUMSUB leasehold:forced:0").1 == 2);
    assert_eq!(two.force_release("k").await, Ok(Release::Released));
    assert_eq!(lock.lost().await, Some(Loss::Forced));
    let next = two.try_lock("k").await.unwrap();
    assert_eq!(lock.unlock().await, Release::AlreadyGone);
    assert!(next.is_held());
    assert_eq!(two.force_release("free").await, Ok(Release::AlreadyGone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_release_hits_the_holder_and_not_the_next() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    until("ears", || server.ask::<(String, i64)>("PUBSUB NUMSUB leasehold:forced:0").1 == 2);
    for _ in 0..20 {
        let lock = one.lock("k").await.unwrap();
        let (here, there) = (queue(&one, "k"), queue(&two, "k"));
        until("the waiters", || places(&server) == 1 && one.stats().waiting == 1);
        assert_eq!(one.force_release("k").await, Ok(Release::Released));
        assert_eq!(lock.lost().await, Some(Loss::Forced));
        let next = there.await.unwrap().unwrap();
        assert_eq!(next.unlock().await, Release::Released);
        let last = here.await.unwrap().unwrap();
        assert_eq!(last.unlock().await, Release::Released);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_a_session_end_with_it() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let session = one.session("worker");
    let locks = [session.lock("a").await.unwrap(), session.lock("b").await.unwrap()];
    assert_eq!(two.try_lock("a").await.unwrap_err(), LockError::Held);
    assert_eq!(session.end().await, Release::Released);
    for lock in &locks {
        assert_eq!(lock.lost().await, Some(Loss::SessionEnded));
    }
    until("the end of both", || !exists(&server, "lock:a") && !exists(&server, "lock:b"));
    assert!(two.try_lock("a").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_for_several_keys_is_a_lock_of_each_and_each_release_hears_of_its_own() {
    let server = Server::start(&[]);
    let locks = LockManager::builder().shards(1).ttl(LONG).store(RedisStore::new(&server.url()).unwrap());
    let (locks, token) = (locks.build_and_connect().await.unwrap(), Token::random());
    let holder = locks.lock("busy").await.unwrap();
    let waits = {
        let locks = locks.clone();
        tokio::spawn(async move { locks.lock("busy").token(token).wait(LONG).ticket().await })
    };
    until("a place in the queue", || locks.stats().waiting == 1);
    for round in 0..20 {
        let keys = [0, 1, 2].map(|n| format!("k{round}:{n}"));
        for key in &keys {
            let first = locks.lock(key.as_str()).token(token).ticket().await.unwrap();
            assert_eq!(locks.lock(key.as_str()).token(token).ticket().await.unwrap(), first);
        }
        // Of the one in the middle the store knows nothing any more.
        assert_eq!(server.ask::<i64>(&format!("DEL lock:{}", keys[1])), 1);
        let release = |key: &String| locks.release(key.clone(), token);
        let (a, b, c) = futures::join!(release(&keys[0]), release(&keys[1]), release(&keys[2]));
        assert_eq!((a, b, c), (Ok(Release::Released), Ok(Release::AlreadyGone), Ok(Release::Released)));
    }
    assert_eq!(holder.unlock().await, Release::Released);
    assert_eq!(waits.await.unwrap().unwrap().token(), token);
    assert_eq!(locks.release("busy", token).await, Ok(Release::Released));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_token_is_one_lock_however_often_it_asks() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let token = Token::random();
    let first = one.lock("k").token(token).ticket().await.unwrap();
    assert_eq!(one.lock("k").token(token).ticket().await.unwrap(), first);
    assert_eq!(server.ask::<String>("GET lock:k"), token.to_string());
    // A retry that another replica answers is the same lock.
    let elsewhere = two.lock("k").token(token).ticket().await.unwrap();
    assert_eq!(elsewhere.fencing_token(), first.fencing_token());
    assert_eq!(two.release("k", token).await, Ok(Release::Released));
    assert_eq!(one.release("k", token).await, Ok(Release::AlreadyGone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_released_by_a_manager_that_did_not_grant_it() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let ticket = one.lock("k").ticket().await.unwrap();
    assert_eq!(two.release("k", Token::random()).await, Err(LockError::NotHeld));
    assert_eq!(two.release("k", ticket.token()).await, Ok(Release::Released));
    assert_eq!(two.release("k", Token::random()).await, Ok(Release::AlreadyGone), "nobody holds it");
    assert!(!exists(&server, "lock:k"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_dropped_at_the_same_time_leave_no_place_behind() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    server.ask::<()>("SET lock:k foreign");
    for _ in 0..5000 {
        // One is in the store's queue, one behind it: the first to go hands on to the second, which goes, too.
        let mut both = [(); 2].map(|()| Box::pin(locks.lock("k").wait(LONG).into_future()));
        for request in &mut both {
            assert!(poll!(request.as_mut()).is_pending());
        }
        let together = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for request in both {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    drop(request);
                });
            }
        });
    }
    assert_eq!(locks.stats().waiting, 0);
    // One that asks on for nobody asks once a second: only time shows that nobody does.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    until("an empty queue", || places(&server) == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_is_not_refused_for_the_place_of_its_own_process() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    server.ask::<()>("SET lock:k foreign");
    let waiter = queue(&locks, "k");
    until("the waiter's place", || places(&server) == 1);
    let place: Vec<String> = server.ask("ZRANGE leasehold:queue:{lock:k} 0 0");
    waiter.abort();
    until("the end of its place", || places(&server) == 0);
    // As if the word that it is given up came late.
    server.ask::<()>(&format!("ZADD leasehold:queue:{{lock:k}} 9999999999999999 {}", place[0]));
    server.ask::<()>(&format!("HSET leasehold:tickets:{{lock:k}} {} 9999999999999999", place[0]));
    server.ask::<()>("DEL lock:k");
    assert!(locks.try_lock("k").await.is_ok());
    assert_eq!(places(&server), 0, "it is used up");
}

/// The holder's own process hears nothing of it, and its waiters would wait for the holder's TTL.
#[tokio::test(flavor = "multi_thread")]
async fn waiters_go_on_when_the_lock_before_them_ends_elsewhere() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let ticket = one.lock("released").ticket().await.unwrap();
    let deleted = one.lock("deleted").await.unwrap();
    let kept = one.lock("kept").await.unwrap();
    let waiters = [queue(&one, "released"), queue(&one, "deleted")];
    let patient = queue(&one, "kept");
    until("the waiters", || one.stats().waiting == 3);
    assert_eq!(two.release("released", ticket.token()).await, Ok(Release::Released));
    server.ask::<()>("DEL lock:deleted");
    for waiter in waiters {
        until("its turn", || waiter.is_finished());
        assert!(waiter.await.unwrap().unwrap().is_held());
    }
    assert_eq!(deleted.lost().await, Some(Loss::Vanished));
    assert!(kept.is_held() && !patient.is_finished());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_releases_at_a_time_one_ends_the_lock_and_both_hear_so() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    for elsewhere in [false, true].repeat(20) {
        let ticket = one.lock("k").ticket().await.unwrap();
        let locks = if elsewhere { &two } else { &one };
        let (first, second) = join(locks.release("k", ticket.token()), locks.release("k", ticket.token())).await;
        let mut heard = [first.unwrap(), second.unwrap()];
        heard.sort_by_key(|release| *release == Release::AlreadyGone);
        assert_eq!(heard, [Release::Released, Release::AlreadyGone]);
        assert!(!exists(&server, "lock:k"));
        assert_eq!(one.release("k", ticket.token()).await, Ok(Release::AlreadyGone));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_and_permits_of_the_process_alone_are_not_in_the_store() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let (one, two) = (locks.read("r").process_scope().await.unwrap(), locks.read("r").process_scope().await.unwrap());
    assert_eq!(locks.try_lock("r").process_scope().await.unwrap_err(), LockError::Held);
    assert_eq!(locks.try_read("r").await.unwrap_err(), ModeConflict::WithinProcess.into());
    let permit = locks.semaphore("s", 1).permits(1).process_scope().await.unwrap();
    let mut keys: Vec<String> = server.ask("KEYS *");
    keys.retain(|key| !key.contains("leasehold-probe"));
    assert_eq!(keys, [""; 0], "none of it is in the store");
    drop((one, two, permit));
    let lock = locks.lock("k").await.unwrap();
    assert_eq!(lock.unlock().await, Release::Released);
    assert!(!exists(&server, "lock:k"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_within_the_process_is_not_lost_when_the_store_was_away() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    let local = locks.lock("local").process_scope().await.unwrap();
    let deleted = locks.lock("deleted").await.unwrap();
    let kept = locks.lock("kept").await.unwrap();
    server.ask::<()>("DEL lock:deleted");
    proxy.reset();
    assert_eq!(deleted.lost().await, Some(Loss::Vanished), "everything was verified");
    // The same look verified all.
    until("service", || block_in_place(|| locks.blocking_lock("again").is_ok()));
    assert!(local.is_held() && kept.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_lock_excludes_us_until_it_is_deleted() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    server.ask::<()>("SET lock:k foreign NX PX 600000");
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    let waiter = queue(&locks, "k");
    until("the waiter's place", || places(&server) == 1);
    assert!(!waiter.is_finished());
    server.ask::<()>("DEL lock:k");
    let lock = waiter.await.unwrap().unwrap();
    let set: Option<String> = server.ask("SET lock:k foreign NX PX 60000");
    assert_eq!(set, None, "and we exclude it");
    assert!(lock.is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_asks_the_store_until_it_says_yes() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let tries = || std::iter::repeat(Duration::from_millis(5));
    let given_up = two.lock("k").retry(tries().take(3)).await.unwrap_err();
    assert!(matches!(given_up, LockError::Timeout { .. }), "{given_up:?}");
    let poller = tokio::spawn({
        let two = two.clone();
        async move { two.lock("k").retry(tries()).await }
    });
    drop(lock);
    assert!(poller.await.unwrap().unwrap().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_whose_answer_is_lost_is_asked_for_again_by_a_waiter() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    assert!(locks.lock("warm").await.is_ok());
    let token = Token::random();
    proxy.lose_reply_of(&token.to_string(), Then::Reset);
    let lock = locks.lock("k").token(token).wait(LONG).await.unwrap();
    assert_eq!(proxy.lost_replies(), 1);
    assert!(lock.is_held());
    assert_eq!(server.ask::<String>("GET lock:k"), token.to_string());
    assert_eq!(lock.unlock().await, Release::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_go_what_is_released_and_leaves_what_is_held_to_time() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let held = locks.lock("held").await.unwrap();
    drop(locks.lock("released").await.unwrap());
    assert_eq!(locks.shutdown(Duration::ZERO).await, 1);
    assert!(!exists(&server, "lock:released"));
    assert!(exists(&server, "lock:held"), "its holder may still be at work");
    assert_eq!(held.lost().await, Some(Loss::ShutDown));
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::ShuttingDown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_is_not_built_over_a_store_that_does_not_answer() {
    let mut server = Server::start(&[]);
    server.kill9();
    let error = builder(&server.url()).build_and_connect().await.unwrap_err();
    assert!(matches!(error, BuildError::Store(StoreError::Unreachable(_))), "{error:?}");
}

#[test]
fn synchronous_callers_lock_through_the_store() {
    let server = Server::start(&[]);
    let build = || futures::executor::block_on(builder(&server.url()).build_and_connect()).unwrap();
    let (one, two) = (build(), build());
    let lock = one.blocking_lock("k").unwrap();
    assert_eq!(two.try_lock("k").block().unwrap_err(), LockError::Held);
    lock.unlock_now();
    assert!(two.blocking_lock("k").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_end_a_lock_says_what_the_store_says() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let give_away = |key: &str| assert_eq!(server.ask::<String>(&format!("SET {key} another")), "OK");
    let ran = locks.run("k", |_| async { give_away("lock:k") }).await.unwrap();
    assert_eq!(ran.release, Release::AlreadyGone);
    let ran = locks.try_run("j", |_| async { give_away("lock:j") }).await.unwrap();
    assert!(matches!(ran, Outcome::Ran(ran) if ran.release == Release::AlreadyGone), "{ran:?}");
    let many = locks.lock_many(["a", "b"]).await.unwrap();
    give_away("lock:b");
    assert_eq!(many.unlock().await, Release::AlreadyGone);
    assert!(!exists(&server, "lock:a"), "the others are released all the same");
    let shared = locks.singleflight_lock("s").await.unwrap();
    give_away("lock:s");
    assert_eq!(shared.unlock().await, Release::AlreadyGone);
    for key in ["lock:k", "lock:j", "lock:b", "lock:s"] {
        assert!(exists(&server, key), "{key} is another's");
    }
    let ran = locks.run("free", |_| async {}).await.unwrap();
    assert_eq!(ran.release, Release::Released);
}
