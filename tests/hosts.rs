//! Fear: it works in one kind of program only (peer bug 36).

use std::sync::OnceLock;
use std::time::Duration;

use leasehold::{BuildError, LockError, LockManager};

async fn contend(locks: &LockManager) {
    let lock = locks.try_lock("k").ttl(Duration::from_millis(50)).await.unwrap();
    assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
    let waited = locks.lock("k").await.expect("the first one runs out");
    assert!(!lock.is_held());
    drop(waited);
}

#[actix_rt::test]
async fn it_works_under_actix() {
    contend(&LockManager::builder().build().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_under_tokio_on_many_threads() {
    let locks = LockManager::builder().threads(2).build().unwrap();
    tokio::spawn(async move { contend(&locks).await }).await.unwrap();
}

#[test]
fn it_works_without_any_runtime() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.blocking_lock("k").unwrap();
    assert_eq!(locks.try_lock_now("k").unwrap_err(), LockError::Held);
    let waiter = std::thread::spawn({
        let locks = locks.clone();
        move || locks.lock("k").wait(Duration::from_secs(60)).block().map(|lock| lock.unlock_now())
    });
    while locks.stats().waiting == 0 {
        std::thread::yield_now();
    }
    drop(lock);
    assert!(waiter.join().unwrap().is_ok());
    let _lock = locks.blocking_lock("k").unwrap();
    let timeout = locks.lock("k").wait(Duration::from_millis(20)).block().unwrap_err();
    assert!(matches!(timeout, LockError::Timeout { .. }));
}

#[test]
fn a_static_manager_outlives_the_runtime_that_built_it() {
    static LOCKS: OnceLock<LockManager> = OnceLock::new();
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = runtime();
    let lock = first.block_on(async {
        let locks = LOCKS.get_or_init(|| LockManager::builder().build().unwrap());
        locks.try_lock("k").ttl(Duration::from_millis(50)).await.unwrap()
    });
    drop(first);
    // No timer driver of ours is needed: the manager's own thread ends the first lock.
    runtime().block_on(async { LOCKS.get().unwrap().lock("k").await.unwrap().unlock().await });
    assert!(!lock.is_held());
}

#[test]
fn a_live_lock_keeps_its_shard_alive_after_the_manager_is_gone() {
    let locks = LockManager::builder().build().unwrap();
    let lock = locks.try_lock("k").ttl(Duration::from_millis(60)).now().unwrap();
    drop(locks);
    assert!(lock.is_held());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(lock.lost()).is_some(), "its timer still runs");
}

#[test]
fn what_crosses_threads_may() {
    fn shared<T: Send + Sync + 'static>() {}
    fn sent<T: Send>(_: T) {}
    shared::<LockManager>();
    shared::<leasehold::Lock>();
    shared::<LockError>();
    shared::<BuildError>();
    let locks = LockManager::builder().build().unwrap();
    sent(locks.lock("k"));
    sent(std::future::IntoFuture::into_future(locks.lock("k")));
    let lock = locks.try_lock_now("k").unwrap();
    sent(lock.refresh());
    sent(lock.lost());
    sent(lock.unlock());
}

/// Peer bug 36: dropping a guard does nothing in one kind of program. This file is built with every set of features.
#[test]
fn dropping_a_guard_releases_in_every_kind_of_program() {
    let locks = LockManager::builder().build().unwrap();
    let is_free = || locks.try_lock_now("k").is_ok();
    let visit = async || {
        drop(locks.lock("k").await.unwrap());
        assert!(is_free());
        locks.lock("k").await.unwrap()
    };
    let current = tokio::runtime::Builder::new_current_thread().build().unwrap();
    drop(current.block_on(visit()));
    assert!(is_free(), "outside of the runtime");
    let lock = current.block_on(visit());
    drop(current);
    drop(lock);
    assert!(is_free(), "after the runtime is gone");
    let many = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    drop(many.block_on(visit()));
    let lock = actix_rt::System::new().block_on(visit());
    assert!(!is_free());
    std::thread::spawn(|| drop(lock)).join().unwrap();
    assert!(is_free(), "in another thread");
    let lock = locks.blocking_lock("k").unwrap();
    let panicked = std::thread::spawn(move || {
        let _lock = lock;
        std::panic::resume_unwind(Box::new("under the lock"));
    });
    assert!(panicked.join().is_err());
    assert!(is_free(), "by a panic");
}

fn panics_at_once(locks: &LockManager) {
    let refused =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(locks.lock("k").wait_forever().block())));
    let why = *refused.unwrap_err().downcast::<String>().expect("tokio's words");
    assert!(why.contains("Cannot block the current thread"), "{why}");
}

#[test]
fn a_blocking_call_where_tasks_are_driven_panics_at_once() {
    let locks = LockManager::builder().build().unwrap();
    let _held = locks.blocking_lock("k").unwrap();
    actix_rt::System::new().block_on(async { panics_at_once(&locks) });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        panics_at_once(&locks);
        let (one, two) = (locks.clone(), locks.clone());
        tokio::spawn(async move { panics_at_once(&one) }).await.unwrap();
        let blocking = tokio::task::spawn_blocking(move || two.lock("k").wait(Duration::from_millis(5)).block());
        assert!(matches!(blocking.await.unwrap(), Err(LockError::Timeout { .. })));
        assert!(tokio::task::block_in_place(|| locks.blocking_lock("another")).is_ok());
    });
}
