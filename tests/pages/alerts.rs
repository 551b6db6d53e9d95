//! Fear: an alert sleeps through its fault, or cries over another's.
//!
//! A real Prometheus loads the rules as they are, but for their times, and scrapes one real server for each fault, and
//! one that has none.
#![cfg(all(feature = "server", unix))]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::{Duration, Instant};

use actix_rt::time::sleep;
use actix_web::{App, HttpServer};
use leasehold::LockManager;
use leasehold::fence::FenceGuard;
use leasehold::http::configure_metrics;
use leasehold::metrics::{Exposition, configure_prometheus};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};

use crate::kit;
use crate::prometheus::{Prometheus, read, rules};
use crate::scraped::Process;

/// However loaded the machine is, an alert that has not fired by then does not.
const PATIENCE: Duration = Duration::from_secs(150);

/// The alerts with short times: windows, `for`, and ages above the ten seconds between two looks for the oldest. A
/// machine under load may miss a few scrapes: what does not answer is given longer.
fn hurried(text: &str) -> String {
    let (mut hurried, mut name) = (String::new(), "");
    for line in text.lines() {
        name = line.trim().strip_prefix("- alert: ").unwrap_or(name);
        match line.split_once("for: ").filter(|(start, _)| start.trim().is_empty()) {
            Some((start, _)) if name.ends_with("Down") => hurried.push_str(&format!("{start}for: 15s")),
            Some((start, _)) => hurried.push_str(&format!("{start}for: 5s")),
            None => hurried.push_str(line),
        }
        hurried.push('\n');
    }
    let short = [("[5m]", "[20s]"), ("[10m]", "[20s]"), ("[15m]", "[20s]")];
    let soon = [("> 300", "> 14"), ("> 86400", "> 44"), ("> 100", "> 5")];
    short.iter().chain(&soon).fold(hurried, |text, (slow, quick)| text.replace(slow, quick))
}

/// A server, what is done to it, and the alert that is to hear of it.
struct Case {
    alert: Option<&'static str>,
    job: String,
    url: String,
    fault: Pin<Box<dyn Future<Output = ()>>>,
}

