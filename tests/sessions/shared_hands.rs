//! Fear: what one owner does with a lock takes it from another, or from itself.

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

#[actix_rt::test]
async fn a_holder_that_asks_again_hears_of_a_notice_that_was_shortened() {
    let (locks, clock) = manager();
    let lock = locks.lock("k").await.unwrap();
    let heard = lock.revocation_notice();
    let mut long = locks.force_release("k").notice(secs(20)).into_future();
    assert!(poll!(&mut long).is_pending());
    assert!(heard.await.is_some());
    let mut short = locks.force_release("k").notice(secs(1)).into_future();
    assert!(poll!(&mut short).is_pending());
    assert_eq!(lock.revocation_notice().await, lock.deadline());
    clock.advance(secs(1));
}

#[actix_rt::test]
async fn a_late_cap_leaves_a_sessions_lock_the_deadline_that_it_has() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(30));
    let lock = me.lock("k").await.unwrap();
    clock.advance(secs(10));
    lock.max_hold(secs(1)).unwrap();
    assert_eq!(lock.remaining(), secs(20));
    me.heartbeat().await.unwrap();
    assert_eq!(lock.remaining(), secs(20));
    clock.advance(secs(20));
    assert!(!lock.is_held() && me.is_alive());
}

#[actix_rt::test]
async fn many_locks_at_once_leave_the_refreshing_of_a_callback_around_them_alone() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(9)).reentrant();
    let ran = me.run("a", async |held| {
        let both = me.lock_many(["a", "b"]).await.unwrap();
        for _ in 0..10 {
            clock.advance(secs(3));
        }
        assert!(held.is_held());
        both.unlock().await
    });
    let ran = ran.await.unwrap();
    assert_eq!((ran.value, ran.release), (Release::Released, Release::Released));
}

#[actix_rt::test]
async fn a_callback_in_a_lock_that_was_there_before_leaves_no_order_to_refresh_it_behind() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(9)).reentrant();
    let outer = me.lock("a").await.unwrap();
    let ran = me.run("a", async |_| ()).await.unwrap();
    assert_eq!(ran.release, Release::Released);
    for _ in 0..10 {
        clock.advance(secs(3));
    }
    assert!(!outer.is_held() && !me.is_alive(), "nobody sent a heartbeat");
}

#[actix_rt::test]
async fn a_callback_of_a_session_about_to_run_out_is_refreshed_from_the_start() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(9));
    clock.advance(secs(9) - Duration::from_millis(2));
    let ran = me
        .run("a", async |_| {
            for _ in 0..10 {
                clock.advance(secs(3))
            }
        })
        .await
        .unwrap();
    assert_eq!(ran.release, Release::Released);
}
