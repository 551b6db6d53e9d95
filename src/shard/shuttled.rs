//! Hand-off and cancellation under every interleaving that shuttle finds.
//!
//! The manager runs without its thread here: time passes when a test says so, and a task that would hang shows as a
//! deadlock, because nothing else will ever wake it. Run it with
//! `RUSTFLAGS="--cfg shuttle" cargo test --lib shuttled`.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler};
use shuttle::sync::atomic::{AtomicUsize, Ordering};

use crate::clock::ManualClock;
use crate::config::Builder;
use crate::engine::LockManager;
use crate::error::{LockError, Loss};
use crate::key::Token;
use crate::lock::Lock;
use crate::manager::Stats;
use crate::retry::FixedInterval;
use crate::table::Release;

mod offers;
mod owners;

const KEY: &str = "order:42";
const TICK: Duration = Duration::from_millis(5);

/// At random, and with few but well-placed preemptions.
fn explore(scene: fn()) {
    run(RandomScheduler::new(3_000), scene);
    run(PctScheduler::new(3, 1_500), scene);
}

/// On stacks that hold an unoptimised acquire.
fn run(scheduler: impl Scheduler + 'static, scene: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 18;
    shuttle::Runner::new(scheduler, config).run(scene);
}

fn manager() -> (LockManager, ManualClock) {
    manager_of(1)
}

fn manager_of(shards: usize) -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    let config = Builder::default().shards(shards).clock(clock.clock()).check().unwrap();
    (LockManager::without_actors(config), clock)
}

/// Lets time pass as the actors would.
fn pass(locks: &LockManager, clock: &ManualClock, span: Duration) {
    clock.jump(span);
    for shard in locks.shards() {
        shard.turn();
    }
}

/// Holds the key for a moment.
async fn visit(locks: LockManager) {
    let lock = locks.lock(KEY).wait_forever().await.unwrap();
    yield_now().await;
    assert!(lock.is_held());
    assert_eq!(lock.unlock().await, Release::Released);
}

/// Polls up to `polls` times, then drops the future (and the lock, if it had come).
async fn give_up_after(polls: usize, locks: LockManager) {
    let mut request = pin!(locks.lock(KEY).wait_forever().into_future());
    for _ in 0..polls {
        let answer = poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await;
        if answer.is_ready() {
            return;
        }
        yield_now().await;
    }
}

/// Nothing is held, nobody waits, the key can be had, and the books balance (T7, T8).
fn assert_settled(locks: &LockManager) -> Stats {
    let stats = locks.stats();
    assert_eq!((stats.active, stats.waiting), (0, 0), "{stats:?}");
    for shard in locks.shards() {
        assert_eq!(shard.state().table.waiters_kept(), 0, "T3: nothing of a waiter stays");
    }
    let ended = stats.released + stats.dropped + stats.expired + stats.forced + stats.lost + stats.shut_down;
    assert_eq!(stats.granted, ended);
    let left = stats.handoffs + stats.timed_out_in_queue + stats.cancelled_in_queue + stats.refused_by_shutdown;
    assert_eq!(stats.queued, left + stats.deadlocked + stats.session_ended);
    stats
}

#[test]
fn only_one_task_at_a_time_is_between_lock_and_unlock() {
    explore(|| {
        let (locks, _) = manager();
        let counter = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (locks, counter) = (locks.clone(), Arc::clone(&counter));
                spawn(async move {
                    for _ in 0..2 {
                        let lock = locks.lock(KEY).wait_forever().await.unwrap();
                        let seen = counter.load(Ordering::SeqCst);
                        yield_now().await;
                        counter.store(seen + 1, Ordering::SeqCst);
                        drop(lock);
                    }
                })
            })
            .collect();
        block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        assert_eq!(counter.load(Ordering::SeqCst), 6);
        assert_eq!(assert_settled(&locks).granted, 6);
    });
}

/// A holder, one that gives up after so many polls, and one behind it that must get the key.
fn release_against_a_drop(polls: usize) {
    let (locks, _) = manager();
    let held = locks.try_lock_now(KEY).unwrap();
    let gives_up = spawn(give_up_after(polls, locks.clone()));
    let stays = spawn(visit(locks.clone()));
    let releases = shuttle::thread::spawn(move || drop(held));
    block_on(async {
        gives_up.await.unwrap();
        stays.await.unwrap();
    });
    releases.join().unwrap();
    assert_settled(&locks);
}

#[test]
fn a_release_that_races_with_the_drop_of_the_next_waiter_reaches_the_one_behind() {
    explore(|| release_against_a_drop(1));
    explore(|| release_against_a_drop(2));
    run(DfsScheduler::new(Some(3_000), false), || release_against_a_drop(1));
}

