//! Fear: Redis stalls, dies, forgets or refuses, and a lock is held twice, lost in silence, kept for ever, or service
//! does not come back. Here through the manager; what the store answers alone is in `faults`.

use std::time::Duration;

use leasehold::store::redis::RedisStore;
use leasehold::{EventKind, Heard, LockError, LockManager, Loss, Release, TtlFault};
use tokio::task::block_in_place;

use crate::kit::{self, Direction, Proxy, Server, Then, until};
use crate::redis_managers::{LONG, builder, exists, manager, places, poll_some, queue, two};

/// The next event of a key, for short.
async fn heard(events: &mut leasehold::Events) -> String {
    match events.next().await {
        Some(Heard::Event(event)) => match event.kind {
            EventKind::Granted { .. } => "granted".to_owned(),
            EventKind::Expired { .. } => "expired".to_owned(),
            EventKind::Released { .. } => "released".to_owned(),
            EventKind::Lost { why, .. } => format!("lost: {why:?}"),
            // Of no interest here.
            EventKind::Refreshed { .. } => Box::pin(heard(events)).await,
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    }
}

/// Peer bug 7: the watchdog stops in silence, after an outage that it could have outlived.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_shorter_than_the_ttl_is_outlived() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    let ttl = Duration::from_secs(20);
    let lock = locks.lock("k").ttl(ttl).await.unwrap();
    let _refreshing = lock.auto_refresh(Duration::from_millis(50), Duration::from_millis(500)).unwrap();
    until("a refresh", || locks.stats().refreshed > 0);
    proxy.cut();
    std::thread::sleep(Duration::from_secs(1));
    let refreshed = locks.stats().refreshed;
    assert!(lock.is_held());
    proxy.heal();
    until("refreshes after the outage", || locks.stats().refreshed > refreshed + 2);
    assert!(lock.is_held() && exists(&server, "lock:k"));
    assert_eq!(lock.unlock().await, Release::Released);
}

/// Peer bug 7: the same, for one that was longer: it is lost once, and said once.
/// Peer bug 16: the failed refreshes end nothing but the lock.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_ttl_loses_the_lock_once() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    let mut events = locks.watch("k").unwrap();
    let lock = locks.lock("k").ttl(Duration::from_secs(1)).await.unwrap();
    let refreshing = lock.auto_refresh(Duration::from_millis(100), Duration::from_millis(100)).unwrap();
    proxy.cut();
    assert_eq!(lock.lost().await, Some(Loss::Expired));
    assert_eq!(refreshing.failed().await, Some(LockError::Lost(Loss::Expired)));
    proxy.heal();
    until("service", || block_in_place(|| locks.blocking_lock("k").is_ok()));
    for told in ["granted", "expired", "granted", "released"] {
        assert_eq!(heard(&mut events).await, told);
    }
    assert_eq!((locks.stats().expired, locks.stats().lost), (1, 0));
    assert_eq!(lock.unlock().await, Release::AlreadyGone);
}

/// The loss is signalled at the deadline, though the store answers nothing (R9).
#[tokio::test(flavor = "multi_thread")]
async fn a_server_stopped_for_longer_than_a_ttl_gives_no_lock_twice() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").ttl(Duration::from_millis(800)).await.unwrap();
    let fence = lock.fencing_token();
    let waiter = queue(&two, "k");
    until("the waiter's place", || places(&server) == 1);
    server.stop();
    assert_eq!(lock.lost().await, Some(Loss::Expired));
    assert_eq!(two.try_lock("other").await.unwrap_err(), LockError::StoreUnavailable);
    assert!(!waiter.is_finished());
    server.cont();
    let next = waiter.await.unwrap().unwrap();
    assert!(next.fencing_token() > fence);
    assert_eq!(lock.unlock().await, Release::AlreadyGone);
    assert_eq!(server.ask::<String>("GET lock:k"), next.token().to_string());
    until("the clean-up of what nobody heard of", || !exists(&server, "lock:other"));
}

