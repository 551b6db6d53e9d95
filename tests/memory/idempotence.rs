//! Fear: a retry after a lost answer blocks on itself, or gets a second lock (T11, T12; peer bugs 4, 14).
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::{LockError, LockManager, Loss, ManualClock, Release, Token};

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

const TTL: Duration = Duration::from_secs(30);

#[actix_rt::test]
async fn a_retried_request_gets_the_same_lock_with_nothing_re_dated() {
    let (locks, clock) = manager();
    let token = Token::random();
    let first = locks.lock("k").ttl(TTL).token(token).ticket().await.unwrap();
    clock.advance(Duration::from_secs(10));
    let again = locks.lock("k").ttl(TTL).token(token).ticket().await.unwrap();
    assert_eq!(first, again);
    assert_eq!(again.token(), token);
    let info = locks.inspect("k").await.unwrap().unwrap();
    assert_eq!((info.remaining, info.refreshes), (Duration::from_secs(20), 0));
    assert_eq!(locks.stats().granted, 1);
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
}

#[actix_rt::test]
async fn a_retried_request_shares_the_place_in_the_queue() {
    let (locks, _) = manager();
    let holder = locks.try_lock("k").await.unwrap();
    let token = Token::random();
    let ask = || {
        let locks = locks.clone();
        actix_rt::spawn(async move { locks.lock("k").token(token).ticket().await })
    };
    let (first, again) = (ask(), ask());
    let (dropped, other) = (ask(), {
        let locks = locks.clone();
        actix_rt::spawn(async move { locks.lock("k").await.map(|lock| lock.fencing_token()) })
    });
    while locks.stats().waiting < 2 {
        actix_rt::task::yield_now().await;
    }
    dropped.abort();
    let _ = dropped.await;
    assert_eq!(locks.stats().waiting, 2, "one place for the token, one for the other");
    drop(holder);
    let (first, again) = (first.await.unwrap().unwrap(), again.await.unwrap().unwrap());
    assert_eq!(first, again);
    assert_eq!(locks.release("k", token).await, Ok(Release::Released));
    assert!(other.await.unwrap().unwrap() > first.fencing_token());
    assert_eq!(locks.lock("k").token(token).ticket().await, Err(LockError::Lost(Loss::Released)));
}

#[actix_rt::test]
async fn one_token_for_several_keys_is_a_lock_and_a_place_in_the_queue_of_each() {
    // One shard, so that all keys meet in it.
    let locks = LockManager::builder().shards(1).build().unwrap();
    let token = Token::random();
    let holder = locks.try_lock("busy").await.unwrap();
    let queued = ["busy", "other"].map(|key| {
        let locks = locks.clone();
        actix_rt::spawn(async move { locks.lock(key).token(token).ticket().await })
    });
    let [waits, other] = queued;
    let other = other.await.unwrap().unwrap();
    while locks.stats().waiting < 1 {
        actix_rt::task::yield_now().await;
    }
    for key in ["free", "free too"] {
        let first = locks.lock(key).token(token).ticket().await.unwrap();
        assert_eq!(locks.lock(key).token(token).ticket().await.unwrap(), first, "the same at a retry");
        assert!(first.fencing_token() > other.fencing_token());
    }
    assert_eq!(locks.release("free", token).await, Ok(Release::Released));
    assert_eq!(locks.lock("free").token(token).ticket().await, Err(LockError::Lost(Loss::Released)));
    drop(holder);
    assert_eq!(waits.await.unwrap().unwrap().key().as_str(), "busy");
    for key in ["busy", "other", "free too"] {
        assert_eq!(locks.release(key, token).await, Ok(Release::Released), "{key}");
    }
    assert_eq!(locks.stats().active, 0);
}

#[actix_rt::test]
async fn a_token_with_other_terms_is_refused_and_changes_nothing() {
    let (locks, _) = manager();
    let token = Token::random();
    let lock = locks.lock("k").ttl(TTL).token(token).await.unwrap();
    assert_eq!(locks.lock("k").ttl(TTL * 2).token(token).ticket().await, Err(LockError::TokenReused));
    assert_eq!(locks.lock("k").ttl(TTL).owner("me").token(token).ticket().await, Err(LockError::TokenReused));
    assert_eq!(locks.lock("k").ttl(TTL).token(token).await.unwrap_err(), LockError::TokenReused, "a second guard");
    assert!(lock.is_held());
    assert_eq!(lock.remaining(), TTL);
}

#[actix_rt::test]
async fn an_ended_token_is_lost_with_its_reason() {
    let (locks, clock) = manager();
    let ask = |token| locks.lock("k").ttl(TTL).token(token).ticket();
    let (expired, forced) = (Token::random(), Token::random());
    ask(expired).await.unwrap();
    clock.advance(TTL);
    assert_eq!(ask(expired).await, Err(LockError::Lost(Loss::Expired)));
    ask(forced).await.unwrap();
    locks.force_release("k").await.unwrap();
    assert_eq!(ask(forced).await, Err(LockError::Lost(Loss::Forced)));
    let dropped = Token::random();
    drop(locks.lock("k").ttl(TTL).token(dropped).await.unwrap());
    assert_eq!(ask(dropped).await, Err(LockError::Lost(Loss::Released)));
}

#[actix_rt::test]
async fn a_late_retry_of_a_release_hits_no_newer_lock() {
    let (locks, clock) = manager();
    let old = locks.lock("k").ttl(TTL).ticket().await.unwrap();
    assert_eq!(locks.release("k", old.token()).await, Ok(Release::Released));
    let new = locks.lock("k").ttl(TTL).ticket().await.unwrap();
    assert_eq!(locks.release("k", old.token()).await, Ok(Release::AlreadyGone), "remembered");
    assert_eq!(locks.refresh("k", old.token(), None).await, Err(LockError::Lost(Loss::Released)));
    assert_eq!(locks.release("k", Token::random()).await, Err(LockError::NotHeld), "never seen");
    assert_eq!(locks.refresh("k", Token::random(), None).await, Err(LockError::NotHeld));
    assert!(locks.is_locked("k").await.unwrap());
    clock.advance(TTL);
    assert_eq!(locks.release("k", new.token()).await, Ok(Release::AlreadyGone), "run out");
    assert_eq!(locks.release("free", Token::random()).await, Ok(Release::AlreadyGone), "nothing to release");
    assert_eq!(locks.refresh("free", Token::random(), None).await, Err(LockError::Lost(Loss::Unknown)));
}

#[actix_rt::test]
async fn a_ticket_becomes_a_guard_once() {
    let (locks, _) = manager();
    let ticket = locks.try_lock("k").await.unwrap().detach();
    assert!(locks.is_locked("k").await.unwrap(), "detaching releases nothing");
    let lock = locks.restore(&ticket).unwrap();
    assert_eq!((lock.token(), lock.fencing_token()), (ticket.token(), ticket.fencing_token()));
    assert_eq!(locks.restore(&ticket).unwrap_err(), LockError::TokenReused);
    drop(lock);
    assert!(!locks.is_locked("k").await.unwrap());
    assert_eq!(locks.restore(&ticket).unwrap_err(), LockError::Lost(Loss::Released));
}

#[actix_rt::test]
async fn a_retry_in_another_callback_gets_the_same_lock() {
    let locks = LockManager::builder().build().unwrap();
    let token = Token::random();
    let ask = || locks.run("a", async |_| locks.lock("b").token(token).ticket().await);
    let first = ask().await.unwrap().value.unwrap();
    let again = ask().await.unwrap().value.unwrap();
    assert_eq!((first.token(), first.fencing_token()), (again.token(), again.fencing_token()));
}
