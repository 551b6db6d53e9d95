//! Fear: a lock that an operator asks back with notice is kept longer than the notice, is taken earlier, or is taken
//! from somebody who was not asked.
#![cfg(feature = "test-util")]

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::executor::block_on;
use leasehold::{Lock, LockError, LockFuture, LockManager, Loss, ManualClock, Release};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

type Order<'a> = Pin<Box<dyn Future<Output = Result<Release, LockError>> + Send + 'a>>;

/// An order that has been given and is not carried out yet.
#[track_caller]
fn order<'a>(locks: &'a LockManager, key: &str, notice: Duration) -> Order<'a> {
    let mut order = locks.force_release(key).notice(notice).into_future();
    assert!(poll(&mut order).is_pending());
    order
}

fn waiter(locks: &LockManager) -> Pin<Box<LockFuture<'_>>> {
    let mut waiter = Box::pin(locks.lock("k").ttl(secs(600)).wait_forever().into_future());
    assert!(poll(&mut waiter).is_pending());
    waiter
}

/// What a future comes to, at once or as soon as the manager's own thread has passed it on.
#[track_caller]
fn answer<F: Future + ?Sized>(mut future: Pin<Box<F>>) -> F::Output {
    let began = Instant::now();
    loop {
        match poll(&mut future) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => assert!(began.elapsed() < secs(20), "it still waits"),
        }
        std::thread::yield_now();
    }
}

fn hold(locks: &LockManager) -> Lock {
    locks.try_lock("k").ttl(secs(60)).now().unwrap()
}

/// Lets time pass in steps, as timers see it.
fn pass(clock: &ManualClock, span: u64) {
    (0..span).for_each(|_| clock.advance(secs(1)));
}

#[test]
fn the_holder_is_told_when_and_the_lock_is_taken_then_and_handed_on() {
    for watches in ["before", "after"] {
        let (locks, clock) = manager();
        let lock = hold(&locks);
        let asked = (watches == "before").then(|| Box::pin(lock.revocation_notice()));
        let lost = lock.lost();
        let next = waiter(&locks);
        let at = clock.now().saturating_add(secs(10));
        let mut taken = order(&locks, "k", secs(10));
        let mut asked = asked.unwrap_or_else(|| Box::pin(lock.revocation_notice()));
        assert_eq!(poll(&mut asked), Poll::Ready(Some(at)));
        assert_eq!((lock.deadline(), lock.remaining(), lock.is_held()), (Some(at), secs(10), true));
        let info = block_on(locks.inspect("k")).unwrap().unwrap();
        assert_eq!(info.holders[0].revocation_notice, Some(secs(10)));
        pass(&clock, 9);
        assert!(lock.is_held() && poll(&mut taken).is_pending());
        pass(&clock, 1);
        assert_eq!(lock.ensure_held(), Err(LockError::Lost(Loss::Forced)));
        assert_eq!(block_on(lost), Some(Loss::Forced));
        assert_eq!(answer(taken), Ok(Release::Released));
        assert!(answer(next).unwrap().is_held());
        assert_eq!((locks.stats().forced, locks.stats().expired), (1, 0));
    }
}

#[test]
fn no_refresh_moves_past_the_notice() {
    let (locks, clock) = manager();
    let lock = hold(&locks);
    lock.auto_refresh(secs(5), secs(2)).unwrap();
    let taken = order(&locks, "k", secs(10));
    let at = lock.deadline();
    for _ in 0..9 {
        clock.advance(secs(1));
        assert_eq!(block_on(lock.refresh()).map(|refreshed| Some(refreshed.deadline)), Ok(at));
        assert_eq!(block_on(lock.refresh_for(secs(3_600))).map(|refreshed| Some(refreshed.deadline)), Ok(at));
        assert_eq!(block_on(locks.refresh("k", lock.token(), None)).map(|r| Some(r.deadline)), Ok(at));
    }
    clock.advance(secs(1));
    assert_eq!(lock.ensure_held(), Err(LockError::Lost(Loss::Forced)));
    assert_eq!(answer(taken), Ok(Release::Released));
}

#[test]
fn a_holder_that_lets_go_earlier_ends_the_order() {
    for how in ["unlocked", "dropped", "by its token"] {
        let (locks, clock) = manager();
        let lock = hold(&locks);
        let taken = order(&locks, "k", secs(10));
        let next = waiter(&locks);
        pass(&clock, 3);
        match how {
            "unlocked" => assert_eq!(lock.unlock_now(), Release::Released),
            "dropped" => drop(lock),
            _ => assert_eq!(block_on(locks.release("k", lock.detach().token())), Ok(Release::Released)),
        }
        assert_eq!(answer(taken), Ok(Release::Released));
        let next = answer(next).unwrap();
        pass(&clock, 20);
        assert!(next.is_held(), "the notice was for another");
        assert_eq!(block_on(locks.inspect("k")).unwrap().unwrap().holders[0].revocation_notice, None);
        assert_eq!(locks.stats().forced, 0);
    }
}

