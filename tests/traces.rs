//! Fear: a trace misses what happened, or tells a secret. Alone in its binary: one test sets the subscriber of the whole
//! process.
#![cfg(all(feature = "tracing", feature = "test-util"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/spans.rs"]
mod spans;

use std::future::IntoFuture;
use std::time::Duration;

use futures_util::poll;
use leasehold::{LockError, LockManager, Token};
use spans::{Recorder, Told};

/// Everything that was told while `work` ran in this thread.
async fn told<T>(work: impl Future<Output = T>) -> (T, Told) {
    let recorder = Recorder::default();
    let _listening = recorder.listen();
    let answer = work.await;
    drop(_listening);
    (answer, recorder.told())
}

#[actix_rt::test]
async fn a_free_lock_is_an_acquire_and_a_hold_beside_each_other() {
    let locks = LockManager::builder().build().unwrap();
    let (fence, told) = told(async {
        let _request = tracing::info_span!("request").entered();
        let lock = locks.try_lock("order:42").await.unwrap();
        let fence = lock.fencing_token().unwrap();
        lock.unlock().await;
        fence
    })
    .await;
    assert_eq!(told.names(), ["request", "leasehold.acquire", "leasehold.hold"]);
    let [acquire, hold] = [told.one("leasehold.acquire"), told.one("leasehold.hold")];
    assert_eq!((acquire.parent.as_deref(), hold.parent.as_deref()), (Some("request"), Some("request")));
    for (span, fields) in [
        (acquire, [("lock.key", "order:42"), ("lock.mode", "exclusive"), ("lock.outcome", "acquired")]),
        (hold, [("lock.key", "order:42"), ("lock.mode", "exclusive"), ("lock.end", "released")]),
    ] {
        fields.iter().for_each(|(name, value)| assert_eq!(span.field(name), Some(*value), "{span:?}"));
        assert_eq!(span.field("otel.kind"), Some("internal"));
        assert!(span.is_closed && span.field("otel.status_code").is_none(), "{span:?}");
    }
    assert_eq!(hold.field("lock.fence"), Some(&*fence.to_string()));
}

#[actix_rt::test]
async fn a_wait_is_in_its_acquire_and_says_how_it_ended() {
    let locks = LockManager::builder().build().unwrap();
    let held = locks.try_lock("k").await.unwrap();
    let (_, told) = told(async {
        let mut granted = Box::pin(locks.lock("k").into_future());
        assert!(poll!(&mut granted).is_pending());
        let mut cancelled = Box::pin(locks.read("k").into_future());
        assert!(poll!(&mut cancelled).is_pending());
        drop(cancelled);
        let timed_out = locks.lock("k").wait(Duration::from_millis(5)).await;
        assert!(matches!(timed_out, Err(LockError::Timeout { .. })));
        assert_eq!(locks.try_lock("k").await.unwrap_err(), LockError::Held);
        drop(held);
        drop(granted.await.unwrap());
    })
    .await;
    for (outcome, mode, status) in
        [("acquired", "exclusive", None), ("cancelled", "shared", None), ("timeout", "exclusive", Some("ERROR"))]
    {
        let of = |name: &str| told.with(name, ("lock.outcome", outcome));
        let (acquire, wait) = (of("leasehold.acquire"), of("leasehold.wait"));
        assert_eq!((acquire.len(), wait.len()), (1, 1), "{outcome}");
        assert_eq!((acquire[0].field("lock.mode"), acquire[0].field("otel.status_code")), (Some(mode), status));
        assert_eq!(acquire[0].field("error.type"), status.map(|_| outcome));
        assert_eq!(wait[0].parent.as_deref(), Some("leasehold.acquire"));
        assert!(acquire[0].is_closed && wait[0].is_closed);
    }
    let busy = told.with("leasehold.acquire", ("lock.outcome", "busy"));
    assert_eq!((busy.len(), busy[0].field("otel.status_code")), (1, None), "contention is no failure");
    assert_eq!(told.all("leasehold.wait").len(), 3);
}

