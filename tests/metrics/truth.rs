//! Fear: after a chaotic time the metrics are not what clients and listeners heard.
#![cfg(feature = "test-util")]

use std::collections::{BTreeMap, BTreeSet};
use std::future::IntoFuture;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, poll, stream};
use leasehold::metrics::{Exposition, FAMILIES, configure_prometheus};
use leasehold::{AttemptOutcome, Event, EventKind, FencingToken, Heard, LockError, LockManager, ManualClock, Mode};
use metrics::with_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::exposition::Samples;

const MODES: [&str; 3] = ["exclusive", "shared", "permits"];

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What the metrics say, by a reporter that starts now and so looks for the oldest, as one does every ten seconds.
fn samples(locks: &LockManager) -> Samples {
    let recorder = configure_prometheus(PrometheusBuilder::new()).unwrap().build_recorder();
    let exposition = with_local_recorder(&recorder, || Exposition::new(recorder.handle()).report(locks));
    Samples::parse(&exposition.render())
}

fn of(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
    samples.value(name, &[&[("manager", "default"), ("lock_namespace", "other")], labels].concat())
}

/// What the clients of a chaotic run heard.
#[derive(Default)]
struct Heards {
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
}

impl Heards {
    fn hear(&mut self, mode: &'static str, answer: Result<(), &LockError>) {
        let outcome = answer.map_or_else(|why| why.outcome(), |()| AttemptOutcome::Acquired);
        *self.outcomes.entry((mode, outcome.as_str())).or_default() += 1;
    }

    /// A grant that ran out before it was seen was a grant.
    fn hear_late(&mut self, mode: &'static str, answer: Result<(), &LockError>) {
        self.hear(mode, if matches!(answer, Err(LockError::Lost(_))) { Ok(()) } else { answer });
    }
}

fn told(events: &mut leasehold::Events) -> Vec<Event> {
    let next = |events: &mut leasehold::Events| {
        // The runtime would have a task that hears so much pause in between.
        let next = std::pin::pin!(tokio::task::unconstrained(events.next()));
        match next.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(Some(Heard::Event(event))) => Some(event),
            std::task::Poll::Ready(other) => panic!("{other:?}"),
            std::task::Poll::Pending => None,
        }
    };
    std::iter::from_fn(|| next(events)).collect()
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Who holds a key that several may hold, as its events tell it: the first holder's entry is the key's own, and stays
/// while others hold it with him.
#[derive(Default)]
struct Together {
    first: Option<FencingToken>,
    others: BTreeSet<FencingToken>,
}

/// What is so after these events: how many hold and how many entries there are, by mode.
fn standing(events: &[Event]) -> ([u64; 3], [u64; 3]) {
    let mut alone = BTreeSet::new();
    let mut together: BTreeMap<(usize, String), Together> = BTreeMap::new();
    for event in events {
        let (key, Some(fence)) = (event.key.to_string(), event.fencing_token) else { continue };
        match &event.kind {
            EventKind::Granted { mode: Mode::Exclusive, .. } => {
                assert!(alone.insert((key, fence)));
            }
            EventKind::Granted { mode, .. } => {
                let keys = together.entry((if *mode == Mode::Shared { 1 } else { 2 }, key)).or_default();
                if keys.first.is_none() {
                    keys.first = Some(fence);
                } else {
                    keys.others.insert(fence);
                }
            }
            EventKind::Refreshed { .. } | EventKind::Deadlock { .. } => {}
            _ if alone.remove(&(key.clone(), fence)) => {}
            _ => {
                let found = together
                    .iter_mut()
                    .find(|((_, of), all)| *of == key && (all.first == Some(fence) || all.others.contains(&fence)));
                let (_, all) = found.unwrap_or_else(|| panic!("{event:?} ends nothing"));
                if !all.others.remove(&fence) {
                    all.first = None;
                }
            }
        }
    }
    let (mut held, mut entries) = ([alone.len() as u64, 0, 0], [alone.len() as u64, 0, 0]);
    for ((mode, _), all) in &together {
        let holders = all.others.len() as u64 + u64::from(all.first.is_some());
        held[*mode] += holders;
        entries[*mode] += holders + u64::from(all.first.is_none() && holders > 0);
    }
    (held, entries)
}

