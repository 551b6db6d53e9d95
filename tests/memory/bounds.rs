//! Fear: a queue or table without a bound, or a bound that loses what it already took in (T7, T9; peer bug 23).

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use leasehold::{LockError, LockManager};

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_full_queue_refuses_at_once_and_keeps_its_waiters() {
    let locks = LockManager::builder().max_waiters_per_key(2).build().unwrap();
    let holder = locks.try_lock_now("k").unwrap();
    let mut first = locks.lock("k").into_future();
    let mut second = locks.lock("k").into_future();
    assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
    assert!(matches!(poll_once(locks.lock("k").into_future()), Poll::Ready(Err(LockError::QueueFull))));
    let _other = locks.try_lock_now("other").unwrap();
    assert!(poll_once(locks.lock("other").into_future()).is_pending(), "another key has its own queue");
    drop(holder);
    assert!(matches!(poll_once(&mut first), Poll::Ready(Ok(_))));
}

#[test]
fn waiters_are_bounded_over_all_keys_together() {
    let locks = LockManager::builder().max_waiters(2).build().unwrap();
    let _holders: Vec<_> = ["a", "b", "c"].map(|key| locks.try_lock_now(key).unwrap()).into();
    let mut waiters: Vec<_> = ["a", "b"].map(|key| locks.lock(key).into_future()).into();
    for waiter in &mut waiters {
        assert!(poll_once(waiter).is_pending());
    }
    assert!(matches!(poll_once(locks.lock("c").into_future()), Poll::Ready(Err(LockError::QueueFull))));
    waiters.pop();
    assert!(poll_once(locks.lock("c").into_future()).is_pending(), "a place came free");
}

#[test]
fn a_full_table_refuses_new_keys_and_goes_on_serving_the_old() {
    let locks = LockManager::builder().shards(1).max_keys(2).build().unwrap();
    let a = locks.try_lock_now("a").unwrap();
    let _b = locks.try_lock_now("b").unwrap();
    assert_eq!(locks.try_lock_now("c").unwrap_err(), LockError::TooManyKeys);
    assert!(matches!(poll_once(locks.lock("c").into_future()), Poll::Ready(Err(LockError::TooManyKeys))));
    assert_eq!(locks.try_lock_now("b").unwrap_err(), LockError::Held, "a known key is answered as ever");
    drop(a);
    assert!(locks.try_lock_now("c").is_ok());
    assert!(locks.try_lock_now("a").is_ok());
}

#[test]
fn many_who_share_a_key_leave_room_for_other_keys_and_have_a_bound_of_their_own() {
    let locks = LockManager::builder().shards(1).max_keys(3).max_holders(100).build().unwrap();
    let permit = || locks.semaphore("pool", 1000).try_permits(1).now();
    let mut permits: Vec<_> = (0..101).map(|_| permit().unwrap()).collect();
    assert_eq!(permit().unwrap_err(), LockError::TooManyHolders);
    assert_eq!(LockError::TooManyHolders.code(), "too_many_holders");
    let others = ["a", "b"].map(|key| locks.try_lock_now(key).unwrap());
    assert_eq!(locks.try_lock_now("c").unwrap_err(), LockError::TooManyKeys);
    // The first of all may be the one that goes; then there is room for one.
    drop(permits.swap_remove(0));
    permits.push(permit().unwrap());
    permits.pop();
    permits.pop();
    permits.extend([permit().unwrap(), permit().unwrap()]);
    assert_eq!(permit().unwrap_err(), LockError::TooManyHolders);
    drop((permits, others));
    assert_eq!(locks.stats().active, 0);
}

#[test]
fn a_pool_of_a_hundred_thousand_permits_is_granted_to_the_last() {
    let locks = LockManager::builder().build().unwrap();
    let pool = locks.semaphore("pool", 100_000);
    let permits: Vec<_> = (0..100_000).map(|_| pool.try_permits(1).now().unwrap()).collect();
    assert_eq!(pool.try_permits(1).now().unwrap_err(), LockError::Held);
    for n in 0..100 {
        drop(locks.try_lock_now(format!("other:{n}").as_str()).unwrap());
    }
    drop(permits);
    assert_eq!(locks.stats().active, 0);
}

/// Peer bug 23: idle keys leak.
#[test]
fn a_million_keys_leave_nothing_behind() {
    let locks = LockManager::builder().build().unwrap();
    for n in 0..1_000_000 {
        drop(locks.try_lock_now(format!("k{n}")).unwrap());
    }
    let stats = locks.stats();
    assert_eq!((stats.granted, stats.dropped, stats.active), (1_000_000, 1_000_000, 0));
    assert!(locks.list("", 10).is_empty());
}

/// Peer bug 23: removing an idle key gives two mutexes for one key.
#[test]
fn keys_that_come_and_go_on_two_threads_keep_their_exclusion() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let locks = LockManager::builder().shards(1).build().unwrap();
    let inside = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50_000 {
                    if let Ok(_lock) = locks.try_lock_now("k") {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two locks for one key");
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(locks.stats().active, 0);
}
