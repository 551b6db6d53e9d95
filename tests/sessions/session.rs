//! Fear: a session's locks part ways: one outlives it, one is lost without it, a dead one is granted something (peer
//! bugs 3, 5).

use std::time::Duration;

use futures_util::poll;
use leasehold::{LockError, LockManager, Loss, ManualClock, Release, Session};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

async fn keys(session: &Session, n: usize) -> Vec<leasehold::Lock> {
    let mut locks = Vec::new();
    for key in 0..n {
        locks.push(session.lock(format!("key {key}")).await.unwrap());
    }
    locks
}

#[actix_rt::test]
async fn one_heartbeat_keeps_all_locks_of_a_session() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(10));
    let held = keys(&me, 100).await;
    for _ in 0..5 {
        clock.advance(secs(8));
        assert_eq!(me.heartbeat().await, Ok(secs(10)));
    }
    assert!(held.iter().all(|lock| lock.is_held() && lock.remaining() == secs(10)));
    assert_eq!(locks.stats().active, 100);
    assert_eq!(me.locks(), 100);
}

#[actix_rt::test]
async fn a_session_without_heartbeats_loses_all_its_locks_at_one_moment() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(10));
    let held = keys(&me, 100).await;
    let lost: Vec<_> = held.iter().map(|lock| lock.lost()).collect();
    clock.advance(secs(9));
    assert!(held.iter().all(|lock| lock.is_held()));
    clock.advance(secs(1));
    assert!(held.iter().all(|lock| !lock.is_held()));
    for lost in lost {
        assert_eq!(lost.await, Some(Loss::Expired));
    }
    assert_eq!((locks.stats().expired, me.locks()), (100, 0));
}

#[actix_rt::test]
async fn a_heartbeat_revives_nothing() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(10));
    let held = keys(&me, 3).await;
    clock.advance(secs(10));
    assert_eq!(me.heartbeat().await, Err(LockError::SessionEnded));
    assert!(held.iter().all(|lock| !lock.is_held()));
    assert_eq!(held[0].refresh().await.unwrap_err(), LockError::Lost(Loss::Expired));
    assert_eq!(me.try_lock("another").await.unwrap_err(), LockError::SessionEnded);
    assert!(!me.is_alive());
}

#[actix_rt::test]
async fn the_end_of_a_session_releases_its_locks_and_refuses_its_waiters() {
    let (locks, _clock) = manager();
    let (me, you) = (locks.session("me"), locks.session("you"));
    let held = keys(&me, 3).await;
    let yours = you.lock("yours").await.unwrap();
    let mut mine = Box::pin(me.lock("yours").wait_forever().into_future());
    let mut next = Box::pin(locks.lock("key 1").wait_forever().into_future());
    assert!(poll!(&mut mine).is_pending() && poll!(&mut next).is_pending());
    assert_eq!(me.locks(), 4);

    assert_eq!(me.end().await, Release::Released);
    assert_eq!(mine.await.unwrap_err(), LockError::SessionEnded);
    assert_eq!(next.await.unwrap().key().as_str(), "key 1");
    assert_eq!(held[0].ensure_held(), Err(LockError::Lost(Loss::SessionEnded)));
    assert!(yours.is_held());
    assert_eq!((me.locks(), me.end().await), (0, Release::AlreadyGone));
    let stats = locks.stats();
    assert_eq!((stats.active, stats.waiting, stats.session_ended), (1, 0, 1));
}

/// Peer bug 3: granted after its own session died in the queue.
#[actix_rt::test]
async fn a_queued_owner_that_died_is_passed_over_for_the_next_live_one() {
    let (locks, clock) = manager();
    let holder = locks.lock("k").ttl(secs(3600)).await.unwrap();
    let (dead, live) = (locks.session("dead").ttl(secs(10)), locks.session("live").ttl(secs(100)));
    let mut first = Box::pin(dead.lock("k").wait_forever().into_future());
    let mut second = Box::pin(live.lock("k").wait_forever().into_future());
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    clock.jump(secs(11));
    holder.unlock().await;
    let lock = second.await.unwrap();
    assert!(lock.is_held());
    assert_eq!(first.await.unwrap_err(), LockError::SessionEnded);
    assert_eq!(locks.stats().handoffs, 1);
}

