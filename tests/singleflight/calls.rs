//! Fear: a shared call takes its followers down with it, runs twice at once, or leaves its key behind (peer bug 40).

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, poll_immediate};
use leasehold::{LockError, LockManager};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Longer than anything here takes that comes to an end.
const AGES: Duration = Duration::from_secs(20);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Asks again: no caller before has left anything in the way.
async fn can_be_called(locks: &LockManager, key: &str) {
    let asked = locks.singleflight(key, || async { 3_u8 });
    assert_eq!(timeout(AGES, asked.into_future()).await.expect("nobody is in the way"), Ok(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_who_ask_while_a_call_runs_share_its_value() {
    let locks = LockManager::builder().build().unwrap();
    let (calls, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (locks, calls, gate) = (locks.clone(), Arc::clone(&calls), Arc::clone(&gate));
            tokio::spawn(async move {
                let call = || async {
                    gate.notified().await;
                    calls.fetch_add(1, Ordering::SeqCst)
                };
                locks.singleflight("k", call).await.unwrap()
            })
        })
        .collect();
    while !locks.is_locked("k").await.unwrap() {
        tokio::task::yield_now().await;
    }
    // Everybody is in before the call may end.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    gate.notify_one();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 0);
    }
    let later = locks.singleflight("k", || async { calls.fetch_add(1, Ordering::SeqCst) }).await;
    assert_eq!(later, Ok(1), "who asks later asks anew");
    let stats = locks.stats();
    assert_eq!((stats.flights_led, stats.flights_shared, stats.active), (2, 49, 0));
}

/// Peer bug 40: a cancelled leader takes its followers along.
#[tokio::test]
async fn a_dropped_leader_leaves_the_call_to_a_follower() {
    let locks = LockManager::builder().build().unwrap();
    let leader = tokio::spawn({
        let locks = locks.clone();
        async move { locks.singleflight("k", std::future::pending::<u8>).await }
    });
    while !locks.is_locked("k").await.unwrap() {
        tokio::task::yield_now().await;
    }
    let followers: Vec<_> = (0..3_u8)
        .map(|n| {
            let locks = locks.clone();
            tokio::spawn(async move { locks.singleflight("k", || async move { n }).await.unwrap() })
        })
        .collect();
    tokio::task::yield_now().await;
    leader.abort();
    let mut values = Vec::new();
    for follower in followers {
        values.push(follower.await.unwrap());
    }
    assert_eq!(values, [values[0]; 3], "one of them called, for all of them");
}

#[tokio::test]
async fn a_panicking_leader_leaves_the_call_to_a_follower() {
    let locks = LockManager::builder().build().unwrap();
    let gate = Arc::new(Notify::new());
    let leader = tokio::spawn({
        let (locks, gate) = (locks.clone(), Arc::clone(&gate));
        async move {
            let call = || async {
                gate.notified().await;
                panic!("in the leader")
            };
            locks.singleflight::<_, _, _>("k", call).await.map(|never: u8| never)
        }
    });
    while !locks.is_locked("k").await.unwrap() {
        tokio::task::yield_now().await;
    }
    let follower = tokio::spawn({
        let locks = locks.clone();
        async move { locks.singleflight("k", || async { 7_u8 }).await }
    });
    tokio::task::yield_now().await;
    gate.notify_one();
    assert!(leader.await.unwrap_err().is_panic());
    assert_eq!(follower.await.unwrap(), Ok(7));
}

#[tokio::test]
async fn errors_are_shared_as_values_and_types_do_not_meet() {
    let locks = LockManager::builder().build().unwrap();
    let failed: Result<Result<u8, String>, _> = locks.singleflight("k", || async { Err("no".to_owned()) }).await;
    assert_eq!(failed, Ok(Err("no".to_owned())));
    let (text, number) =
        tokio::join!(locks.singleflight("k", || async { "text" }), locks.singleflight("k", || async { 1_u8 }));
    assert_eq!((text, number), (Ok("text"), Ok(1)));
}

#[tokio::test]
async fn callers_of_one_flight_wait_for_the_lock_together_and_not_one_after_the_other() {
    let wait = std::time::Duration::from_millis(200);
    let locks = LockManager::builder().wait(wait).build().unwrap();
    let _held = locks.try_lock("k").await.unwrap();
    let started = std::time::Instant::now();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let locks = locks.clone();
            tokio::spawn(async move { locks.singleflight("k", || async { 1_u8 }).await })
        })
        .collect();
    for caller in callers {
        assert!(matches!(caller.await.unwrap(), Err(leasehold::LockError::Timeout { .. })));
    }
    // One after the other they would have waited for ten seconds.
    assert!(started.elapsed() < wait * 25, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_call_that_asks_for_itself_is_refused() {
    let locks = LockManager::builder().build().unwrap();
    let inner = || async { locks.singleflight("k", || async { Ok::<u8, LockError>(1) }).wait_forever().await? };
    let called = timeout(AGES, locks.singleflight("k", inner).into_future()).await.expect("it is no wait for ever");
    let refused = called.unwrap().unwrap_err();
    assert!(
        matches!(&refused, LockError::Deadlock { cycle } if cycle.len() == 1 && cycle[0].key.as_str() == "k"),
        "{refused:?}"
    );
    can_be_called(&locks, "k").await;
}

#[tokio::test]
async fn calls_that_wait_for_each_other_are_told_of_the_deadlock() {
    let locks = LockManager::builder().build().unwrap();
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let ask = |outer: &'static str, inner: &'static str| {
        let (locks, both) = (locks.clone(), Arc::clone(&both));
        tokio::spawn(async move {
            let call = || async {
                both.wait().await;
                locks.singleflight(inner, || async { Ok::<_, LockError>(inner) }).wait_forever().await?
            };
            timeout(AGES, locks.singleflight(outer, call).into_future()).await.expect("it is no wait for ever").unwrap()
        })
    };
    let (a, b) = (ask("a", "b"), ask("b", "a"));
    let answers = [a.await.unwrap(), b.await.unwrap()];
    let refused = answers.iter().filter(|answer| matches!(answer, Err(LockError::Deadlock { .. }))).count();
    // Whoever is refused has an error for a value, and that is shared.
    assert!(refused >= 1, "{answers:?}");
    can_be_called(&locks, "a").await;
    can_be_called(&locks, "b").await;
}

#[tokio::test]
async fn a_call_that_waits_for_a_lock_of_its_follower_is_refused() {
    let locks = LockManager::builder().build().unwrap();
    let (begun, follows) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let leader = tokio::spawn({
        let (locks, begun, follows) = (locks.clone(), Arc::clone(&begun), Arc::clone(&follows));
        async move {
            let call = || async {
                begun.notify_one();
                follows.notified().await;
                locks.lock("mine").wait_forever().await.map(drop)
            };
            locks.singleflight("k", call).await.unwrap()
        }
    });
    let followed = locks.run("mine", |_| async {
        begun.notified().await;
        let follow = locks.singleflight("k", || async { Ok::<(), LockError>(()) }).wait_forever();
        let mut follow = Box::pin(follow.into_future());
        assert!(poll_immediate(&mut follow).await.is_none());
        follows.notify_one();
        follow.await
    });
    let shared = timeout(AGES, followed.into_future()).await.expect("it is no wait for ever").unwrap().value.unwrap();
    assert!(matches!(shared, Err(LockError::Deadlock { .. })), "{shared:?}");
    assert_eq!(leader.await.unwrap(), shared);
}

#[tokio::test]
async fn callers_in_one_callback_share_a_call() {
    let locks = LockManager::builder().build().unwrap();
    let calls = AtomicU32::new(0);
    let call = || async {
        tokio::task::yield_now().await;
        calls.fetch_add(1, Ordering::SeqCst)
    };
    let ran = locks.run("outer", |_| join_all((0..3).map(|_| locks.singleflight("k", call).into_future())));
    assert_eq!(ran.await.unwrap().value, [Ok(0), Ok(0), Ok(0)]);
}

#[tokio::test]
async fn a_follower_waits_as_long_as_it_will() {
    let locks = LockManager::builder().build().unwrap();
    let mut leader = Box::pin(locks.singleflight("k", std::future::pending::<u8>).into_future());
    assert!(poll_immediate(&mut leader).await.is_none());
    let asked = locks.singleflight("k", || async { 1_u8 }).wait(ms(30)).into_future();
    let answer = timeout(AGES, asked).await.expect("its wait has an end");
    assert!(matches!(answer, Err(LockError::Timeout { waited }) if waited >= ms(30)), "{answer:?}");
    let stats = locks.stats();
    assert_eq!((stats.flights_led, stats.flights_shared, stats.active), (0, 0, 1));
    drop(leader);
    can_be_called(&locks, "k").await;
}

/// The leader's future is there, and nobody polls it.
#[tokio::test]
async fn a_forced_release_frees_the_followers_of_a_call_that_stands_still() {
    let locks = LockManager::builder().build().unwrap();
    let mut leader = Box::pin(locks.singleflight("k", std::future::pending::<u8>).into_future());
    assert!(poll_immediate(&mut leader).await.is_none());
    let follower = tokio::spawn({
        let locks = locks.clone();
        async move { locks.singleflight("k", || async { 7_u8 }).wait_forever().await }
    });
    tokio::task::yield_now().await;
    locks.force_release("k").await.unwrap();
    assert_eq!(timeout(AGES, follower).await.expect("it goes on").unwrap(), Ok(7));
    can_be_called(&locks, "k").await;
    drop(leader);
}

#[tokio::test]
async fn a_cap_on_the_hold_frees_the_followers_of_a_call_that_stands_still() {
    let locks = LockManager::builder().build().unwrap();
    let stuck = locks.singleflight("k", std::future::pending::<u8>).ttl(ms(300)).max_hold(ms(300));
    let mut leader = Box::pin(stuck.into_future());
    assert!(poll_immediate(&mut leader).await.is_none());
    let follower = locks.singleflight("k", || async { 7_u8 }).wait_forever().into_future();
    assert_eq!(timeout(AGES, follower).await.expect("it goes on"), Ok(7));
    drop(leader);
}

#[cfg(feature = "test-util")]
#[tokio::test]
async fn a_call_that_ends_after_its_lock_has_a_value_of_its_own() {
    let clock = leasehold::ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    let gate = Notify::new();
    let call = || async {
        gate.notified().await;
        1_u8
    };
    let mut leader = Box::pin(locks.singleflight("k", call).ttl(ms(300)).max_hold(ms(300)).into_future());
    assert!(poll_immediate(&mut leader).await.is_none());
    let mut follower = Box::pin(locks.singleflight("k", || async { 2_u8 }).wait_forever().into_future());
    assert!(poll_immediate(&mut follower).await.is_none());
    gate.notify_one();
    // And nobody has noticed yet.
    clock.jump(ms(301));
    assert_eq!((leader.await, follower.await), (Ok(1), Ok(2)));
}

/// Woken by the release, at once and in its thread, it asks for the value.
struct AskOnWake(LockManager, Mutex<Option<BoxFuture<'static, Result<u8, LockError>>>>);

impl Wake for AskOnWake {
    fn wake(self: Arc<Self>) {
        let locks = self.0.clone();
        let ask = async move { locks.singleflight("k", || async { 2_u8 }).await };
        let mut asked = ask.boxed();
        assert!(asked.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        *self.1.lock().unwrap() = Some(asked);
    }
}

#[tokio::test]
async fn a_value_from_before_the_next_lock_is_shared_with_nobody_who_asks_under_it() {
    let locks = LockManager::builder().build().unwrap();
    let gate = Notify::new();
    let call = || async {
        gate.notified().await;
        1_u8
    };
    let mut leader = Box::pin(locks.singleflight("k", call).into_future());
    assert!(poll_immediate(&mut leader).await.is_none());
    let mut writer = Box::pin(locks.lock("k").into_future());
    let asks = Arc::new(AskOnWake(locks.clone(), Mutex::new(None)));
    assert!(Pin::new(&mut writer).poll(&mut Context::from_waker(&Waker::from(Arc::clone(&asks)))).is_pending());
    gate.notify_one();
    assert_eq!(leader.await, Ok(1));
    drop(writer.await.unwrap());
    let asked = asks.1.lock().unwrap().take().expect("the release has woken the writer");
    assert_eq!(asked.await, Ok(2), "the writer may have changed what the value is made of");
}

#[tokio::test]
async fn a_detached_call_serves_callers_who_are_less_patient_than_it_takes() {
    let locks = LockManager::builder().build().unwrap();
    let (calls, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
    let call = || {
        let (calls, gate) = (Arc::clone(&calls), Arc::clone(&gate));
        move || async move {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            call
        }
    };
    let hurried = (0..10).map(|_| locks.singleflight("k", call()).detached().wait(ms(20)).into_future());
    for answer in join_all(hurried).await {
        assert!(matches!(answer, Err(LockError::Timeout { .. })), "{answer:?}");
    }
    let mut waits = Box::pin(locks.singleflight("k", call()).detached().into_future());
    assert!(poll_immediate(&mut waits).await.is_none());
    gate.notify_one();
    assert_eq!(timeout(AGES, waits).await.expect("the call goes on without its callers"), Ok(0));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let locked = async {
        while locks.is_locked("k").await.unwrap() {
            tokio::task::yield_now().await;
        }
    };
    timeout(AGES, locked).await.expect("its lock goes with it");
}

#[tokio::test]
async fn a_detached_call_tells_why_it_has_no_value() {
    let locks = LockManager::builder().build().unwrap();
    let held = locks.try_lock("k").await.unwrap();
    let late = locks.singleflight("k", || async { 1_u8 }).detached().wait(ms(20)).await;
    assert!(matches!(late, Err(LockError::Timeout { .. })), "{late:?}");
    drop(held);
    let panics = {
        let locks = locks.clone();
        async move { locks.singleflight("k", || async { if true { panic!("in the call") } else { 1_u8 } }).detached().await }
    };
    assert!(tokio::spawn(panics).await.unwrap_err().is_panic());
    can_be_called(&locks, "k").await;
    let outside = locks.singleflight("k", || async { 1_u8 }).detached().into_future();
    let refused = std::thread::scope(|scope| scope.spawn(|| futures::executor::block_on(outside)).join().unwrap());
    assert!(matches!(refused, Err(LockError::InvalidOption { option: "detached", .. })), "{refused:?}");
    can_be_called(&locks, "k").await;
}

#[cfg(feature = "serde")]
#[tokio::test]
async fn without_a_store_there_is_no_other_process_to_share_a_call_with() {
    let locks = LockManager::builder().build().unwrap();
    let ask = |value: u8| {
        let call = async move || {
            tokio::task::yield_now().await;
            value
        };
        locks.singleflight("k", call).across_processes(leasehold::JsonCodec).into_future()
    };
    assert_eq!(futures_util::join!(ask(1), ask(2)), (Ok(1), Ok(1)));
    assert_eq!(ask(3).await, Ok(3));
}

#[cfg(feature = "serde")]
#[test]
fn json_tells_errors_as_it_tells_values_and_is_read_strictly() {
    use leasehold::{Codec, JsonCodec};
    type Priced = Result<u64, String>;
    for value in [Ok(1999), Err("the warehouse is closed".to_owned())] {
        let written = Codec::<Priced>::encode(&JsonCodec, &value).unwrap();
        assert_eq!(Codec::<Priced>::decode(&JsonCodec, &written).unwrap(), value);
    }
    assert!(Codec::<Priced>::decode(&JsonCodec, b"1999").is_err());
    assert!(Codec::<u64>::decode(&JsonCodec, b"1999 1999").is_err());
}
