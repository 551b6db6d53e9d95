//! Fear: who listens to events hears too much, too little, or for ever.

use std::time::Duration;

use leasehold::LockManager;
use leasehold::http::Limits;
use serde_json::{Value, json};

use crate::http_server::{Server, number, text, until};

#[actix_rt::test]
async fn a_locks_life_is_told_in_order() {
    let server = Server::start();
    let mut events = server.events("/events").await;
    let ask = json!({ "key": "a", "owner": "w", "mode": "permit", "limit": 3, "permits": 2, "ttl_ms": 20_000 });
    let lock = server.post("/acquire", ask).await.ok();
    let mine = json!({ "key": "a", "token": lock["token"] });
    server.post("/heartbeat", mine.clone()).await.ok();
    server.post("/release", mine).await.ok();
    server.post("/acquire", json!({ "key": "a" })).await.ok();
    server.delete("/locks/a").await.ok();

    let granted = events.next().await;
    assert_eq!((text(&granted, "kind"), text(&granted, "key"), text(&granted, "owner")), ("granted", "a", "w"));
    assert_eq!((text(&granted, "mode"), number(&granted, "limit"), number(&granted, "permits")), ("permit", 3, 2));
    assert_eq!((number(&granted, "ttl_ms"), &granted["fencing_token"]), (20_000, &lock["fencing_token"]));
    let refreshed = events.next().await;
    assert_eq!(text(&refreshed, "kind"), "refreshed");
    assert!(number(&refreshed, "remaining_ms") > 10_000);
    let released = events.next().await;
    assert_eq!(text(&released, "kind"), "released");
    assert!(released["held_ms"].is_u64());
    let again = events.next().await;
    assert_eq!((text(&again, "kind"), &again["owner"]), ("granted", &Value::Null));
    assert_eq!(text(&events.next().await, "kind"), "forced");
    assert!(number(&again, "sequence") > number(&granted, "sequence"));
    assert!(!events.seen().contains(text(&lock, "token")), "never a token");
}

#[actix_rt::test]
async fn every_event_is_framed_as_a_server_sent_one() {
    let server = Server::start();
    let mut events = server.events("/events").await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    assert_eq!(events.header("cache-control"), "no-store");
    server.post("/acquire", json!({ "key": "a" })).await.ok();
    let event = events.next().await;
    let (opening, framed) = events.seen().split_once("\n\n").unwrap();
    assert!(opening.starts_with("retry: 2000\n"), "{opening}");
    let head = format!("event: granted\nid: {}\ndata: {{", number(&event, "sequence"));
    assert!(framed.starts_with(&head) && framed.ends_with("}\n\n"), "{framed}");
}

#[actix_rt::test]
async fn a_prefix_leaves_out_the_others() {
    let server = Server::start();
    let mut events = server.events("/events?prefix=b%3A").await;
    for key in ["a:1", "b:1", "c", "b", "b:2"] {
        server.post("/acquire", json!({ "key": key })).await.ok();
    }
    assert_eq!(text(&events.next().await, "key"), "b:1");
    assert_eq!(text(&events.next().await, "key"), "b:2");
}

#[actix_rt::test]
async fn who_wants_few_events_hears_of_the_others_by_their_number() {
    let server = Server::start();
    let mut events = server.events("/events?max_rate=1").await;
    for _ in 0..100 {
        drop(server.locks.try_lock_now("a").unwrap());
    }
    assert_eq!(text(&events.next().await, "kind"), "granted");
    let missed = events.next().await;
    assert_eq!(text(&missed, "kind"), "missed");
    assert!(number(&missed, "missed") > 1);
    for bad in ["0", "-1", "x"] {
        server.get(&format!("/events?max_rate={bad}")).await.problem(400, "invalid_query");
    }
}

#[actix_rt::test]
async fn a_deadlock_is_told_with_its_circle() {
    let server = Server::start();
    let mut events = server.events("/events").await;
    let mut ids = Vec::new();
    for (name, key) in [("one", "a"), ("two", "b")] {
        let session = server.post("/sessions", json!({ "name": name })).await.ok();
        server.post("/acquire", json!({ "key": key, "session": session["id"] })).await.ok();
        ids.push(session["id"].clone());
    }
    let waits = server.post_later("/acquire", json!({ "key": "b", "session": ids[0], "wait_ms": 60_000 }));
    until("the first wait", || server.waiting() == 1).await;
    server.post("/acquire", json!({ "key": "a", "session": ids[1] })).await.problem(409, "deadlock");
    for _ in 0..2 {
        assert_eq!(text(&events.next().await, "kind"), "granted");
    }
    let deadlock = events.next().await;
    assert_eq!(text(&deadlock, "kind"), "deadlock");
    assert_eq!(deadlock["cycle"].as_array().unwrap().len(), 2);
    waits.abort();
}

/// It was told when a sweep came by, a minute later where nobody waited.
#[actix_rt::test]
async fn what_runs_out_is_told_in_time_to_who_listens() {
    let hour = Duration::from_hours(1);
    let server = Server::over(LockManager::builder().sweep_every(hour).build().unwrap());
    for n in 0..6 {
        server.post("/acquire", json!({ "key": format!("before {n}"), "ttl_ms": 300 })).await.ok();
    }
    let mut events = server.events("/events").await;
    for n in 0..6 {
        server.post("/acquire", json!({ "key": format!("after {n}"), "ttl_ms": 300 })).await.ok();
    }
    let mut expired = 0;
    while expired < 12 {
        let event = events.next().await;
        if text(&event, "kind") == "expired" {
            expired += 1;
            assert_eq!(number(&event, "held_ms"), 300);
        }
    }
}

#[actix_rt::test]
async fn a_listener_who_has_gone_is_forgotten() {
    let server = Server::start();
    let events = server.events("/events").await;
    assert_eq!(server.locks.listeners(), 1);
    drop(events);
    until("its end", || server.locks.listeners() == 0).await;
}

#[actix_rt::test]
async fn listeners_are_bounded() {
    let limits = Limits::new().max_streams(2);
    let server = Server::with_limits(LockManager::builder().build().unwrap(), limits);
    let _two = [server.events("/events").await, server.events("/events").await];
    server.get("/events").await.problem(429, "too_many_streams");
    assert_eq!(server.locks.listeners(), 2, "who is refused takes no place");
    server.get("/events?key=a").await.problem(400, "invalid_query");
}

#[actix_rt::test]
async fn who_falls_behind_hears_how_much_it_missed() {
    let server = Server::over(LockManager::builder().event_buffer(4).build().unwrap());
    let mut events = server.events("/events").await;
    // Far more than the buffers of both sockets hold, while nobody reads.
    let key = "k".repeat(250);
    let rounds = 60_000;
    for round in 0..rounds {
        drop(server.locks.try_lock_now(key.as_str()).unwrap());
        if round % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let mut heard = 0;
    let missed = loop {
        let event = events.next().await;
        if text(&event, "kind") == "missed" {
            break number(&event, "missed");
        }
        heard += 1;
    };
    assert!(missed > 0 && heard < 2 * rounds);
}

#[actix_rt::test]
async fn a_shutdown_is_told_to_its_end_and_ends_the_stream() {
    let server = Server::start();
    let mut events = server.events("/events").await;
    server.post("/acquire", json!({ "key": "a" })).await.ok();
    assert_eq!(server.locks.shutdown(Duration::ZERO).await, 1);
    assert_eq!(text(&events.next().await, "kind"), "granted");
    assert_eq!(text(&events.next().await, "kind"), "lost");
    assert!(events.ended().await);
}
