//! Fear: a shared lock is released under one who still works, is kept for ever by those who overlap, or takes all of its
//! callers down with one (peer bug 40).
#![cfg(feature = "test-util")]

use std::future::IntoFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::executor::block_on;
use leasehold::{Held, LockError, LockManager, ManualClock, Release, SharedLock, SharedLockFuture, SharedLockRequest};

const SEC: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A caller that is polled by hand, and tells whether it was woken since.
struct Caller<'a> {
    future: SharedLockFuture<'a>,
    bell: Arc<Bell>,
}

impl<'a> Caller<'a> {
    /// Asks.
    fn new(request: SharedLockRequest<'a>) -> Self {
        let mut caller = Self { future: request.into_future(), bell: Arc::default() };
        assert!(caller.poll().is_pending());
        caller
    }

    fn poll(&mut self) -> Poll<Result<SharedLock, LockError>> {
        self.bell.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.bell));
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.bell.0.load(Ordering::SeqCst)
    }

    /// The answer, which it was woken for.
    #[track_caller]
    fn answer(&mut self) -> Result<SharedLock, LockError> {
        assert!(self.is_woken());
        match self.poll() {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("it was woken for nothing"),
        }
    }

    #[track_caller]
    fn waits_on(&mut self) {
        assert!(self.poll().is_pending());
    }
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

#[test]
fn those_who_ask_while_it_is_waited_for_share_one_place_and_one_lock() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let mut callers = [(); 3].map(|()| Caller::new(locks.singleflight_lock("k")));
    assert_eq!(locks.stats().waiting, 1);
    drop(holder);
    let shared = callers.each_mut().map(|caller| caller.answer().unwrap());
    assert!(shared.iter().all(|lock| lock.token() == shared[0].token() && lock.is_held()));
    let stats = locks.stats();
    assert_eq!((stats.granted, stats.flights_led, stats.flights_shared), (2, 1, 2));
}

#[test]
fn the_last_of_them_releases_it_whether_by_unlock_or_by_drop() {
    let (locks, _) = manager();
    let held = || block_on(locks.is_locked("k")).unwrap();
    for _ in 0..2 {
        let holder = locks.try_lock_now("k").unwrap();
        let mut callers = [(); 4].map(|()| Caller::new(locks.singleflight_lock("k")));
        drop(holder);
        let [first, second, third] = [0, 1, 2].map(|at| callers[at].answer().unwrap());
        assert_eq!(first.unlock_now(), Release::Released);
        drop(second);
        let unpolled = third.unlock();
        drop(unpolled);
        assert!(held(), "one of them has not come for it yet");
        let last = callers[3].answer().unwrap();
        assert!(last.is_held());
        assert_eq!(block_on(last.unlock()), Release::Released);
        assert!(!held());
    }
    drop(block_on(locks.singleflight_lock("k").into_future()).unwrap());
    assert!(!held());
    assert_eq!((locks.stats().released, locks.stats().dropped), (2, 3), "by what the last one did");
}

#[test]
fn who_asks_after_the_grant_waits_for_the_next_one() {
    let (locks, _) = manager();
    let mut lock = block_on(locks.singleflight_lock("k").into_future()).unwrap();
    for _ in 0..5 {
        let mut later = Caller::new(locks.singleflight_lock("k"));
        let mut with_it = Caller::new(locks.singleflight_lock("k"));
        assert_eq!(locks.stats().waiting, 1);
        let fence = lock.fencing_token();
        drop(lock);
        lock = later.answer().unwrap();
        assert!(lock.fencing_token() > fence, "a grant of its own");
        // The other has not come for the lock yet, but the lock was seen: this is another flight.
        let mut too_late = Caller::new(locks.singleflight_lock("k"));
        assert_eq!(with_it.answer().unwrap().token(), lock.token());
        too_late.waits_on();
    }
}

#[test]
fn overlapping_callers_do_not_keep_others_out() {
    let (locks, _) = manager();
    let lock = block_on(locks.singleflight_lock("k").into_future()).unwrap();
    let mut other = Box::pin(locks.lock("k").into_future());
    assert!(other.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let mut overlapping = Caller::new(locks.singleflight_lock("k"));
    drop(lock);
    let Poll::Ready(Ok(other)) = other.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it queued first")
    };
    overlapping.waits_on();
    drop(other);
    assert!(overlapping.answer().is_ok());
}

