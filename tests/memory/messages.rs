//! Fear: an actor's caller gets other answers than a handle's, or a panic in the actor loses what it guards.
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::messages::{Acquire, GetStats, Inspect, Panic, Refresh, Release, TryLock};
use leasehold::{Key, LockError, LockManager, LockOptions};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

#[actix_rt::test]
async fn messages_answer_like_the_handles() {
    let locks = LockManager::builder().build().unwrap();
    let shard = locks.shard(&key("k"));
    let try_lock = |text| TryLock { key: key(text), options: LockOptions::new().owner("an actor") };
    let lock = shard.send(try_lock("k")).await.unwrap().unwrap();
    assert_eq!(shard.send(try_lock("k")).await.unwrap().unwrap_err(), LockError::Held);
    assert!(shard.send(try_lock("a key of any shard")).await.unwrap().is_ok());

    let info = shard.send(Inspect { key: key("k") }).await.unwrap().unwrap().unwrap();
    assert_eq!(info.owner.as_deref(), Some("an actor"));
    assert_eq!(info.fencing_token, lock.fencing_token());

    let bad = TryLock { key: key("x"), options: LockOptions::new().ttl(Duration::ZERO) };
    assert!(matches!(shard.send(bad).await.unwrap(), Err(LockError::InvalidTtl(_))));

    let refresh = |ttl| Refresh { key: key("k"), token: lock.token(), ttl };
    assert_eq!(shard.send(refresh(None)).await.unwrap().unwrap().count, 1);
    let ticket = lock.detach();
    let release = Release { key: key("k"), token: ticket.token() };
    assert_eq!(shard.send(release).await.unwrap(), Ok(leasehold::Release::Released));

    let stats = shard.send(GetStats).await.unwrap().unwrap();
    assert_eq!(stats, locks.stats());
    assert_eq!((stats.busy, stats.refreshed), (1, 1));
}

#[actix_rt::test]
async fn a_reply_whose_asker_has_gone_hands_the_lock_on() {
    let locks = LockManager::builder().build().unwrap();
    let shard = locks.shard(&key("k"));
    let holder = locks.try_lock("k").await.unwrap();
    let acquire = || Acquire { key: key("k"), options: LockOptions::new().wait_forever() };
    let gone = actix_rt::spawn(shard.send(acquire()));
    while locks.stats().waiting < 1 {
        actix_rt::task::yield_now().await;
    }
    let next = actix_rt::spawn(shard.send(acquire()));
    while locks.stats().waiting < 2 {
        actix_rt::task::yield_now().await;
    }
    gone.abort();
    let _ = gone.await;
    drop(holder);
    assert!(next.await.unwrap().unwrap().unwrap().is_held());
}

/// Peer bug 16: a panic in the background takes the locks along.
#[actix_rt::test]
async fn a_panic_in_the_actor_loses_no_lock_and_no_waiter() {
    let locks = LockManager::builder().shards(1).build().unwrap();
    let shard = locks.shard(&key("k"));
    let held = locks.try_lock("held").await.unwrap();
    let _short = locks.try_lock("k").ttl(Duration::from_millis(100)).await.unwrap();
    let waiter = actix_rt::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").wait_forever().await }
    });
    while locks.stats().waiting < 1 {
        actix_rt::task::yield_now().await;
    }
    for _ in 0..3 {
        shard.send(Panic).await.expect("the mailbox is still open");
    }
    assert!(held.is_held());
    assert!(waiter.await.unwrap().unwrap().is_held(), "the timer that hands the key on still runs");
    assert!(matches!(shard.send(GetStats).await.unwrap(), Ok(stats) if stats.expired == 1));
}

#[actix_rt::test]
async fn a_panic_in_what_a_message_brought_along_leaves_the_actor_alive() {
    #[derive(Clone)]
    struct PanicsWhenDropped;
    impl Iterator for PanicsWhenDropped {
        type Item = Duration;
        fn next(&mut self) -> Option<Duration> {
            None
        }
    }
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            // A second one on its way out would end the process, whoever's it is.
            assert!(std::thread::panicking(), "in the drop of a caller's iterator");
        }
    }
    let locks = LockManager::builder().shards(1).build().unwrap();
    let shard = locks.shard(&key("k"));
    let bomb = TryLock { key: key("k"), options: LockOptions::new().retry(PanicsWhenDropped) };
    let _ = shard.send(bomb).await;
    let _held = locks.try_lock("held").await.unwrap();
    let timed_out = locks.lock("held").wait(Duration::from_millis(20)).await;
    assert!(matches!(timed_out, Err(LockError::Timeout { .. })), "its timers still run");
    assert!(shard.send(GetStats).await.unwrap().is_ok(), "and it still answers");
}