#[test]
fn a_grant_whose_future_is_dropped_before_it_is_polled_again_goes_to_the_next() {
    explore(|| {
        let (locks, _) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let mut first = Box::pin(locks.lock(KEY).wait_forever().into_future());
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let next = spawn(visit(locks.clone()));
        let releases = shuttle::thread::spawn(move || drop(held));
        // Now or later than the grant: either way it is never looked at.
        shuttle::thread::yield_now();
        drop(first);
        block_on(next).unwrap();
        releases.join().unwrap();
        assert_settled(&locks);
    });
}

/// Peer bug 17: the same in every order of the two.
#[test]
fn a_wait_that_ends_just_when_the_lock_is_released_swallows_no_grant() {
    explore(|| {
        let (locks, clock) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let brief = spawn({
            let locks = locks.clone();
            async move { locks.lock(KEY).wait(TICK).await.map(drop) }
        });
        let patient = spawn(visit(locks.clone()));
        let releases = shuttle::thread::spawn(move || drop(held));
        let time = shuttle::thread::spawn({
            let locks = locks.clone();
            // The second turn is for a request that dated itself after the first.
            move || (0..2).for_each(|_| pass(&locks, &clock, TICK))
        });
        releases.join().unwrap();
        time.join().unwrap();
        let answer = block_on(brief).unwrap();
        assert!(matches!(answer, Ok(()) | Err(LockError::Timeout { .. })), "{answer:?}");
        block_on(patient).unwrap();
        assert_settled(&locks);
    });
}

#[test]
fn a_grant_that_expires_unseen_is_lost_to_its_waiter_and_goes_on() {
    explore(|| {
        let (locks, clock) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let first = spawn({
            let locks = locks.clone();
            async move { locks.lock(KEY).ttl(TICK).wait_forever().await.map(std::mem::forget) }
        });
        let next = spawn(visit(locks.clone()));
        let releases = shuttle::thread::spawn(move || drop(held));
        let time = shuttle::thread::spawn({
            let (locks, clock) = (locks.clone(), clock.clone());
            move || pass(&locks, &clock, TICK)
        });
        releases.join().unwrap();
        time.join().unwrap();
        let answer = block_on(first).unwrap();
        assert!(matches!(answer, Ok(()) | Err(LockError::Lost(Loss::Expired))), "{answer:?}");
        // One that saw its grant forgot it: it holds until its deadline.
        pass(&locks, &clock, TICK);
        block_on(next).unwrap();
        assert_settled(&locks);
    });
}

#[test]
fn requests_that_share_a_token_share_its_grant_also_when_one_of_them_goes_away() {
    explore(|| {
        let (locks, _) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let token = Token::random();
        let ask = move |locks: LockManager| async move {
            locks.lock(KEY).token(token).wait_forever().ticket().await.unwrap().fencing_token()
        };
        let stay: Vec<_> = (0..2).map(|_| spawn(ask(locks.clone()))).collect();
        let leaves = spawn({
            let locks = locks.clone();
            async move {
                let mut request = pin!(locks.lock(KEY).token(token).wait_forever().ticket().into_future());
                let _ = poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await;
                yield_now().await;
            }
        });
        let releases = shuttle::thread::spawn(move || drop(held));
        block_on(async {
            leaves.await.unwrap();
            let mut fences = Vec::new();
            for one in stay {
                fences.push(one.await.unwrap());
            }
            assert!(fences.iter().all(|fence| fence.is_some() && *fence == fences[0]), "{fences:?}");
            assert_eq!(locks.release(KEY, token).await, Ok(Release::Released));
            assert_eq!(locks.release(KEY, token).await, Ok(Release::AlreadyGone));
        });
        releases.join().unwrap();
        assert_settled(&locks);
    });
}

/// Peer bug 32: handlers race with the loss.
#[test]
fn everybody_who_asks_hears_once_and_the_same_how_a_lock_was_lost() {
    explore(|| {
        let (locks, clock) = manager();
        let lock = Arc::new(locks.try_lock(KEY).ttl(TICK).now().unwrap());
        let ears: Vec<_> = (0..2)
            .map(|_| {
                let lock = Arc::clone(&lock);
                spawn(async move { lock.lost().await })
            })
            .collect();
        let force = spawn({
            let locks = locks.clone();
            async move { locks.force_release(KEY).await.unwrap() }
        });
        let time = shuttle::thread::spawn({
            let locks = locks.clone();
            move || pass(&locks, &clock, TICK)
        });
        let forced = block_on(force).unwrap();
        let loss = if forced == Release::Released { Loss::Forced } else { Loss::Expired };
        for ear in ears {
            assert_eq!(block_on(ear).unwrap(), Some(loss));
        }
        time.join().unwrap();
        assert_eq!(block_on(lock.lost()), Some(loss), "asked later");
        let stats = assert_settled(&locks);
        assert_eq!(stats.expired + stats.forced, 1);
    });
}

