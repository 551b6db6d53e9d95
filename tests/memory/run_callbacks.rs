//! Fear: a callback runs without its lock, or what it said is hidden (peer bugs 5, 35).
#![cfg(feature = "test-util")]

use std::future::IntoFuture;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use leasehold::{LockError, LockManager, Loss, ManualClock, Outcome, Ran, Release};

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn parts<T>(ran: Result<Ran<T>, LockError>) -> Result<(T, Release), LockError> {
    ran.map(|ran| (ran.value, ran.release))
}

#[actix_rt::test]
async fn run_locks_calls_and_releases() {
    let locks = LockManager::builder().build().unwrap();
    let ran = locks
        .run("k", |held| {
            let locks = locks.clone();
            async move {
                assert!(held.is_held());
                assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
                7
            }
        })
        .owner("me")
        .await;
    assert_eq!(parts(ran), Ok((7, Release::Released)));
    assert!(!locks.is_locked("k").await.unwrap());
}

#[actix_rt::test]
async fn try_run_is_busy_when_another_holds_and_does_not_call() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("k").await.unwrap();
    let busy: Result<Outcome<()>, _> = locks.try_run("k", async |_| panic!("called without the lock")).await;
    assert_eq!(busy, Ok(Outcome::Busy));
    drop(lock);
    let ran = locks.try_run("k", async |_| "done").await;
    assert!(matches!(ran, Ok(Outcome::Ran(Ran { value: "done", release: Release::Released, .. }))), "{ran:?}");
    let wrong = locks.try_run("", async |_| ()).await;
    assert!(matches!(wrong, Err(LockError::InvalidKey(_))), "a failure is not contention");
}

#[actix_rt::test]
async fn a_panicking_callback_releases_before_the_panic_goes_on() {
    let locks = LockManager::builder().build().unwrap();
    let run = locks.run("k", async |_| panic!("in the callback")).into_future();
    let panicked: Result<Result<Ran<()>, _>, _> = AssertUnwindSafe(run).catch_unwind().await;
    assert!(panicked.is_err());
    assert!(locks.try_lock("k").await.is_ok());
}

/// Peer bug 5: a cancelled callback's lock lives on.
#[actix_rt::test]
async fn cancelling_drops_the_callback_first_and_then_releases() {
    struct StillLocked(LockManager, Rc<std::cell::Cell<bool>>);
    impl Drop for StillLocked {
        fn drop(&mut self) {
            self.1.set(self.0.try_lock_now("k").is_err());
        }
    }
    let locks = LockManager::builder().build().unwrap();
    let was_locked = Rc::new(std::cell::Cell::new(false));
    let witness = StillLocked(locks.clone(), Rc::clone(&was_locked));
    let run = locks.run("k", |_| async move {
        let _witness = witness;
        std::future::pending::<()>().await;
    });
    let mut run = Box::pin(run.into_future());
    assert!(futures_util::poll!(&mut run).is_pending());
    assert!(locks.is_locked("k").await.unwrap());
    drop(run);
    assert!(was_locked.get(), "the callback's own values were dropped under the lock");
    assert!(locks.try_lock("k").await.is_ok());
}

/// Peer bug 35: an error of the release hides the callback's own.
#[actix_rt::test]
async fn a_long_callback_keeps_its_lock_and_a_lost_one_still_gives_its_value() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    let kept = locks
        .run("k", |held| {
            let clock = clock.clone();
            async move {
                (0..100).for_each(|_| clock.advance(secs(1)));
                held.ensure_held()
            }
        })
        .ttl(secs(9))
        .await;
    assert_eq!(parts(kept), Ok((Ok(()), Release::Released)));

    let lost: Result<Ran<Result<u8, &str>>, LockError> = locks
        .run("k", |held| {
            let locks = locks.clone();
            async move {
                locks.force_release("k").await.unwrap();
                assert_eq!(held.lost().await, Some(Loss::Forced), "the callback can watch for it");
                Err("the callback's own error")
            }
        })
        .await;
    assert_eq!(parts(lost), Ok((Err("the callback's own error"), Release::AlreadyGone)));
}

#[actix_rt::test]
async fn max_hold_ends_a_callback_that_never_ends() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    let ran = locks
        .run("k", |held| {
            let clock = clock.clone();
            async move {
                (0..60).for_each(|_| clock.advance(secs(1)));
                held.lost().await
            }
        })
        .ttl(secs(9))
        .max_hold(secs(30))
        .await;
    assert_eq!(parts(ran), Ok((Some(Loss::Expired), Release::AlreadyGone)));
}

#[actix_rt::test]
async fn a_future_that_is_not_polled_keeps_its_lock_for_as_long_as_its_cap_allows() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let mut work = Box::pin(locks.run("k", async |_| finished.await).ttl(secs(3)).into_future());
    let mut stuck =
        Box::pin(locks.run("stuck", |_| std::future::pending::<()>()).ttl(secs(3)).max_hold(secs(30)).into_future());
    assert!(futures_util::poll!(&mut work).is_pending() && futures_util::poll!(&mut stuck).is_pending());
    // It could go on from here, and nobody polls it.
    finish.send(()).unwrap();
    for _ in 0..100 {
        clock.advance(secs(1));
    }
    assert!(locks.is_locked("k").await.unwrap(), "what stands halfway must not be joined by another");
    assert!(!locks.is_locked("stuck").await.unwrap());
    assert_eq!(parts(work.await).map(|(_, release)| release), Ok(Release::Released));
}

#[actix_rt::test]
async fn what_a_finished_callback_owned_is_dropped_under_the_lock() {
    struct Witness(LockManager, Rc<std::cell::Cell<bool>>);
    impl Drop for Witness {
        fn drop(&mut self) {
            self.1.set(self.0.try_lock_now("k").is_err());
        }
    }
    struct Done(#[expect(dead_code, reason = "held for its drop")] Witness);
    impl Future for Done {
        type Output = ();
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
            std::task::Poll::Ready(())
        }
    }
    let locks = LockManager::builder().build().unwrap();
    let was_locked = Rc::new(std::cell::Cell::new(false));
    let witness = Witness(locks.clone(), Rc::clone(&was_locked));
    assert_eq!(parts(locks.run("k", |_| Done(witness)).await), Ok(((), Release::Released)));
    assert!(was_locked.get());
}

#[actix_rt::test]
async fn a_callback_may_be_cancelled_when_its_lock_is_lost() {
    struct Dropped<'a>(&'a std::cell::Cell<bool>);
    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let locks = LockManager::builder().build().unwrap();
    let gone = std::cell::Cell::new(false);
    let call = async |_| {
        let _told = Dropped(&gone);
        std::future::pending::<()>().await;
    };
    let mut ran = Box::pin(locks.run("k", call).cancel_on_loss().into_future());
    assert!(futures_util::poll!(&mut ran).is_pending());
    locks.force_release("k").await.unwrap();
    assert_eq!(ran.await, Err(LockError::Lost(Loss::Forced)));
    assert!(gone.get());
    let ran = locks.try_run("k", async |_| 1).cancel_on_loss().await;
    assert!(matches!(ran, Ok(Outcome::Ran(Ran { value: 1, release: Release::Released, .. }))), "{ran:?}");
}