/// Unknown is never taken for yes or no (S1): the holder hears that the store has not answered.
#[tokio::test(flavor = "multi_thread")]
async fn an_unlock_that_the_store_has_not_answered_is_unknown_and_goes_on() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let lock = locks.lock("a").await.unwrap();
    let session = locks.session("s");
    let kept = session.lock("b").await.unwrap();
    let ticket = locks.lock("c").await.unwrap().detach();
    server.stop();
    assert_eq!(lock.unlock().await, Release::Unknown);
    assert_eq!(session.end().await, Release::Unknown);
    assert_eq!(locks.release("c", ticket.token()).await, Err(LockError::StoreUnavailable));
    server.cont();
    until("the end of the keys", || ["lock:a", "lock:b", "lock:c"].iter().all(|key| !exists(&server, key)));
    drop(kept);
    assert_eq!(locks.release("c", ticket.token()).await, Ok(Release::AlreadyGone));
}

/// Peer bug 2: keys that vanish without a message leave their waiters waiting, and their holders believing.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_vanish_are_lost_once_and_their_waiters_go_on() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    for vanish in ["DEL lock:k", "FLUSHALL", "FLUSHALL ASYNC", "RENAME lock:k elsewhere", "PEXPIRE lock:k 1"] {
        let mut events = one.watch("k").unwrap();
        let lock = one.lock("k").await.unwrap();
        let fence = lock.fencing_token();
        let refreshing = lock.auto_refresh(Duration::from_millis(50), Duration::from_millis(500)).unwrap();
        let waiter = queue(&two, "k");
        until("the waiter's place", || places(&server) == 1);
        let _: redis::Value = server.ask(vanish);
        assert_eq!(lock.lost().await, Some(Loss::Vanished), "{vanish}");
        assert_eq!(refreshing.failed().await, Some(LockError::Lost(Loss::Vanished)));
        let next = waiter.await.unwrap().unwrap();
        assert!(next.fencing_token() > fence, "{vanish}");
        assert_eq!(lock.unlock().await, Release::AlreadyGone);
        assert!(next.is_held() && exists(&server, "lock:k"), "{vanish}");
        assert_eq!(next.unlock().await, Release::Released);
        assert_eq!(one.lock("k").await.unwrap().unlock().await, Release::Released);
        for told in ["granted", "lost: Vanished", "granted", "released"] {
            assert_eq!(heard(&mut events).await, told, "{vanish}");
        }
    }
}

