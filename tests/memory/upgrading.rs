//! Fear: a share becomes exclusive beside others (T1), two that want that wait for each other for ever, or one that gives
//! up loses its share, or keeps everybody else out.
#![cfg(feature = "test-util")]

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use leasehold::{
    Lock, LockError, LockFuture, LockManager, LockRequest, Loss, ManualClock, Mode, ModeConflict, Upgrade,
    UpgradeFuture,
};

const LONG: Duration = Duration::from_secs(60);

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[track_caller]
fn at_once(request: LockRequest<'_>) -> Lock {
    request.ttl(LONG).now().unwrap()
}

/// An upgrade that has begun to wait.
#[track_caller]
fn begun(upgrade: Upgrade<'_>) -> UpgradeFuture<'_> {
    let mut future = upgrade.into_future();
    let first = poll(&mut future);
    assert!(first.is_pending(), "{first:?}");
    future
}

#[track_caller]
fn queued(request: LockRequest<'_>) -> LockFuture<'_> {
    let mut future = request.wait_forever().into_future();
    let first = poll(&mut future);
    assert!(first.is_pending(), "{first:?}");
    future
}

fn mode_of(locks: &LockManager) -> (Mode, usize) {
    let info = block_on(locks.inspect("k")).unwrap().unwrap();
    (info.mode, info.held_by)
}

#[test]
fn the_only_share_becomes_exclusive_at_once_before_those_who_queue() {
    let (locks, _) = manager();
    let mut lock = at_once(locks.read("k"));
    let (token, fence, deadline) = (lock.token(), lock.fencing_token(), lock.deadline());
    let mut writer = queued(locks.write("k"));
    let mut reader = queued(locks.read("k"));
    lock.upgrade().now().unwrap();
    assert_eq!((lock.token(), lock.deadline()), (token, deadline));
    assert!(lock.fencing_token() > fence, "a resource can tell it from the share");
    assert_eq!(mode_of(&locks), (Mode::Exclusive, 1));
    assert!(poll(&mut writer).is_pending() && poll(&mut reader).is_pending());
    assert_eq!(block_on(lock.upgrade().into_future()), Ok(()), "what is exclusive stays so");
    drop(lock);
    let Poll::Ready(Ok(writer)) = poll(&mut writer) else { panic!("it is its turn") };
    drop(writer);
    assert!(matches!(poll(&mut reader), Poll::Ready(Ok(_))));
}

#[test]
fn it_waits_for_the_other_shares_and_nobody_new_comes_in() {
    let (locks, _) = manager();
    let mut lock = at_once(locks.read("k"));
    let others = [at_once(locks.read("k")), at_once(locks.read("k"))];
    let newest = others[1].fencing_token();
    let mut writer = queued(locks.write("k"));
    assert_eq!(lock.upgrade().now(), Err(LockError::Held));
    let mut upgrade = begun(lock.upgrade());
    let mut reader = queued(locks.read("k"));
    assert_eq!(locks.try_read("k").now().unwrap_err(), LockError::Held);
    let [one, other] = others;
    drop(one);
    assert!(poll(&mut upgrade).is_pending());
    drop(other);
    assert!(poll(&mut writer).is_pending(), "the upgrade comes first");
    assert_eq!(locks.try_read("k").now().unwrap_err(), LockError::Held, "also before it has looked");
    assert_eq!(poll(&mut upgrade), Poll::Ready(Ok(())));
    drop(upgrade);
    assert_eq!(mode_of(&locks), (Mode::Exclusive, 1));
    assert!(lock.fencing_token() > newest, "T4: above those of the shares beside it");
    block_on(lock.downgrade()).unwrap();
    assert!(poll(&mut writer).is_pending(), "it still queues for the key alone");
    drop(lock);
    assert!(matches!(poll(&mut writer), Poll::Ready(Ok(_))));
    drop(writer);
    assert!(matches!(poll(&mut reader), Poll::Ready(Ok(_))));
}

#[test]
fn an_upgrade_that_times_out_or_is_dropped_leaves_its_share_and_lets_others_in() {
    let (locks, clock) = manager();
    let mut lock = at_once(locks.read("k"));
    let other = at_once(locks.read("k"));
    let fence = lock.fencing_token();
    let mut upgrade = begun(lock.upgrade().wait(Duration::from_secs(3)));
    let mut reader = queued(locks.read("k"));
    clock.advance(Duration::from_secs(3));
    let waited = Duration::from_secs(3);
    assert_eq!(poll(&mut upgrade), Poll::Ready(Err(LockError::Timeout { waited })));
    assert!(matches!(poll(&mut reader), Poll::Ready(Ok(_))));
    drop((upgrade, reader));
    let upgrade = begun(lock.upgrade());
    let mut reader = queued(locks.read("k"));
    drop(upgrade);
    assert!(matches!(poll(&mut reader), Poll::Ready(Ok(_))));
    assert!(lock.is_held() && other.is_held());
    assert_eq!(lock.fencing_token(), fence, "the share is what it was");
}

#[test]
fn an_upgrade_that_is_dropped_when_its_turn_has_come_leaves_its_share() {
    let (locks, _) = manager();
    let mut lock = at_once(locks.read("k"));
    let other = at_once(locks.read("k"));
    let upgrade = begun(lock.upgrade());
    drop(other);
    drop(upgrade);
    assert_eq!(mode_of(&locks), (Mode::Shared, 1));
    assert!(locks.try_read("k").now().is_ok());
    assert!(lock.upgrade().now().is_ok());
}

#[test]
fn the_wait_of_the_manager_holds_for_an_upgrade_that_names_none() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).wait(Duration::from_secs(2)).build().unwrap();
    let mut lock = at_once(locks.read("k"));
    let _other = at_once(locks.read("k"));
    let mut upgrade = begun(lock.upgrade());
    clock.advance(Duration::from_secs(1));
    assert!(poll(&mut upgrade).is_pending());
    clock.advance(Duration::from_secs(1));
    assert!(matches!(poll(&mut upgrade), Poll::Ready(Err(LockError::Timeout { .. }))));
}

