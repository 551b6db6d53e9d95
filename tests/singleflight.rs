//! Fear: a shared call takes its followers down with it, runs twice at once, or leaves its key behind (peer bug 40).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use leasehold::LockManager;
use tokio::sync::Notify;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_who_ask_while_a_call_runs_share_its_value() {
    let locks = LockManager::builder().build().unwrap();
    let (calls, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (locks, calls, gate) = (locks.clone(), Arc::clone(&calls), Arc::clone(&gate));
            tokio::spawn(async move {
                let call = || async {
                    gate.notified().await;
                    calls.fetch_add(1, Ordering::SeqCst)
                };
                locks.singleflight("k", call).await.unwrap()
            })
        })
        .collect();
    while !locks.is_locked("k").await.unwrap() {
        tokio::task::yield_now().await;
    }
    // Everybody is in before the call may end.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    gate.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 0);
    }
    let later = locks.singleflight("k", || async { calls.fetch_add(1, Ordering::SeqCst) }).await;
    assert_eq!(later, Ok(1), "who asks later asks anew");
    let stats = locks.stats();
    assert_eq!((stats.flights_led, stats.flights_shared, stats.active), (2, 49, 0));
}

/// Peer bug 40: a cancelled leader takes its followers along.
#[tokio::test]
async fn a_dropped_leader_leaves_the_call_to_a_follower() {
    let locks = LockManager::builder().build().unwrap();
    let leader = tokio::spawn({
        let locks = locks.clone();
        async move { locks.singleflight("k", std::future::pending::<u8>).await }
    });
    while !locks.is_locked("k").await.unwrap() {
        tokio::task::yield_now().await;
    }
    let followers: Vec<_> = (0..3_u8)
        .map(|n| {
            let locks = locks.clone();
            tokio::spawn(async move { locks.singleflight("k", || async move { n }).await.unwrap() })
        })
        .collect();
    tokio::task::yield_now().await;
    leader.abort();
    let mut values = Vec::new();
    for follower in followers {
        values.push(follower.await.unwrap());
    }
    assert_eq!(values, [values[0]; 3], "one of them called, for all of them");
}

#[tokio::test]
async fn a_panicking_leader_leaves_the_call_to_a_follower() {
    let locks = LockManager::builder().build().unwrap();
    let gate = Arc::new(Notify::new());
    let leader = tokio::spawn({
        let (locks, gate) = (locks.clone(), Arc::clone(&gate));
        async move {
            let call = || async {
                gate.notified().await;
                panic!("in the leader")
            };
            locks.singleflight::<_, u8, _, _>("k", call).await
        }
    });
    while !locks.is_locked("k").await.unwrap() {
        tokio::task::yield_now().await;
    }
    let follower = tokio::spawn({
        let locks = locks.clone();
        async move { locks.singleflight("k", || async { 7_u8 }).await }
    });
    tokio::task::yield_now().await;
    gate.notify_one();
    assert!(leader.await.unwrap_err().is_panic());
    assert_eq!(follower.await.unwrap(), Ok(7));
}

#[tokio::test]
async fn errors_are_shared_as_values_and_types_do_not_meet() {
    let locks = LockManager::builder().build().unwrap();
    let failed: Result<Result<u8, String>, _> = locks.singleflight("k", || async { Err("no".to_owned()) }).await;
    assert_eq!(failed, Ok(Err("no".to_owned())));
    let (text, number) =
        tokio::join!(locks.singleflight("k", || async { "text" }), locks.singleflight("k", || async { 1_u8 }));
    assert_eq!((text, number), (Ok("text"), Ok(1)));
}

#[tokio::test]
async fn callers_of_one_flight_wait_for_the_lock_together_and_not_one_after_the_other() {
    let wait = std::time::Duration::from_millis(200);
    let locks = LockManager::builder().wait(wait).build().unwrap();
    let _held = locks.try_lock("k").await.unwrap();
    let started = std::time::Instant::now();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let locks = locks.clone();
            tokio::spawn(async move { locks.singleflight("k", || async { 1_u8 }).await })
        })
        .collect();
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(leasehold::LockError::Timeout { .. })));
    }
    // One after the other they would have waited for ten seconds.
    assert!(started.elapsed() < wait * 25, "{:?}", started.elapsed());
}
