//! Fear: two holders at once (T1), or a fence that does not rise (T4).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use leasehold::{LockError, LockManager};

#[actix_rt::test]
async fn a_held_lock_is_refused_and_a_released_one_is_granted_again() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("order:42").await.unwrap();
    assert_eq!(locks.try_lock("order:42").await.unwrap_err(), LockError::Held);
    assert!(locks.try_lock("order:43").await.is_ok(), "another key is another lock");
    let first = lock.fencing_token();
    drop(lock);
    let again = locks.lock("order:42").wait(Duration::from_secs(1)).await.unwrap();
    assert!(again.fencing_token() > first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_on_several_threads_never_hold_one_key_together() {
    const TASKS: usize = 32;
    const ROUNDS: usize = 200;
    const KEYS: usize = 3;
    let locks = LockManager::builder().build().unwrap();
    let inside: Arc<[AtomicU32; KEYS]> = Arc::default();
    let fences: Arc<[AtomicU64; KEYS]> = Arc::default();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (locks, inside, fences) = (locks.clone(), Arc::clone(&inside), Arc::clone(&fences));
            tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let at = (task + round) % KEYS;
                    let lock = locks.lock(format!("key:{at}")).wait_forever().await.unwrap();
                    assert_eq!(inside[at].fetch_add(1, Ordering::SeqCst), 0, "two holders");
                    let fence = lock.fencing_token().unwrap().get();
                    assert!(fences[at].swap(fence, Ordering::SeqCst) < fence, "the fence must rise");
                    if round % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    inside[at].fetch_sub(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = locks.stats();
    assert_eq!((stats.granted, stats.active, stats.waiting), ((TASKS * ROUNDS) as u64, 0, 0));
}

#[test]
fn fences_rise_across_idle_periods_and_across_managers() {
    let mut last: HashMap<&str, u64> = HashMap::new();
    for _ in 0..3 {
        let locks = LockManager::builder().build().unwrap();
        for _ in 0..100 {
            for key in ["a", "b"] {
                let fence = locks.try_lock_now(key).unwrap().fencing_token().unwrap().get();
                assert!(last.insert(key, fence).is_none_or(|before| before < fence), "{key}");
            }
        }
        // A restart takes longer than the 200 grants took microseconds.
        std::thread::sleep(Duration::from_millis(2));
    }
}
