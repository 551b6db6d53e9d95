//! Fear: what the metrics say of a store is not what happened there.
#![cfg(all(feature = "redis", feature = "test-util"))]

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use leasehold::metrics::{Exposition, configure_prometheus};
use leasehold::store::redis::RedisStore;
use leasehold::store::{
    AcquireRequest, Acquired, BoxFuture, Capabilities, Events, Extended, Forced, Health, KeyState, Released, Store,
    StoreError, Watch,
};
use leasehold::{EventKind, Heard, Key, LockManager, Loss, Token, Ttl};
use metrics::with_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::exposition::Samples;
use crate::kit;

/// What a store has answered: how often which, by the operation.
type Log = Arc<Mutex<BTreeMap<(&'static str, &'static str), u64>>>;

/// A real store that writes down what it answers.
#[derive(Debug)]
struct Logged {
    store: RedisStore,
    log: Log,
}

impl Logged {
    fn note<'a, T: Send + 'a>(
        &self,
        op: &'static str,
        call: BoxFuture<'a, T>,
        said: fn(&T) -> &'static str,
    ) -> BoxFuture<'a, T> {
        let log = Arc::clone(&self.log);
        call.inspect(move |answer| *log.lock().unwrap().entry((op, said(answer))).or_default() += 1).boxed()
    }
}

fn known<T>(answer: &Result<T, StoreError>) -> &'static str {
    if answer.is_ok() { "done" } else { "unknown" }
}

impl Store for Logged {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn canonical(&self, key: &Key) -> Result<Key, StoreError> {
        self.store.canonical(key)
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.start()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.store.stop()
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        self.note("acquire", self.store.acquire(ask), |answer| match answer {
            Acquired::Granted { .. } => "done",
            Acquired::Denied { .. } => "refused",
            Acquired::Unknown(_) => "unknown",
            other => panic!("{other:?}"),
        })
    }

    fn leave(&self, key: &Key) {
        self.store.leave(key);
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        self.note("extend", self.store.extend(key, token, ttl), |answer| match answer {
            Extended::Extended { .. } => "done",
            Extended::Lost => "refused",
            Extended::Unknown(_) => "unknown",
            other => panic!("{other:?}"),
        })
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        self.note("release", self.store.release(key, token), |answer| match answer {
            Released::Released => "done",
            Released::AlreadyGone => "refused",
            Released::Unknown(_) => "unknown",
            other => panic!("{other:?}"),
        })
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        self.note("force_release", self.store.force_release(key), |answer| match answer {
            Forced::Released => "done",
            Forced::WasFree => "refused",
            Forced::Unknown(_) => "unknown",
            other => panic!("{other:?}"),
        })
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        self.note("look", self.store.look(key, token), known)
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        self.note("watch", self.store.watch(key), known)
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        self.store.events()
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        self.note("health", self.store.health(), |health| known(&health.answer))
    }
}