#[test]
fn the_second_of_two_upgrades_is_refused_with_the_cycle_and_the_first_goes_on() {
    let (locks, _) = manager();
    let mut first = at_once(locks.read("k").owner("first"));
    let mut second = at_once(locks.read("k").owner("second"));
    let mut upgrade = begun(first.upgrade().wait_forever());
    let refused = poll(&mut second.upgrade().wait_forever().into_future());
    let Poll::Ready(Err(LockError::Deadlock { cycle })) = refused else { panic!("{refused:?}") };
    let steps: Vec<_> = cycle.iter().map(|step| (&*step.owner, step.key.as_str())).collect();
    assert_eq!(steps, [("second", "k"), ("first", "k")]);
    assert_eq!(second.upgrade().now(), Err(LockError::Held), "one that does not wait closes no cycle");
    assert!(second.is_held(), "it keeps its share");
    drop(second);
    assert_eq!(poll(&mut upgrade), Poll::Ready(Ok(())));
}

#[test]
fn a_share_that_ends_while_it_waits_is_lost() {
    let (locks, clock) = manager();
    let mut lock = locks.read("k").ttl(Duration::from_secs(1)).now().unwrap();
    let _other = at_once(locks.read("k"));
    let mut upgrade = begun(lock.upgrade().wait_forever());
    let mut reader = queued(locks.read("k"));
    clock.advance(Duration::from_secs(1));
    assert_eq!(poll(&mut upgrade), Poll::Ready(Err(LockError::Lost(Loss::Expired))));
    assert!(matches!(poll(&mut reader), Poll::Ready(Ok(_))));
    drop(upgrade);
    let mut taken = at_once(locks.read("k"));
    let mut upgrade = begun(taken.upgrade().wait_forever());
    assert!(block_on(locks.force_release("k").into_future()).is_ok());
    assert_eq!(poll(&mut upgrade), Poll::Ready(Err(LockError::Lost(Loss::Forced))));
}

#[test]
fn shares_whose_deadlines_have_passed_are_in_nobodys_way() {
    let (locks, clock) = manager();
    let mut lock = at_once(locks.read("k"));
    let short: Vec<_> = (0..200).map(|_| locks.read("k").ttl(Duration::from_secs(1)).now().unwrap()).collect();
    let mut upgrade = begun(lock.upgrade());
    clock.advance(Duration::from_secs(1));
    assert_eq!(poll(&mut upgrade), Poll::Ready(Ok(())), "the manager ends them in time");
    drop((upgrade, short));
    block_on(lock.downgrade()).unwrap();
    let short: Vec<_> = (0..200).map(|_| locks.read("k").ttl(Duration::from_secs(1)).now().unwrap()).collect();
    clock.advance(Duration::from_secs(1));
    assert_eq!(lock.upgrade().now(), Ok(()));
    drop(short);
}