#[actix_rt::test]
async fn a_waiter_whose_session_runs_out_hears_of_it_then_and_not_at_the_end_of_its_wait() {
    let (locks, clock) = manager();
    let _holder = locks.lock("k").ttl(secs(3600)).await.unwrap();
    let me = locks.session("me").ttl(secs(10));
    let mut waits = Box::pin(me.lock("k").wait(secs(1000)).into_future());
    assert!(poll!(&mut waits).is_pending());
    clock.advance(secs(8));
    me.heartbeat().await.unwrap();
    clock.advance(secs(8));
    assert!(poll!(&mut waits).is_pending(), "the heartbeat kept it");
    clock.advance(secs(2));
    assert_eq!(waits.await.unwrap_err(), LockError::SessionEnded);
}

/// Peer bug 6: keep-alive goes on after its client object is gone.
#[actix_rt::test]
async fn automatic_heartbeats_end_with_the_last_handle() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(10));
    me.auto_heartbeat(secs(3)).unwrap();
    let lock = me.lock("k").await.unwrap();
    for _ in 0..40 {
        clock.advance(secs(1));
    }
    assert!(lock.is_held() && me.is_alive());
    drop(me);
    for _ in 0..14 {
        clock.advance(secs(1));
    }
    assert!(!lock.is_held(), "whoever lost the session object keeps nothing");
    assert_eq!(locks.stats().expired, 1);
}

#[actix_rt::test]
async fn an_automatic_heartbeat_must_come_within_the_ttl() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(10));
    for every in [Duration::ZERO, secs(10), Duration::MAX] {
        assert!(matches!(me.auto_heartbeat(every), Err(LockError::InvalidOption { option: "auto_heartbeat", .. })));
    }
    clock.advance(secs(11));
    assert_eq!(me.auto_heartbeat(secs(1)), Err(LockError::SessionEnded));
}

#[actix_rt::test]
async fn a_reentrant_session_gets_the_same_grant_again_and_frees_it_with_the_last_release() {
    let (locks, _clock) = manager();
    let me = locks.session("me").reentrant();
    let outer = me.lock("k").await.unwrap();
    let inner = me.try_lock("k").await.unwrap();
    let read = me.read("k").await.unwrap();
    assert_eq!((outer.token(), outer.fencing_token()), (inner.token(), inner.fencing_token()));
    assert_eq!(read.fencing_token(), outer.fencing_token());
    assert_eq!(me.locks(), 1);
    assert_eq!(outer.unlock().await, Release::Released);
    drop(read);
    assert!(inner.is_held());
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    assert_eq!(inner.unlock().await, Release::Released);
    assert!(locks.try_lock("k").await.is_ok());
    assert_eq!(locks.stats().reentered, 2);
}

#[actix_rt::test]
async fn a_reentry_passes_those_who_wait() {
    let (locks, _clock) = manager();
    let me = locks.session("me").reentrant();
    let outer = me.lock("k").await.unwrap();
    let mut waits = Box::pin(locks.lock("k").wait_forever().into_future());
    assert!(poll!(&mut waits).is_pending());
    let inner = me.lock("k").await.unwrap();
    drop(outer);
    assert!(poll!(&mut waits).is_pending());
    drop(inner);
    assert!(waits.await.is_ok());
}

#[actix_rt::test]
async fn without_reentry_a_session_that_locks_its_own_key_is_told_that_it_waits_for_itself() {
    let (locks, _clock) = manager();
    let me = locks.session("me");
    let _held = me.lock("k").await.unwrap();
    assert_eq!(me.try_lock("k").await.unwrap_err(), LockError::Held);
    match me.lock("k").wait_forever().await.unwrap_err() {
        LockError::Deadlock { cycle } => {
            assert_eq!(cycle.len(), 1);
            assert_eq!((&*cycle[0].owner, cycle[0].key.as_str()), ("me", "k"));
        }
        other => panic!("{other:?}"),
    }
}