#[test]
fn a_later_order_shortens_the_notice_and_never_lengthens_it() {
    let (locks, clock) = manager();
    let lock = hold(&locks);
    let _first = order(&locks, "k", secs(10));
    assert_eq!(block_on(lock.revocation_notice()), lock.deadline());
    let _longer = order(&locks, "k", secs(30));
    assert_eq!(block_on(lock.refresh()).unwrap().remaining, secs(10));
    let shorter = order(&locks, "k", secs(4));
    assert_eq!(block_on(lock.refresh()).unwrap().remaining, secs(4));
    assert_eq!(block_on(lock.revocation_notice()), lock.deadline(), "one who asks again hears of the shorter notice");
    assert_eq!(block_on(locks.inspect("k")).unwrap().unwrap().holders[0].revocation_notice, Some(secs(4)));
    pass(&clock, 4);
    assert!(!lock.is_held());
    assert_eq!(answer(shorter), Ok(Release::Released));
    let lock = hold(&locks);
    let standing = order(&locks, "k", secs(30));
    assert_eq!(block_on(locks.force_release("k").into_future()), Ok(Release::Released), "without notice it is at once");
    assert!(!lock.is_held());
    assert_eq!(answer(standing), Ok(Release::Released));
}

#[test]
fn a_notice_of_nothing_is_none() {
    let (locks, _) = manager();
    let lock = hold(&locks);
    assert_eq!(block_on(locks.force_release("k").notice(Duration::ZERO).into_future()), Ok(Release::Released));
    assert!(!lock.is_held());
    assert_eq!(block_on(locks.force_release("k").notice(secs(9)).into_future()), Ok(Release::AlreadyGone));
    assert!(matches!(block_on(locks.force_release("").notice(secs(9)).into_future()), Err(LockError::InvalidKey(_))));
}

#[test]
fn dropping_the_order_leaves_the_notice_standing() {
    let (locks, clock) = manager();
    let lock = hold(&locks);
    drop(locks.force_release("k").notice(secs(1)));
    drop(locks.force_release("k").notice(secs(1)).into_future());
    assert_eq!(lock.remaining(), secs(60), "an order that was never polled was never given");
    drop(order(&locks, "k", secs(10)));
    assert_eq!(lock.remaining(), secs(10));
    pass(&clock, 10);
    assert_eq!(lock.ensure_held(), Err(LockError::Lost(Loss::Forced)));
}

#[test]
fn a_lock_of_a_session_is_taken_and_the_session_goes_on() {
    let (locks, clock) = manager();
    let me = locks.session("me").ttl(secs(60));
    let asked = block_on(me.lock("k").into_future()).unwrap();
    let other = block_on(me.lock("other").into_future()).unwrap();
    let taken = order(&locks, "k", secs(10));
    assert_eq!((asked.remaining(), other.remaining()), (secs(10), secs(60)));
    for _ in 0..9 {
        clock.advance(secs(1));
        assert_eq!(block_on(me.heartbeat()), Ok(secs(60)));
        block_on(asked.refresh()).unwrap();
    }
    assert_eq!((asked.remaining(), other.remaining()), (secs(1), secs(60)));
    clock.advance(secs(1));
    assert_eq!(asked.ensure_held(), Err(LockError::Lost(Loss::Forced)));
    assert!(other.is_held() && me.is_alive());
    assert_eq!(answer(taken), Ok(Release::Released));
    assert_eq!(me.locks(), 1);
}

#[test]
fn all_who_share_a_key_are_asked_and_the_order_ends_with_the_last_of_them() {
    let (locks, clock) = manager();
    let readers: Vec<_> = (0..300).map(|_| locks.try_read("k").ttl(secs(60)).now().unwrap()).collect();
    let mut asked: Vec<_> = readers.iter().map(|reader| Box::pin(reader.revocation_notice())).collect();
    let next = waiter(&locks);
    let mut taken = order(&locks, "k", secs(10));
    assert!(asked.iter_mut().all(|asked| matches!(poll(asked), Poll::Ready(Some(_)))));
    let mut readers = readers.into_iter();
    readers.by_ref().take(299).for_each(drop);
    let last = readers.next().unwrap();
    pass(&clock, 9);
    assert!(last.is_held() && poll(&mut taken).is_pending());
    pass(&clock, 1);
    assert!(!last.is_held());
    assert_eq!(answer(taken), Ok(Release::Released));
    let next = answer(next).unwrap();
    assert!(next.is_held());
    assert_eq!((locks.stats().forced, locks.stats().dropped), (1, 299));
}

#[test]
fn one_who_is_never_asked_hears_of_the_end_instead() {
    let (locks, clock) = manager();
    for how in ["unlocked", "expired", "forced"] {
        let lock = hold(&locks);
        let mut asked = Box::pin(lock.revocation_notice());
        assert!(poll(&mut asked).is_pending());
        match how {
            "unlocked" => assert_eq!(lock.unlock_now(), Release::Released),
            "expired" => pass(&clock, 60),
            _ => assert_eq!(block_on(locks.force_release("k").into_future()), Ok(Release::Released)),
        }
        assert_eq!(answer(asked), None, "{how}");
    }
}

#[test]
fn a_lock_that_runs_out_before_its_notice_has_expired() {
    for pass in [ManualClock::advance, ManualClock::jump] {
        let (locks, clock) = manager();
        let lock = locks.try_lock("k").ttl(secs(5)).now().unwrap();
        let taken = order(&locks, "k", secs(10));
        assert_eq!(lock.remaining(), secs(5), "notice makes no lock longer");
        // Nobody looks until both are over.
        pass(&clock, secs(20));
        assert_eq!(lock.ensure_held(), Err(LockError::Lost(Loss::Expired)));
        assert_eq!(answer(taken), Ok(Release::Released));
        assert_eq!((locks.stats().expired, locks.stats().forced), (1, 0));
    }
}