#[test]
fn permits_cannot_be_upgraded() {
    let (locks, _) = manager();
    let mut permit = locks.semaphore("pool", 2).permits(1).now().unwrap();
    assert_eq!(permit.upgrade().now(), Err(ModeConflict::Permits.into()));
    assert_eq!(poll(&mut permit.upgrade().into_future()), Poll::Ready(Err(ModeConflict::Permits.into())));
}

#[test]
fn an_upgrade_that_waits_while_its_session_holds_something_else_is_part_of_a_deadlock() {
    let (locks, _) = manager();
    let [a, b] = ["a", "b"].map(|name| locks.session(name));
    let (mut mine, theirs) = (a.read("k").now().unwrap(), b.read("k").now().unwrap());
    let held = a.lock("other").now().unwrap();
    // The request that closes the cycle comes after the upgrade.
    let mut upgrade = begun(mine.upgrade().wait_forever());
    let mut closing = b.lock("other").wait_forever().into_future();
    assert!(matches!(poll(&mut closing), Poll::Ready(Err(LockError::Deadlock { .. }))));
    drop(upgrade);
    // And before it.
    let mut waits = queued(b.lock("other"));
    upgrade = mine.upgrade().wait_forever().into_future();
    let refused = poll(&mut upgrade);
    let Poll::Ready(Err(LockError::Deadlock { cycle })) = refused else { panic!("{refused:?}") };
    assert_eq!(cycle.len(), 2, "{cycle:?}");
    drop(upgrade);
    assert!(mine.is_held(), "it keeps its share");
    drop(held);
    assert!(matches!(poll(&mut waits), Poll::Ready(Ok(_))));
    drop(theirs);
}

#[test]
fn a_session_that_holds_two_shares_of_a_key_would_wait_for_itself() {
    let (locks, _) = manager();
    let me = locks.session("me");
    let (mut one, _two) = (me.read("k").now().unwrap(), me.read("k").now().unwrap());
    let refused = poll(&mut one.upgrade().wait_forever().into_future());
    assert!(matches!(refused, Poll::Ready(Err(LockError::Deadlock { .. }))), "{refused:?}");
}

#[test]
fn all_guards_of_a_reentrant_share_are_upgraded_together() {
    let (locks, _) = manager();
    let me = locks.session("me").reentrant();
    let (mut one, mut two) = (me.read("k").now().unwrap(), me.read("k").now().unwrap());
    let other = at_once(locks.read("k"));
    let mut first = begun(one.upgrade().wait_forever());
    let mut second = begun(two.upgrade().wait_forever());
    drop(other);
    assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
    assert_eq!(poll(&mut first), Poll::Ready(Ok(())));
    drop((first, second));
    assert_eq!(one.fencing_token(), two.fencing_token());
    assert!(me.lock("k").now().is_ok(), "what it has alone it may ask for alone");
    drop(one);
    assert_eq!(locks.try_read("k").now().unwrap_err(), LockError::Held);
}

#[test]
fn the_end_of_a_session_or_of_the_manager_ends_the_wait() {
    let (locks, _) = manager();
    let me = locks.session("me");
    let mut mine = me.read("k").now().unwrap();
    let mut lock = at_once(locks.read("k"));
    let mut upgrade = begun(mine.upgrade().wait_forever());
    block_on(me.end());
    assert_eq!(poll(&mut upgrade), Poll::Ready(Err(LockError::Lost(Loss::SessionEnded))));
    let other = at_once(locks.read("k"));
    let mut upgrade = begun(lock.upgrade().wait_forever());
    let mut shutdown = Box::pin(locks.shutdown(LONG));
    assert!(poll(&mut shutdown).is_pending());
    assert_eq!(poll(&mut upgrade), Poll::Ready(Err(LockError::ShuttingDown)));
    drop(upgrade);
    drop((lock, other));
}

#[test]
fn who_is_upgraded_is_shown() {
    let (locks, clock) = manager();
    let mut lock = at_once(locks.read("k"));
    let _other = at_once(locks.read("k"));
    let _upgrade = begun(lock.upgrade().wait_forever());
    clock.advance(Duration::from_secs(2));
    let info = block_on(locks.inspect("k")).unwrap().unwrap();
    let shown: Vec<_> = info.holders.iter().map(|holder| holder.upgrading).collect();
    assert_eq!(shown, [Some(Duration::from_secs(2)), None]);
}
