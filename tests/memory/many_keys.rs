//! Fear: half of a set of locks, or two sets that wait for each other.
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::{LockError, LockManager, ManualClock, Release};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[actix_rt::test]
async fn all_keys_are_locked_once_each_in_their_order_and_released_together() {
    let locks = LockManager::builder().build().unwrap();
    let many = locks.lock_many(["b", "a", "c", "a"]).owner("me").await.unwrap();
    let keys: Vec<&str> = many.locks().iter().map(|lock| lock.key().as_str()).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    assert!(many.is_held());
    assert_eq!(many.unlock().await, Release::Released);
    assert_eq!(locks.stats().active, 0);
}

#[actix_rt::test]
async fn one_key_that_cannot_be_had_releases_the_others() {
    let locks = LockManager::builder().build().unwrap();
    let _held = locks.try_lock("b").await.unwrap();
    let refused = locks.lock_many(["a", "b", "c"]).wait(Duration::from_millis(10)).await;
    assert!(matches!(refused, Err(LockError::Timeout { waited }) if waited >= Duration::from_millis(10)));
    assert_eq!(locks.stats().active, 1);
    assert!(matches!(locks.lock_many(["a", ""]).await, Err(LockError::InvalidKey(_))));
    assert!(matches!(locks.lock_many([""; 0]).await, Err(LockError::InvalidOption { .. })));
    assert!(matches!(locks.lock_many(["a"]).ttl(Duration::ZERO).await, Err(LockError::InvalidTtl(_))));
    let too_many = (0..1_001).map(|n| n.to_string());
    assert!(matches!(locks.lock_many(too_many).await, Err(LockError::InvalidOption { .. })));
    assert_eq!(locks.stats().active, 1);
}

#[actix_rt::test]
async fn what_is_held_is_kept_while_the_rest_is_waited_for_and_all_end_together() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    let holder = locks.try_lock("b").ttl(secs(100)).await.unwrap();
    let many = actix_rt::spawn({
        let locks = locks.clone();
        async move { locks.lock_many(["a", "b"]).ttl(secs(9)).wait(secs(90)).await.unwrap() }
    });
    while locks.stats().waiting < 1 {
        actix_rt::task::yield_now().await;
    }
    (0..50).for_each(|_| clock.advance(secs(1)));
    drop(holder);
    let many = many.await.unwrap();
    let ends: Vec<_> = many.locks().iter().map(|lock| lock.remaining()).collect();
    assert_eq!(ends, [secs(9); 2]);
    clock.advance(secs(9));
    assert!(!many.is_held() && many.deadline().is_none(), "nothing refreshes them behind the caller's back");
    assert!(many.refresh().await.is_err());
    assert_eq!(many.unlock().await, Release::AlreadyGone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sets_that_overlap_in_any_order_never_deadlock() {
    let locks = LockManager::builder().build().unwrap();
    let tasks: Vec<_> = (0..16_usize)
        .map(|task| {
            let locks = locks.clone();
            tokio::spawn(async move {
                for round in 0..100 {
                    let keys = (0..4).map(|n| format!("k{}", (task * 7 + round * 3 + n * 5) % 8));
                    let many = locks.lock_many(keys).wait(secs(60)).await.unwrap();
                    tokio::task::yield_now().await;
                    assert!(many.is_held());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(locks.stats().active, 0);
}
