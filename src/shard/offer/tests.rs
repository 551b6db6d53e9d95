//! What becomes of a grant that is offered: taken, called back, over, or nobody's any more.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::ManualClock;
use crate::engine::LockManager;
use crate::error::{LockError, Loss};
use crate::lock::Lock;
use crate::table::Release;

type Waits = Pin<Box<dyn Future<Output = Result<Lock, LockError>> + Send>>;

const TTL: Duration = Duration::from_secs(9);

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    let config = LockManager::builder().shards(1).ttl(TTL).clock(clock.clock()).check().expect("good settings");
    (LockManager::without_actors(config), clock)
}

fn poll(waits: &mut Waits) -> Poll<Result<Lock, LockError>> {
    waits.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn has(polled: Poll<Result<Lock, LockError>>) -> Lock {
    match polled {
        Poll::Ready(Ok(lock)) => lock,
        other => panic!("{other:?}"),
    }
}

/// Two that wait for a key which has just been passed on to the first of them.
fn passed_on(locks: &LockManager) -> (Waits, Waits) {
    let held = locks.try_lock_now("k").expect("nobody has it");
    let waits = || -> Waits {
        let locks = locks.clone();
        let mut waits: Waits = Box::pin(async move { locks.lock("k").wait_forever().await });
        assert!(poll(&mut waits).is_pending());
        waits
    };
    let both = (waits(), waits());
    drop(held);
    both
}

/// All who waited are gone, and nothing of them is left in the table (T3).
fn assert_nobody_waits(locks: &LockManager) {
    let state = locks.shard_at(0).state();
    state.table.assert_invariants();
    assert_eq!(state.table.waiters_kept(), 0);
}

#[test]
fn what_is_offered_is_taken_without_the_mutex_and_passed_on_again() {
    let (locks, _) = manager();
    let (mut first, mut second) = passed_on(&locks);
    let lock = {
        let _mutex = locks.shard_at(0).mutex.lock();
        has(poll(&mut first))
    };
    assert!(poll(&mut second).is_pending());
    assert!(lock.is_held());
    assert_eq!(lock.unlock_now(), Release::Released);
    let lock = has(poll(&mut second));
    assert_eq!(lock.unlock_now(), Release::Released);
    let stats = locks.stats();
    assert_eq!((stats.granted, stats.released, stats.active), (3, 2, 0), "the first guard was dropped");
    assert_nobody_waits(&locks);
}

#[test]
fn what_is_called_back_is_had_of_the_table() {
    let (locks, _) = manager();
    let (mut first, second) = passed_on(&locks);
    assert_eq!(locks.stats().active, 1);
    assert!(locks.shard_at(0).mutex.lock().offered.is_none());
    assert!(has(poll(&mut first)).is_held());
    drop(second);
    assert_nobody_waits(&locks);
}

#[test]
fn an_offer_is_lost_at_its_deadline_and_the_next_one_has_the_key() {
    let (locks, clock) = manager();
    let (mut first, mut second) = passed_on(&locks);
    clock.jump(TTL);
    let polled = poll(&mut first);
    assert!(matches!(polled, Poll::Ready(Err(LockError::Lost(Loss::Expired)))), "{polled:?}");
    assert!(has(poll(&mut second)).is_held());
    assert_nobody_waits(&locks);
}

#[test]
fn an_offer_to_a_future_that_is_dropped_goes_to_the_next_one() {
    let (locks, _) = manager();
    let (first, mut second) = passed_on(&locks);
    drop(first);
    assert!(has(poll(&mut second)).is_held());
    assert_nobody_waits(&locks);
    assert_eq!(locks.stats().dropped, 3);
}

#[test]
fn what_ends_by_force_before_it_is_taken_is_lost() {
    let (locks, _) = manager();
    let (mut first, mut second) = passed_on(&locks);
    let forced = Box::pin(locks.force_release("k").into_future());
    assert!(futures_util::FutureExt::now_or_never(forced).is_some_and(|forced| forced.is_ok()));
    let polled = poll(&mut first);
    assert!(matches!(polled, Poll::Ready(Err(LockError::Lost(Loss::Forced)))), "{polled:?}");
    assert!(has(poll(&mut second)).is_held());
    assert_nobody_waits(&locks);
}

#[test]
fn what_was_taken_is_passed_on_by_a_guard_that_is_dropped() {
    let (locks, _) = manager();
    let (mut first, mut second) = passed_on(&locks);
    drop(has(poll(&mut first)));
    drop(has(poll(&mut second)));
    assert_nobody_waits(&locks);
    assert_eq!(locks.stats().dropped, 3);
}
