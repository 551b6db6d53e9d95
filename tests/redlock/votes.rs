//! Fear: whoever looks why a lock over several nodes is as it is cannot see which node stands for whom.
#![cfg(all(feature = "server", unix))]

use std::time::{Duration, Instant};

use leasehold::store::Vote::{self, Free, Holder, Other, Quarantined, Unknown};
use leasehold::{Location, LockManager};
use serde_json::{Value, json};

use crate::binary::{Did, leasehold};
use crate::exposition::Samples;
use crate::kit;
use crate::redlock::Nodes;
use crate::scraped::Process;

/// A longest TTL, and so a quarantine, that outlasts any test.
const LONG: Duration = Duration::from_mins(10);

/// However loaded the machine is, what has not come by then is not coming.
const PATIENCE: Duration = Duration::from_secs(60);

async fn manager(nodes: &Nodes) -> LockManager {
    LockManager::builder().ttl(LONG).store(nodes.builder().build().unwrap()).build_and_connect().await.unwrap()
}

/// Asks until the answer is what is wanted. What the nodes have is told to them one after the other.
async fn until_is<T: PartialEq + std::fmt::Debug>(wanted: T, ask: impl AsyncFn() -> T) {
    let began = Instant::now();
    loop {
        let is = ask().await;
        if is == wanted {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{is:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where the lock is seen from, and the votes on it; they are in the order of the servers.
async fn votes(nodes: &Nodes, locks: &LockManager) -> Option<(Location, Vec<Vote>)> {
    let info = locks.inspect("k").await.ok()??;
    let names: Vec<_> = nodes.servers.iter().map(|server| server.address().to_string()).collect();
    assert_eq!(info.votes.iter().map(|vote| vote.node.to_string()).collect::<Vec<_>>(), names);
    Some((info.location, info.votes.iter().map(|vote| vote.vote).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_a_lock_shows_for_whom_each_node_stands() {
    let mut nodes = Nodes::start(5, &[], LONG);
    let (one, two) = (manager(&nodes).await, manager(&nodes).await);
    let _lock = one.lock("k").await.unwrap();
    // By the holder's own token, and by what a majority has.
    until_is(Some((Location::Here, vec![Holder; 5])), async || votes(&nodes, &one).await).await;
    until_is(Some((Location::Elsewhere, vec![Holder; 5])), async || votes(&nodes, &two).await).await;
    nodes.servers[3].ask::<i64>("DEL lock:k");
    nodes.servers[4].ask::<()>("SET lock:k another-clients PX 600000");
    let split = vec![Holder, Holder, Holder, Free, Other];
    until_is(Some((Location::Here, split.clone())), async || votes(&nodes, &one).await).await;
    until_is(Some((Location::Elsewhere, split)), async || votes(&nodes, &two).await).await;
    nodes.servers[0].kill9();
    nodes.servers[1].restart();
    // No majority tells any more who holds it, but its holder knows.
    let few = vec![Unknown, Quarantined, Holder, Free, Other];
    until_is(Some((Location::Here, few)), async || votes(&nodes, &one).await).await;
    let told = one.explain("k").await.unwrap().to_string();
    assert!(told.contains(&format!("node {}: quarantined\n", nodes.servers[1].address())), "{told}");
    assert!(!told.contains("another-clients"));
    nodes.servers[4].ask::<i64>("DEL lock:k");
    nodes.servers[4].ask::<i64>("RPUSH lock:k something");
    let kinds = vec![Unknown, Quarantined, Holder, Free, Other];
    until_is(Some((Location::Here, kinds)), async || votes(&nodes, &one).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_node_is_seen_not_to_vote_before_anybody_asks_it_for_a_key() {
    let nodes = Nodes::start(3, &[], LONG);
    let locks = manager(&nodes).await;
    let _lock = locks.lock("k").await.unwrap();
    until_is(Some((Location::Here, vec![Holder; 3])), async || votes(&nodes, &locks).await).await;
    nodes.servers[2].ask::<()>("FLUSHALL");
    let votes = async || votes(&nodes, &locks).await;
    until_is(Some((Location::Here, vec![Holder, Holder, Quarantined])), votes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_alone_has_no_votes_and_its_locks_are_shown_as_ever() {
    let redis = kit::Server::start(&[]);
    let process = Process::serve(&["--store", &redis.url()], &[]);
    assert_eq!(process.acquire(json!({ "key": "k" })).await.0, 200);
    let shown: Value =
        process.client.get(format!("{}/locks/k", process.url)).send().await.unwrap().json().await.unwrap();
    assert!(shown["holders"].is_array() && shown.get("votes").is_none(), "{shown}");
    let seen = Did::of(leasehold(&["show", "k", "--server", &process.url])).ok();
    assert_eq!(seen.lines().count(), 1, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_shows_the_votes_and_which_nodes_are_up() {
    let mut nodes = Nodes::start(5, &[], LONG);
    for node in &nodes.servers {
        // Whoever has a password gets in, and so does the kit, which has none.
        node.ask::<()>("ACL SETUSER worker on >sesame allkeys allchannels allcommands");
    }
    let urls: Vec<_> = nodes.servers.iter().map(|node| node.url().replace("://", "://worker:sesame@")).collect();
    let store = format!("redlock:{}", urls.join(","));
    let process = Process::serve(&["--store", &store, "--redlock-max-ttl", "10m", "--ttl", "10m"], &[]);
    let (status, lock) = process.acquire(json!({ "key": "k" })).await;
    assert_eq!(status, 200, "{lock}");
    let addresses: Vec<_> = nodes.servers.iter().map(|node| node.address().to_string()).collect();
    let rows = |votes: [&str; 5]| -> Vec<_> {
        addresses.iter().zip(votes).map(|(node, vote)| json!({ "node": node, "vote": vote })).collect()
    };
    let get = async |path: &str| process.client.get(format!("{}{path}", process.url)).send().await.unwrap();
    let shown = async || get("/locks/k").await.json::<Value>().await.unwrap()["votes"].clone();
    until_is(json!(rows(["holder"; 5])), &shown).await;
    let up = async || {
        let samples = Samples::parse(&process.scrape().await);
        let of = |node: &String| {
            let labels = [("manager", "default"), ("store", "redlock"), ("node", node.as_str())];
            samples.value("leasehold_store_node_up", &labels)
        };
        // Before the store was asked for the first time there are none.
        samples.labels("leasehold_store_node_up").map(|_| addresses.iter().map(of).collect::<Vec<_>>())
    };
    until_is(Some(vec![1.0; 5]), &up).await;
    nodes.servers[0].kill9();
    nodes.servers[1].restart();
    nodes.servers[1].ask::<()>("ACL SETUSER worker on >sesame allkeys allchannels allcommands");
    until_is(json!(rows(["unknown", "quarantined", "holder", "holder", "holder"])), &shown).await;
    until_is(Some(vec![0.0, 0.0, 1.0, 1.0, 1.0]), &up).await;
    let samples = Samples::parse(&process.scrape().await);
    assert_eq!(samples.sum("leasehold_store_up"), 1.0, "a majority answers");
    let seen = Did::of(leasehold(&["show", "k", "--server", &process.url])).ok();
    for (node, vote) in addresses.iter().zip(["unknown", "quarantined", "holder", "holder", "holder"]) {
        assert!(seen.contains(&format!("node\t{node}\t{vote}\n")), "{seen}");
    }
    let text = get("/locks/k").await.text().await.unwrap() + &process.scrape().await + &seen;
    assert!(!text.contains("sesame") && !text.contains(lock["token"].as_str().unwrap()));
    // Who is refused is told of the holder, and of no node.
    let (status, busy) = process.acquire(json!({ "key": "k", "wait_ms": 0 })).await;
    assert!(status == 423 && !busy.to_string().contains("votes"), "{busy}");
}
