//! Fear: the cheap clock of the lane is taken for the exact one (C2).
#![cfg(feature = "test-util")]

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold::{LockError, LockManager, ManualClock, Release};

const LAG: Duration = Duration::from_millis(4);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    // Late enough for the lag to lie ahead of everything that the tables have seen.
    clock.advance(ms(1_000));
    clock.set_lag(LAG);
    clock.jump(ms(1_000));
    (locks, clock)
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_deadline_dated_by_the_coarse_clock_errs_early_and_a_short_one_is_exact() {
    let (locks, _) = manager();
    let long = locks.try_lock("long").ttl(ms(10_000)).now().unwrap().remaining();
    // Exact if the actor has taken a turn since the clock moved: time in a table never goes back.
    assert!(long == ms(10_000) - LAG || long == ms(10_000), "{long:?}");
    assert_eq!(locks.try_lock("short").ttl(ms(20)).now().unwrap().remaining(), ms(20));
}

#[test]
fn whether_a_lock_is_held_is_judged_by_the_exact_clock() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(ms(10_000)).now().unwrap();
    clock.jump(lock.remaining());
    assert!(!lock.is_held(), "the coarse clock would still say so");
    assert!(locks.try_lock_now("k").is_ok(), "nobody is refused for a lock that is over");
}

#[test]
fn a_refresh_is_dated_exactly() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(ms(10_000)).now().unwrap();
    clock.jump(ms(1_000));
    assert!(matches!(poll_once(lock.refresh()), Poll::Ready(Ok(done)) if done.remaining == ms(10_000)));
}

#[test]
fn a_wait_is_never_cut_short() {
    let (locks, clock) = manager();
    let _holder = locks.try_lock("k").ttl(ms(60_000)).now().unwrap();
    for wait in [ms(100), ms(5_000)] {
        let mut waiter = locks.lock("k").wait(wait).into_future();
        assert!(poll_once(&mut waiter).is_pending());
        clock.advance(wait - ms(1));
        assert!(poll_once(&mut waiter).is_pending(), "{wait:?}");
        clock.advance(ms(1) + LAG);
        match poll_once(&mut waiter) {
            Poll::Ready(Err(LockError::Timeout { waited })) => assert!(waited >= wait, "{waited:?} of {wait:?}"),
            other => panic!("{wait:?}: {other:?}"),
        }
    }
}

#[test]
fn a_waiter_is_not_left_behind_a_lock_that_ran_out_within_the_lag() {
    let (locks, clock) = manager();
    let old = locks.try_lock("k").ttl(ms(10_000)).now().unwrap();
    clock.jump(old.remaining());
    let mut waiter = locks.lock("k").wait(ms(5_000)).into_future();
    let first = poll_once(&mut waiter);
    clock.advance(Duration::ZERO);
    let lock = match first {
        Poll::Ready(answer) => answer.unwrap(),
        Poll::Pending => match poll_once(&mut waiter) {
            Poll::Ready(answer) => answer.unwrap(),
            Poll::Pending => panic!("it waits for nobody"),
        },
    };
    assert_eq!(lock.unlock_now(), Release::Released);
}

#[test]
fn a_coarse_reading_from_before_what_was_seen_revives_nothing() {
    let (locks, clock) = manager();
    let old = locks.try_lock("k").ttl(ms(10_000)).now().unwrap();
    clock.jump(ms(10_000));
    let new = locks.try_lock("k").ttl(ms(10_000)).now().unwrap();
    clock.set_lag(ms(5_000));
    assert_eq!(old.unlock_now(), Release::AlreadyGone);
    assert!(new.is_held());
}
