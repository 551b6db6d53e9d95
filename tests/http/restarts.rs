//! Fear: a server over a directory forgets what it granted when it is started anew, gives it to another, or knows it only
//! as somebody's.
#![cfg(all(feature = "durable", feature = "server", unix))]

use reqwest::Method;
use serde_json::{Value, json};

use crate::binary::{Did, leasehold};
use crate::http_server::{Answer, client, number, text};
use crate::kit::Dir;
use crate::served::Process;

/// A server over this directory.
fn serve(dir: &Dir, words: &[&str]) -> Process {
    Process::serve(&[&["--data", dir.path().join("locks").to_str().unwrap()], words].concat())
}

/// Ends a server in this way.
async fn end(mut server: Process, signal: &str) {
    server.signal(signal);
    if signal == "TERM" {
        assert_eq!(server.exit_code().await, 0);
        assert!(!server.stderr().contains("waiting for holders"), "the next one goes on with them");
    }
}

fn named(lock: &Value) -> Value {
    json!({ "key": lock["key"], "token": lock["token"] })
}

#[actix_rt::test]
async fn what_was_granted_goes_on_in_the_next_server() {
    for signal in ["KILL", "TERM"] {
        let dir = Dir::make();
        let server = serve(&dir, &[]);
        let session = server.post("/sessions", json!({ "name": "w-7", "ttl_ms": 60_000 })).await.ok();
        let chosen = json!({ "key": "chosen", "token": leasehold::Token::random().to_string(), "ttl_ms": 60_000 });
        let asked = [
            json!({ "key": "plain", "owner": "ü", "ttl_ms": 60_000 }),
            chosen.clone(),
            json!({ "key": "shared", "mode": "shared", "ttl_ms": 60_000 }),
            json!({ "key": "permit", "mode": "permit", "limit": 3, "permits": 2, "ttl_ms": 60_000 }),
            json!({ "key": "of a session", "session": session["id"] }),
        ];
        let mut held = Vec::new();
        for ask in &asked {
            held.push(server.post("/acquire", ask.clone()).await.ok());
        }
        let gone = server.post("/acquire", json!({ "key": "gone" })).await.ok();
        server.post("/release", named(&gone)).await.ok();
        end(server, signal).await;

        let server = serve(&dir, &[]);
        // As it was, to the last detail that others see.
        let seen = server.get("/locks/plain").await.ok();
        assert_eq!((text(&seen["holder"], "owner"), &seen["elsewhere"]), ("ü", &Value::Null), "{seen}");
        assert_eq!(seen["holder"]["fencing_token"], held[0]["fencing_token"]);
        assert_eq!(server.get("/locks/permit").await.ok()["holders"][0]["permits"], 2);
        // For others it is taken; for who asked it is the same.
        for lock in &held {
            let ask = json!({ "key": lock["key"], "wait_ms": 0 });
            let refused = server.post("/acquire", ask).await;
            assert!([409, 423].contains(&refused.status), "{refused:?}");
        }
        let again = server.post("/acquire", chosen.clone()).await.ok();
        assert_eq!((&again["fencing_token"], &again["token"]), (&held[1]["fencing_token"], &chosen["token"]));
        let beat = server.post("/sessions/heartbeat", json!({ "session": session["id"] })).await.ok();
        assert_eq!(number(&beat, "locks"), 1, "{beat}");
        for lock in &held[..4] {
            let left = number(&server.post("/heartbeat", named(lock)).await.ok(), "remaining_ms");
            assert!(left > 50_000, "{left} of {lock}");
        }
        server.post("/heartbeat", named(&gone)).await.problem(409, "lost");
        for lock in &held {
            assert_eq!(server.post("/release", named(lock)).await.ok()["outcome"], "released", "{lock}");
            let next = server.post("/acquire", json!({ "key": lock["key"], "wait_ms": 0 })).await.ok();
            assert!(number(&next, "fencing_token") > number(lock, "fencing_token"), "{next} after {lock}");
        }
    }
}

#[actix_rt::test]
async fn what_has_ended_while_nobody_served_is_nobodys() {
    let dir = Dir::make();
    let server = serve(&dir, &[]);
    let lock = server.post("/acquire", json!({ "key": "a", "ttl_ms": 300 })).await.ok();
    end(server, "KILL").await;
    actix_rt::time::sleep(std::time::Duration::from_millis(400)).await;
    let server = serve(&dir, &[]);
    server.post("/heartbeat", named(&lock)).await.problem(409, "lost");
    let next = server.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.ok();
    assert!(number(&next, "fencing_token") > number(&lock, "fencing_token"));
}

#[actix_rt::test]
async fn locks_are_charged_to_those_who_took_them_and_sessions_are_theirs_alone() {
    const SECRETS: [&str; 2] = ["ci-secret-0123456789", "other-secret-0123456789"];
    let dir = Dir::make();
    let tokens = dir.path().join("tokens.json");
    let bearer = |name: &str, secret: &str| json!({ "name": name, "token": secret, "rights": ["acquire", "read"], "max_locks": 1 });
    std::fs::write(&tokens, json!([bearer("ci", SECRETS[0]), bearer("other", SECRETS[1])]).to_string()).unwrap();
    let words = ["--tokens-file", tokens.to_str().unwrap()];
    let post = |server: &Process, secret: &str, path: &str, body: Value| {
        let request = client().request(Method::POST, format!("{}{path}", server.url)).bearer_auth(secret);
        Answer::of(request.json(&body))
    };
    let server = serve(&dir, &words);
    let session = post(&server, SECRETS[0], "/sessions", json!({ "name": "s", "ttl_ms": 60_000 })).await.ok();
    post(&server, SECRETS[0], "/acquire", json!({ "key": "a", "session": session["id"] })).await.ok();
    end(server, "KILL").await;
    let server = serve(&dir, &words);
    post(&server, SECRETS[0], "/acquire", json!({ "key": "b", "wait_ms": 0 })).await.problem(429, "lock_quota");
    let named = json!({ "session": session["id"] });
    post(&server, SECRETS[1], "/sessions/heartbeat", named.clone()).await.problem(404, "unknown_session");
    post(&server, SECRETS[0], "/sessions/end", named).await.ok();
    post(&server, SECRETS[0], "/acquire", json!({ "key": "b", "wait_ms": 0 })).await.ok();
}

#[test]
fn a_directory_has_one_server_at_a_time() {
    let dir = Dir::make();
    let locks = dir.path().join("locks");
    let data = locks.to_str().unwrap();
    let _server = serve(&dir, &[]);
    let second = || leasehold(&["serve", "--listen", "127.0.0.1:0", "--data", data]);
    let did = Did::of(second()).fails(64, data);
    assert!(did.stdout.is_empty() && !did.stderr.contains("panicked"), "{did:?}");
    let both = ["serve", "--listen", "127.0.0.1:0", "--data", data, "--store", "redis://127.0.0.1:1"];
    Did::of(leasehold(&both)).fails(64, "--data and --store");
    Did::of(leasehold(&["serve", "--store", "file:"])).fails(64, "names no directory");
    Did::of(leasehold(&["serve", "--data", data, "--durability", "always"])).fails(64, "relaxed:TIME");
    Did::of(leasehold(&["run", "--key", "k", "--store", &format!("file:{data}"), "--", "true"])).fails(64, "--server");
}
