//! Fear: a dropped future leaves a dead waiter behind (T3; peer bugs 5, 17, 21, 24).
#![cfg(feature = "test-util")]

use std::future::{Future, IntoFuture};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold::{LockError, LockFuture, LockManager, ManualClock};

fn poll(future: &mut LockFuture<'_>) -> Poll<Result<leasehold::Lock, LockError>> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    (LockManager::builder().clock(clock.clock()).build().unwrap(), clock)
}

#[test]
fn a_future_dropped_before_its_first_poll_has_done_nothing() {
    let (locks, _) = manager();
    drop(locks.lock("k").into_future());
    assert_eq!(locks.stats().attempts, 0);
}

/// Peer bug 21: a dropped future stays at the head of the queue.
#[test]
fn a_future_dropped_in_the_queue_leaves_it() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let mut first = locks.lock("k").into_future();
    let mut second = locks.lock("k").into_future();
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    drop(first);
    assert_eq!(locks.stats().waiting, 1);
    drop(holder);
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))), "the one behind it is next");
    assert_eq!(locks.stats().cancelled, 1);
}

/// Peer bug 21: a dropped future keeps what it was granted.
#[test]
fn a_grant_that_its_future_never_saw_goes_to_the_next_waiter() {
    let (locks, _) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let mut first = locks.lock("k").into_future();
    let mut second = locks.lock("k").into_future();
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    drop(holder);
    drop(first);
    let Poll::Ready(Ok(lock)) = poll(&mut second) else { panic!("the grant is stuck in a dropped future") };
    drop(lock);
    assert_eq!(locks.stats().active, 0);
    assert!(locks.try_lock_now("k").is_ok());
}

/// Peer bug 17: an orphan wake-up, for a waiter that times out exactly when it is granted.
#[test]
fn a_timed_out_waiter_released_in_the_same_instant_strands_no_wake_up() {
    let (locks, clock) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let mut first = locks.lock("k").wait(Duration::from_secs(1)).into_future();
    let mut second = locks.lock("k").wait(Duration::from_secs(9)).into_future();
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    clock.jump(Duration::from_secs(1));
    drop(holder);
    assert!(matches!(poll(&mut first), Poll::Ready(Err(LockError::Timeout { .. }))));
    assert!(matches!(poll(&mut second), Poll::Ready(Ok(_))), "the key went on to the next live waiter");
}

#[test]
fn a_dropped_poller_leaves_no_timer_that_does_anything() {
    let (locks, clock) = manager();
    let holder = locks.try_lock_now("k").unwrap();
    let every = leasehold::retry::FixedInterval::new(Duration::from_secs(1), 100);
    let mut poller = locks.lock("k").retry(every).into_future();
    assert!(poll(&mut poller).is_pending());
    drop(poller);
    drop(holder);
    clock.advance(Duration::from_secs(2));
    assert_eq!((locks.stats().active, locks.stats().cancelled), (0, 1));
}

/// Peer bug 21: a task aborted in any state leaves a dead waiter.
#[tokio::test]
async fn aborted_tasks_in_every_state_leave_an_empty_table() {
    let locks = LockManager::builder().build().unwrap();
    for round in 0..200_u64 {
        let holder = locks.try_lock("k").await.unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let locks = locks.clone();
                tokio::spawn(async move { drop(locks.lock("k").wait_forever().await) })
            })
            .collect();
        for _ in 0..round % 4 {
            tokio::task::yield_now().await;
        }
        let mut holder = Some(holder);
        for (n, task) in tasks.iter().enumerate() {
            if n as u64 == round % 8 {
                holder = None;
            }
            if !(n as u64 + round).is_multiple_of(3) {
                task.abort();
            }
        }
        drop(holder);
        for task in tasks {
            let _ = task.await;
        }
        let stats = locks.stats();
        assert_eq!((stats.active, stats.waiting), (0, 0), "round {round}");
        assert_eq!(stats.queued, stats.handoffs + stats.cancelled_in_queue, "round {round}");
    }
}

#[test]
fn a_dropped_unlock_still_releases() {
    let (locks, _) = manager();
    let lock = locks.try_lock_now("k").unwrap();
    drop(lock.unlock());
    assert!(locks.try_lock_now("k").is_ok());
}

/// Peer bug 5: whatever a cancelled request had begun, nothing keeps its locks alive afterwards.
#[test]
fn a_request_dropped_after_any_poll_is_refreshed_by_nobody() {
    const SEC: Duration = Duration::from_secs(1);
    type Begin = fn(&LockManager) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>;
    let ways: [Begin; 4] = [
        |locks| Box::pin(async { drop(locks.lock("a").ttl(9 * SEC).wait_forever().await) }),
        |locks| Box::pin(async { drop(locks.lock_many(["a", "b"]).ttl(9 * SEC).wait(999 * SEC).await) }),
        |locks| {
            Box::pin(async { drop(locks.run("a", async |_| std::future::pending::<()>().await).ttl(9 * SEC).await) })
        },
        |locks| Box::pin(async { drop(locks.singleflight_lock("a").ttl(9 * SEC).wait_forever().await) }),
    ];
    for begin in ways {
        for polls in 0..6 {
            let (locks, clock) = manager();
            let before = locks.try_lock("a").ttl(2 * SEC).now().unwrap();
            let other = locks.try_lock("b").ttl(999 * SEC).now().unwrap();
            let mut request = begin(&locks);
            for _ in 0..polls {
                if request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    break;
                }
                clock.advance(SEC);
            }
            drop(request);
            drop((before, other));
            assert_eq!((locks.stats().active, locks.stats().waiting), (0, 0), "after {polls} polls");
            let refreshed = locks.stats().refreshed;
            std::mem::forget(["a", "b"].map(|key| locks.try_lock(key).ttl(9 * SEC).now().unwrap()));
            (0..9).for_each(|_| clock.advance(SEC));
            assert_eq!((locks.stats().active, locks.stats().refreshed), (0, refreshed), "after {polls} polls");
        }
    }
}