/// Peer bug 2: the same, for a key that a full server threw out (R22).
#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_lock_is_lost_once_and_its_waiter_goes_on() {
    let server = Server::start(&["--maxmemory-policy", "volatile-lru"]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let refreshing = lock.auto_refresh(Duration::from_millis(50), Duration::from_millis(500)).unwrap();
    let waiter = queue(&two, "k");
    until("the waiter's place", || places(&server) == 1);
    server.ask::<()>("CONFIG SET maxmemory 1");
    // Anything that needs memory has the server throw out what it may.
    until("the eviction", || {
        let _ = server.try_ask::<()>("SET filler x");
        !exists(&server, "lock:k")
    });
    server.ask::<()>("CONFIG SET maxmemory 0");
    assert_eq!(lock.lost().await, Some(Loss::Vanished));
    assert_eq!(refreshing.failed().await, Some(LockError::Lost(Loss::Vanished)));
    assert!(waiter.await.unwrap().unwrap().is_held());
    assert_eq!((one.stats().lost, one.stats().expired), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_is_an_outage_and_not_contention() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let held = one.lock("held").await.unwrap();
    server.ask::<()>("CONFIG SET maxmemory 1");
    assert_eq!(two.try_lock("k").await.unwrap_err(), LockError::StoreUnavailable);
    let waiter = queue(&two, "k");
    assert!(held.is_held() && held.refresh().await.is_ok(), "what is held needs no memory");
    assert_eq!(held.unlock().await, Release::Released);
    server.ask::<()>("CONFIG SET maxmemory 0");
    assert!(waiter.await.unwrap().unwrap().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_were_forgotten_and_connections_that_were_killed_harm_nobody() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let refreshing = lock.auto_refresh(Duration::from_millis(50), Duration::from_millis(500)).unwrap();
    let waiter = queue(&two, "k");
    until("the waiter's place", || places(&server) == 1);
    for round in 0..10 {
        server.ask::<()>("SCRIPT FLUSH");
        let _: i64 = server.ask(if round % 2 == 0 { "CLIENT KILL TYPE normal" } else { "CLIENT KILL TYPE pubsub" });
        let refreshed = one.stats().refreshed;
        until("a refresh", || one.stats().refreshed > refreshed + 1);
        assert!(lock.is_held() && !waiter.is_finished());
    }
    refreshing.stop();
    assert_eq!(lock.unlock().await, Release::Released);
    assert!(waiter.await.unwrap().unwrap().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_makes_everybody_wait_is_unknown_and_comes_back() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    let waiter = queue(&two, "k");
    until("the waiter's place", || places(&server) == 1);
    server.ask::<()>("CLIENT PAUSE 2000 ALL");
    assert_eq!(one.try_lock("a").await.unwrap_err(), LockError::StoreUnavailable);
    assert_eq!(lock.refresh().await.unwrap_err(), LockError::StoreUnavailable);
    assert!(lock.is_held(), "its deadline stands");
    let unlocked = lock.unlock().await;
    assert_eq!(unlocked, Release::Unknown, "nobody has said");
    assert!(waiter.await.unwrap().unwrap().is_held());
    until("the clean-up of what nobody heard of", || !exists(&server, "lock:a"));
    assert!(one.lock("a").wait(LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_became_a_replica_grants_nothing_and_loses_nothing() {
    let (other, server) = (Server::start(&[]), Server::start(&[]));
    let (one, two) = two(&server).await;
    let lock = one.lock("k").await.unwrap();
    server.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", other.port()));
    // Its dataset goes with the first synchronisation.
    until("the synchronisation", || server.info("master_link_status") == "up");
    assert_eq!(two.try_lock("a").await.unwrap_err(), LockError::StoreUnavailable);
    let waiter = queue(&two, "a");
    server.ask::<()>("REPLICAOF NO ONE");
    assert_eq!(lock.lost().await, Some(Loss::Vanished), "everything held was verified");
    assert!(waiter.await.unwrap().unwrap().is_held());
}

/// Peer bug 33: a circuit breaker that stays open after the outage.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_failures_do_not_outlive_the_outage() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    for _ in 0..2 {
        proxy.cut();
        let failing: Vec<_> = (0..300)
            .map(|n| {
                let locks = locks.clone();
                tokio::spawn(async move { locks.try_lock(format!("k{n}")).await.map(drop) })
            })
            .collect();
        for failed in failing {
            assert_eq!(failed.await.unwrap(), Err(LockError::StoreUnavailable));
        }
        proxy.heal();
        until("service", || block_in_place(|| locks.try_lock("k").block().is_ok()));
        assert!(locks.lock("another").await.is_ok());
    }
    until("nothing left", || server.ask::<Vec<String>>("KEYS lock:*").is_empty());
}

#[cfg(feature = "http")]
/// Peer bug 38: contention and outage give the same error.
#[tokio::test(flavor = "multi_thread")]
async fn contention_and_outage_are_told_apart_also_in_the_queue() {
    let mut server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let short = Duration::from_millis(700);
    let _held = one.lock("k").await.unwrap();
    let status = |error: &LockError| (error.http_status(), error.code());
    assert_eq!(status(&two.try_lock("k").await.unwrap_err()), (423, "held"));
    assert_eq!(status(&two.lock("k").wait(short).await.unwrap_err()), (423, "timeout"));
    server.kill9();
    assert_eq!(status(&two.try_lock("a").await.unwrap_err()), (503, "store_unavailable"));
    // The first asks the store, the others stand behind it: none of them has been told no.
    let waiters: Vec<_> = (0..4)
        .map(|n| {
            let two = two.clone();
            tokio::spawn(async move { two.lock("a").wait(short + short * n / 4).await.map(drop) })
        })
        .collect();
    for waiter in waiters {
        assert_eq!(status(&waiter.await.unwrap().unwrap_err()), (503, "store_unavailable"));
    }
}

/// Peer bug 31: a lost lock is tried again as if the error were transient.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_finds_another_holder_says_lost_at_once() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let lock = locks.lock("k").await.unwrap();
    server.ask::<()>("SET lock:k theirs PX 600000");
    assert_eq!(lock.refresh().await.unwrap_err(), LockError::Lost(Loss::Vanished));
    assert_eq!(lock.refresh().await.unwrap_err(), LockError::Lost(Loss::Vanished), "and goes on saying it");
    assert_eq!(lock.lost().await, Some(Loss::Vanished));
    assert_eq!(lock.unlock().await, Release::AlreadyGone);
    assert_eq!(server.ask::<String>("GET lock:k"), "theirs");
}

/// Peer bug 8: the extender goes on after a conflict, and takes the key back.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_refreshed_for_another_holder() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let lock = locks.lock("k").await.unwrap();
    let refreshing = lock.auto_refresh(Duration::from_millis(20), Duration::from_millis(500)).unwrap();
    server.ask::<()>("SET lock:k theirs PX 1000000");
    assert_eq!(refreshing.failed().await, Some(LockError::Lost(Loss::Vanished)));
    let left: i64 = server.ask("PTTL lock:k");
    let sent: u64 = server.info("total_commands_processed").parse().unwrap();
    until("other traffic", || server.info("total_commands_processed").parse::<u64>().unwrap() > sent + 30);
    assert!(server.ask::<i64>("PTTL lock:k") <= left);
    assert_eq!(server.ask::<String>("GET lock:k"), "theirs");
    // And a cap ends it where nobody is in between.
    let capped = locks.lock("capped").ttl(Duration::from_secs(1)).max_hold(Duration::from_secs(2)).await.unwrap();
    let _refreshing = capped.auto_refresh(Duration::from_millis(100), Duration::from_millis(100)).unwrap();
    assert_eq!(capped.lost().await, Some(Loss::Expired));
    until("the end of the key", || !exists(&server, "lock:capped"));
}

/// Peer bug 4: a late retry of a release ends the newer lock.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_release_that_comes_again_ends_no_newer_lock() {
    let server = Server::start(&[]);
    let (one, two) = two(&server).await;
    let old = one.lock("k").owner("me").ticket().await.unwrap();
    assert_eq!(one.release("k", old.token()).await, Ok(Release::Released));
    let new = one.lock("k").owner("me").ticket().await.unwrap();
    assert_eq!(one.release("k", old.token()).await, Ok(Release::AlreadyGone));
    assert_eq!(two.release("k", old.token()).await, Err(LockError::NotHeld), "nor elsewhere");
    assert_eq!(server.ask::<String>("GET lock:k"), new.token().to_string());
    assert_eq!(one.release("k", new.token()).await, Ok(Release::Released));
}

/// Peer bug 9: a cancelled release leaves a lock for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_is_cancelled_at_any_point_is_carried_out() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    for polls in 0..25 {
        let lock = locks.lock("k").wait(LONG).await.unwrap();
        let token = lock.token();
        if polls % 3 == 0 {
            proxy.delay(Direction::ToClient, Duration::from_millis(20));
        }
        if polls % 2 == 0 {
            poll_some(lock.unlock(), polls).await;
        } else {
            let _ticket = lock.detach();
            poll_some(locks.release("k", token), polls).await;
            // Dropped before its first poll, nothing was asked for: then the retry does it.
            let again = locks.release("k", token).await;
            assert!(again.is_ok(), "{again:?}");
        }
        until("the end of the key", || !exists(&server, "lock:k"));
        proxy.heal();
    }
}

