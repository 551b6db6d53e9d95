//! Fear: a shutdown that hangs, hands on what is still in use, or forgets somebody who waits.

use std::time::Duration;

use leasehold::{LockError, LockManager, Loss, Release};

#[tokio::test]
async fn shutdown_refuses_waiters_at_once_and_waits_for_holders() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("k").await.unwrap();
    let waiter = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").wait_forever().await.map(drop) }
    });
    while locks.stats().waiting == 0 {
        tokio::task::yield_now().await;
    }
    let shutdown = tokio::spawn({
        let locks = locks.clone();
        async move { locks.shutdown(Duration::from_secs(60)).await }
    });
    assert_eq!(waiter.await.unwrap(), Err(LockError::ShuttingDown));
    assert_eq!(locks.try_lock("other").await.unwrap_err(), LockError::ShuttingDown);
    assert!(lock.is_held() && lock.refresh().await.is_ok(), "who holds goes on holding");
    assert!(!shutdown.is_finished());
    assert_eq!(lock.unlock().await, Release::Released);
    assert_eq!(shutdown.await.unwrap(), 0);
    assert_eq!(locks.shutdown(Duration::from_secs(60)).await, 0, "again is harmless");
}

#[tokio::test]
async fn locks_that_outlive_the_grace_are_lost_and_counted() {
    let locks = LockManager::builder().build().unwrap();
    let held: Vec<_> = (0..300).map(|n| locks.try_lock_now(format!("k{n}")).unwrap()).collect();
    let lost = held[7].lost();
    assert_eq!(locks.shutdown(Duration::from_millis(10)).await, 300);
    assert_eq!(lost.await, Some(Loss::ShutDown));
    assert_eq!(held[8].refresh().await, Err(LockError::Lost(Loss::ShutDown)));
    for lock in held {
        assert_eq!(lock.unlock().await, Release::AlreadyGone);
    }
    let stats = locks.stats();
    assert_eq!((stats.shut_down, stats.active), (300, 0));
    assert_eq!(locks.lock("k").await.unwrap_err(), LockError::ShuttingDown);
}