async fn eventually(what: &str, mut so: impl FnMut() -> Result<(), String>) {
    let began = std::time::Instant::now();
    while let Err(why) = so() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: {why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_call_and_every_claim_is_counted_as_it_came_out() {
    let mut redis = kit::Server::start(&[]);
    let log = Log::default();
    let store = || RedisStore::builder(&redis.url()).build().unwrap();
    let logged = Logged { store: store(), log: Arc::clone(&log) };
    let locks = LockManager::builder().store(logged).build().unwrap();
    let mut events = locks.events();
    let recorder = configure_prometheus(PrometheusBuilder::new()).unwrap().build_recorder();
    let exposition = with_local_recorder(&recorder, || Exposition::new(recorder.handle()).report(&locks));
    let other = LockManager::builder().store(store()).build_and_connect().await.unwrap();
    let samples = || Samples::parse(&exposition.render());

    // Many come and go, in two processes' worth of managers, for three keys.
    let mut tasks = Vec::new();
    for worker in 0..6_u64 {
        let locks = if worker % 3 == 2 { other.clone() } else { locks.clone() };
        tasks.push(tokio::spawn(async move {
            for round in 0..25 {
                let key = format!("k{}", (round + worker) % 3);
                if round % 4 == 0 {
                    drop(locks.try_lock(&key).await);
                } else if let Ok(lock) = locks.lock(&key).wait(Duration::from_secs(20)).await {
                    if round % 5 == 0 {
                        let _ = lock.refresh_for(Duration::from_secs(20)).await;
                    }
                    lock.unlock().await;
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    // One waits behind another of this process, and is handed the key.
    let before = samples();
    let first = locks.lock("mine").await.unwrap();
    let mut next = Box::pin(locks.lock("mine").wait(Duration::from_secs(20)).into_future());
    assert!(futures_util::poll!(&mut next).is_pending());
    first.unlock().await;
    let _mine = next.await.unwrap();
    let handed = samples().sum("leasehold_claim_handoffs_total") - before.sum("leasehold_claim_handoffs_total");
    assert_eq!(handed, 1.0);
    // One is forgotten by the store, and found gone.
    let forgotten = locks.lock("forgotten").await.unwrap();
    redis.ask::<()>("DEL lock:forgotten");
    assert!(forgotten.refresh_for(Duration::from_secs(20)).await.is_err());
    let _ = locks.force_release("mine").await;
    let _stays = locks.lock("stays").await.unwrap();

    let agree = || {
        let (samples, log) = (samples(), log.lock().unwrap().clone());
        let mut counted = BTreeMap::new();
        for op in ["acquire", "extend", "release", "force_release", "look", "watch", "health"] {
            for outcome in ["done", "refused", "unknown"] {
                let labels = [("manager", "default"), ("store", "redis"), ("op", op), ("outcome", outcome)];
                let count = samples.value("leasehold_store_operations_total", &labels) as u64;
                if count > 0 {
                    counted.insert((op, outcome), count);
                }
            }
            let times = [("manager", "default"), ("store", "redis"), ("op", op)];
            let all: u64 = log.iter().filter(|((of, _), _)| *of == op).map(|(_, count)| count).sum();
            if all > 0 && samples.value("leasehold_store_operation_seconds_count", &times) as u64 != all {
                return Err(format!("times of {op}"));
            }
        }
        if counted == log { Ok(()) } else { Err(format!("{counted:?} are not {log:?}")) }
    };
    eventually("the calls", agree).await;
    for seen in [("acquire", "done"), ("acquire", "refused"), ("release", "done"), ("extend", "done")] {
        assert!(log.lock().unwrap().contains_key(&seen), "chaos enough: {seen:?}");
    }

    // What is held is what was granted and has not ended.
    let (mut held, mut vanished) = (0_i64, 0_u64);
    eventually("the claims", || {
        let next = |events: &mut leasehold::Events| events.next().now_or_never();
        while let Some(Some(Heard::Event(event))) = next(&mut events) {
            match event.kind {
                EventKind::Granted { .. } => held += 1,
                EventKind::Refreshed { .. } | EventKind::Deadlock { .. } => {}
                EventKind::Lost { why, .. } => {
                    (held, vanished) = (held - 1, vanished + u64::from(why == Loss::Vanished))
                }
                _ => held -= 1,
            }
        }
        let samples = samples();
        let said = ["leasehold_claims_held", "leasehold_claim_revocations_total"].map(|name| samples.sum(name));
        let told = [held as f64, vanished as f64];
        if said == told && held == 1 && vanished == 1 { Ok(()) } else { Err(format!("{said:?} are not {told:?}")) }
    })
    .await;

    // It goes away, and the gauge with it.
    redis.kill9();
    eventually("the store is down", || {
        let samples = samples();
        if samples.sum("leasehold_store_up") == 0.0 { Ok(()) } else { Err("it is said to be up".to_owned()) }
    })
    .await;
    eventually("the calls", agree).await;
    assert!(log.lock().unwrap().contains_key(&("health", "unknown")));
}