/// Peer bug 10: the clean-up runs in the request that was cancelled, and dies with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_dropped_while_its_answer_is_on_the_way_leaves_no_key() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    drop(locks.lock("warm").await.unwrap());
    proxy.hold(Direction::ToClient);
    let request = queue(&locks, "k");
    until("the grant that nobody hears of", || exists(&server, "lock:k"));
    request.abort();
    proxy.heal();
    until("the clean-up", || !exists(&server, "lock:k"));
    assert_eq!((locks.stats().active, locks.stats().waiting), (0, 0));
}

/// The lock is let go, and the next request's answer is on the same way.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_dropped_while_it_takes_a_lock_over_leaves_neither_key_nor_place() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let store = RedisStore::builder(&proxy.url()).operation_timeout(Duration::from_secs(20)).build().unwrap();
    let locks = LockManager::builder().ttl(LONG).store(store).build_and_connect().await.unwrap();
    let other = manager(&server).await;
    // The server knows the script from here on.
    let (lock, request) = (locks.lock("k").await.unwrap(), queue(&locks, "k"));
    until("the request", || locks.stats().waiting == 1);
    assert_eq!(lock.unlock().await, Release::Released);
    assert_eq!(request.await.unwrap().unwrap().unlock().await, Release::Released);
    for has_rival in [false, true] {
        let lock = locks.lock("k").await.unwrap();
        let request = queue(&locks, "k");
        until("the request", || locks.stats().waiting == 1);
        let rival = has_rival.then(|| queue(&other, "k"));
        until("the rival's place", || places(&server) == usize::from(has_rival));
        let held: String = server.ask("GET lock:k");
        proxy.hold(Direction::ToClient);
        let unlock = tokio::spawn(lock.unlock());
        let rival = match rival {
            Some(rival) => Some(rival.await.unwrap().unwrap()),
            None => None,
        };
        // The rival has the lock, and the request a place; without one the request has the lock, or nobody has.
        let is_passed_on = || server.ask::<Option<String>>("GET lock:k").as_ref() != Some(&held);
        until("the next holder", || is_passed_on() && places(&server) == usize::from(has_rival));
        request.abort();
        proxy.heal();
        assert_eq!(unlock.await.unwrap(), Release::Released);
        drop(rival);
        until("the clean-up", || !exists(&server, "lock:k") && places(&server) == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_command_is_undone_also_after_the_clean_up_was_answered_first() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    // So long that the late command comes before its not-after: it is carried out.
    let store = RedisStore::builder(&proxy.url()).operation_timeout(Duration::from_secs(10)).build().unwrap();
    let locks = LockManager::builder().ttl(LONG).store(store).build_and_connect().await.unwrap();
    assert_eq!(locks.lock("warm").await.unwrap().unlock().await, Release::Released);
    let warm = |name: &str| server.ask::<i64>(&format!("EXISTS leasehold:fence:{{lock:{name}}}")) == 1;
    for (round, end) in ["cancelled", "refused"].into_iter().enumerate() {
        let name = format!("k{round}");
        proxy.lose_reply_of(&format!("lock:{name}"), Then::HangUp(Duration::from_secs(1)));
        let request = tokio::spawn({
            let (locks, name) = (locks.clone(), name.clone());
            async move { locks.try_lock(name).await.map(drop) }
        });
        if end == "cancelled" {
            // Its connection is gone; the clean-up goes over another.
            until("the clean-up's connection", || proxy.connections() > 2);
            request.abort();
        } else {
            assert_eq!(request.await.unwrap(), Err(LockError::StoreUnavailable));
        }
        assert!(!warm(&name), "it has not come yet");
        until("the late command", || warm(&name));
        until("its undoing", || !exists(&server, &format!("lock:{name}")));
    }
}

/// Peer bug 12: a key without an end, because the client or the server died between two commands.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_anywhere_leaves_no_key_without_an_end() {
    let mut server = Server::start(kit::DURABLE);
    let locks = manager(&server).await;
    let ends = || {
        let names: Vec<String> = server_names(&server);
        names.iter().map(|name| server.ask::<i64>(&format!("PTTL {name}"))).filter(|&left| left == -1).count()
    };
    assert_eq!(ends(), 0);
    for round in 0..4_u64 {
        let load: Vec<_> = (0..16)
            .map(|n| {
                let locks = locks.clone();
                tokio::spawn(async move {
                    loop {
                        if let Ok(lock) = locks.lock(format!("k{}", n % 5)).wait(LONG).await {
                            let _ = lock.refresh_for(LONG * 2).await;
                        }
                    }
                })
            })
            .collect();
        let before = locks.stats().granted;
        until("some load", || locks.stats().granted > before + 50 + round * 7);
        server.kill9();
        server.restart();
        for name in server_names(&server) {
            assert!(server.ask::<i64>(&format!("PTTL {name}")) != -1, "{name} has no end");
        }
        load.iter().for_each(tokio::task::JoinHandle::abort);
    }
    until("nothing left", || server.ask::<Vec<String>>("KEYS lock:*").is_empty());
}

