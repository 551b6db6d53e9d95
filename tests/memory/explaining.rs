//! Fear: who asks why a key is locked, or why it no longer is, is told nothing, too much, or a secret.
#![cfg(feature = "test-util")]

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use leasehold::retry::FixedInterval;
use leasehold::{DeadlockPolicy, Explanation, LockError, LockFuture, LockManager, LockRequest, Loss, ManualClock};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

fn explain(locks: &LockManager, key: &str) -> Explanation {
    block_on(locks.explain(key)).unwrap()
}

#[track_caller]
fn waits(request: LockRequest<'_>) -> LockFuture<'_> {
    let mut future = request.wait_forever().into_future();
    assert!(poll(&mut future).is_pending());
    future
}

fn poll(future: &mut LockFuture<'_>) -> Poll<Result<leasehold::Lock, LockError>> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// The reasons for which the last locks on a key ended, the last one first.
fn whys(locks: &LockManager, key: &str) -> Vec<Option<Loss>> {
    explain(locks, key).ended.iter().map(|ended| ended.why).collect()
}

#[test]
fn it_names_the_holder_and_the_queue_in_its_order() {
    let (locks, clock) = manager();
    let free = explain(&locks, "k");
    assert_eq!((free.key.as_str(), free.lock, free.ended), ("k", None, vec![]));
    let lock = locks.lock("k").owner("ann").ttl(secs(60)).now().unwrap();
    clock.advance(secs(2));
    let _queue = ["bob", "cat"].map(|owner| {
        clock.advance(secs(1));
        waits(locks.lock("k").owner(owner))
    });
    let shown = explain(&locks, "k").lock.unwrap();
    assert_eq!((shown.owner.as_deref(), shown.age, shown.remaining), (Some("ann"), secs(4), secs(56)));
    assert_eq!(shown.fencing_token, lock.fencing_token());
    let queue: Vec<_> = shown.queue.iter().map(|w| (w.position, w.owner.as_deref().unwrap(), w.waited)).collect();
    assert_eq!(queue, [(1, "bob", secs(1)), (2, "cat", secs(0))]);
    assert_eq!(explain(&locks, "other").lock, None);
    assert!(matches!(block_on(locks.explain("")), Err(LockError::InvalidKey(_))));
}

#[test]
fn it_tells_how_the_last_locks_ended_and_why() {
    let clock = ManualClock::new();
    let policy = DeadlockPolicy::RevokeYoungest;
    let locks = LockManager::builder().clock(clock.clock()).on_deadlock(policy).build().unwrap();
    let mut expected = Vec::new();
    let mut ended = |why| {
        expected.insert(0, why);
        assert_eq!(whys(&locks, "k"), expected);
    };
    drop(locks.try_lock_now("k").unwrap());
    ended(None);
    locks.try_lock_now("k").unwrap().unlock_now();
    ended(None);
    let ticket = block_on(locks.try_lock("k").ticket().into_future()).unwrap();
    block_on(locks.release("k", ticket.token())).unwrap();
    ended(Some(Loss::Released));
    let expired = locks.try_lock("k").ttl(secs(5)).now().unwrap();
    clock.advance(secs(5));
    ended(Some(Loss::Expired));
    let forced = locks.try_lock_now("k").unwrap();
    block_on(locks.force_release("k").into_future()).unwrap();
    ended(Some(Loss::Forced));
    let session = locks.session("me");
    let of_session = session.try_lock("k").now().unwrap();
    block_on(session.end());
    ended(Some(Loss::SessionEnded));
    let (me, you) = (locks.session("me"), locks.session("you"));
    let other = you.try_lock("other").now().unwrap();
    clock.advance(secs(1));
    let revoked = me.try_lock("k").now().unwrap();
    let _mine = waits(me.lock("other"));
    let yours = poll(&mut you.lock("k").wait_forever().into_future());
    assert!(matches!(yours, Poll::Ready(Ok(_))));
    drop(yours);
    let whys = whys(&locks, "k");
    assert_eq!(whys[..2], [None, Some(Loss::Revoked)], "mine was taken, and yours let go");
    drop((expired, forced, of_session, revoked, other));
}

#[test]
fn it_tells_who_held_how_long_and_when() {
    let (locks, clock) = manager();
    let lock = locks.lock("k").owner("ann").now().unwrap();
    let fence = lock.fencing_token();
    clock.advance(secs(3));
    drop(lock);
    clock.advance(secs(4));
    let [ended] = explain(&locks, "k").ended.try_into().unwrap();
    assert_eq!((ended.owner.as_deref(), ended.held, ended.ago, ended.why), (Some("ann"), secs(3), secs(4), None));
    assert_eq!(ended.fencing_token, fence);
    // A lock that has run out and that nobody has noticed yet holds nothing.
    let _runs_out = locks.try_lock("k").ttl(secs(1)).now().unwrap();
    clock.jump(secs(1));
    assert_eq!(explain(&locks, "k").lock, None);
}

#[test]
fn what_is_printed_has_names_and_reasons_and_no_token() {
    let (locks, clock) = manager();
    let gone = locks.try_lock("k").owner("gone").ttl(secs(1)).now().unwrap();
    clock.advance(secs(1));
    let _let_go = locks.try_lock_now("k").unwrap().unlock_now();
    let lock = locks.semaphore("k", 3).permits(2).owner("ann").now().unwrap();
    let _waits = waits(locks.semaphore("k", 3).permits(3).owner("bob"));
    let _anonymous = waits(locks.semaphore("k", 3).permits(1));
    clock.advance(secs(2));
    let explanation = explain(&locks, "k");
    let shown = explanation.to_string();
    for part in [
        "k is held by 1",
        "ann, 2 of 3 permits, fence ",
        "for 2.0s, refreshed 0 times, ends in 28.0s",
        "1. in the queue: bob, 3 of 3 permits, for 2.0s",
        "2. in the queue: anonymous, 1 of 3 permits",
        "gone, fence ",
        "its deadline passed",
        "it was let go",
    ] {
        assert!(shown.contains(part), "no `{part}` in:\n{shown}");
    }
    assert_eq!(explain(&locks, "nobody").to_string(), "nobody is free\n");
    for token in [gone.token(), lock.token()] {
        for text in [shown.clone(), format!("{explanation:?}")] {
            assert!(!text.contains(&token.to_string()));
        }
    }
}

#[test]
fn at_most_a_hundred_of_each_and_sixteen_ends_are_shown() {
    let (locks, _) = manager();
    for _ in 0..20 {
        drop(locks.try_lock_now("k").unwrap());
    }
    let readers: Vec<_> = (0..150).map(|_| locks.try_read("k").now().unwrap()).collect();
    let _queue: Vec<_> = (0..150).map(|_| waits(locks.lock("k"))).collect();
    let explanation = explain(&locks, "k");
    let lock = explanation.lock.unwrap();
    assert_eq!((lock.holders.len(), lock.queue.len(), explanation.ended.len()), (100, 100, 16));
    assert_eq!((lock.held_by, lock.waiting), (150, 150), "but all are counted");
    assert!(lock.holders.is_sorted_by_key(|holder| holder.fencing_token));
    assert_eq!(lock.holders[0].fencing_token, readers[0].fencing_token(), "the first of them");
    let inspected = block_on(locks.inspect("k")).unwrap().unwrap();
    assert_eq!((inspected.holders.len(), inspected.queue.len()), (100, 100));
}

#[test]
fn a_request_knows_its_place_and_how_long_it_may_take() {
    let (locks, clock) = manager();
    let unasked = locks.lock("k").into_future();
    assert_eq!(unasked.place(), None, "it has not asked yet");
    let holder = locks.try_lock("k").ttl(secs(600)).now().unwrap();
    let mut first = waits(locks.lock("k").ttl(secs(600)));
    let second = waits(locks.lock("k").ttl(secs(600)));
    let third = waits(locks.lock("k"));
    let positions = [&first, &second, &third].map(|request| request.place().unwrap().position);
    assert_eq!(positions, [1, 2, 3]);
    assert_eq!(third.place().unwrap().estimate, None, "nobody has finished yet");
    clock.advance(secs(10));
    drop(holder);
    assert_eq!(first.place(), None, "it has the lock, and only needs to take it");
    let place = third.place().unwrap();
    assert_eq!((place.position, place.estimate), (2, Some(secs(20))), "10 s each");
    let Poll::Ready(Ok(lock)) = poll(&mut first) else { panic!("it is its turn") };
    assert_eq!(first.place(), None);
    clock.advance(secs(30));
    drop(lock);
    drop(second);
    assert_eq!(third.place(), None);
    let mut polls = locks.lock("k").retry(FixedInterval::default()).into_future();
    assert!(poll(&mut polls).is_pending());
    assert_eq!(polls.place(), None, "a poller has no place");
}

#[test]
fn places_are_told_also_where_many_wait_and_some_leave() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let mut queue: Vec<_> = (0..1_100).map(|_| waits(locks.lock("k"))).collect();
    assert_eq!(queue[999].place().unwrap().position, 1_000);
    assert_eq!(queue[1_000].place().unwrap().position, 1_001);
    assert_eq!(queue[1_099].place().unwrap().position, 1_001, "further back is not counted");
    queue.drain(..10);
    assert_eq!(queue[0].place().unwrap().position, 1);
    assert_eq!(queue[500].place().unwrap().position, 501);
    drop((queue, holder));
    assert_eq!(locks.stats().waiting, 0);
}
