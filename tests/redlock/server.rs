//! Fear: servers over five nodes grant a key twice, or stop, while nodes die under their load.
#![cfg(all(feature = "server", unix))]

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::Client;
use serde_json::{Value, json};

use crate::binary::{Did, Process, leasehold};
use crate::kit::{self, until};

/// The longest TTL, and so the quarantine of a node that comes back empty, and of all of them at the start.
const MAX_TTL: &str = "2s";

fn serve(store: &str) -> Process {
    Process::serve(&["--store", store, "--ttl", MAX_TTL, "--redlock-max-ttl", MAX_TTL])
}

#[derive(Default)]
struct Watchman {
    held: Mutex<HashMap<u64, (u64, Option<Instant>)>>,
    grants: AtomicU64,
    end: AtomicBool,
}

async fn work(url: String, watchman: Arc<Watchman>) {
    // The binary's own client brings TLS into every client, and that asks for a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder().no_proxy().build().unwrap();
    let post = async |path: &str, body: Value| {
        let answer = client.post(format!("{url}{path}")).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    while !watchman.end.load(Ordering::SeqCst) {
        let number = fastrand::u64(0..8);
        let key = format!("load:{number}");
        let asked = Instant::now();
        let (status, lock) = post("/acquire", json!({ "key": key, "wait_ms": 2000 })).await;
        match status {
            200 => {}
            // Held too long by others, or no quorum just now.
            408 | 423 | 503 => continue,
            _ => panic!("{status}: {lock}"),
        }
        let fence = lock["fencing_token"].as_u64().expect("every grant's fence is proved");
        let until = asked + Duration::from_millis(lock["ttl_ms"].as_u64().unwrap());
        {
            let mut held = watchman.held.lock();
            let now = Instant::now();
            let (last, other) = held.insert(number, (fence, Some(until))).unwrap_or_default();
            assert!(fence > last, "{key}: fence {fence} after {last}");
            assert!(other.is_none_or(|other| other <= now), "{key} is held twice: fences {last} and {fence}");
            watchman.grants.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..3))).await;
        if let Some(entry) = watchman.held.lock().get_mut(&number).filter(|entry| entry.0 == fence) {
            entry.1 = None;
        }
        let (status, answer) = post("/release", json!({ "key": key, "token": lock["token"] })).await;
        assert!([200, 404, 409, 410, 503].contains(&status), "{status}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_over_five_nodes_survive_two_kills_a_pause_and_an_empty_restart() {
    let mut nodes: Vec<kit::Server> = (0..5).map(|_| kit::Server::start(&[])).collect();
    let urls: Vec<String> = nodes.iter().map(kit::Server::url).collect();
    let store = format!("redlock:{}", urls.join(","));
    let servers = [serve(&store), serve(&store)];
    let watchman = Arc::new(Watchman::default());
    let tasks: Vec<_> =
        (0..12).map(|n| tokio::spawn(work(servers[n % 2].url.clone(), Arc::clone(&watchman)))).collect();
    let goes_on = |what: &str| {
        let before = watchman.grants.load(Ordering::SeqCst);
        tokio::task::block_in_place(|| until(what, || watchman.grants.load(Ordering::SeqCst) > before + 60));
    };
    goes_on("grants after the first quarantine");
    nodes[0].kill9();
    nodes[1].kill9();
    goes_on("grants with two killed");
    nodes[2].stop();
    tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(300)));
    nodes[2].cont();
    goes_on("grants after a pause");
    tokio::task::block_in_place(|| nodes[0].restart());
    nodes[3].kill9();
    goes_on("grants after a quarantine, with two others away");
    watchman.end.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.expect("nothing was granted twice, and fences rose");
    }
    let [mut one, _other] = servers;
    one.signal("KILL");
    let said = one.stderr();
    let addresses = [nodes[0].address().to_string(), nodes[3].address().to_string()];
    assert!(said.contains("does not vote") && said.contains("is away"), "the log names what became of nodes:\n{said}");
    assert!(addresses.iter().all(|address| said.contains(address)), "{said}");
}

#[test]
fn a_redlock_store_that_makes_no_sense_is_refused_without_its_password() {
    for (store, why) in [
        ("redlock:redis://:sesame@a,redis://b", "even"),
        ("redlock:redis://:sesame@a,redis://a,redis://b", "same"),
        ("redlock:nonsense://:sesame@a", "Redis URL"),
    ] {
        let did = Did::of(leasehold(&["serve", "--store", store])).fails(64, why);
        assert!(!did.said().contains("sesame"), "{did:?}");
    }
}

#[test]
fn an_operator_lets_new_servers_vote_at_once_when_he_says_that_nothing_is_held() {
    let nodes: Vec<kit::Server> = (0..3).map(|_| kit::Server::start(&[])).collect();
    let store = format!("redlock:{}", nodes.iter().map(kit::Server::url).collect::<Vec<_>>().join(","));
    let init = |store: &str, words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        command.env_remove("LOCK_STORE").args(["redlock", "init", "--store", store, "--redlock-max-ttl", "1h"]);
        let done = command.args(words).output().unwrap();
        let said = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        (done.status.code(), said)
    };
    let marked = || nodes.iter().filter(|node| node.ask::<i64>("EXISTS leasehold:quarantine") == 1).count();
    let (code, said) = init(&store, &[]);
    assert!(code == Some(64) && said.contains("--nothing-is-held") && marked() == 0, "{said}");
    let (code, said) = init("redis://:sesame@a", &["--nothing-is-held"]);
    assert!(code == Some(64) && said.contains("redlock:") && !said.contains("sesame"), "{said}");
    let (code, said) = init(&store, &["--nothing-is-held"]);
    assert_eq!((code, said.as_str(), marked()), (Some(0), "initialised\n", 3));
    // For an hour they would be silent otherwise.
    let mut locking = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    locking.args(["run", "--key", "k", "--store", &store, "--redlock-max-ttl", "1h", "--wait", "30s", "--", "true"]);
    let done = locking.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    // One that does not answer is not passed over.
    drop(nodes);
    let (code, said) = init(&store, &["--nothing-is-held"]);
    assert_eq!(code, Some(69), "{said}");
}
