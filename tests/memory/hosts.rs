//! Fear: it works in one kind of program only (peer bug 36).

use std::borrow::Cow;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
#[cfg(unix)]
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use leasehold::retry::FixedInterval;
use leasehold::{BuildError, EventKind, Heard, LockError, LockManager, LockOptions, OwnedSemaphore, Ticket};

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
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(locks.lock("k").wait(Duration::from_millis(5)).block())
    }));
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

#[tokio::test]
async fn a_task_that_locks_without_end_leaves_the_others_of_its_thread_their_share() {
    let locks = LockManager::builder().build().unwrap();
    let other_ran = Arc::new(AtomicBool::new(false));
    let other = tokio::spawn({
        let other_ran = Arc::clone(&other_ran);
        async move { other_ran.store(true, Ordering::SeqCst) }
    });
    for n in 0.. {
        assert!(n < 1_000_000, "the other task never ran");
        drop(locks.lock("k").await.unwrap());
        drop(locks.lock("ticket").owner("o").await.unwrap());
        if other_ran.load(Ordering::SeqCst) {
            break;
        }
    }
    other.await.unwrap();
    // What is asked without waiting is not refused for it.
    for _ in 0..100_000 {
        drop(locks.try_lock_now("k").unwrap());
    }
}

#[test]
fn a_task_that_locks_without_end_runs_on_where_there_is_no_budget() {
    let locks = LockManager::builder().build().unwrap();
    futures::executor::block_on(async {
        for _ in 0..100_000 {
            drop(locks.lock("k").await.unwrap());
        }
    });
}

/// What a first poll of a request answers, if it answers.
#[cfg(unix)]
fn at_once(request: leasehold::LockRequest<'_>) -> Option<LockError> {
    let future = std::pin::pin!(std::future::IntoFuture::into_future(request));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.err(),
        Poll::Pending => None,
    }
}

#[cfg(unix)]
#[test]
fn a_fork_of_the_host_is_refused_what_nothing_would_end_there() {
    crate::alone::run("hosts::a_fork_of_the_host_is_refused_what_nothing_would_end_there", || {
        let locks = LockManager::builder().build().unwrap();
        let session = locks.session("me");
        let held = locks.try_lock_now("k").unwrap();
        let requests = || {
            let polls = locks.lock("k").retry(leasehold::retry::FixedInterval::new(Duration::from_millis(1), 9));
            [locks.lock("k").wait_forever(), session.lock("k").wait_forever(), polls]
        };
        assert!(requests().into_iter().all(|request| at_once(request).is_none()), "here they wait");
        std::thread::sleep(Duration::from_millis(20));
        match fork::fork().unwrap() {
            fork::Fork::Child => {
                let forked = requests().into_iter().all(|request| at_once(request) == Some(LockError::Forked));
                let works = locks.try_lock_now("other").is_ok();
                // Not by the way of the test harness, whose threads are not here.
                std::process::exit(if forked && works { 0 } else { 1 });
            }
            fork::Fork::Parent(child) => assert_eq!(fork::waitpid(child).unwrap(), 0, "the child's answers"),
        }
        drop(held);
        assert!(locks.blocking_lock("k").is_ok(), "its parent goes on");
    });
}

#[cfg(unix)]
#[test]
fn a_fork_of_the_host_tells_tokens_of_its_own_and_knows_those_that_were_told_before() {
    crate::alone::run(
        "hosts::a_fork_of_the_host_tells_tokens_of_its_own_and_knows_those_that_were_told_before",
        || {
            let locks = LockManager::builder().shards(1).build().unwrap();
            let before = locks.try_lock_now("before").unwrap();
            let told = before.token();
            let of_fork = std::env::temp_dir().join(format!("leasehold-token-{}", std::process::id()));
            let next = || {
                let lock = locks.try_lock_now("next").unwrap();
                (lock.fencing_token().unwrap(), lock.token())
            };
            match fork::fork().unwrap() {
                fork::Fork::Child => {
                    let (fence, token) = next();
                    let stays = before.token() == told && next().1 != token;
                    std::fs::write(&of_fork, format!("{fence} {token}")).unwrap();
                    let release = std::pin::pin!(locks.release("before", told));
                    let released = release.poll(&mut Context::from_waker(Waker::noop()));
                    let knows = released == Poll::Ready(Ok(leasehold::Release::Released));
                    // Not by the way of the test harness, whose threads are not here.
                    std::process::exit(if stays && knows { 0 } else { 1 });
                }
                fork::Fork::Parent(child) => assert_eq!(fork::waitpid(child).unwrap(), 0, "the child's answers"),
            }
            let theirs = std::fs::read_to_string(&of_fork).unwrap();
            std::fs::remove_file(&of_fork).unwrap();
            let (fence, token) = next();
            assert!(before.is_held() && before.token() == told, "its parent goes on");
            let (their_fence, their_token) = theirs.split_once(' ').unwrap();
            assert_eq!(their_fence, fence.to_string(), "both count on from the same fence");
            assert_ne!(their_token, token.to_string());
        },
    );
}

