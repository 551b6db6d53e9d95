//! Fear: what one owner does with a lock takes it from another, or from itself.
#![cfg(feature = "test-util")]

use std::future::IntoFuture;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::{FutureExt, poll};
use leasehold::{LockError, LockManager, LockOptions, ManualClock, Outcome, Release};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

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

#[actix_rt::test]
async fn a_shared_acquisition_outlives_the_session_of_the_caller_that_began_it() {
    let (locks, _clock) = manager();
    let holder = locks.lock("k").await.unwrap();
    let me = locks.session("me");
    let mut first = Box::pin(me.run("a", async |_| locks.singleflight_lock("k").await).into_future());
    assert!(poll!(&mut first).is_pending());
    let mut second = locks.singleflight_lock("k").into_future();
    assert!(poll!(&mut second).is_pending());
    drop(holder);
    let first = first.await.unwrap().value.unwrap();
    let second = second.await.unwrap();
    assert_eq!(first.fencing_token(), second.fencing_token());
    me.end().await;
    assert!(second.is_held(), "it is not the session's alone");
}

#[actix_rt::test]
async fn a_poller_whose_pauses_panic_waits_for_nothing_any_more() {
    let (locks, _clock) = manager();
    let (me, you) = (locks.session("me"), locks.session("you"));
    let (mine, _yours) = (me.lock("mine").await.unwrap(), you.lock("yours").await.unwrap());
    let pauses = std::iter::from_fn(|| -> Option<Duration> { panic!("a test's pauses panic") });
    let polled = AssertUnwindSafe(me.lock("yours").retry(pauses).into_future()).catch_unwind().await;
    assert!(polled.is_err());
    let mut wait = you.lock("mine").into_future();
    assert!(poll!(&mut wait).is_pending(), "nobody waits for what `you` has");
    drop(mine);
    assert!(wait.await.is_ok());
}

#[actix_rt::test]
async fn options_taken_all_at_once_leave_a_request_its_session() {
    let (locks, _clock) = manager();
    let me = locks.session("me");
    let _lock = me.lock("k").options(LockOptions::new().wait(secs(1))).await.unwrap();
    assert_eq!(me.locks(), 1);
    assert_eq!(
        me.try_run("l", async |_| me.locks()).options(LockOptions::new()).await.map(|o| match o {
            Outcome::Ran(ran) => ran.value,
            Outcome::Busy => 0,
        }),
        Ok(2)
    );
}