fn server_names(server: &Server) -> Vec<String> {
    server.ask("KEYS *")
}

/// Peer bug 13: granted when the validity is already over.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_after_the_ttl_grants_nothing() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    drop(locks.lock("warm").await.unwrap());
    proxy.delay(Direction::ToClient, Duration::from_millis(150));
    let late = locks.try_lock("k").ttl(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(late, LockError::StoreUnavailable, "it was not no");
    proxy.heal();
    until("the end of the key", || !exists(&server, "lock:k"));
    assert!(locks.lock("k").wait(LONG).await.is_ok());
}

/// Peer bug 15: the deadline counts from the first attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_after_many_tries_lasts_from_its_own_try() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let ttl = Duration::from_secs(2);
    // Held by a stranger for longer than we want it: counted from our first try, ours would be over at once.
    server.ask::<()>("SET lock:k theirs PX 4000");
    let lock = locks.lock("k").ttl(ttl).wait(LONG).await.unwrap();
    assert!(lock.is_held() && lock.remaining() < ttl);
    let refreshed = lock.refresh().await.unwrap();
    assert!(refreshed.remaining < ttl && lock.is_held());
    assert_eq!(lock.unlock().await, Release::Released);
}

/// Peer bug 37: a failed extend deletes the key, and short TTLs underflow.
#[tokio::test(flavor = "multi_thread")]
async fn ttls_are_refused_or_kept_and_a_refused_refresh_touches_nothing() {
    let server = Server::start(&[]);
    let locks = manager(&server).await;
    let lock = locks.lock("k").await.unwrap();
    let left: i64 = server.ask("PTTL lock:k");
    for short in (1..10).map(Duration::from_millis) {
        let too_short = LockError::InvalidTtl(TtlFault::TooShort { min: Duration::from_millis(10) });
        assert_eq!(locks.try_lock("short").ttl(short).await.unwrap_err(), too_short);
        assert_eq!(lock.refresh_for(short).await.unwrap_err(), too_short);
    }
    assert!(lock.is_held());
    let now: i64 = server.ask("PTTL lock:k");
    assert!(now > 0 && now <= left);
    assert_eq!(lock.refresh_for(Duration::from_millis(10)).await.map(|done| done.remaining > LONG / 2), Ok(true));
    // The shortest there is: granted for a moment, or over before it was seen.
    for _ in 0..20 {
        match locks.try_lock("short").ttl(Duration::from_millis(10)).await {
            Ok(lock) => assert!(lock.remaining() < Duration::from_millis(10)),
            Err(error) => assert!(matches!(error, LockError::Lost(_) | LockError::StoreUnavailable | LockError::Held)),
        }
        until("the end of the key", || !exists(&server, "lock:short"));
    }
}

