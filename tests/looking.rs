//! Fear: what operators see is wrong, or shows a secret (T8; peer bug 27).
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::{LockError, LockManager, ManualClock, Release};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

#[actix_rt::test]
async fn inspect_shows_the_holder_and_the_queue_and_no_token() {
    let (locks, clock) = manager();
    assert_eq!(locks.inspect("k").await, Ok(None));
    let holder = locks.try_lock("k").ttl(ms(10_000)).owner("alice").await.unwrap();
    let waiters: Vec<_> = ["bob", "carol"]
        .map(|owner| {
            let locks = locks.clone();
            actix_rt::spawn(async move { locks.lock("k").owner(owner).wait_forever().await.map(drop) })
        })
        .into();
    while locks.stats().waiting < 2 {
        actix_rt::task::yield_now().await;
    }
    clock.advance(ms(1_500));
    holder.refresh().await.unwrap();
    clock.advance(ms(500));
    let info = locks.inspect("k").await.unwrap().unwrap();
    assert_eq!(info.owner.as_deref(), Some("alice"));
    assert_eq!((info.age, info.remaining, info.ttl), (ms(2_000), ms(9_500), ms(10_000)));
    assert_eq!((info.refreshes, info.waiting), (1, 2));
    let queue: Vec<_> = info.queue.iter().map(|w| (w.position, w.owner.as_deref().unwrap(), w.waited)).collect();
    assert_eq!(queue, [(1, "bob", ms(2_000)), (2, "carol", ms(2_000))]);
    let shown = format!("{info:?} {holder:?} {locks:?}");
    assert!(!shown.contains(&holder.token().to_string()));
    drop(holder);
    for waiter in waiters {
        waiter.await.unwrap().unwrap();
    }
    assert!(!locks.is_locked("k").await.unwrap());
}

#[test]
fn list_gives_the_first_keys_with_the_prefix_in_order() {
    let (locks, clock) = manager();
    let held: Vec<_> = (0..500).map(|n| locks.try_lock_now(format!("a:{n:03}")).unwrap()).collect();
    let _other = locks.try_lock_now("b:1").unwrap();
    let _gone = locks.try_lock("a:000x").ttl(ms(1)).now().unwrap();
    clock.jump(ms(1));
    let names = |prefix, limit| locks.list(prefix, limit).iter().map(|i| i.key.to_string()).collect::<Vec<_>>();
    assert_eq!(names("a:", 3), ["a:000", "a:001", "a:002"]);
    assert_eq!(names("", 1_000).len(), 501);
    assert_eq!(names("b", 10), ["b:1"]);
    assert_eq!(names("c", 10), [""; 0]);
    assert_eq!(names("a:", 0), [""; 0]);
    drop(held);
}

#[actix_rt::test]
async fn force_release_ends_the_lock_and_hands_the_key_on() {
    let (locks, _) = manager();
    assert_eq!(locks.force_release("k").await, Ok(Release::AlreadyGone));
    let holder = locks.try_lock("k").await.unwrap();
    let waiter = actix_rt::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").await.unwrap() }
    });
    while locks.stats().waiting < 1 {
        actix_rt::task::yield_now().await;
    }
    assert_eq!(locks.force_release("k").await, Ok(Release::Released));
    let next = waiter.await.unwrap();
    assert!(next.is_held() && !holder.is_held());
    assert!(next.fencing_token() > holder.fencing_token());
    drop(holder);
    assert!(next.is_held(), "the old guard's drop does nothing to the new lock");
}

#[actix_rt::test]
async fn stats_count_every_attempt_once_and_balance() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(ms(1_000)).await.unwrap();
    assert!(locks.try_lock("k").await.is_err());
    assert!(locks.try_lock("").await.is_err());
    assert!(locks.lock("k").wait(Duration::ZERO).await.is_err());
    clock.advance(ms(400));
    lock.unlock().await;
    drop(locks.try_lock("k").await.unwrap());
    let _expired = locks.try_lock("k").ttl(ms(200)).await.unwrap();
    clock.advance(ms(200));
    let _held = locks.try_lock("k").await.unwrap();
    let s = locks.stats();
    assert_eq!((s.attempts, s.total, s.active, s.busy, s.failed, s.timed_out), (7, 4, 1, 1, 2, 1));
    assert_eq!((s.unlocked, s.dropped, s.expired, s.forced), (1, 1, 1, 0));
    assert_eq!(s.total, s.unlocked + s.dropped + s.expired + s.forced + s.shut_down + s.active);
    assert_eq!(s.queued, s.handoffs + s.timed_out_in_queue + s.cancelled_in_queue + s.refused_by_shutdown + s.waiting);
    assert!((s.success_rate - 4.0 / 6.0).abs() < 1e-9);
    assert!((s.contention_rate - 2.0 / 7.0).abs() < 1e-9);
    assert!((s.average_hold_ms - 200.0).abs() < 1e-9, "{}", s.average_hold_ms);
}

#[actix_rt::test]
async fn a_key_has_its_own_stats_once_it_is_contended() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").await.unwrap();
    assert_eq!(locks.key_stats("k").await, Ok(None));
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    let waiter = actix_rt::spawn({
        let locks = locks.clone();
        async move { locks.lock("k").await.unwrap() }
    });
    while locks.stats().waiting < 1 {
        actix_rt::task::yield_now().await;
    }
    clock.advance(ms(300));
    lock.unlock().await;
    let next = waiter.await.unwrap();
    let stats = locks.key_stats("k").await.unwrap().unwrap();
    assert_eq!((stats.attempts, stats.total, stats.active, stats.busy, stats.queued), (3, 2, 1, 1, 1));
    assert_eq!((stats.unlocked, stats.average_hold_ms, stats.average_wait_ms), (1, 300.0, 300.0));
    drop(next);
    assert_eq!(locks.key_stats("k").await, Ok(None), "an idle key keeps nothing");
}

#[actix_rt::test]
async fn the_most_contended_keys_are_named_the_worst_first() {
    let (locks, _) = manager();
    let held: Vec<_> = (0..40).map(|n| locks.try_lock_now(format!("k{n:02}")).unwrap()).collect();
    for (n, times) in [(7, 30), (3, 20), (5, 10)] {
        for _ in 0..times {
            assert!(locks.try_lock_now(format!("k{n:02}")).is_err());
        }
    }
    let hot: Vec<_> = locks.hot_keys(2).into_iter().map(|hot| (hot.key.to_string(), hot.contentions)).collect();
    assert_eq!(hot, [("k07".to_owned(), 30), ("k03".to_owned(), 20)]);
    drop(held);
    assert_eq!(locks.hot_keys(9).len(), 3, "also when the keys are free again");
}