fn case(alert: &'static str, process: Process, fault: impl AsyncFn(&Process) + 'static) -> Case {
    let url = process.url.clone();
    let fault = async move {
        loop {
            fault(&process).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    Case { alert: Some(alert), job: alert.to_lowercase(), url, fault: Box::pin(fault) }
}

/// What is done to it is nothing that anybody has to hear of.
fn healthy(job: &str, process: Process, use_of_it: impl AsyncFn(&Process) + 'static) -> Case {
    Case { alert: None, job: job.to_owned(), ..case("", process, use_of_it) }
}

/// Waits for a lock in rounds of its own, each a request with the same token.
async fn waits_in_rounds(process: &Process) {
    let held = lock(process, json!({ "key": "a", "ttl_ms": 60_000 })).await;
    let ask = json!({ "key": "a", "wait_ms": 100, "token": uuid::Uuid::new_v4().to_string() });
    for _ in 0..50 {
        assert_eq!(process.acquire(ask.clone()).await.0, 423);
    }
    process.release(&held).await;
    let held = lock(process, ask).await;
    process.release(&held).await;
}

fn process(words: &[&str]) -> Process {
    Process::serve(&[words, &["--workers", "1"]].concat(), &[])
}

async fn lock(process: &Process, body: Value) -> Value {
    let (status, lock) = process.acquire(body).await;
    assert_eq!(status, 200, "{lock}");
    lock
}

/// Successes, so that a few refusals are not what the ratio of successes is about.
async fn all_is_well(process: &Process) {
    for at in 0..60 {
        let held = lock(process, json!({ "key": format!("fine-{at}") })).await;
        process.release(&held).await;
    }
}

/// Answers later: in a task of its own.
fn later(process: &Process, body: Value) -> actix_rt::task::JoinHandle<Value> {
    let request = process.client.post(format!("{}/acquire", process.url)).json(&body);
    actix_rt::spawn(async move { request.send().await.unwrap().json().await.unwrap() })
}

async fn waits(process: &Process, how_many: u64) {
    let url = format!("{}/stats", process.url);
    loop {
        let stats: Value = process.client.get(&url).send().await.unwrap().json().await.unwrap();
        if stats["waiting"].as_u64().unwrap() >= how_many {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn forever() -> std::future::Pending<()> {
    std::future::pending()
}

/// An app that has locks and a guard of its own, and refuses a stale fence now and then.
fn host_with_stale_fences() -> Case {
    let recorder = configure_prometheus(PrometheusBuilder::new()).unwrap().build_recorder();
    let locks = LockManager::builder().build().unwrap();
    let exposition = metrics::with_local_recorder(&recorder, || Exposition::new(recorder.handle()).report(&locks));
    let data = locks.clone();
    let app = move || App::new().app_data(data.clone()).app_data(exposition.clone()).configure(configure_metrics);
    let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_rt::spawn(server.run());
    let fault = async move {
        let guard = FenceGuard::<String>::new();
        guard.admit("row", "9".parse().unwrap()).unwrap();
        loop {
            guard.admit("row", "8".parse().unwrap()).unwrap_err();
            sleep(Duration::from_millis(500)).await;
        }
    };
    let alert = "LeaseholdStaleFences";
    Case { alert: Some(alert), job: alert.to_lowercase(), url, fault: Box::pin(fault) }
}

fn cases() -> Vec<Case> {
    let (gone, forgets) = (kit::Server::start(&[]), kit::Server::start(&[]));
    let (over_gone, over_forgets) = (process(&["--store", &gone.url()]), process(&["--store", &forgets.url()]));
    let gone = std::cell::Cell::new(Some(gone));
    let nodes: [kit::Server; 3] = std::array::from_fn(|_| kit::Server::start(&[]));
    let urls = format!("redlock:{}", nodes.each_ref().map(kit::Server::url).join(","));
    let over_nodes = process(&["--store", &urls, "--ttl", "2s", "--redlock-max-ttl", "2s"]);
    let nodes = std::cell::RefCell::new(nodes);
    let dies = process(&[]);
    let dead = dies.url.clone();
    let dies = std::cell::RefCell::new(Some(dies));
    let dying = async move {
        drop(dies.take());
        forever().await;
    };
    vec![
        healthy("healthy", process(&[]), all_is_well),
        healthy("rounds", process(&[]), waits_in_rounds),
        Case { alert: Some("LeaseholdDown"), job: "leaseholddown".to_owned(), url: dead, fault: Box::pin(dying) },
        host_with_stale_fences(),
        case("LeaseholdStoreDown", over_gone, async move |_| drop(gone.take())),
        case("LeaseholdNodeDown", over_nodes, async move |_| nodes.borrow_mut()[0].kill9()),
        case("LeaseholdLocksLost", over_forgets, async move |process| {
            // Under load the store may be too slow for one of these calls; the next round does it.
            let (_, held) = process.acquire(json!({ "key": "forgotten", "ttl_ms": 60_000, "wait_ms": 2000 })).await;
            forgets.ask::<()>("FLUSHALL");
            let beat = json!({ "key": "forgotten", "token": held["token"] });
            let url = format!("{}/heartbeat", process.url);
            process.client.post(url).json(&beat).send().await.unwrap();
        }),
        case("LeaseholdSuccessRatioLow", process(&[]), async |process| {
            let held = lock(process, json!({ "key": "a" })).await;
            for _ in 0..5 {
                assert_eq!(process.acquire(json!({ "key": "a", "wait_ms": 20 })).await.0, 423);
            }
            process.release(&held).await;
        }),
        case("LeaseholdWaiterStuck", process(&[]), async |process| {
            let held = lock(process, json!({ "key": "a", "ttl_ms": 60_000 })).await;
            let next = later(process, json!({ "key": "a", "wait_ms": 60_000 }));
            sleep(Duration::from_secs(24)).await;
            process.release(&held).await;
            process.release(&next.await.unwrap()).await;
            forever().await;
        }),
        case("LeaseholdHolderStuck", process(&[]), async |process| {
            lock(process, json!({ "key": "a", "ttl_ms": 600_000 })).await;
            forever().await;
        }),
        case("LeaseholdQueueFull", process(&["--max-waiters-per-key", "1"]), async |process| {
            all_is_well(process).await;
            let held = lock(process, json!({ "key": "a" })).await;
            let next = later(process, json!({ "key": "a" }));
            waits(process, 1).await;
            assert_eq!(process.acquire(json!({ "key": "a" })).await.0, 429);
            process.release(&held).await;
            process.release(&next.await.unwrap()).await;
        }),
        case("LeaseholdQueueDeep", process(&[]), async |process| {
            let mut held = lock(process, json!({ "key": "a" })).await;
            let queue: Vec<_> = (0..8).map(|_| later(process, json!({ "key": "a", "wait_ms": 60_000 }))).collect();
            waits(process, 8).await;
            // Not in the order in which they were sent.
            let mut queue: futures_util::stream::FuturesUnordered<_> = queue.into_iter().collect();
            loop {
                process.release(&held).await;
                match futures_util::StreamExt::next(&mut queue).await {
                    Some(next) => held = next.unwrap(),
                    None => return,
                }
            }
        }),
        case("LeaseholdLocksExpire", process(&[]), async |process| {
            lock(process, json!({ "key": "a", "ttl_ms": 20 })).await;
        }),
        case("LeaseholdDeadlocks", process(&[]), async |process| {
            for _ in 0..2 {
                all_is_well(process).await;
            }
            for _ in 0..3 {
                let session = async |name: &str| {
                    let url = format!("{}/sessions", process.url);
                    let body = json!({ "name": name, "ttl_ms": 10_000 });
                    let answer: Value =
                        process.client.post(url).json(&body).send().await.unwrap().json().await.unwrap();
                    answer["id"].as_str().unwrap().to_owned()
                };
                let (one, two) = (session("one").await, session("two").await);
                lock(process, json!({ "key": "a", "session": one })).await;
                lock(process, json!({ "key": "b", "session": two })).await;
                let first = later(process, json!({ "key": "b", "session": one, "wait_ms": 60_000 }));
                waits(process, 1).await;
                assert_eq!(process.acquire(json!({ "key": "a", "session": two, "wait_ms": 60_000 })).await.0, 409);
                for id in [two, one] {
                    let url = format!("{}/sessions/end", process.url);
                    process.client.post(url).json(&json!({ "session": id })).send().await.unwrap();
                }
                first.await.unwrap();
            }
        }),
    ]
}

#[actix_rt::test]
async fn each_alert_fires_on_its_fault_and_on_no_other() {
    let alerts: BTreeSet<_> = rules(&read("alerts.yml")).into_iter().map(|(name, _)| name).collect();
    let cases = cases();
    let expected: BTreeSet<(String, String)> =
        cases.iter().filter_map(|case| case.alert).map(|alert| (alert.to_lowercase(), alert.to_owned())).collect();
    assert_eq!(expected.iter().map(|(_, alert)| alert.clone()).collect::<BTreeSet<_>>(), alerts, "each has its fault");
    // A job for each, by which its alerts are known.
    let jobs: Vec<_> = cases.iter().map(|case| case.job.clone()).collect();
    let targets: Vec<_> = jobs.iter().zip(&cases).map(|(job, case)| (job.as_str(), case.url.as_str())).collect();
    let files = ["rules.yml", "alerts.yml"].map(|name| (name, hurried(&read(name))));
    let prometheus = Prometheus::start("2s", &targets, &files);
    let began = Instant::now();
    // What goes down must have been up.
    while prometheus.ask("leasehold_build_info").await.map_or(0, |seen| seen.len()) < cases.len() {
        assert!(began.elapsed() < PATIENCE, "they were not all scraped");
        sleep(Duration::from_millis(100)).await;
    }
    let tasks: Vec<_> = cases.into_iter().map(|case| actix_rt::spawn(case.fault)).collect();
    let (began, mut fired) = (Instant::now(), BTreeMap::new());
    while !expected.iter().all(|expected| fired.contains_key(expected)) {
        let missing = || expected.iter().filter(|expected| !fired.contains_key(*expected)).collect::<Vec<_>>();
        assert!(began.elapsed() < PATIENCE, "they never fired: {:?}", missing());
        for (task, job) in tasks.iter().zip(&jobs) {
            assert!(!task.is_finished(), "{job}: the fault could not be made");
        }
        if let Ok(answer) = prometheus.get("alerts", &[]).await {
            for alert in answer["alerts"].as_array().unwrap().iter().filter(|alert| alert["state"] == "firing") {
                let text = |name: &str| alert["labels"][name].as_str().unwrap().to_owned();
                fired.entry((text("job"), text("alertname"))).or_insert_with(|| (began.elapsed(), alert.clone()));
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
    let unexpected: Vec<_> = fired.iter().filter(|(name, _)| !expected.contains(name)).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}