#[actix_rt::test]
async fn what_a_callback_does_is_in_the_hold_of_its_lock() {
    let locks = LockManager::builder().build().unwrap();
    let (_, told) = told(async {
        let work = async |_| {
            drop(tracing::info_span!("work"));
            actix_rt::task::yield_now().await;
            drop(tracing::info_span!("more work"));
        };
        assert!(locks.run("k", work).await.is_ok());
        drop(tracing::info_span!("after"));
    })
    .await;
    for work in ["work", "more work"] {
        assert_eq!(told.one(work).parent.as_deref(), Some("leasehold.hold"));
    }
    assert_eq!(told.one("after").parent, None);
}

#[actix_rt::test]
async fn a_hold_says_how_its_guard_ended() {
    let locks = LockManager::builder().build().unwrap();
    let (_, told) = told(async {
        drop(locks.try_lock("dropped").await.unwrap());
        let ticket = locks.try_lock("detached").await.unwrap().detach();
        drop(locks.restore(&ticket).unwrap());
        let lock = locks.try_lock("taken").await.unwrap();
        let _ = locks.force_release("taken").await;
        lock.unlock().await;
        let _kept = locks.try_lock("a ticket").ticket().await.unwrap();
    })
    .await;
    let ends: Vec<_> =
        told.all("leasehold.hold").iter().map(|hold| (hold.field("lock.key"), hold.field("lock.end"))).collect();
    let end = |key, end| (Some(key), Some(end));
    assert_eq!(ends, [end("dropped", "released"), end("detached", "detached"), end("taken", "already_gone")]);
}

#[actix_rt::test]
async fn no_token_and_no_owner_is_told() {
    let locks = LockManager::builder().build().unwrap();
    let chosen: Token = "6f1a3c0e-9d52-4a77-8a3e-51c2b7d90e11".parse().unwrap();
    let (minted, told) = told(async {
        let lock = locks.try_lock("a").owner("a-secret-owner").await.unwrap();
        let by_client = locks.lock("b").token(chosen).await.unwrap();
        let session = locks.session("a-secret-session");
        drop(session.lock("c").await.unwrap());
        drop(by_client);
        let minted = lock.token();
        lock.unlock().await;
        minted
    })
    .await;
    assert_eq!(told.all("leasehold.acquire").len(), 3);
    for secret in [chosen.to_string(), minted.to_string(), "secret".to_owned()] {
        assert!(!told.text().contains(&secret), "{}", told.text());
    }
}

#[cfg(feature = "redis")]
#[path = "support/redis/mod.rs"]
mod kit;

#[cfg(feature = "redis")]
#[test]
fn calls_to_the_store_belong_to_the_request_that_made_them() {
    use leasehold::store::redis::RedisStore;

    // The store is called in the manager's own thread: its listener has to be everybody's. Nobody else's is asked
    // meanwhile, for each test is a process of its own (nextest), or told of by key.
    let redis = kit::Server::start(&[]);
    let recorder = Recorder::default();
    let told = recorder.everywhere(|| {
        futures::executor::block_on(async {
            let store = RedisStore::builder(&redis.url()).build().unwrap();
            let locks = LockManager::builder().store(store).build_and_connect().await.unwrap();
            let lock = locks.lock("order:42").await.unwrap();
            let token = lock.token();
            lock.unlock().await;
            drop(redis);
            let unknown = locks.try_lock("order:43").await;
            assert_eq!(unknown.unwrap_err(), LockError::StoreUnavailable);
            token
        })
    });
    let (token, told) = told;
    let calls = told.all("leasehold.store");
    let of = |op: &str, key: &str| {
        let fits = |call: &&&spans::Span| {
            call.field("db.operation.name") == Some(op)
                && call.field("lock.key").is_some_and(|found| found.ends_with(key))
        };
        calls.iter().find(fits).unwrap_or_else(|| panic!("no {op} of {key}: {calls:?}"))
    };
    let acquire = of("acquire", "order:42");
    assert_eq!(acquire.field("db.system.name"), Some("redis"));
    assert_eq!((acquire.field("otel.kind"), acquire.field("lock.outcome")), (Some("client"), Some("done")));
    assert!(["leasehold.acquire", "leasehold.wait"].map(Some).contains(&acquire.parent.as_deref()), "{acquire:?}");
    assert_eq!(of("release", "order:42").field("lock.outcome"), Some("done"));
    let unknown = of("acquire", "order:43");
    assert_eq!((unknown.field("lock.outcome"), unknown.field("otel.status_code")), (Some("unknown"), Some("ERROR")));
    let failed = told.with("leasehold.acquire", ("lock.outcome", "store_error"));
    assert_eq!(failed.len(), 1);
    assert!(!told.text().contains(&token.to_string()));
}