#[test]
fn a_shutdown_leaves_nobody_waiting_and_ends_when_the_last_lock_is_released() {
    explore(|| {
        let (locks, _) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let requests: Vec<_> = (0..2)
            .map(|_| {
                let locks = locks.clone();
                spawn(async move { locks.lock(KEY).wait_forever().await.map(drop) })
            })
            .collect();
        let shutdown = spawn({
            let locks = locks.clone();
            // No timer will end this grace: only the release does.
            async move { locks.shutdown(Duration::from_secs(60)).await }
        });
        let releases = shuttle::thread::spawn(move || drop(held));
        block_on(async {
            for request in requests {
                let answer = request.await.unwrap();
                assert!(matches!(answer, Ok(()) | Err(LockError::ShuttingDown)), "{answer:?}");
            }
            assert_eq!(shutdown.await.unwrap(), 0);
        });
        releases.join().unwrap();
        assert_eq!(locks.try_lock_now(KEY).unwrap_err(), LockError::ShuttingDown);
        assert_settled(&locks);
    });
}

#[test]
fn two_shutdowns_at_once_both_end() {
    explore(|| {
        let (locks, _) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let shutdowns: Vec<_> = (0..2)
            .map(|_| {
                let locks = locks.clone();
                spawn(async move { locks.shutdown(Duration::from_secs(60)).await })
            })
            .collect();
        let releases = shuttle::thread::spawn(move || drop(held));
        for shutdown in shutdowns {
            assert_eq!(block_on(shutdown).unwrap(), 0);
        }
        releases.join().unwrap();
    });
}

#[test]
fn a_lock_that_was_seen_lost_is_not_refreshed_by_one_who_read_the_clock_before() {
    explore(|| {
        let (locks, clock) = manager();
        let lock = Arc::new(locks.try_lock(KEY).ttl(TICK).now().unwrap());
        clock.jump(TICK / 2);
        let refreshes = spawn({
            let lock = Arc::clone(&lock);
            async move { lock.refresh().await.map(drop) }
        });
        let looks = shuttle::thread::spawn({
            let lock = Arc::clone(&lock);
            move || lock.is_held()
        });
        clock.jump(TICK / 2);
        let refreshed = block_on(refreshes).unwrap();
        let seen = looks.join().unwrap();
        assert!(seen || refreshed.is_err(), "revived");
        assert_eq!(lock.is_held(), refreshed.is_ok());
    });
}

#[test]
fn a_writer_that_gives_up_lets_the_reader_behind_it_in() {
    explore(|| {
        let (locks, _) = manager();
        let reader = locks.try_read(KEY).now().unwrap();
        let writer = spawn(give_up_after(1, locks.clone()));
        let behind = spawn({
            let locks = locks.clone();
            async move { locks.read(KEY).wait_forever().await.map(drop) }
        });
        block_on(writer).unwrap();
        // The first reader is still there: only the writer's leaving lets this one in.
        assert_eq!(block_on(behind).unwrap(), Ok(()));
        drop(reader);
        assert_settled(&locks);
    });
}

#[test]
fn a_shared_lock_is_released_by_the_last_of_those_who_let_go_at_once() {
    explore(|| {
        let (locks, _) = manager();
        let held = locks.try_lock_now(KEY).unwrap();
        let sharers: Vec<_> = (0..2)
            .map(|_| {
                let locks = locks.clone();
                spawn(async move {
                    let part = locks.singleflight_lock(KEY).wait_forever().await.unwrap();
                    assert!(part.is_held());
                    yield_now().await;
                    part.unlock().await
                })
            })
            .collect();
        let next = spawn(visit(locks.clone()));
        let releases = shuttle::thread::spawn(move || drop(held));
        for sharer in sharers {
            assert_eq!(block_on(sharer).unwrap(), Release::Released);
        }
        block_on(next).unwrap();
        releases.join().unwrap();
        assert_settled(&locks);
    });
}

/// The last reference to a task that holds a lock.
struct LastReference {
    _lock: Lock,
}

impl Wake for LastReference {
    fn wake(self: Arc<Self>) {}
}

/// Peer bug 22: a waker is dropped under the mutex that its drop wants.
#[test]
fn a_waker_whose_drop_releases_a_lock_of_the_same_shard_does_not_deadlock() {
    // One thread, one order: shuttle is here for its mutex, which tells of a deadlock instead of hanging.
    let scene = || {
        let (locks, _) = manager();
        let _held = locks.try_lock_now(KEY).unwrap();
        let task = |key| Waker::from(Arc::new(LastReference { _lock: locks.try_lock_now(key).unwrap() }));
        let mut queued = pin!(locks.lock(KEY).wait_forever().into_future());
        let mut polling = pin!(locks.lock(KEY).retry(FixedInterval::new(TICK, 9)).into_future());
        for key in ["a", "b"] {
            assert!(queued.as_mut().poll(&mut Context::from_waker(&task(key))).is_pending());
        }
        for key in ["c", "d"] {
            assert!(polling.as_mut().poll(&mut Context::from_waker(&task(key))).is_pending());
        }
        assert_eq!(locks.stats().active, 3, "the key itself, and what the tasks of the latest polls hold");
    };
    run(RandomScheduler::new(1), scene);
}
