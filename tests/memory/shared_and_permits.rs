//! Fear: readers and a writer meet, a writer starves, a semaphore gives more than it has (T1, T2), or those behind one
//! that went away are forgotten (peer bugs 20, 21).
#![cfg(feature = "test-util")]

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::executor::block_on;
use leasehold::messages::GetStats;
use leasehold::retry::FixedInterval;
use leasehold::{
    Lock, LockError, LockFuture, LockManager, LockRequest, Loss, ManualClock, Mode, ModeConflict, Release, Token,
};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

fn poll(future: &mut LockFuture<'_>) -> Poll<Result<Lock, LockError>> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A request that has begun to wait.
#[track_caller]
fn begun(request: LockRequest<'_>) -> LockFuture<'_> {
    let mut future = request.into_future();
    let first = poll(&mut future);
    assert!(first.is_pending(), "{first:?}");
    future
}

#[track_caller]
fn waits(request: LockRequest<'_>) -> LockFuture<'_> {
    begun(request.wait_forever())
}

/// What a request hears that need not wait any more.
#[track_caller]
fn answer(mut future: LockFuture<'_>) -> Result<Lock, LockError> {
    match poll(&mut future) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it still waits"),
    }
}

/// The lock of a request that need not wait at all.
#[track_caller]
fn at_once(request: LockRequest<'_>) -> Lock {
    answer(request.into_future()).unwrap()
}

#[test]
fn readers_hold_together_and_keep_a_writer_out_until_the_last_has_gone() {
    let (locks, _) = manager();
    let mut readers: Vec<_> = (0..10).map(|_| at_once(locks.read("k"))).collect();
    let mut fences: Vec<_> = readers.iter().map(|reader| reader.fencing_token()).collect();
    fences.dedup();
    assert_eq!(fences.len(), 10, "each has a grant of its own");
    assert!(fences.is_sorted());
    assert_eq!(locks.try_lock_now("k").unwrap_err(), LockError::Held);
    let mut writer = waits(locks.write("k"));
    // First one from the middle, and the one that came first.
    for at in [4, 0, 7, 0, 2, 1, 0, 0, 0] {
        drop(readers.remove(at));
        assert!(poll(&mut writer).is_pending());
        assert!(readers.iter().all(|reader| reader.is_held()));
    }
    drop(readers);
    let writer = answer(writer).unwrap();
    assert_eq!(locks.try_read("k").now().unwrap_err(), LockError::Held);
    drop(writer);
    assert!(locks.try_read("k").now().is_ok());
}

#[test]
fn a_waiting_writer_is_not_passed_and_the_readers_behind_it_go_in_together() {
    let (locks, _) = manager();
    let first = at_once(locks.read("k"));
    let mut writer = waits(locks.write("k"));
    let mut readers = [(); 3].map(|()| waits(locks.read("k")));
    let mut last = waits(locks.write("k"));
    assert_eq!(locks.try_read("k").now().unwrap_err(), LockError::Held, "nobody passes who waits");
    drop(first);
    let Poll::Ready(Ok(writer)) = poll(&mut writer) else { panic!("it is its turn") };
    assert!(readers.iter_mut().all(|reader| poll(reader).is_pending()));
    drop(writer);
    let readers = readers.map(|reader| answer(reader).unwrap());
    assert!(poll(&mut last).is_pending());
    drop(readers);
    assert!(answer(last).is_ok());
}

#[test]
fn a_downgrade_lets_readers_in_and_keeps_the_grant() {
    let (locks, clock) = manager();
    let lock = at_once(locks.write("k").ttl(secs(60)));
    let (token, fence, deadline) = (lock.token(), lock.fencing_token(), lock.deadline());
    let readers = [(); 2].map(|()| waits(locks.read("k")));
    let mut writer = waits(locks.write("k"));
    let mut behind = waits(locks.read("k"));
    clock.advance(secs(1));
    block_on(lock.downgrade()).unwrap();
    assert_eq!((lock.token(), lock.fencing_token(), lock.deadline()), (token, fence, deadline));
    let readers = readers.map(|reader| answer(reader).unwrap());
    assert!(lock.is_held() && readers.iter().all(|reader| reader.fencing_token() > fence));
    assert!(poll(&mut writer).is_pending() && poll(&mut behind).is_pending(), "the writer is next");
    let info = block_on(locks.inspect("k")).unwrap().unwrap();
    assert_eq!((info.mode, info.held_by), (Mode::Shared, 3));
    block_on(lock.downgrade()).unwrap();
    drop(lock);
    assert!(poll(&mut writer).is_pending());
    drop(readers);
    drop(answer(writer).unwrap());
    assert!(answer(behind).is_ok());
}

#[test]
fn what_cannot_be_downgraded_says_so() {
    let (locks, clock) = manager();
    let permit = at_once(locks.semaphore("pool", 2).permits(1));
    assert_eq!(block_on(permit.downgrade()), Err(ModeConflict::Permits.into()));
    let gone = at_once(locks.lock("k").ttl(secs(1)));
    clock.advance(secs(1));
    assert_eq!(block_on(gone.downgrade()), Err(LockError::Lost(Loss::Expired)));
}

#[test]
fn permits_are_counted_by_weight_to_the_exact_limit() {
    let (locks, _) = manager();
    let pool = locks.semaphore("pool", 10);
    let [three, seven] = [3, 7].map(|permits| at_once(pool.permits(permits)));
    assert_eq!(pool.try_permits(1).now().unwrap_err(), LockError::Held);
    drop(three);
    assert_eq!(pool.try_permits(4).now().unwrap_err(), LockError::Held);
    let again = at_once(pool.permits(3));
    drop((seven, again));
    let all = at_once(pool.permits(10));
    drop(all);
    let huge = locks.semaphore("huge", u32::MAX);
    let most = at_once(huge.permits(u32::MAX - 1));
    let one = at_once(huge.permits(1));
    assert_eq!(huge.try_permits(u32::MAX).now().unwrap_err(), LockError::Held, "no overflow");
    drop((most, one));
    let awaited = block_on(locks.semaphore("pool", 1).into_future()).unwrap();
    assert_eq!(locks.semaphore("pool", 1).try_permits(1).now().unwrap_err(), LockError::Held, "it took one");
    drop(awaited);
}

#[test]
fn a_request_for_many_permits_is_not_passed_by_one_for_few() {
    let (locks, _) = manager();
    let pool = locks.semaphore("pool", 4);
    let [one, two] = [1, 2].map(|permits| at_once(pool.permits(permits)));
    let mut four = waits(pool.permits(4));
    let mut few = [1, 2].map(|permits| waits(pool.permits(permits)));
    assert_eq!(pool.try_permits(1).now().unwrap_err(), LockError::Held, "there is one, but not for those who come now");
    drop(two);
    assert!(poll(&mut four).is_pending() && few.iter_mut().all(|few| poll(few).is_pending()));
    drop(one);
    let four = answer(four).unwrap();
    assert!(few.iter_mut().all(|few| poll(few).is_pending()));
    drop(four);
    let few = few.map(|few| answer(few).unwrap());
    assert!(few.iter().all(|few| few.is_held()));
}

#[test]
fn a_key_in_use_is_no_other_kind_of_lock_and_a_free_one_is_any() {
    let (locks, _) = manager();
    type AcquireRequest = (&'static str, fn(&LockManager) -> LockRequest<'_>, u32);
    let asks: [AcquireRequest; 5] = [
        ("exclusive", |locks| locks.lock("k"), 0),
        ("shared", |locks| locks.read("k"), 0),
        ("1 of 2", |locks| locks.semaphore("k", 2).permits(1), 2),
        ("2 of 2", |locks| locks.semaphore("k", 2).permits(2), 2),
        ("1 of 3", |locks| locks.semaphore("k", 3).permits(1), 3),
    ];
    for (held_as, hold, kind) in asks {
        let held = at_once(hold(&locks));
        for (asked_as, ask, other) in asks {
            let wrong = poll(&mut ask(&locks).into_future());
            if kind == other {
                assert!(!matches!(wrong, Poll::Ready(Err(_))), "{held_as}, {asked_as}: {wrong:?}");
            } else {
                assert!(matches!(wrong, Poll::Ready(Err(LockError::WrongMode(_)))), "{held_as}, {asked_as}: {wrong:?}");
                assert!(matches!(ask(&locks).now().unwrap_err(), LockError::WrongMode(_)));
                let polls = ask(&locks).retry(FixedInterval::new(secs(1), 9)).into_future();
                assert!(matches!(answer(polls).unwrap_err(), LockError::WrongMode(_)));
            }
        }
        drop(held);
        assert!(!block_on(locks.is_locked("k")).unwrap());
    }
}

#[test]
fn permits_that_there_cannot_be_are_refused() {
    let (locks, _) = manager();
    for (limit, permits) in [(0, 0), (0, 1), (1, 0), (1, 2), (10, 11), (10, u32::MAX), (u32::MAX, 0)] {
        let answer = locks.semaphore("pool", limit).permits(permits).now();
        assert!(matches!(answer, Err(LockError::InvalidOption { option: "permits", .. })), "{permits} of {limit}");
    }
    let bad_key = locks.semaphore("", 1).permits(1).now();
    assert!(matches!(bad_key, Err(LockError::InvalidKey(_))));
    assert_eq!((locks.stats().granted, locks.stats().active), (0, 0));
}

#[test]
fn one_of_many_that_expires_gives_its_own_room_back_and_nothing_else() {
    for pass in [ManualClock::advance, ManualClock::jump] {
        let (locks, clock) = manager();
        let pool = locks.semaphore("pool", 3);
        let long = at_once(pool.permits(1).ttl(secs(60)));
        let brief = at_once(pool.permits(1).ttl(secs(1)));
        let other = at_once(pool.permits(1).ttl(secs(60)));
        let reader = at_once(locks.read("k").ttl(secs(1)));
        let stays = at_once(locks.read("k").ttl(secs(60)));
        let mut two = waits(pool.permits(2));
        let mut writer = waits(locks.write("k"));
        pass(&clock, secs(1));
        assert!(!brief.is_held() && !reader.is_held() && long.is_held() && other.is_held() && stays.is_held());
        assert_eq!(block_on(brief.unlock()), Release::AlreadyGone);
        assert_eq!(block_on(reader.refresh()).unwrap_err(), LockError::Lost(Loss::Expired));
        assert!(poll(&mut two).is_pending() && poll(&mut writer).is_pending());
        assert_eq!(block_on(locks.inspect("pool")).unwrap().unwrap().held_by, 2);
        // The first of them, whose slot is the key's own.
        drop(long);
        let two = answer(two).unwrap();
        drop(stays);
        drop((answer(writer).unwrap(), two, other));
        assert_eq!((locks.stats().active, locks.stats().expired), (0, 2));
    }
}

#[test]
fn the_first_of_many_may_go_and_the_others_stay() {
    let (locks, clock) = manager();
    let first = at_once(locks.read("k").ttl(secs(1)));
    let second = at_once(locks.read("k").ttl(secs(60)));
    let third = at_once(locks.read("k").ttl(secs(60)));
    clock.jump(secs(1));
    assert!(!first.is_held() && second.is_held() && third.is_held());
    assert_eq!(locks.try_lock_now("k").unwrap_err(), LockError::Held);
    let fourth = at_once(locks.read("k"));
    drop((second, third));
    assert_eq!(locks.try_lock_now("k").unwrap_err(), LockError::Held);
    drop(fourth);
    assert!(locks.try_lock_now("k").is_ok());
}

#[test]
fn force_release_ends_all_who_hold_a_key_and_none_who_come_after() {
    let (locks, _) = manager();
    // More than are ended in one slice.
    let readers: Vec<_> = (0..300).map(|_| at_once(locks.read("k"))).collect();
    let writer = waits(locks.write("k"));
    let lost: Vec<_> = readers.iter().map(|reader| reader.lost()).collect();
    assert_eq!(block_on(locks.force_release("k").into_future()), Ok(Release::Released));
    for lost in lost {
        assert_eq!(block_on(lost), Some(Loss::Forced));
    }
    let writer = answer(writer).unwrap();
    assert!(writer.is_held(), "it came by the release and is not meant by it");
    drop(readers);
    assert!(writer.is_held());
    assert_eq!((locks.stats().forced, locks.stats().active), (300, 1));
    drop(writer);
    let permits: Vec<_> = [1, 3].into_iter().map(|n| at_once(locks.semaphore("pool", 4).permits(n))).collect();
    assert_eq!(block_on(locks.force_release("pool").into_future()), Ok(Release::Released));
    assert!(permits.iter().all(|permit| !permit.is_held()));
    assert!(locks.semaphore("pool", 4).try_permits(4).now().is_ok());
}

#[actix_rt::test]
async fn force_release_spares_the_one_who_gets_the_key_because_its_holder_ran_out() {
    let (locks, clock) = manager();
    let gone = at_once(locks.lock("k").ttl(secs(1)));
    let waiter = waits(locks.lock("k"));
    // So that the shard's actor has had the turn that the waiter called for, and will not come in between.
    locks.shard(gone.key()).send(GetStats).await.unwrap().unwrap();
    clock.jump(secs(1));
    assert_eq!(locks.force_release("k").await, Ok(Release::AlreadyGone));
    assert!(answer(waiter).unwrap().is_held());
    drop(gone);
}

#[test]
fn inspect_names_all_holders_with_their_modes() {
    let (locks, clock) = manager();
    let pool = locks.semaphore("pool", 9);
    let first = at_once(pool.permits(2).owner("ann"));
    clock.advance(secs(2));
    let second = at_once(pool.permits(3).owner("bob").ttl(secs(10)));
    let waiting = waits(pool.permits(5).owner("cat"));
    let info = block_on(locks.inspect("pool")).unwrap().unwrap();
    let shown: Vec<_> = info.holders.iter().map(|h| (h.owner.as_deref().unwrap(), h.mode, h.age)).collect();
    let permits = |permits| Mode::Permits { limit: 9, permits };
    assert_eq!(shown, [("ann", permits(2), secs(2)), ("bob", permits(3), secs(0))]);
    assert_eq!(info.holders[1].remaining, secs(10));
    assert_eq!(
        info.holders.iter().map(|h| h.fencing_token).collect::<Vec<_>>(),
        [first.fencing_token(), second.fencing_token()]
    );
    assert_eq!((info.held_by, info.waiting, info.queue[0].mode), (2, 1, permits(5)));
    assert_eq!(info.mode.to_string(), "2 of 9 permits");
    for (key, ask, mode) in [("w", locks.write("w"), Mode::Exclusive), ("r", locks.read("r"), Mode::Shared)] {
        let _held = at_once(ask);
        assert_eq!(block_on(locks.inspect(key)).unwrap().unwrap().holders[0].mode, mode);
    }
    drop((first, second, waiting));
}

/// Peer bug 21: a waiter in front that goes away, in whatever way, lets those behind it in at once.
#[test]
fn those_behind_a_waiter_that_went_away_go_in_with_those_who_are_there() {
    for leaves in ["dropped", "timed out", "timed out unnoticed"] {
        let (locks, clock) = manager();
        let reader = at_once(locks.read("k").ttl(secs(60)));
        let mut writer = begun(locks.write("k").wait(secs(1)));
        let behind = [(); 2].map(|()| waits(locks.read("k")));
        let pool = locks.semaphore("pool", 3);
        let one = at_once(pool.permits(1).ttl(secs(60)));
        let mut three = begun(pool.permits(3).wait(secs(1)));
        let few = [1, 1].map(|permits| waits(pool.permits(permits)));
        match leaves {
            "dropped" => drop((writer, three)),
            "timed out" => clock.advance(secs(1)),
            _ => {
                clock.jump(secs(1));
                for gone in [&mut writer, &mut three] {
                    assert!(matches!(poll(gone), Poll::Ready(Err(LockError::Timeout { .. }))));
                }
            }
        }
        let together = behind.map(|reader| answer(reader).unwrap());
        let few = few.map(|few| answer(few).unwrap());
        assert!(reader.is_held() && one.is_held(), "{leaves}");
        drop((reader, one, together, few));
        assert_eq!((locks.stats().active, locks.stats().waiting), (0, 0));
    }
}

/// Peer bug 21: a share that was granted and never looked at goes on.
#[test]
fn a_share_or_permit_whose_future_is_dropped_unseen_goes_on() {
    let (locks, _) = manager();
    let writer = at_once(locks.write("k"));
    let readers = [(); 2].map(|()| waits(locks.read("k")));
    let next = waits(locks.write("k"));
    drop(writer);
    drop(readers);
    assert!(answer(next).is_ok());

    let pool = locks.semaphore("pool", 2);
    let both = at_once(pool.permits(2));
    let unseen = waits(pool.permits(1));
    let mut seen = waits(pool.permits(1));
    let mut last = waits(pool.permits(1));
    drop(both);
    let Poll::Ready(Ok(seen)) = poll(&mut seen) else { panic!("it is its turn") };
    assert!(poll(&mut last).is_pending());
    drop(unseen);
    assert!(answer(last).is_ok());
    assert!(seen.is_held());
}

#[test]
fn shares_and_permits_are_released_and_refreshed_by_their_own_tokens() {
    let (locks, clock) = manager();
    type AcquireRequest = fn(&LockManager) -> LockRequest<'_>;
    let kinds: [AcquireRequest; 2] = [|locks| locks.read("k"), |locks| locks.semaphore("k", 2).permits(1)];
    for ask in kinds {
        let [one, two] = [(); 2].map(|()| block_on(ask(&locks).ttl(secs(10)).ticket().into_future()).unwrap());
        assert_ne!(one.token(), two.token());
        clock.advance(secs(6));
        assert_eq!(block_on(locks.refresh("k", two.token(), None)).unwrap().remaining, secs(10));
        assert_eq!(locks.inspect_ticket(&one).unwrap().remaining, secs(4));
        assert_eq!(block_on(locks.refresh("k", Token::random(), None)).unwrap_err(), LockError::NotHeld);
        clock.advance(secs(4));
        assert_eq!(block_on(locks.refresh("k", one.token(), None)).unwrap_err(), LockError::Lost(Loss::Expired));
        assert_eq!(block_on(locks.release("k", one.token())), Ok(Release::AlreadyGone));
        let restored = locks.restore(&two).unwrap();
        assert_eq!((restored.fencing_token(), restored.is_held()), (two.fencing_token(), true));
        let two = restored.detach();
        assert_eq!(block_on(locks.release("k", two.token())), Ok(Release::Released));
        assert_eq!(block_on(locks.release("k", two.token())), Ok(Release::AlreadyGone));
        assert!(!block_on(locks.is_locked("k")).unwrap());
    }
}

#[test]
fn a_retried_request_for_a_share_or_permits_gets_the_same_one() {
    let (locks, clock) = manager();
    let [first, second] = [Token::random(), Token::random()];
    let ticket = |ask: LockRequest<'_>, token| block_on(ask.token(token).ttl(secs(60)).ticket().into_future());
    let held = ticket(locks.read("k"), first).unwrap();
    let other = ticket(locks.read("k"), second).unwrap();
    clock.advance(secs(1));
    let again = ticket(locks.read("k"), first).unwrap();
    assert_eq!(again.fencing_token(), held.fencing_token());
    assert_eq!(locks.inspect_ticket(&again).unwrap().remaining, secs(59), "nothing is re-dated");
    assert_eq!(ticket(locks.lock("k"), second).unwrap_err(), LockError::TokenReused, "a share is no exclusive lock");
    assert_eq!(block_on(locks.inspect("k")).unwrap().unwrap().held_by, 2);
    for gone in [held, other] {
        assert_eq!(block_on(locks.release("k", gone.token())), Ok(Release::Released));
    }
    assert_eq!(ticket(locks.read("k"), first).unwrap_err(), LockError::Lost(Loss::Released));

    let pool = locks.semaphore("pool", 3);
    let [third, fourth] = [Token::random(), Token::random()];
    let two = ticket(pool.permits(2), third).unwrap();
    assert_eq!(ticket(pool.permits(2), third).unwrap().fencing_token(), two.fencing_token());
    assert_eq!(ticket(pool.permits(1), third).unwrap_err(), LockError::TokenReused);
    let queued = waits(pool.permits(2).token(fourth).ttl(secs(60)));
    let joined = waits(pool.permits(2).token(fourth).ttl(secs(60)));
    assert_eq!(locks.stats().waiting, 1, "they share the place");
    assert_eq!(block_on(locks.release("pool", third)), Ok(Release::Released));
    let lock = answer(queued).unwrap();
    drop(joined);
    assert!(lock.is_held());
}

#[test]
fn readers_writers_and_permits_on_many_threads_keep_their_limits() {
    let locks = LockManager::builder().build().unwrap();
    // Negative: a writer is at work.
    let (at_work, permits) = (AtomicI64::new(0), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for n in 0..6_i64 {
            let (locks, at_work, permits) = (&locks, &at_work, &permits);
            scope.spawn(move || {
                for round in 0..400 {
                    if (n + round) % 3 == 0 {
                        let _lock = locks.write("k").wait_forever().block().unwrap();
                        assert_eq!(at_work.fetch_sub(1, Ordering::SeqCst), 0, "somebody was there with the writer");
                        at_work.fetch_add(1, Ordering::SeqCst);
                    } else {
                        let _lock = locks.read("k").wait_forever().block().unwrap();
                        assert!(at_work.fetch_add(1, Ordering::SeqCst) >= 0, "a writer was there");
                        at_work.fetch_sub(1, Ordering::SeqCst);
                    }
                    let want = (n + round) % 5 + 1;
                    let _permits = locks.semaphore("pool", 5).permits(want as u32).wait_forever().block().unwrap();
                    assert!(permits.fetch_add(want, Ordering::SeqCst) + want <= 5, "more than there are");
                    permits.fetch_sub(want, Ordering::SeqCst);
                }
            });
        }
    });
    let stats = locks.stats();
    assert_eq!((stats.active, stats.waiting, stats.granted), (0, 0, 4_800));
    assert_eq!(stats.queued, stats.handoffs);
}
