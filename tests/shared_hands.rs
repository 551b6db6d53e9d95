//! Fear: what one owner does with a lock takes it from another, or from itself.
#![cfg(feature = "test-util")]

use std::future::IntoFuture;

use futures_util::poll;
use leasehold::{LockError, LockManager, ManualClock, Release};

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

#[actix_rt::test]
async fn a_future_dropped_before_it_saw_its_grant_leaves_it_to_the_same_owners_other_request() {
    let (locks, _clock) = manager();
    let me = locks.session("me").reentrant();
    let other = locks.lock("k").await.unwrap();
    let mut first = me.lock("k").into_future();
    assert!(poll!(&mut first).is_pending());
    drop(other);
    let second = me.lock("k").await.unwrap();
    drop(first);
    assert!(second.is_held());
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    assert_eq!((second.unlock().await, me.locks()), (Release::Released, 0));
    assert!(!locks.is_locked("k").await.unwrap());
}

#[actix_rt::test]
async fn a_callback_is_nobody_to_another_manager() {
    let (locks, _clock) = manager();
    let (others, _other_clock) = manager();
    let me = locks.session("me");
    let ran = me.run("a", async |_| others.lock("b").await.unwrap()).await.unwrap();
    me.end().await;
    assert!(ran.value.is_held(), "the session is of another manager");
}