#[tokio::test]
async fn a_key_may_be_any_sort_of_text() {
    let locks = LockManager::builder().build().unwrap();
    let text = "k".to_owned();
    let words = ["k"];
    for word in &words {
        drop(locks.lock(word).await.unwrap());
    }
    drop(locks.lock(&text).await.unwrap());
    let (arc, cow) = (Arc::<str>::from("k"), Cow::Borrowed("k"));
    drop(locks.lock(&arc).await.unwrap());
    drop(locks.lock(&cow).await.unwrap());
    drop((locks.lock(arc).await.unwrap(), cow.len()));
    drop(locks.lock(cow).await.unwrap());
    drop(locks.lock(Box::<str>::from("k")).await.unwrap());
    drop(locks.lock_many(&words).await.unwrap());
    drop(locks.lock(text).await.unwrap());
}

#[tokio::test]
async fn options_are_made_once_for_many_requests_and_threads() {
    fn shared<T: Clone + Send + Sync + 'static>(value: T) -> T {
        value
    }
    let locks = LockManager::builder().build().unwrap();
    let polls = FixedInterval::new(Duration::from_millis(1), 3);
    let options = shared(LockOptions::new().ttl(Duration::from_secs(10)).owner("me").retry(polls));
    let held = locks.lock("k").options(options.clone()).await.unwrap();
    let refused = locks.lock("k").options(options.clone()).await;
    assert!(matches!(refused, Err(LockError::Timeout { .. })), "{refused:?}");
    drop(held);
    let many = locks.lock_many(["k", "j"]).options(options).max_hold(Duration::from_secs(60)).await.unwrap();
    assert!(many.locks().iter().all(|lock| lock.remaining() <= Duration::from_secs(10)));
    let token = leasehold::Token::random();
    let refused = locks.lock_many(["a", "b"]).options(LockOptions::new().token(token)).await;
    assert!(matches!(refused, Err(LockError::InvalidOption { option: "token", .. })), "{refused:?}");
}

#[tokio::test]
async fn requests_and_semaphores_may_outlive_where_they_were_made() {
    let locks = LockManager::builder().build().unwrap();
    let lock = tokio::spawn(locks.lock("k").ttl(Duration::from_secs(9)).owned().into_future()).await.unwrap().unwrap();
    assert!(matches!(locks.try_write("k").owned().await, Err(LockError::Held)));
    let pool: OwnedSemaphore = locks.semaphore("pool", 2).owned();
    let both = tokio::spawn(async move { pool.permits(2).await }).await.unwrap().unwrap();
    assert!(locks.semaphore("pool", 2).try_permits(1).await.is_err());
    drop((lock, both));
}

#[tokio::test]
async fn a_ticket_is_made_again_of_its_parts() {
    let locks = LockManager::builder().build().unwrap();
    let ticket = locks.lock("k").ticket().await.unwrap();
    let again = Ticket::from_parts(ticket.key().clone(), ticket.token(), ticket.fencing_token());
    assert_eq!(again, ticket);
    let lock = locks.restore(&again).unwrap();
    assert!(lock.is_held());
}

#[tokio::test]
async fn events_are_a_stream_for_who_wants_one() {
    let locks = LockManager::builder().build().unwrap();
    let told = locks.watch("k").unwrap().into_stream();
    drop(locks.lock("k").await.unwrap());
    let kinds = told.take(2).map(|heard| matches!(heard, Heard::Event(event) if event.key.as_str() == "k"));
    assert_eq!(kinds.collect::<Vec<_>>().await, [true, true]);
    let mut told = locks.watch("k").unwrap().into_stream();
    let _held = locks.lock("k").await.unwrap();
    let Some(Heard::Event(event)) = told.next().await else { panic!("an event") };
    assert!(matches!(event.kind, EventKind::Granted { .. }), "{event:?}");
}