#[test]
fn each_caller_waits_as_long_as_it_said_from_when_it_asked() {
    let (locks, clock) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let waited = |answer: Result<SharedLock, LockError>| match answer {
        Err(LockError::Timeout { waited }) => waited,
        other => panic!("{other:?}"),
    };
    let mut short = Caller::new(locks.singleflight_lock("k").wait(SEC));
    let mut default = Caller::new(locks.singleflight_lock("k"));
    let mut patient = Caller::new(locks.singleflight_lock("k").wait_forever());
    clock.advance(SEC / 2);
    let mut late = Caller::new(locks.singleflight_lock("k").wait(SEC));
    clock.advance(SEC / 2);
    assert_eq!(waited(short.answer()), SEC);
    late.waits_on();
    clock.advance(SEC / 2);
    assert_eq!(waited(late.answer()), SEC);
    assert!(!default.is_woken() && !patient.is_woken());
    clock.advance(SEC * 4);
    assert_eq!(waited(default.answer()), SEC * 11 / 2);
    clock.advance(SEC * 20);
    patient.waits_on();
    drop(holder);
    assert!(patient.answer().is_ok());
    let impatient = block_on(async {
        let _holder = locks.try_lock("other").await.unwrap();
        locks.singleflight_lock("other").wait(Duration::ZERO).await
    });
    assert_eq!(waited(impatient), Duration::ZERO);
}

/// Peer bug 40: the same for those who share a lock.
#[test]
fn whoever_leaves_the_others_keep_the_place_in_the_queue() {
    let (locks, clock) = manager();
    for leaves in ["dropped", "timed out", "panicked"] {
        let holder = locks.try_lock_now("k").unwrap();
        let mut leader = Caller::new(locks.singleflight_lock("k").wait(SEC));
        let mut follower = Caller::new(locks.singleflight_lock("k"));
        let mut behind = Box::pin(locks.lock("k").into_future());
        assert!(behind.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        match leaves {
            "dropped" => drop(leader),
            "timed out" => {
                clock.advance(SEC);
                assert!(leader.answer().is_err());
            }
            _ => {
                let panicked = catch_unwind(AssertUnwindSafe(move || {
                    let _leader = leader;
                    std::panic::resume_unwind(Box::new("in the leader"));
                }));
                assert!(panicked.is_err());
            }
        }
        drop(holder);
        let lock = follower.answer().unwrap();
        assert!(behind.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "{leaves}");
        drop(lock);
        assert!(behind.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}

#[test]
fn a_follower_that_leaves_is_not_missed_and_a_panicking_holder_lets_go() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let [mut leader, follower, mut other] = [(); 3].map(|()| Caller::new(locks.singleflight_lock("k")));
    drop(follower);
    let mut late = Caller::new(locks.singleflight_lock("k"));
    assert_eq!(locks.stats().waiting, 1, "who comes after it still joins");
    drop(holder);
    let lock = leader.answer().unwrap();
    assert_eq!(late.answer().unwrap().token(), lock.token());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _lock = lock;
        std::panic::resume_unwind(Box::new("under the lock"));
    }));
    assert!(panicked.is_err());
    let lock = other.answer().unwrap();
    assert!(lock.is_held());
    drop(lock);
    assert_eq!(locks.stats().active, 0);
}

#[test]
fn the_last_to_leave_takes_the_place_in_the_queue_along() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let [first, second] = [(); 2].map(|()| Caller::new(locks.singleflight_lock("k")));
    let bells = [Arc::clone(&first.bell), Arc::clone(&second.bell)];
    drop(first);
    assert_eq!(locks.stats().waiting, 1);
    assert_eq!(Arc::strong_count(&bells[0]), 1, "nothing would wake it any more");
    drop(second);
    assert_eq!(Arc::strong_count(&bells[1]), 1);
    assert_eq!((locks.stats().waiting, locks.stats().cancelled), (0, 1));

    // Also a grant that none of them has seen.
    let [first, second] = [(); 2].map(|()| Caller::new(locks.singleflight_lock("k")));
    drop(holder);
    assert!(first.is_woken() && second.is_woken());
    drop((first, second));
    assert!(locks.try_lock_now("k").is_ok());
}

#[test]
fn one_who_leaves_between_the_grant_and_its_answer_releases_for_the_last() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let [mut first, second] = [(); 2].map(|()| Caller::new(locks.singleflight_lock("k")));
    drop(holder);
    drop(first.answer().unwrap());
    let mut next = Caller::new(locks.singleflight_lock("k"));
    drop(second);
    assert!(next.answer().is_ok());
}