#[cfg(feature = "redis")]
#[actix_rt::test]
async fn a_value_that_stays_in_its_process_is_told_of_and_not_shown() {
    use leasehold::store::redis::RedisStore;
    use leasehold::{Codec, CodecError};

    struct Unwritten;
    impl Codec<&'static str> for Unwritten {
        fn encode(&self, value: &&'static str) -> Result<Vec<u8>, CodecError> {
            if value.is_empty() { Err("it is no secret".into()) } else { Ok(value.as_bytes().into()) }
        }
        fn decode(&self, _: &[u8]) -> Result<&'static str, CodecError> {
            Err("it cannot live for ever".into())
        }
    }
    let redis = kit::Server::start(&[]);
    let store = RedisStore::builder(&redis.url()).build().unwrap();
    let locks = LockManager::builder().store(store).max_value_bytes(5).build_and_connect().await.unwrap();
    let ((), told) = told(async {
        for (key, value) in [("k", "secret"), ("l", ""), ("m", "short")] {
            assert_eq!(locks.singleflight(key, async || value).across_processes(Unwritten).await, Ok(value));
        }
    })
    .await;
    let told_of = told.all("leasehold.value_not_shared");
    let told_of: Vec<_> = told_of.iter().map(|event| (event.field("lock.key"), event.field("why"))).collect();
    let [long, unwritten] = ["it has more than max_value_bytes", "it cannot be written"];
    assert_eq!(told_of, [(Some("k"), Some(long)), (Some("l"), Some(unwritten))]);
    assert!(!told.text().contains("secret"), "{}", told.text());
}

#[cfg(feature = "redis")]
#[actix_rt::test]
async fn a_store_that_does_not_say_whether_there_is_a_value_is_told_of() {
    use leasehold::store::redis::RedisStore;
    use leasehold::{Codec, CodecError};

    struct Number;
    impl Codec<u64> for Number {
        fn encode(&self, number: &u64) -> Result<Vec<u8>, CodecError> {
            Ok(number.to_le_bytes().into())
        }
        fn decode(&self, bytes: &[u8]) -> Result<u64, CodecError> {
            Ok(u64::from_le_bytes(bytes.try_into()?))
        }
    }
    let redis = kit::Server::start(&[]);
    let proxy = kit::Proxy::start(redis.address());
    let [holding, asking] = [redis.url(), proxy.url()].map(|url| RedisStore::builder(&url).build().unwrap());
    let holding = LockManager::builder().store(holding).build_and_connect().await.unwrap();
    let asking = LockManager::builder().store(asking).build_and_connect().await.unwrap();
    let held = holding.lock("k").await.unwrap();
    let (answer, told) = told(async {
        let mut caller = Box::pin(asking.singleflight("k", async || 7).across_processes(Number).into_future());
        assert!(poll!(&mut caller).is_pending());
        kit::until("its place", || redis.ask::<usize>("ZCARD leasehold:queue:{lock:k}") == 1);
        proxy.lose_reply_of("leasehold:value:{lock:k}", kit::Then::Reset);
        held.unlock().await;
        caller.await
    })
    .await;
    assert_eq!(answer, Ok(7));
    let event = told.one("leasehold.value_not_shared");
    let why = event.field("why");
    assert_eq!((event.field("lock.key"), why), (Some("k"), Some("the store has not said whether there is one")));
}