#[actix_rt::test]
async fn after_chaos_each_counter_and_gauge_is_what_clients_and_listeners_heard() {
    let clock = ManualClock::new();
    let builder = LockManager::builder().clock(clock.clock()).event_buffer(1 << 16).max_waiters_per_key(4);
    let locks = builder.max_ttl(Duration::from_hours(24)).build().unwrap();
    let mut events = locks.events();
    let mut heard = Heards::default();
    let mut kept = Vec::new();
    let mut random = Random(7);
    let (mut waited, mut unlocked, mut dropped, mut refreshed, mut refresh_lost) = (0, 0, 0, 0, 0);
    for round in 0..400 {
        let key = format!("k{}", random.below(6));
        let mode = ["exclusive", "shared", "permits"][random.below(3)];
        let request = |wait: bool| {
            let key = format!("{}{key}", &mode[..1]);
            match (mode, wait) {
                ("exclusive", true) => locks.lock(key),
                ("exclusive", false) => locks.try_lock(key),
                ("shared", true) => locks.read(key),
                ("shared", false) => locks.try_read(key),
                (_, true) => locks.semaphore(key, 2).permits(1),
                (_, false) => locks.semaphore(key, 2).try_permits(1),
            }
        };
        let ttl = millis(500 + 100 * random.below(20) as u64);
        match random.below(10) {
            // A request that does not wait.
            0..3 => {
                let answer = request(false).ttl(ttl).await;
                heard.hear(mode, answer.as_ref().map(drop));
                kept.extend(answer);
            }
            // A crowd that queues, some of which go away.
            3..5 => {
                let mut waiting: Vec<_> =
                    (0..6).map(|_| Box::pin(request(true).ttl(ttl).wait(millis(900)).into_future())).collect();
                for index in 0..waiting.len() {
                    if let std::task::Poll::Ready(answer) = poll!(&mut waiting[index]) {
                        heard.hear(mode, answer.as_ref().map(drop));
                        kept.extend(answer);
                        drop(waiting.remove(index));
                        break;
                    }
                }
                let mut left = Vec::new();
                for mut future in waiting {
                    match poll!(&mut future) {
                        std::task::Poll::Ready(answer) => {
                            heard.hear(mode, answer.as_ref().map(drop));
                            kept.extend(answer);
                        }
                        std::task::Poll::Pending => left.push(future),
                    }
                }
                waited += left.len();
                for future in left.drain(..left.len() / 2) {
                    drop(future);
                    *heard.outcomes.entry((mode, "cancelled")).or_default() += 1;
                }
                clock.advance(millis(1000));
                for answer in stream::iter(left).then(|future| future).collect::<Vec<_>>().await {
                    heard.hear_late(mode, answer.as_ref().map(drop));
                    kept.extend(answer);
                }
            }
            5 if !kept.is_empty() => {
                let lock = kept.swap_remove(random.below(kept.len()));
                unlocked += u64::from(lock.is_held());
                lock.unlock().await;
            }
            6 if !kept.is_empty() => {
                let lock = kept.swap_remove(random.below(kept.len()));
                dropped += u64::from(lock.is_held());
                drop(lock);
            }
            8 if !kept.is_empty() => {
                let lock = &kept[kept.len() - 1];
                match lock.refresh_for(millis(3000)).await {
                    Ok(_) => refreshed += 1,
                    Err(_) => refresh_lost += 1,
                }
            }
            7 => {
                let _ = locks.force_release(format!("{}{key}", &mode[..1])).await;
            }
            _ => clock.advance(millis(50 * (round % 7))),
        }
    }
    assert!(waited > 50, "{waited}");

    // Who shares a flight.
    let mut flight = Box::pin(locks.singleflight("a flight", std::future::pending::<u8>).into_future());
    assert!(poll!(&mut flight).is_pending());
    drop(flight);
    *heard.outcomes.entry(("exclusive", "acquired")).or_default() += 1;
    dropped += 1;
    let holder = locks.try_lock("a shared lock").await.unwrap();
    let ask = |_| Box::pin(locks.singleflight_lock("a shared lock").into_future());
    let mut shared: Vec<_> = (0..3).map(ask).collect();
    for asked in &mut shared {
        assert!(poll!(asked).is_pending());
    }
    drop(holder);
    let shared: Vec<_> = stream::iter(shared).then(|asked| asked).map(Result::unwrap).collect().await;
    *heard.outcomes.entry(("exclusive", "acquired")).or_default() += 2;
    drop(shared);
    dropped += 2;

    // A deadlock, refused.
    let (one, two) = (locks.session("one"), locks.session("two"));
    let (a, b) = (one.lock("a").await.unwrap(), two.lock("b").await.unwrap());
    let mut waits = Box::pin(one.lock("b").into_future());
    assert!(poll!(&mut waits).is_pending());
    let refused = two.lock("a").await;
    assert!(matches!(refused, Err(LockError::Deadlock { .. })), "{refused:?}");
    drop(b);
    drop(waits.await.unwrap());
    drop(a);
    dropped += 3;
    *heard.outcomes.entry(("exclusive", "acquired")).or_default() += 3;
    *heard.outcomes.entry(("exclusive", "deadlock")).or_default() += 1;

    // Some stand when the time is over: holders, and who waits for them. The last minute has seen nothing else.
    clock.advance(Duration::from_mins(10));
    let hour = Duration::from_hours(1);
    let mut still = vec![locks.lock("still").ttl(hour).await.unwrap()];
    clock.advance(Duration::from_secs(100));
    for _ in 0..2 {
        still.push(locks.read("read").ttl(hour).await.unwrap());
        still.push(locks.semaphore("pool", 3).permits(1).ttl(hour).await.unwrap());
    }
    // The first of them has gone, and left the key to the other.
    unlocked += 1;
    still.remove(1).unlock().await;
    let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(locks.lock("still").wait(hour).into_future())).collect();
    waiters.push(Box::pin(locks.write("read").wait(hour).into_future()));
    waiters.push(Box::pin(locks.read("read").wait(hour).into_future()));
    waiters.push(Box::pin(locks.semaphore("pool", 3).permits(3).wait(hour).into_future()));
    for waiter in &mut waiters {
        assert!(poll!(waiter).is_pending());
    }
    for (mode, granted) in [("exclusive", 1), ("shared", 2), ("permits", 2)] {
        *heard.outcomes.entry((mode, "acquired")).or_default() += granted;
    }
    still[0].refresh_for(hour).await.unwrap();
    refreshed += 1;
    clock.advance(Duration::from_secs(200));

    let samples = samples(&locks);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let sum = |name: &str| samples.sum(name);
    for mode in MODES {
        for outcome in AttemptOutcome::ALL {
            let expected = heard.outcomes.get(&(mode, outcome.as_str())).copied().unwrap_or_default();
            let counted = of(&samples, "leasehold_acquire_total", &[("mode", mode), ("outcome", outcome.as_str())]);
            assert_eq!(counted, expected as f64, "{mode} {}", outcome.as_str());
        }
    }
    let mut told = told(&mut events);
    told.sort_by_key(|event| event.sequence);
    let count = |is: fn(&EventKind) -> bool| told.iter().filter(|event| is(&event.kind)).count() as f64;
    let granted = count(|kind| matches!(kind, EventKind::Granted { .. }));
    let reason = |reason: &str| of(&samples, "leasehold_releases_total", &[("reason", reason)]);
    assert_eq!(samples.sum_where("leasehold_acquire_total", ("outcome", "acquired")), granted);
    assert_eq!(reason("expired"), count(|kind| matches!(kind, EventKind::Expired { .. })));
    assert_eq!(reason("forced"), count(|kind| matches!(kind, EventKind::Forced { .. })));
    assert_eq!(reason("lost"), count(|kind| matches!(kind, EventKind::Lost { .. })));
    assert_eq!(reason("explicit") + reason("drop"), count(|kind| matches!(kind, EventKind::Released { .. })));
    assert_eq!((reason("explicit"), reason("drop")), (unlocked as f64, dropped as f64));
    for name in ["explicit", "drop", "expired", "forced"] {
        assert!(reason(name) > 1.0, "chaos enough: {name}");
    }
    let refreshes = |outcome| of(&samples, "leasehold_refreshes_total", &[("outcome", outcome)]);
    assert_eq!(refreshes("ok"), count(|kind| matches!(kind, EventKind::Refreshed { .. })));
    assert_eq!(
        [refreshes("ok"), refreshes("lost"), refreshes("error")],
        [f64::from(refreshed), f64::from(refresh_lost), 0.0]
    );
    assert!(refreshed > 1 && refresh_lost > 1, "chaos enough: {refreshed} {refresh_lost}");
    assert_eq!(sum("leasehold_deadlocks_total"), count(|kind| matches!(kind, EventKind::Deadlock { .. })));
    assert_eq!(sum("leasehold_deadlocks_total"), 1.0);

    let by_mode = |name: &str| MODES.map(|mode| of(&samples, name, &[("mode", mode)]));
    let (held, entries) = standing(&told);
    assert_eq!(held, [1, 1, 2]);
    assert_eq!(by_mode("leasehold_locks_held"), held.map(|n| n as f64));
    assert_eq!(entries, [1, 2, 2], "the key whose first reader has gone is there too");
    assert_eq!(by_mode("leasehold_table_entries"), entries.map(|n| n as f64));
    assert_eq!(by_mode("leasehold_waiters"), [4.0, 1.0, 1.0]);
    assert_eq!(sum("leasehold_queue_depth_max"), 3.0);
    let age = |name: &str| now - sum(name);
    assert!((300.0..330.0).contains(&age("leasehold_oldest_holder_timestamp_seconds")));
    assert!((200.0..230.0).contains(&age("leasehold_oldest_waiter_timestamp_seconds")));
    assert_eq!(sum("leasehold_locks_held"), granted - sum("leasehold_releases_total"));

    let path = |path| of(&samples, "leasehold_acquire_path_total", &[("path", path)]);
    assert_eq!(path("fast") + path("queued") + path("reentrant"), granted);
    assert_eq!((path("queued"), path("reentrant"), path("coalesced")), (sum("leasehold_handoffs_total"), 0.0, 2.0));
    let role = |role| of(&samples, "leasehold_singleflight_total", &[("role", role)]);
    assert_eq!((role("leader"), role("follower")), (1.0, 2.0));

    let waits = |outcome| samples.sum_where("leasehold_wait_seconds_count", ("outcome", outcome));
    // A request whose wait would be a deadlock is refused out of the queue.
    let ended = ["acquired", "timeout", "cancelled", "deadlock"].map(waits);
    assert_eq!((ended.iter().sum::<f64>(), ended[3]), (sum("leasehold_wait_seconds_count"), 1.0));
    assert_eq!(waits("acquired"), sum("leasehold_handoffs_total"));
    assert_eq!(waits("timeout"), samples.sum_where("leasehold_acquire_total", ("outcome", "timeout")));
    assert_eq!(waits("cancelled"), samples.sum_where("leasehold_acquire_total", ("outcome", "cancelled")));
    let holds: Vec<f64> = told
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Released { held } | EventKind::Expired { held } | EventKind::Forced { held } => Some(held),
            EventKind::Lost { held, .. } => Some(held),
            _ => None,
        })
        .map(Duration::as_secs_f64)
        .collect();
    let buckets = FAMILIES.iter().find(|family| family.name == "leasehold_hold_seconds").unwrap().buckets;
    for bound in buckets {
        let below = holds.iter().filter(|held| *held <= bound).count();
        let counted = of(&samples, "leasehold_hold_seconds_bucket", &[("le", &bound.to_string())]);
        assert_eq!(counted, below as f64, "held {bound} s at most");
    }
    assert_eq!(sum("leasehold_hold_seconds_count"), holds.len() as f64);
    assert_eq!(sum("leasehold_hold_seconds_count"), sum("leasehold_releases_total"));
    assert!((sum("leasehold_hold_seconds_sum") - holds.iter().sum::<f64>()).abs() < 1e-6);
}