/// Peer bug 14: blocked by one's own earlier attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_with_the_same_token_is_not_blocked_by_the_lost_answer() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    let direct = manager(&server).await;
    drop(locks.lock("warm").await.unwrap());
    let token = leasehold::Token::random();
    // An answer that came, to a caller that did not: the same lock, with the same fence.
    let first = direct.lock("seen").token(token).ticket().await.unwrap();
    let again = locks.try_lock("seen").token(token).ticket().await.unwrap();
    assert_eq!(again.fencing_token(), first.fencing_token());
    // An answer that was lost on its way.
    proxy.lose_reply_of(&token.to_string(), Then::Reset);
    assert_eq!(locks.try_lock("k").token(token).ticket().await.unwrap_err(), LockError::StoreUnavailable);
    until("a grant to the same token", || match block_in_place(|| locks.try_lock("k").token(token).block()) {
        Ok(lock) => lock.unlock_now() == Release::Released,
        Err(LockError::StoreUnavailable) => false,
        Err(error) => panic!("blocked by itself: {error}"),
    });
}

/// Peer bug 1: a missed message costs the waiter a whole lease.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiter_that_hears_nothing_polls() {
    let server = Server::start(&[]);
    // May do everything but listen.
    server.ask::<()>("ACL SETUSER deaf on >pw ~* &* +@all -subscribe -psubscribe -client|tracking");
    let deaf = builder(&server.url().replace("redis://", "redis://deaf:pw@")).build_and_connect().await.unwrap();
    let locks = manager(&server).await;
    for _ in 0..3 {
        let lock = locks.lock("k").await.unwrap();
        let waiter = queue(&deaf, "k");
        until("the waiter's place", || places(&server) == 1);
        assert_eq!(lock.unlock().await, Release::Released);
        assert_eq!(waiter.await.unwrap().unwrap().unlock().await, Release::Released);
    }
    // And one whose lock is released just between its try and its subscription.
    for polls in 0..30 {
        let lock = locks.lock("k").wait(LONG).await.unwrap();
        let waiter = queue(&locks, "k");
        poll_some(std::future::pending::<()>(), polls * 3).await;
        drop(lock);
        drop(waiter.await.unwrap().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_delay_keeps_the_key_from_everybody_after_its_holder_ran_out() {
    let server = Server::start(&[]);
    let delayed = |delay| {
        let store = RedisStore::builder(&server.url()).lock_delay(delay).build().unwrap();
        LockManager::builder().ttl(LONG).store(store).build_and_connect()
    };
    let (one, two) = (delayed(LONG).await.unwrap(), manager(&server).await);
    let lock = one.lock("k").ttl(Duration::from_millis(500)).await.unwrap();
    assert_eq!(lock.lost().await, Some(Loss::Expired), "the holder is told its own time");
    drop(lock);
    for locks in [&one, &two] {
        assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    }
    assert_eq!(server.ask::<Option<String>>("SET lock:k theirs NX PX 1000"), None, "strangers respect it too");
    // One that is released in time is free at once.
    let released = one.lock("released").ttl(LONG).await.unwrap();
    assert_eq!(released.unlock().await, Release::Released);
    assert!(two.try_lock("released").await.is_ok());
    // And when the delay is over, who waits gets it.
    let short = delayed(Duration::from_millis(300)).await.unwrap();
    let lock = short.lock("short").ttl(Duration::from_millis(500)).await.unwrap();
    let waiter = queue(&two, "short");
    assert_eq!(lock.lost().await, Some(Loss::Expired));
    assert!(waiter.await.unwrap().unwrap().is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_built_before_its_store_is_there_hears_all_that_others_do() {
    let mut server = Server::start(&[]);
    server.kill9();
    let locks = builder(&server.url()).build().unwrap();
    // Longer than it listens for at first.
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::StoreUnavailable);
    std::thread::sleep(Duration::from_secs(1));
    server.restart();
    let lock = locks.lock("k").wait(LONG).await.unwrap();
    let other = manager(&server).await;
    until("ears", || server.ask::<(String, i64)>("PUBSUB NUMSUB leasehold:forced:0").1 == 2);
    assert_eq!(other.force_release("k").await, Ok(Release::Released));
    assert_eq!(lock.lost().await, Some(Loss::Forced));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_during_an_outage_ends_and_leaves_what_is_held_to_time() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    let (held, waiting) = (locks.lock("held").await.unwrap(), queue(&locks, "held"));
    until("the waiting one", || locks.stats().waiting == 1);
    drop(locks.lock("released").await.unwrap());
    until("its release", || !exists(&server, "lock:released"));
    proxy.cut();
    assert_eq!(locks.shutdown(Duration::ZERO).await, 1);
    assert_eq!(waiting.await.unwrap().unwrap_err(), LockError::ShuttingDown);
    assert_eq!(held.lost().await, Some(Loss::ShutDown));
    proxy.heal();
    assert!(exists(&server, "lock:held") && server.ask::<i64>("PTTL lock:held") > 0, "it runs out by itself (R28)");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_answers_when_the_store_has_let_go() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.address());
    let locks = builder(&proxy.url()).build_and_connect().await.unwrap();
    let me = locks.session("me").ttl(LONG);
    let mut held = Vec::new();
    for key in ["a", "b", "c"] {
        held.push(me.lock(key).await.unwrap());
    }
    proxy.delay(Direction::ToServer, Duration::from_millis(200));
    assert_eq!(me.end().await, Release::Released);
    for key in ["a", "b", "c"] {
        assert!(!exists(&server, &format!("lock:{key}")));
    }
}
