//! Fear: time is taken wrongly (T5, T6, C1, C3; peer bugs 3, 16, 30, 34).
#![cfg(feature = "test-util")]

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold::{Event, EventKind, Heard, LockError, LockManager, Loss, ManualClock, RefreshOutcome, Release};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_lock_is_held_until_its_deadline_and_not_a_moment_longer() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(10)).now().unwrap();
    clock.jump(secs(10) - Duration::from_nanos(1));
    assert_eq!(lock.remaining(), Duration::from_nanos(1));
    assert!(lock.is_held());
    assert_eq!(locks.try_lock_now("k").unwrap_err(), LockError::Held);
    clock.jump(Duration::from_nanos(1));
    assert!(!lock.is_held() && lock.remaining().is_zero() && lock.deadline().is_none());
    assert_eq!(lock.ensure_held(), Err(LockError::Lost(Loss::Expired)));
    assert!(locks.try_lock_now("k").is_ok(), "noticed without any timer");
}

/// Peer bug 34: after a takeover the old owner can release, and the new one cannot.
#[actix_rt::test]
async fn an_expired_holder_cannot_release_or_refresh_the_next_lock() {
    let (locks, clock) = manager();
    let old = locks.try_lock("k").ttl(secs(10)).await.unwrap();
    clock.jump(secs(10));
    let new = locks.try_lock("k").ttl(secs(10)).await.unwrap();
    assert!(new.fencing_token() > old.fencing_token());
    assert_eq!(old.refresh().await, Err(LockError::Lost(Loss::Expired)));
    assert_eq!(old.unlock().await, Release::AlreadyGone);
    assert!(new.is_held());
    assert_eq!(new.unlock().await, Release::Released);
}

#[test]
fn a_waiter_gets_the_lock_at_the_holders_deadline() {
    let (locks, clock) = manager();
    let _forgotten = locks.try_lock("k").ttl(secs(10)).now().unwrap();
    let mut waiter = locks.lock("k").wait(secs(60)).into_future();
    assert!(poll_once(&mut waiter).is_pending());
    clock.advance(secs(9));
    assert!(poll_once(&mut waiter).is_pending());
    clock.advance(secs(1));
    assert!(matches!(poll_once(&mut waiter), Poll::Ready(Ok(_))));
}

#[test]
fn a_wait_ends_when_it_said_it_would() {
    let (locks, clock) = manager();
    let _holder = locks.try_lock("k").ttl(secs(100)).now().unwrap();
    let mut waiter = locks.lock("k").wait(secs(5)).into_future();
    assert!(poll_once(&mut waiter).is_pending());
    clock.advance(Duration::from_millis(4_999));
    assert!(poll_once(&mut waiter).is_pending());
    clock.advance(Duration::from_millis(1));
    match poll_once(&mut waiter) {
        Poll::Ready(Err(LockError::Timeout { waited })) => assert_eq!(waited, secs(5)),
        other => panic!("{other:?}"),
    }
}

/// Peer bug 3: granted after its own lease died.
#[test]
fn a_grant_that_expires_before_it_is_seen_answers_lost() {
    let (locks, clock) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let mut waiter = locks.lock("k").ttl(secs(1)).wait_forever().into_future();
    assert!(poll_once(&mut waiter).is_pending());
    drop(holder);
    clock.advance(secs(1));
    assert!(matches!(poll_once(&mut waiter), Poll::Ready(Err(LockError::Lost(Loss::Expired)))));
    assert_eq!(locks.stats().active, 0);
}

/// Peer bug 30: a step of the clock gave a lock back to one who had lost it.
#[test]
fn a_clock_that_steps_back_revives_nothing() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(10)).now().unwrap();
    clock.jump(secs(10));
    assert!(locks.try_lock_now("k").is_ok(), "the table has now seen the deadline pass");
    clock.step_back(secs(5));
    assert!(!lock.is_held());
    let other = locks.try_lock("k").ttl(secs(10)).now().unwrap();
    assert!(other.is_held());
}

/// Peer bug 30: a clock that stood still in suspend let a lock outlive its TTL.
#[test]
fn a_suspend_longer_than_the_ttl_ends_the_lock_before_anything_else_runs() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(30)).now().unwrap();
    clock.jump(secs(3600));
    assert!(!lock.is_held());
    assert_eq!(lock.unlock_now(), Release::AlreadyGone);
}

#[actix_rt::test]
async fn expired_locks_are_counted_when_they_are_cleaned() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().shards(1).clock(clock.clock()).build().unwrap();
    // So that the actor has had its first turn, and will not clean up before us.
    locks.shard(&leasehold::Key::new("any").unwrap()).send(leasehold::messages::GetStats).await.unwrap().unwrap();
    let short: Vec<_> = (0..1_000).map(|n| locks.try_lock(format!("s{n}")).ttl(secs(1)).now().unwrap()).collect();
    let long: Vec<_> = (0..10).map(|n| locks.try_lock(format!("l{n}")).ttl(secs(9)).now().unwrap()).collect();
    assert_eq!(locks.clean_expired_locks(), 0);
    clock.jump(secs(1));
    assert_eq!(locks.clean_expired_locks(), 1_000);
    assert_eq!(locks.clean_expired_locks(), 0);
    assert_eq!((locks.stats().active, locks.stats().expired), (10, 1_000));
    drop((short, long));
    assert_eq!((locks.stats().active, locks.stats().dropped), (0, 10));
}

