//! Fear: what is to happen by time does not, because somebody else was there first, or because the shard was idle.

use std::time::Duration;

use leasehold::retry::FixedInterval;
use leasehold::{LockError, LockManager, Loss};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A manager whose actors have found nothing to do and sleep for a minute.
async fn idle() -> LockManager {
    let locks = LockManager::builder().build().unwrap();
    tokio::time::sleep(ms(50)).await;
    locks
}

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("a timer of the manager has not come")
}

#[tokio::test]
async fn a_sweep_by_hand_leaves_every_timer_armed() {
    let locks = idle().await;
    let held = locks.try_lock("k").await.unwrap();
    let short = locks.try_lock("short").ttl(ms(200)).await.unwrap();
    let kept = locks.try_lock("kept").ttl(ms(300)).await.unwrap();
    assert_eq!(locks.clean_expired_locks(), 0);
    assert_eq!(locks.stats().active, 3);
    let timed_out = soon(async { locks.lock("k").wait(ms(100)).await }).await;
    assert!(matches!(timed_out, Err(LockError::Timeout { .. })));
    assert_eq!(soon(short.lost()).await, Some(Loss::Expired));
    assert!(held.is_held());
    drop(kept);

    // Longer than any machine stalls.
    let kept = locks.try_lock("kept").ttl(Duration::from_mins(1)).await.unwrap();
    let _refreshing = kept.auto_refresh(ms(100), ms(100)).unwrap();
    assert_eq!(locks.clean_expired_locks(), 0);
    soon(async {
        while locks.stats().refreshed < 5 {
            tokio::time::sleep(ms(10)).await;
        }
    })
    .await;
    assert!(kept.is_held());
}

#[tokio::test]
async fn a_poller_that_sleeps_hears_of_a_shutdown() {
    let locks = idle().await;
    let _held = locks.try_lock("k").await.unwrap();
    let poller = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").retry(FixedInterval::new(Duration::from_secs(3_600), 9)).await.map(drop) }
    });
    while locks.key_stats("k").await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    locks.shutdown(Duration::ZERO).await;
    assert_eq!(soon(poller).await.unwrap(), Err(LockError::ShuttingDown));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_what_has_run_out_or_runs_out_meanwhile() {
    let locks = idle().await;
    for n in 0..64 {
        let _ticket = locks.try_lock(format!("k{n}")).ttl(ms(20)).ticket().await.unwrap();
        let _ticket = locks.try_lock(format!("l{n}")).ttl(ms(300)).ticket().await.unwrap();
    }
    tokio::time::sleep(ms(50)).await;
    assert_eq!(soon(locks.shutdown(Duration::from_secs(3_600))).await, 0);
    assert_eq!(locks.stats().expired, 128);
}

#[tokio::test]
async fn a_table_full_of_dead_locks_is_not_full() {
    let locks = LockManager::builder().shards(1).max_keys(3).build().unwrap();
    for key in ["a", "b", "c"] {
        let _ticket = locks.try_lock(key).ttl(ms(10)).ticket().await.unwrap();
    }
    assert_eq!(locks.try_lock("d").await.unwrap_err(), LockError::TooManyKeys);
    tokio::time::sleep(ms(30)).await;
    assert!(locks.try_lock("d").await.is_ok());
    assert_eq!(locks.stats().active, 0);
}
