//! Fear: the loss of a lock is told late, twice, or never (peer bugs 16, 32).
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::{LockError, LockManager, Loss, ManualClock};

const TTL: Duration = Duration::from_secs(30);

/// Peer bug 32: a handler that comes late hangs, or is told twice.
#[actix_rt::test]
async fn the_signal_comes_whether_one_asks_before_at_or_after_the_loss() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    let lock = locks.try_lock("k").ttl(TTL).await.unwrap();
    let before = lock.lost();
    let also_before = lock.lost();
    clock.jump(TTL);
    let at = lock.lost();
    clock.advance(Duration::ZERO);
    let after = lock.lost();
    for signal in [before, also_before, at, after] {
        assert_eq!(signal.await, Some(Loss::Expired));
    }
    assert_eq!(lock.lost().await, Some(Loss::Expired), "and once more, with no table entry left");
}

#[actix_rt::test]
async fn each_way_to_lose_a_lock_has_its_name() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("forced").await.unwrap();
    let lost = lock.lost();
    locks.force_release("forced").await.unwrap();
    assert_eq!(lost.await, Some(Loss::Forced));

    let lock = locks.try_lock("token").await.unwrap();
    let lost = lock.lost();
    locks.release("token", lock.token()).await.unwrap();
    assert_eq!(lost.await, Some(Loss::Released), "somebody else had the token");

    let lock = locks.try_lock("unlocked").await.unwrap();
    let lost = lock.lost();
    lock.unlock().await;
    assert_eq!(lost.await, None);

    let lock = locks.try_lock("dropped").await.unwrap();
    let lost = lock.lost();
    drop(lock);
    assert_eq!(lost.await, None);

    let lock = locks.try_lock("shutdown").await.unwrap();
    let lost = lock.lost();
    locks.shutdown(Duration::ZERO).await;
    assert_eq!(lost.await, Some(Loss::ShutDown));
}

#[tokio::test]
async fn the_signal_comes_from_a_timer_when_nobody_touches_the_key() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("k").ttl(Duration::from_millis(30)).await.unwrap();
    assert_eq!(lock.lost().await, Some(Loss::Expired));
    assert!(!lock.is_held());
}

#[tokio::test]
async fn a_hundred_listeners_of_one_lock_are_all_told() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("k").await.unwrap();
    let listeners: Vec<_> = (0..100).map(|_| tokio::spawn(lock.lost())).collect();
    tokio::task::yield_now().await;
    locks.force_release("k").await.unwrap();
    for listener in listeners {
        assert_eq!(listener.await.unwrap(), Some(Loss::Forced));
    }
}

#[actix_rt::test]
async fn a_view_hears_of_a_clean_end_as_one_however_late_it_asks() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("k").await.unwrap();
    let view = lock.held();
    lock.unlock().await;
    assert_eq!(view.lost().await, None);
    assert!(!view.is_held());
    assert_eq!(view.ensure_held(), Err(leasehold::LockError::Lost(Loss::Released)));
    let dropped = locks.try_lock("k").await.map(|lock| lock.held()).unwrap();
    assert_eq!(dropped.lost().await, None);
}

#[actix_rt::test]
async fn a_clone_of_a_guard_is_a_view_that_knows_how_the_lock_ended() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("k").await.unwrap();
    let (view, clone) = (lock.held(), lock.clone());
    let shared = locks.singleflight_lock("s").await.unwrap();
    let of_shared = shared.clone();
    drop((lock, shared));
    assert_eq!(view.ensure_held(), Err(LockError::Lost(Loss::Released)));
    assert_eq!(clone.ensure_held(), view.ensure_held());
    assert_eq!(of_shared.ensure_held(), view.ensure_held());

    // The view of a lock that became a ticket lets another guard have it.
    let lock = locks.try_lock("t").await.unwrap();
    let view = lock.held();
    let ticket = lock.detach();
    let _another = view.clone();
    assert!(locks.restore(&ticket).is_ok());
}
