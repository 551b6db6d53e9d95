//! Fear: somebody passes the queue (T2).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold::retry::FixedInterval;
use leasehold::{LockError, LockManager};

async fn until_waiting(locks: &LockManager, count: u64) {
    while locks.stats().waiting != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn waiters_are_granted_in_the_order_in_which_they_queued() {
    let locks = LockManager::builder().build().unwrap();
    let holder = locks.try_lock("k").await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..50_u64 {
        let (locks_of_task, order) = (locks.clone(), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let _lock = locks_of_task.lock("k").wait_forever().await.unwrap();
            order.lock().unwrap().push(n);
        }));
        until_waiting(&locks, n + 1).await;
    }
    drop(holder);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_fresh_request_never_passes_a_waiting_one() {
    let locks = LockManager::builder().build().unwrap();
    let holder = locks.try_lock("k").await.unwrap();
    let waiter = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").wait_forever().await.unwrap() }
    });
    until_waiting(&locks, 1).await;
    drop(holder);
    // The waiter has not run yet, but the key is already its own.
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    assert_eq!(locks.try_lock_now("k").unwrap_err(), LockError::Held);
    assert!(waiter.await.unwrap().is_held());
}

#[tokio::test]
async fn a_poller_stands_behind_every_waiter() {
    let locks = LockManager::builder().build().unwrap();
    let mut holder = locks.try_lock("k").await.unwrap();
    let poller = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").retry(FixedInterval::new(Duration::from_millis(1), usize::MAX)).await.unwrap() }
    });
    for round in 0..20 {
        let waiter = tokio::spawn({
            let locks = locks.clone();
            async move { locks.lock("k").wait_forever().await.unwrap() }
        });
        until_waiting(&locks, 1).await;
        drop(holder);
        holder = waiter.await.unwrap();
        assert!(!poller.is_finished(), "round {round}");
    }
    drop(holder);
    assert!(poller.await.unwrap().is_held(), "free at last");
}

#[tokio::test]
async fn pollers_give_up_when_their_pauses_or_their_wait_end() {
    let locks = LockManager::builder().build().unwrap();
    let _holder = locks.try_lock("k").await.unwrap();
    let pauses = FixedInterval::new(Duration::from_millis(2), 3);
    match locks.lock("k").retry(pauses).await.unwrap_err() {
        LockError::Timeout { waited } => assert!(waited >= Duration::from_millis(6), "{waited:?}"),
        other => panic!("{other}"),
    }
    let endless = FixedInterval::new(Duration::from_secs(3600), usize::MAX);
    match locks.lock("k").retry(endless).wait(Duration::from_millis(5)).await.unwrap_err() {
        LockError::Timeout { waited } => assert!(waited >= Duration::from_millis(5), "{waited:?}"),
        other => panic!("{other}"),
    }
    let stats = locks.stats();
    assert_eq!((stats.timed_out, stats.failed, stats.busy), (2, 2, 0), "tries between the pauses are no attempts");
}
