//! Fear: the server's own metrics are not there, not all of them, or tell a stranger too much.
#![cfg(all(feature = "server", unix))]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use leasehold::metrics::FAMILIES;
use serde_json::json;

use crate::exposition::Samples;
use crate::kit;
use crate::scraped::Process;

#[actix_rt::test]
async fn a_server_over_redis_exports_every_family_that_is_declared_and_no_other() {
    let redis = kit::Server::start(&[]);
    let process = Process::serve(&["--store", &redis.url()], &[]);
    let (status, lock) = process.acquire(json!({ "key": "a-secret-key", "owner": "a-secret-owner" })).await;
    assert_eq!(status, 200);
    let (status, _) = process.acquire(json!({ "key": "a-secret-key", "wait_ms": 0 })).await;
    assert_eq!(status, 423);
    let _ = process.scrape().await;
    let mut text = process.scrape().await;
    // The store is asked for the first time in the background.
    let began = Instant::now();
    while !text.contains("leasehold_store_node_up{") {
        assert!(began.elapsed() < Duration::from_secs(60), "{text}");
        actix_rt::time::sleep(Duration::from_millis(20)).await;
        text = process.scrape().await;
    }
    let samples = Samples::parse(&text);
    let ours: BTreeSet<_> = samples.families().into_iter().filter(|name| !name.starts_with("process_")).collect();
    assert_eq!(ours, FAMILIES.iter().map(|family| family.name.to_owned()).collect::<BTreeSet<_>>());
    for family in FAMILIES {
        let labels: BTreeSet<_> = family.labels.iter().map(|label| (*label).to_owned()).collect();
        assert_eq!(samples.labels(family.name), Some(labels), "{}", family.name);
        let of = |what: &str| text.lines().any(|line| line.starts_with(&format!("# {what} {} ", family.name)));
        assert!(of("HELP") && of("TYPE"), "{} says what it is", family.name);
    }
    assert!(samples.sum("process_resident_memory_bytes") > 0.0);
    let store = |op| [("manager", "default"), ("store", "redis"), ("op", op), ("outcome", "done")];
    assert_eq!(samples.value("leasehold_store_operations_total", &store("acquire")), 1.0);
    assert_eq!(samples.sum("leasehold_claims_held"), 1.0);
    assert_eq!(samples.sum("leasehold_store_up"), 1.0);
    let node = redis.address().to_string();
    let node = [("manager", "default"), ("store", "redis"), ("node", node.as_str())];
    assert_eq!(samples.value("leasehold_store_node_up", &node), 1.0);
    let acquires = |code| [("route", "/acquire"), ("method", "POST"), ("code", code)];
    assert_eq!(samples.value("leasehold_http_requests_total", &acquires("200")), 1.0);
    assert_eq!(samples.value("leasehold_http_requests_total", &acquires("423")), 1.0);
    assert!(!text.contains("secret") && !text.contains(lock["token"].as_str().unwrap()));
}

#[actix_rt::test]
async fn namespaces_of_a_server_over_redis_are_prefixes_of_what_clients_call_their_keys() {
    let redis = kit::Server::start(&[]);
    let process = Process::serve(&["--store", &redis.url(), "--namespaces", "order:, cron:"], &[]);
    for key in ["order:1", "order:2", "cron:daily", "elsewhere"] {
        assert_eq!(process.acquire(json!({ "key": key })).await.0, 200);
    }
    let samples = Samples::parse(&process.scrape().await);
    for family in ["leasehold_locks_held", "leasehold_claims_held"] {
        let held = ["order:", "cron:", "other"].map(|of| samples.sum_where(family, ("lock_namespace", of)));
        assert_eq!(held, [2.0, 1.0, 1.0], "{family}");
    }
}

#[actix_rt::test]
async fn paths_and_methods_that_clients_make_up_add_nothing_after_the_first() {
    let process = Process::serve(&[], &[]);
    let made_up = async |name: &str| {
        let (method, url) = (name.to_uppercase().parse().unwrap(), format!("{}/{name}/x", process.url));
        process.client.request(method, url).send().await.unwrap();
        process.client.get(format!("{}/locks/{name}", process.url)).send().await.unwrap();
    };
    made_up("first").await;
    let _ = process.scrape().await;
    let before = process.scrape().await.lines().count();
    for at in 0..50 {
        made_up(&format!("n{at}")).await;
    }
    let text = process.scrape().await;
    assert_eq!(text.lines().count(), before, "{text}");
    assert!(text.contains("route=\"/locks/{key}\"") && text.contains("method=\"other\""));
}

#[actix_rt::test]
async fn with_tokens_a_scrape_needs_the_right_to_read_unless_totals_are_open() {
    let tokens = r#"[{"name":"prometheus","token":"0123456789abcdef","rights":["read"]},
                     {"name":"worker","token":"fedcba9876543210","rights":["acquire"]}]"#;
    let environment = [("LEASEHOLD_TOKENS", tokens)];
    let process = Process::serve(&[], &environment);
    let url = format!("{}/metrics", process.url);
    let status = async |token: Option<&str>| {
        let request = process.client.get(&url);
        let request = token.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some("fedcba9876543210")).await, 403);
    assert_eq!(status(Some("0123456789abcdef")).await, 200);
    let open = Process::serve(&["--open-stats"], &environment);
    let _ = open.scrape().await;
}