#[test]
fn one_who_leaves_late_leaves_its_own_flight_and_not_the_next_one() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let [mut first, second] = [(); 2].map(|()| Caller::new(locks.singleflight_lock("k")));
    drop(holder);
    let _lock = first.answer().unwrap();
    let _next = Caller::new(locks.singleflight_lock("k"));
    drop(second);
    let _with_it = Caller::new(locks.singleflight_lock("k"));
    assert_eq!(locks.stats().waiting, 1);
}

#[test]
fn whatever_the_acquisition_comes_to_all_of_them_hear() {
    let (locks, _) = manager();
    let _holder = locks.try_lock_now("k").unwrap();
    let mut callers = [(); 3].map(|()| Caller::new(locks.singleflight_lock("k")));
    block_on(locks.shutdown(Duration::ZERO));
    for caller in &mut callers {
        assert_eq!(caller.answer().unwrap_err(), LockError::ShuttingDown);
    }
}

#[test]
fn a_full_queue_refuses_a_flight_and_the_next_one_tries_anew() {
    let locks = LockManager::builder().max_waiters_per_key(1).build().unwrap();
    let holder = locks.try_lock_now("k").unwrap();
    let mut queued = Box::pin(locks.lock("k").into_future());
    assert!(queued.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    for _ in 0..2 {
        assert_eq!(block_on(locks.singleflight_lock("k").into_future()).unwrap_err(), LockError::QueueFull);
    }
    drop(queued);
    let mut caller = Caller::new(locks.singleflight_lock("k"));
    drop(holder);
    assert!(caller.answer().is_ok());
}

#[test]
fn bad_input_is_told_when_awaited_and_counted() {
    let (locks, _) = manager();
    let ask = |request: SharedLockRequest<'_>| block_on(request.into_future()).unwrap_err().code();
    assert_eq!(ask(locks.singleflight_lock("")), "invalid_key");
    assert_eq!(ask(locks.singleflight_lock("k").ttl(Duration::ZERO)), "invalid_ttl");
    assert_eq!(ask(locks.singleflight_lock("k").ttl(SEC * 3_600 * 25)), "invalid_ttl", "the manager's bound");
    assert_eq!(ask(locks.singleflight_lock("").ttl(Duration::ZERO)), "invalid_key", "the first thing is told");
    let stats = locks.stats();
    assert_eq!((stats.attempts, stats.failed, stats.flights_led), (4, 4, 0), "none of them was a flight");
}

#[test]
fn only_callers_with_the_same_ttl_share() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let mut ten = Caller::new(locks.singleflight_lock("k").ttl(SEC * 10));
    let mut twenty = Caller::new(locks.singleflight_lock("k").ttl(SEC * 20));
    let mut also_ten = Caller::new(locks.singleflight_lock("k").ttl(SEC * 10));
    assert_eq!(locks.stats().waiting, 2);
    drop(holder);
    let (lock, same) = (ten.answer().unwrap(), also_ten.answer().unwrap());
    assert_eq!((lock.remaining(), same.remaining()), (SEC * 10, SEC * 10));
    drop((lock, same));
    assert_eq!(twenty.answer().unwrap().remaining(), SEC * 20);
}

#[test]
fn it_takes_the_options_of_other_requests_and_those_with_other_ends_do_not_share() {
    let (locks, clock) = manager();
    let holder = locks.try_lock("k").now().unwrap();
    let capped = || locks.singleflight_lock("k").ttl(2 * SEC).max_hold(3 * SEC).wait_forever();
    let mut callers = [capped().owner("first"), capped().owner("second")].map(Caller::new);
    let mut uncapped = Caller::new(locks.singleflight_lock("k").ttl(2 * SEC).process_scope().wait_forever());
    assert_eq!(locks.stats().waiting, 2, "those with one cap wait in one place, the other one in another");
    holder.unlock_now();
    let parts = callers.each_mut().map(|caller| caller.answer().unwrap());
    assert_eq!(parts[0].fencing_token(), parts[1].fencing_token());
    let shown = block_on(locks.inspect("k")).unwrap().unwrap();
    assert_eq!(shown.owner.as_deref(), Some("first"), "whoever began it");
    clock.advance(SEC);
    let refreshed = block_on(parts[0].refresh()).unwrap();
    assert_eq!(refreshed.remaining, 2 * SEC, "the cap's end and the TTL's are one");
    clock.advance(SEC);
    assert_eq!(block_on(parts[0].refresh()).unwrap().remaining, SEC, "no further than the cap");
    clock.advance(SEC);
    assert!(!parts[1].is_held());
    let next = uncapped.answer().unwrap();
    assert!(next.is_held(), "it is another lock, whose turn it is now");
}