#[actix_rt::test]
async fn a_session_has_a_bound_on_its_locks() {
    let (locks, _clock) = manager();
    let me = locks.session("me").max_locks(2);
    let a = me.lock("a").await.unwrap();
    let _b = me.lock("b").await.unwrap();
    assert_eq!(me.lock("c").await.unwrap_err(), LockError::TooManyLocks);
    drop(a);
    let _held = locks.lock("c").await.unwrap();
    let mut waits = Box::pin(me.lock("c").wait_forever().into_future());
    assert!(poll!(&mut waits).is_pending());
    assert_eq!(me.lock("d").await.unwrap_err(), LockError::TooManyLocks, "a wait has a place too");
    drop(waits);
    assert!(me.lock("d").await.is_ok());
}

#[actix_rt::test]
async fn a_refresh_of_one_lock_is_a_heartbeat_of_its_session() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(10));
    let held = keys(&me, 2).await;
    clock.advance(secs(6));
    assert_eq!(held[0].refresh().await.unwrap().remaining, secs(10));
    assert_eq!(held[1].remaining(), secs(10));
    let ticket = me.lock("t").ticket().await.unwrap();
    clock.advance(secs(6));
    locks.refresh("t", ticket.token(), None).await.unwrap();
    assert_eq!(held[1].remaining(), secs(10));
    assert_eq!(locks.release("t", ticket.token()).await, Ok(Release::Released));
}

#[actix_rt::test]
async fn a_session_that_makes_no_sense_says_so_when_it_is_used() {
    let (locks, _clock) = manager();
    let invalid = |answer: Result<leasehold::Lock, LockError>| match answer.unwrap_err() {
        LockError::InvalidOption { option, .. } => option,
        other => panic!("{other:?}"),
    };
    assert_eq!(invalid(locks.session("").lock("k").await), "owner");
    assert_eq!(invalid(locks.session("me").lock("k").ttl(secs(1)).await), "ttl");
    let used = locks.session("me");
    let _lock = used.lock("a").await.unwrap();
    assert_eq!(invalid(used.clone().reentrant().lock("k").await), "reentrant");
    assert!(used.lock("k").await.is_ok(), "the session itself is as good as before");
    let ttl = locks.session("me").ttl(Duration::MAX);
    assert!(matches!(ttl.lock("k").await, Err(LockError::InvalidTtl(_))));
    assert!(matches!(ttl.heartbeat().await, Err(LockError::InvalidTtl(_))));
    let elsewhere = LockManager::builder().build().unwrap().session("me");
    assert_eq!(invalid(locks.lock("k").session(&elsewhere).await), "session");
    let chosen = locks.session("me").lock("k").reentrant().token(leasehold::Token::random()).await;
    assert_eq!(invalid(chosen), "reentrant");
}

#[actix_rt::test]
async fn what_a_session_holds_shows_its_name() {
    let (locks, _clock) = manager();
    let me = locks.session("worker-7");
    let _lock = me.lock("k").await.unwrap();
    let info = locks.inspect("k").await.unwrap().unwrap();
    assert_eq!(info.owner.as_deref(), Some("worker-7"));
    assert_eq!(me.name().as_ref(), "worker-7");
    assert_ne!(me.id(), locks.session("worker-7").id());
}

#[actix_rt::test]
async fn many_locks_of_a_session_live_as_long_as_it_does() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(10));
    let both = me.lock_many(["b", "a"]).await.unwrap();
    assert_eq!(me.locks(), 2);
    clock.advance(secs(9));
    me.heartbeat().await.unwrap();
    clock.advance(secs(9));
    assert!(both.is_held());
    me.end().await;
    assert!(!both.is_held());
}