#[tokio::test]
async fn the_cleanup_timer_finds_expired_locks_that_nobody_waits_for() {
    let sweep = Duration::from_millis(20);
    let locks = LockManager::builder().sweep_every(sweep).build().unwrap();
    let _lock = locks.try_lock("k").ttl(Duration::from_millis(10)).await.unwrap();
    while locks.stats().expired == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(locks.stats().active, 0);
}

#[actix_rt::test]
async fn a_refresh_moves_the_deadline_on_and_never_back() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(10)).await.unwrap();
    clock.advance(secs(4));
    let refreshed = lock.refresh().await.unwrap();
    assert_eq!((refreshed.outcome, refreshed.remaining, refreshed.count), (RefreshOutcome::Extended, secs(10), 1));
    let shorter = lock.refresh_for(secs(2)).await.unwrap();
    assert_eq!((shorter.remaining, shorter.count), (secs(10), 2), "a refresh never shortens");
    let longer = lock.refresh_for(secs(60)).await.unwrap();
    assert_eq!(longer.remaining, secs(60));
    assert!(lock.refresh_for(Duration::ZERO).await.is_err());
    assert_eq!(lock.remaining(), secs(60), "bad input changes nothing");
}

#[actix_rt::test]
async fn with_refresh_after_a_refresh_writes_only_when_its_share_of_the_ttl_has_passed() {
    let (locks, clock) = manager();
    let lock = locks.try_lock("k").ttl(secs(10)).refresh_after(0.5).await.unwrap();
    clock.advance(secs(5));
    let early = lock.refresh().await.unwrap();
    assert_eq!((early.outcome, early.remaining, early.count), (RefreshOutcome::NotDue, secs(5), 0));
    clock.advance(Duration::from_millis(1));
    let due = lock.refresh().await.unwrap();
    assert_eq!((due.outcome, due.remaining, due.count), (RefreshOutcome::Extended, secs(10), 1));
    let stats = locks.stats();
    assert_eq!((stats.refreshed, stats.refresh_skipped), (1, 1));
    clock.advance(secs(10));
    assert_eq!(lock.refresh().await, Err(LockError::Lost(Loss::Expired)), "ownership is checked all the same");
}

/// It was counted until a sweep came by: seconds more than it was held.
#[actix_rt::test]
async fn a_lock_that_ran_out_was_held_until_its_deadline_however_late_that_is_seen() {
    let (locks, clock) = manager();
    let session = locks.session("s").ttl(secs(20));
    let _late = locks.try_lock("late").ttl(secs(10)).await.unwrap();
    let _of_session = session.try_lock("of a session").await.unwrap();
    let _share = locks.try_read("share").ttl(secs(30)).await.unwrap();
    let _other = locks.try_read("share").ttl(secs(40)).await.unwrap();
    let mut events = locks.events();
    clock.jump(secs(100));
    let stats = locks.stats();
    assert_eq!((stats.active, stats.expired, stats.average_hold_ms), (0, 4, 25_000.0));
    let mut told = Vec::new();
    while let Some(heard) = events.try_next() {
        if let Heard::Event(Event { key, kind: EventKind::Expired { held }, .. }) = heard {
            told.push((key.to_string(), held.as_secs()));
        }
    }
    told.sort();
    let expected = [("late", 10), ("of a session", 20), ("share", 30), ("share", 40)];
    assert_eq!(told, expected.map(|(key, held)| (key.to_owned(), held)));
    let ended = locks.explain("late").await.unwrap().ended;
    assert_eq!((ended[0].held, ended[0].ago), (secs(10), secs(90)));
}

/// Peer bug 37: a refresh that fails harms the lock, and a short TTL underflows.
#[actix_rt::test]
async fn a_refused_refresh_touches_nothing_and_the_shortest_ttl_is_one() {
    let (locks, clock) = manager();
    let ms = Duration::from_millis(1);
    let lock = locks.try_lock("k").ttl(secs(10)).await.unwrap();
    let before = (lock.token(), lock.fencing_token(), lock.deadline());
    clock.advance(secs(1));
    for ttl in [Duration::ZERO, Duration::from_nanos(999_999), Duration::MAX] {
        assert!(matches!(lock.refresh_for(ttl).await, Err(LockError::InvalidTtl(_))));
        assert!(matches!(locks.refresh("k", lock.token(), Some(ttl)).await, Err(LockError::InvalidTtl(_))));
    }
    let stranger = leasehold::Token::random();
    assert_eq!(locks.refresh("k", stranger, None).await.unwrap_err(), LockError::NotHeld);
    assert_eq!((lock.token(), lock.fencing_token(), lock.deadline()), before);
    assert_eq!(locks.stats().refreshed, 0);
    assert_eq!(lock.unlock().await, Release::Released);

    let brief = locks.try_lock("k").ttl(ms).await.unwrap();
    assert_eq!((brief.remaining(), brief.refresh().await.unwrap().remaining), (ms, ms));
    assert!(brief.auto_refresh(ms, ms).is_err());
    assert_eq!(locks.run("run", async |held| held.remaining()).ttl(ms).await.unwrap().value, ms);
    assert_eq!(locks.lock_many(["many"]).ttl(ms).await.unwrap().locks()[0].remaining(), ms);
    clock.jump(ms);
    assert!(!brief.is_held() && brief.remaining().is_zero());
}
