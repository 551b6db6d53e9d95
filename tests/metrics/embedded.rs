//! Fear: the metrics lie, miss one, or grow with what clients send.
#![cfg(feature = "test-util")]

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::time::Duration;

use futures_util::poll;
use leasehold::metrics::{Exposition, FAMILIES, FamilyKind, Reporter, configure_prometheus};
use leasehold::{AttemptOutcome, FencingToken, LockError, LockManager, ManualClock};
use metrics::with_local_recorder;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::exposition::Samples;

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A recorder of this test's own.
fn recorder() -> PrometheusRecorder {
    configure_prometheus(PrometheusBuilder::new()).unwrap().build_recorder()
}

fn exposition(recorder: &PrometheusRecorder, locks: &LockManager) -> Exposition {
    with_local_recorder(recorder, || Exposition::new(recorder.handle()).report(locks))
}

#[actix_rt::test]
async fn every_family_of_a_manager_is_there_from_the_start_with_its_labels() {
    let locks = LockManager::builder().build().unwrap();
    let recorder = recorder();
    let text = exposition(&recorder, &locks).render();
    let samples = Samples::parse(&text);
    // Those of stores and of the server.
    let others = ["store", "claim", "http", "connections", "bad_clients", "reloads", "log_lines"];
    let elsewhere = |name: &str| others.iter().any(|part| name.starts_with(&format!("leasehold_{part}")));
    for family in FAMILIES.iter().filter(|family| !elsewhere(family.name)) {
        let expected: BTreeSet<_> = family.labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(samples.labels(family.name), Some(expected), "{}", family.name);
    }
    let declared: BTreeSet<_> = FAMILIES.iter().map(|family| family.name.to_owned()).collect();
    assert!(samples.families().is_subset(&declared), "{:?}", samples.families());
    for mode in ["exclusive", "shared", "permits"] {
        for outcome in AttemptOutcome::ALL {
            let labels =
                [("manager", "default"), ("lock_namespace", "other"), ("mode", mode), ("outcome", outcome.as_str())];
            assert_eq!(samples.value("leasehold_acquire_total", &labels), 0.0);
        }
    }
}

#[actix_rt::test]
async fn neither_keys_nor_owners_make_the_text_longer() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).namespaces(["key-1", "key-77", "none-"]).build().unwrap();
    let recorder = recorder();
    let exposition = exposition(&recorder, &locks);
    let shape = |text: &str| -> BTreeSet<String> {
        text.lines().map(|line| line.rsplit_once(' ').map_or(line, |(series, _)| series).to_owned()).collect()
    };
    let before = exposition.render();
    for at in 0..100_000_u32 {
        let lock = locks.try_lock(format!("key-{at}-{:x}", fastrand_of(at))).owner(format!("owner-{}", at % 10_000));
        drop(lock.await.unwrap());
    }
    let after = exposition.render();
    assert_eq!(shape(&before), shape(&after));
    assert!(!after.contains("owner-") && !after.contains("key-2"));
    let acquired = |namespace| {
        let labels =
            [("manager", "default"), ("lock_namespace", namespace), ("mode", "exclusive"), ("outcome", "acquired")];
        Samples::parse(&after).value("leasehold_acquire_total", &labels)
    };
    // Of 0 to 99,999 so many begin with 1, and so many with 77.
    let counts = ["key-1", "key-77", "none-", "other"].map(acquired);
    assert_eq!(counts, [11_111.0, 1_111.0, 0.0, 87_778.0]);
}