#[test]
fn a_shared_lock_that_ran_out_is_gone_for_all_of_them() {
    let (locks, clock) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let mut callers = [(); 2].map(|()| Caller::new(locks.singleflight_lock("k")));
    drop(holder);
    let [first, last] = callers.each_mut().map(|caller| caller.answer().unwrap());
    let view: Held = first.held();
    clock.advance(SEC * 31);
    assert!(first.ensure_held().is_err());
    assert!(block_on(view.lost()).is_some());
    assert_eq!((first.unlock_now(), last.unlock_now()), (Release::AlreadyGone, Release::AlreadyGone));
}

#[test]
fn it_works_without_a_runtime() {
    let locks = LockManager::builder().build().unwrap();
    let holder = locks.try_lock_now("k").unwrap();
    let short = block_on(locks.singleflight_lock("k").wait(SEC / 50).into_future());
    assert!(matches!(short, Err(LockError::Timeout { waited }) if waited >= SEC / 50));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            // Each lets go in its own thread: who comes after the grant waits for those who had it.
            scope.spawn(|| drop(block_on(locks.singleflight_lock("k").wait_forever().into_future()).unwrap()));
        }
        while locks.stats().waiting == 0 {
            std::thread::yield_now();
        }
        drop(holder);
    });
    let stats = locks.stats();
    assert_eq!(
        (stats.expired, stats.flights_led + stats.flights_shared),
        (0, 5),
        "all were answered, the timed one too"
    );
    assert_eq!((locks.stats().active, locks.stats().waiting), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_that_comes_and_goes_holds_one_lock_at_a_time_and_leaves_nothing() {
    let locks = LockManager::builder().build().unwrap();
    // The fence that is at work; 0 is nobody's.
    let (at_work, crowd) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..64_u64)
        .map(|n| {
            let (locks, at_work, crowd) = (locks.clone(), Arc::clone(&at_work), Arc::clone(&crowd));
            tokio::spawn(async move {
                for round in 0..50 {
                    let wait = Duration::from_micros((n * 37 + round * 101) % 3_000);
                    let patience = (n + round) % 3;
                    let asked = locks.singleflight_lock("k").wait(if patience == 0 { wait } else { SEC * 60 });
                    let answer = match patience {
                        1 => match tokio::time::timeout(wait, asked.into_future()).await {
                            Ok(answer) => answer,
                            Err(_) => continue,
                        },
                        _ => asked.await,
                    };
                    let lock = match answer {
                        Ok(lock) => lock,
                        Err(LockError::Timeout { .. }) => continue,
                        Err(why) => panic!("{why}"),
                    };
                    let fence = lock.fencing_token().unwrap().get();
                    let before = at_work.fetch_max(fence, Ordering::SeqCst);
                    assert!(before <= fence, "a later lock was at work while this one is held");
                    tokio::task::yield_now().await;
                    assert_eq!(at_work.load(Ordering::SeqCst), fence, "another lock was at work meanwhile");
                    assert_eq!(lock.unlock().await, Release::Released);
                    crowd.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = locks.stats();
    assert_eq!((stats.active, stats.waiting, stats.expired), (0, 0, 0));
    assert!(stats.granted < crowd.load(Ordering::SeqCst), "some of them shared");
    assert!(locks.try_lock_now("k").is_ok());
}

/// Peer bug 40: the leader's session takes the followers along.
#[test]
fn a_shared_lock_is_not_its_leaders_session() {
    for ends in ["while they wait", "while they hold it"] {
        let (locks, _) = manager();
        let session = locks.session("me");
        let holder = locks.try_lock_now("k").unwrap();
        let mut leader = Box::pin(
            session.run("other", async |_| locks.singleflight_lock("k").wait_forever().await.map(drop)).into_future(),
        );
        assert!(leader.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let mut follower = Caller::new(locks.singleflight_lock("k").wait_forever());
        if ends == "while they wait" {
            block_on(session.end());
        }
        drop(holder);
        let part = follower.answer().unwrap();
        drop(leader);
        block_on(session.end());
        assert!(part.is_held(), "{ends}");
    }
}
