//! Fear: a refresh that outlives its lock, stops in silence, or goes on for ever (peer bugs 5 to 8, 16, 31).
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::{LockError, LockManager, Loss, ManualClock};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

fn advance_in_steps(clock: &ManualClock, seconds: u64) {
    for _ in 0..seconds {
        clock.advance(secs(1));
    }
}

/// Peer bug 5: the watchdog outlives the unlock.
#[actix_rt::test]
async fn an_auto_refreshed_lock_outlives_its_ttl_and_ends_with_its_unlock() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(9)).await.unwrap();
    let refreshing = lock.auto_refresh(secs(3), secs(1)).unwrap();
    advance_in_steps(&clock, 100);
    assert!(lock.is_held());
    let refreshed = locks.stats().refreshed;
    assert_eq!(refreshed, 33);
    lock.unlock().await;
    assert_eq!(refreshing.failed().await, None, "an unlock is no failure");
    let _next = locks.try_lock("k").ttl(secs(9)).await.unwrap();
    advance_in_steps(&clock, 20);
    assert_eq!(locks.stats().refreshed, refreshed, "nothing refreshes after the unlock");
    assert_eq!(locks.stats().expired, 1, "the next lock ran out by itself");
}

/// Peer bug 16: a background refresh that fails kills the process; here its caller is told.
#[actix_rt::test]
async fn a_forced_release_ends_the_refreshing_and_tells_its_caller() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(9)).await.unwrap();
    let refreshing = lock.auto_refresh(secs(3), secs(1)).unwrap();
    locks.force_release("k").await.unwrap();
    let other = locks.try_lock("k").ttl(secs(9)).await.unwrap();
    assert_eq!(refreshing.failed().await, Some(LockError::Lost(Loss::Forced)));
    advance_in_steps(&clock, 9);
    assert!(!other.is_held(), "the old order must not keep the new lock alive");
    assert_eq!(locks.stats().refreshed, 0);
}

#[actix_rt::test]
async fn max_hold_ends_what_refreshing_would_keep_for_ever() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(9)).max_hold(secs(30)).await.unwrap();
    let refreshing = lock.auto_refresh(secs(3), secs(1)).unwrap();
    advance_in_steps(&clock, 29);
    assert!(lock.is_held());
    advance_in_steps(&clock, 1);
    assert!(!lock.is_held());
    assert_eq!(refreshing.failed().await, Some(LockError::Lost(Loss::Expired)));
}

#[actix_rt::test]
async fn max_hold_set_later_caps_from_the_grant_and_shortens_nothing() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(10)).await.unwrap();
    lock.max_hold(secs(4)).unwrap();
    assert_eq!(lock.remaining(), secs(10), "the deadline that it has stands");
    clock.advance(secs(8));
    assert_eq!(lock.refresh().await.unwrap().remaining, secs(2));
    clock.advance(secs(2));
    assert!(lock.max_hold(secs(99)).is_err(), "too late");
}

/// Peer bug 6: kept alive although nobody is left who could let go.
#[test]
fn a_forgotten_guard_without_orders_runs_out() {
    let (locks, clock) = manager();
    std::mem::forget(locks.try_lock("k").ttl(secs(9)).now().unwrap());
    clock.advance(secs(9));
    assert_eq!((locks.stats().expired, locks.stats().refreshed), (1, 0));
    assert!(locks.try_lock_now("k").is_ok());
}

#[actix_rt::test]
async fn a_stalled_process_refreshes_late_while_it_still_holds_and_not_after() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(9)).await.unwrap();
    let refreshing = lock.auto_refresh(secs(3), secs(1)).unwrap();
    clock.advance(secs(8));
    assert!(lock.is_held());
    assert_eq!((locks.stats().refreshed, locks.stats().refresh_late), (1, 1));
    clock.advance(secs(9));
    assert!(!lock.is_held(), "the stall outlasted the deadline");
    assert_eq!(refreshing.failed().await, Some(LockError::Lost(Loss::Expired)));
    assert_eq!(locks.stats().refreshed, 1);
}

#[actix_rt::test]
async fn a_stopped_order_leaves_the_lock_to_its_deadline() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(9)).await.unwrap();
    lock.auto_refresh(secs(3), secs(1)).unwrap().stop();
    advance_in_steps(&clock, 9);
    assert!(!lock.is_held());
}

#[test]
fn orders_that_cannot_work_are_refused() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(9)).now().unwrap();
    for (every, timeout) in [
        (Duration::ZERO, secs(1)),
        (secs(1), Duration::ZERO),
        (secs(9), secs(1)),
        (secs(5), secs(4)),
        (Duration::MAX, Duration::MAX),
    ] {
        assert!(
            matches!(lock.auto_refresh(every, timeout), Err(LockError::InvalidOption { .. })),
            "{every:?} {timeout:?}"
        );
    }
    clock.advance(secs(9));
    assert!(matches!(lock.auto_refresh(secs(3), secs(1)), Err(LockError::Lost(Loss::Expired))));
}

#[tokio::test]
async fn real_time_refreshes_a_real_lock() {
    let locks = LockManager::builder().build().unwrap();
    let ttl = Duration::from_millis(400);
    let lock = locks.try_lock("k").ttl(ttl).await.unwrap();
    let _refreshing = lock.auto_refresh(ttl / 4, ttl / 4).unwrap();
    while locks.stats().refreshed < 8 {
        assert!(lock.is_held(), "{:?}", locks.stats());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_rt::test]
async fn an_order_stops_itself_and_not_the_one_that_replaced_it() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(9)).await.unwrap();
    let older = lock.auto_refresh(secs(3), secs(1)).unwrap();
    let newer = lock.auto_refresh(secs(2), secs(1)).unwrap();
    older.stop();
    advance_in_steps(&clock, 30);
    assert!(lock.is_held(), "the newer order stands");
    newer.stop();
    advance_in_steps(&clock, 9);
    assert!(!lock.is_held());
}

/// The order of a `run` is there before the callback's, or comes to one that is there already.
#[actix_rt::test]
async fn an_order_that_stops_leaves_the_one_that_a_run_keeps_its_lock_by() {
    let (locks, clock) = manager();
    let ran = locks.run("k", async |held| {
        held.auto_refresh(secs(6), secs(1)).unwrap().stop();
        advance_in_steps(&clock, 30);
        let mine = held.auto_refresh(secs(4), secs(1)).unwrap();
        advance_in_steps(&clock, 8);
        mine.stop();
        advance_in_steps(&clock, 30);
        held.is_held()
    });
    assert!(ran.ttl(secs(9)).await.unwrap().value);

    let me = locks.session("me").ttl(secs(900));
    let lock = me.lock("j").await.unwrap();
    let outer = lock.auto_refresh(secs(200), secs(1)).unwrap();
    let ran = me.run("j", async |held| {
        outer.stop();
        for _ in 0..20 {
            clock.advance(secs(150));
        }
        held.is_held()
    });
    assert!(ran.reentrant().await.unwrap().value);
}