#[actix_rt::test]
async fn what_happens_in_a_namespace_is_counted_there_alone() {
    let clock = ManualClock::new();
    let builder = LockManager::builder().clock(clock.clock()).namespaces(["order:", "order:eu:", "cron:"]);
    let locks = builder.build().unwrap();
    let recorder = recorder();
    let exposition = exposition(&recorder, &locks);
    let families = |samples: &Samples, namespace: &str| -> Vec<(String, f64)> {
        let of = |family: &leasehold::metrics::Family| {
            let name = match family.kind {
                FamilyKind::Histogram => format!("{}_count", family.name),
                _ => family.name.to_owned(),
            };
            let sum = samples.sum_where(&name, ("lock_namespace", namespace));
            (name, sum)
        };
        FAMILIES.iter().filter(|family| family.labels.contains(&"lock_namespace")).map(of).collect()
    };
    let everything = ["order:", "order:eu:", "cron:", "other"];
    let fresh = Samples::parse(&exposition.render());
    for namespace in everything {
        assert!(families(&fresh, namespace).iter().all(|(_, sum)| *sum == 0.0), "{namespace}");
    }
    let held = locks.lock("order:eu:1").await.unwrap();
    assert_eq!(locks.try_lock("order:eu:1").await.unwrap_err(), LockError::Held);
    let mut next = Box::pin(locks.lock("order:eu:1").into_future());
    assert!(poll!(&mut next).is_pending());
    clock.advance(millis(10));
    held.refresh().await.unwrap();
    drop(held);
    let _kept = next.await.unwrap();
    let mut waits = Box::pin(locks.lock("order:eu:1").into_future());
    assert!(poll!(&mut waits).is_pending());
    locks.singleflight("order:eu:2", || async { 1 }).await.unwrap();
    assert!(matches!(locks.try_lock("order:eu:3").ttl(Duration::ZERO).await, Err(LockError::InvalidTtl(_))));
    let _one = locks.try_lock("order:e").await.unwrap();
    let samples = Samples::parse(&exposition.render());
    let value = |name: &str, namespace, (label, value)| {
        let manager = [("manager", "default"), ("lock_namespace", namespace)];
        samples.value(name, &[manager[0], manager[1], (label, value)])
    };
    let eu = "order:eu:";
    let outcome = |outcome| {
        let labels = [("manager", "default"), ("lock_namespace", eu), ("mode", "exclusive"), ("outcome", outcome)];
        samples.value("leasehold_acquire_total", &labels)
    };
    assert_eq!(["acquired", "busy", "invalid", "timeout"].map(outcome), [3.0, 1.0, 1.0, 0.0]);
    let path = |path| value("leasehold_acquire_path_total", eu, ("path", path));
    assert_eq!([path("fast"), path("queued")], [2.0, 1.0]);
    assert_eq!(value("leasehold_wait_seconds_count", eu, ("outcome", "acquired")), 1.0);
    assert_eq!(value("leasehold_releases_total", eu, ("reason", "drop")), 1.0);
    assert_eq!(value("leasehold_refreshes_total", eu, ("outcome", "ok")), 1.0);
    assert_eq!(value("leasehold_singleflight_total", eu, ("role", "leader")), 1.0);
    let plain = |name| samples.value(name, &[("manager", "default"), ("lock_namespace", eu)]);
    assert_eq!((plain("leasehold_handoffs_total"), plain("leasehold_queue_depth_max")), (1.0, 1.0));
    assert_eq!(plain("leasehold_hold_seconds_count"), 2.0);
    let of_mode = |name, namespace| value(name, namespace, ("mode", "exclusive"));
    assert_eq!(["order:", eu, "cron:", "other"].map(|of| of_mode("leasehold_locks_held", of)), [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(["order:", eu, "cron:", "other"].map(|of| of_mode("leasehold_waiters", of)), [0.0, 1.0, 0.0, 0.0]);
    for namespace in ["cron:", "other"] {
        assert!(families(&samples, namespace).iter().all(|(_, sum)| *sum == 0.0), "{namespace}");
    }
    assert_eq!(locks.list("order:", 10).len(), 2, "what is listed and counted elsewhere knows no namespaces");
    assert_eq!(locks.stats().active, 2);
}

#[actix_rt::test]
async fn a_queue_that_stands_still_is_still_deep() {
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    let _held = locks.lock("k").ttl(Duration::from_hours(1)).await.unwrap();
    let mut queue: Vec<_> = (0..3).map(|_| Box::pin(locks.lock("k").wait_forever().into_future())).collect();
    for waiter in &mut queue {
        assert!(poll!(waiter).is_pending());
    }
    let depth = || {
        let recorder = recorder();
        // A reporter that starts looks through the tables, as one does every ten seconds.
        Samples::parse(&exposition(&recorder, &locks).render()).sum("leasehold_queue_depth_max")
    };
    assert_eq!(depth(), 3.0);
    clock.advance(Duration::from_mins(10));
    assert_eq!(depth(), 3.0);
    queue.clear();
    clock.advance(Duration::from_secs(60));
    assert_eq!(depth(), 3.0, "of the last minute");
    clock.advance(Duration::from_secs(11));
    assert_eq!(depth(), 0.0);
}

/// Keys that look random, and are the same each time.
fn fastrand_of(at: u32) -> u32 {
    at.wrapping_mul(2_654_435_761) ^ (at >> 3)
}

#[actix_rt::test]
async fn a_recorder_of_the_hosts_own_gets_everything_by_one_line() {
    // Not ours: other buckets, a prefix of labels.
    let recorder =
        PrometheusBuilder::new().add_global_label("app", "host").set_buckets(&[0.1, 1.0]).unwrap().build_recorder();
    let clock = ManualClock::new();
    let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
    let reporter = with_local_recorder(&recorder, || Reporter::named("orders", &locks));
    for _ in 0..128 {
        let lock = locks.try_lock("a").await.unwrap();
        clock.advance(millis(20));
        lock.unlock().await;
    }
    let first = locks.lock("b").await.unwrap();
    let mut second = Box::pin(locks.lock("b").into_future());
    assert!(poll!(&mut second).is_pending());
    clock.advance(millis(500));
    drop(first);
    let _second = second.await.unwrap();
    reporter.publish();
    let samples = Samples::parse(&recorder.handle().render());
    let ours = [("app", "host"), ("manager", "orders"), ("lock_namespace", "other")];
    assert_eq!(samples.sum_where("leasehold_acquire_total", ("outcome", "acquired")), 130.0);
    let acquired = [ours[0], ours[1], ours[2], ("outcome", "acquired")];
    assert_eq!(samples.value("leasehold_wait_seconds_count", &acquired), 1.0, "each wait");
    assert!((samples.value("leasehold_wait_seconds_sum", &acquired) - 0.5).abs() < 1e-9);
    assert_eq!(samples.value("leasehold_hold_seconds_count", &ours), 3.0, "one hold of 64");
}

#[actix_rt::test]
async fn a_manager_that_is_gone_holds_nothing() {
    let locks = LockManager::builder().build().unwrap();
    let recorder = recorder();
    let exposition = exposition(&recorder, &locks);
    let _lock = locks.try_lock("a").await.unwrap();
    assert_eq!(Samples::parse(&exposition.render()).sum("leasehold_locks_held"), 1.0);
    locks.shutdown(Duration::ZERO).await;
    let samples = Samples::parse(&exposition.render());
    assert_eq!(samples.sum("leasehold_locks_held"), 0.0);
    assert_eq!(samples.sum_where("leasehold_releases_total", ("reason", "shutdown")), 1.0);
}

#[test]
fn a_fence_that_is_refused_is_counted() {
    let locks = LockManager::builder().build().unwrap();
    let recorder = recorder();
    let exposition = exposition(&recorder, &locks);
    let before = Samples::parse(&exposition.render()).sum("leasehold_fencing_rejections_total");
    let guard = leasehold::fence::FenceGuard::<String>::new();
    let fence = |n: &str| n.parse::<FencingToken>().unwrap();
    guard.admit("r", fence("9")).unwrap();
    guard.admit("r", fence("8")).unwrap_err();
    assert_eq!(Samples::parse(&exposition.render()).sum("leasehold_fencing_rejections_total"), before + 1.0);
}
