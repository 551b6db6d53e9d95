//! Fear: a session over HTTP outlives its heartbeats, leaves locks behind, or shows its id to others.
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::http::{Access, Limits};
use leasehold::{LockManager, ManualClock};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http_server::{Answer, Server, number, text, until};

const NO_SESSION: &str = "7a1e5ad1-5f5f-4b9f-8e63-0f3c1a2f0d11";

fn stopped_clock() -> (ManualClock, Server) {
    let clock = ManualClock::new();
    (clock.clone(), Server::over(LockManager::builder().clock(clock.clock()).build().unwrap()))
}

async fn open(server: &Server, name: &str) -> String {
    let session = server.post("/sessions", json!({ "name": name, "ttl_ms": 10_000 })).await.ok();
    text(&session, "id").to_owned()
}

async fn beat(server: &Server, id: &str) -> Answer {
    server.post("/sessions/heartbeat", json!({ "session": id })).await
}

async fn end(server: &Server, id: &str) -> Answer {
    server.post("/sessions/end", json!({ "session": id })).await
}

fn of(session: &str, key: &str) -> Value {
    json!({ "key": key, "session": session, "wait_ms": 0 })
}

#[actix_rt::test]
async fn an_opened_session_says_what_it_is() {
    let (_clock, server) = stopped_clock();
    let session = server.post("/sessions", json!({ "name": "worker-7", "ttl_ms": 10_000 })).await.ok();
    assert_eq!((text(&session, "name"), number(&session, "ttl_ms")), ("worker-7", 10_000));
    assert_eq!(number(&session, "remaining_ms"), 10_000);
    let id: uuid::Uuid = text(&session, "id").parse().unwrap();
    assert_eq!(id.get_version_num(), 4, "an id that could be guessed would let others end the session");
    let default = server.post("/sessions", json!({ "name": "w" })).await.ok();
    assert_eq!(number(&default, "ttl_ms"), 30_000);
}

#[actix_rt::test]
async fn one_heartbeat_keeps_all_locks_of_a_session() {
    let (clock, server) = stopped_clock();
    let id = open(&server, "w").await;
    for key in ["a", "b"] {
        let lock = server.post("/acquire", of(&id, key)).await.ok();
        assert_eq!((number(&lock, "ttl_ms"), text(&lock, "owner")), (10_000, "w"));
    }
    for _ in 0..3 {
        clock.advance(Duration::from_secs(9));
        let answer = beat(&server, &id).await.ok();
        assert_eq!((number(&answer, "remaining_ms"), number(&answer, "locks")), (10_000, 2));
    }
    assert_eq!(number(&server.get("/locks/a").await.ok()["holder"], "remaining_ms"), 10_000);
}

#[actix_rt::test]
async fn a_session_that_runs_out_releases_its_locks_and_stays_ended() {
    let (clock, server) = stopped_clock();
    let id = open(&server, "w").await;
    server.post("/acquire", of(&id, "a")).await.ok();
    clock.advance(Duration::from_secs(10));
    server.get("/locks/a").await.problem(404, "not_locked");
    beat(&server, &id).await.problem(410, "session_ended");
    server.post("/acquire", of(&id, "b")).await.problem(410, "session_ended");
    assert_eq!(end(&server, &id).await.ok(), json!({ "outcome": "already_gone" }));
}

#[actix_rt::test]
async fn the_end_of_a_session_releases_its_locks_and_refuses_its_waiters() {
    let (_clock, server) = stopped_clock();
    let id = open(&server, "w").await;
    server.post("/acquire", json!({ "key": "busy" })).await.ok();
    server.post("/acquire", of(&id, "a")).await.ok();
    let waits = server.post_later("/acquire", json!({ "key": "busy", "session": id, "wait_ms": 60_000 }));
    until("its wait", || server.waiting() == 1).await;
    assert_eq!(end(&server, &id).await.ok(), json!({ "outcome": "released" }));
    waits.await.unwrap().problem(410, "session_ended");
    server.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.ok();
    assert_eq!(end(&server, &id).await.ok(), json!({ "outcome": "already_gone" }));
}

#[actix_rt::test]
async fn a_lock_of_a_session_is_released_and_refreshed_by_its_token() {
    let (clock, server) = stopped_clock();
    let id = open(&server, "w").await;
    let lock = server.post("/acquire", of(&id, "a")).await.ok();
    clock.advance(Duration::from_secs(9));
    let mine = json!({ "key": "a", "token": lock["token"] });
    assert_eq!(number(&server.post("/heartbeat", mine.clone()).await.ok(), "remaining_ms"), 10_000);
    assert_eq!(server.post("/release", mine).await.ok(), json!({ "outcome": "released" }));
    assert_eq!(number(&beat(&server, &id).await.ok(), "locks"), 0);
}

#[actix_rt::test]
async fn sessions_that_would_wait_for_each_other_hear_of_the_circle() {
    let (_clock, server) = stopped_clock();
    let (one, two) = (open(&server, "one").await, open(&server, "two").await);
    server.post("/acquire", of(&one, "a")).await.ok();
    server.post("/acquire", of(&two, "b")).await.ok();
    let waits = server.post_later("/acquire", json!({ "key": "b", "session": one, "wait_ms": 60_000 }));
    until("the first wait", || server.waiting() == 1).await;
    let refused = server.post("/acquire", json!({ "key": "a", "session": two, "wait_ms": 60_000 })).await;
    let cycle = refused.problem(409, "deadlock")["cycle"].clone();
    let mut edges: Vec<_> =
        cycle.as_array().unwrap().iter().map(|edge| (text(edge, "owner"), text(edge, "key"))).collect();
    edges.sort_unstable();
    assert_eq!(edges, [("one", "b"), ("two", "a")]);
    end(&server, &two).await.ok();
    waits.await.unwrap().ok();
}

#[actix_rt::test]
async fn an_id_that_is_nobodys_is_unknown() {
    let (_clock, server) = stopped_clock();
    for ask in [beat(&server, NO_SESSION).await, end(&server, NO_SESSION).await] {
        ask.problem(404, "unknown_session");
    }
    for bad in ["x", "", "../../acquire"] {
        let answers = [beat(&server, bad).await, end(&server, bad).await];
        answers.into_iter().for_each(|answer| drop(answer.problem(400, "invalid_body")));
    }
    server.post("/acquire", of(NO_SESSION, "a")).await.problem(404, "unknown_session");
    server.post("/acquire", json!({ "key": "a", "session": "x" })).await.problem(400, "invalid_body");
    for extra in [json!({ "session": NO_SESSION, "force": 1 }), json!({})] {
        server.post("/sessions/end", extra).await.problem(400, "invalid_body");
    }
    assert_eq!(server.locks.stats().granted, 0);
}

#[actix_rt::test]
async fn what_makes_no_sense_opens_no_session() {
    let (_clock, server) = stopped_clock();
    let bad_name = server.post("/sessions", json!({ "name": "a\nb" })).await.problem(422, "invalid_option");
    assert!(text(&bad_name, "detail").contains("`name`"), "{bad_name}");
    server.post("/sessions", json!({ "name": "" })).await.problem(422, "invalid_option");
    for ttl in [json!(0), json!(9), json!(86_400_001), json!(1.5), json!(-1)] {
        server.post("/sessions", json!({ "name": "w", "ttl_ms": ttl })).await.problem(422, "invalid_ttl");
    }
    for body in [json!({}), json!({ "name": 7 }), json!({ "name": "w", "ttl": 1 })] {
        server.post("/sessions", body).await.problem(400, "invalid_body");
    }
    let id = open(&server, "w").await;
    let both = json!({ "key": "a", "session": id, "ttl_ms": 5_000 });
    server.post("/acquire", both).await.problem(422, "invalid_option");
}

#[actix_rt::test]
async fn sessions_and_the_locks_of_each_are_bounded() {
    let locks = LockManager::builder().max_sessions(2).max_locks_per_session(1).build().unwrap();
    let server = Server::over(locks);
    let (one, _) = (open(&server, "one").await, open(&server, "two").await);
    server.post("/sessions", json!({ "name": "three" })).await.problem(429, "too_many_sessions");
    server.post("/acquire", of(&one, "a")).await.ok();
    server.post("/acquire", of(&one, "b")).await.problem(429, "too_many_locks");
    end(&server, &one).await.ok();
    open(&server, "three").await;
}

#[actix_rt::test]
async fn a_retry_by_token_is_safe_within_a_session() {
    let (_clock, server) = stopped_clock();
    let (id, other) = (open(&server, "w").await, open(&server, "other").await);
    let ask = |session: &str| json!({ "key": "a", "session": session, "token": NO_SESSION });
    let first = server.post("/acquire", ask(&id)).await.ok();
    assert_eq!(server.post("/acquire", ask(&id)).await.ok()["fencing_token"], first["fencing_token"]);
    server.post("/acquire", ask(&other)).await.problem(409, "token_reused");
}

#[actix_rt::test]
async fn a_sessions_id_is_in_the_opening_answer_and_nowhere_else() {
    let (_clock, server) = stopped_clock();
    let id = open(&server, "w").await;
    let mut events = server.events("/events").await;
    let mut answers = vec![
        server.post("/acquire", of(&id, "a")).await,
        server.post("/acquire", of(&id, "a")).await,
        server.post("/acquire", json!({ "key": "b", "session": format!("{id}0") })).await,
        server.post("/acquire", json!({ "key": "b", "mode": id })).await,
        beat(&server, &id).await,
        beat(&server, &format!("{id}0")).await,
    ];
    for path in ["/locks", "/locks/a", "/stats", "/stats?key=a"] {
        answers.push(server.get(path).await);
    }
    answers.push(end(&server, &id).await);
    for answer in answers {
        assert!(!format!("{answer:?}").contains(&id), "{answer:?}");
    }
    for kind in ["granted", "released"] {
        let event = events.next().await;
        assert_eq!(text(&event, "kind"), kind);
        assert!(!event.to_string().contains(&id));
    }
}

/// An address is written down by every proxy and browser on the way.
#[actix_rt::test]
async fn no_route_takes_a_sessions_id_in_its_address() {
    let (_clock, server) = stopped_clock();
    let id = open(&server, "w").await;
    for (method, path) in [
        (Method::POST, format!("/sessions/{id}/heartbeat")),
        (Method::DELETE, format!("/sessions/{id}")),
        (Method::GET, format!("/sessions/{id}")),
    ] {
        Answer::of(server.request(method, &path)).await.problem(404, "not_found");
    }
    for path in ["/sessions/end", "/sessions/heartbeat"] {
        server.get(path).await.problem(405, "method_not_allowed");
    }
    beat(&server, &id).await.ok();
}

#[actix_rt::test]
async fn a_session_is_of_use_to_the_token_that_opened_it_and_to_no_other() {
    const MINE: &str = "mine-secret-0123456789";
    const OTHER: &str = "other-secret-0123456789";
    const RENEWED: &str = "renewed-secret-0123456789";
    let list = |mine: &str| {
        json!([
            { "name": "mine", "token": mine, "rights": ["acquire", "read"] },
            { "name": "other", "token": OTHER, "rights": ["acquire", "read", "force"] },
        ])
    };
    let access = Access::from_json(&list(MINE).to_string()).unwrap();
    let server = Server::with_access(LockManager::builder().build().unwrap(), Limits::new(), access);
    let post = async |token: &str, path: &str, body: Value| {
        Answer::of(server.request(Method::POST, path).bearer_auth(token).json(&body)).await
    };
    let session = post(MINE, "/sessions", json!({ "name": "w" })).await.ok();
    let id = text(&session, "id");
    post(MINE, "/acquire", of(id, "a")).await.ok();
    let named = json!({ "session": id });
    post(OTHER, "/acquire", of(id, "b")).await.problem(404, "unknown_session");
    for path in ["/sessions/heartbeat", "/sessions/end"] {
        post(OTHER, path, named.clone()).await.problem(404, "unknown_session");
    }
    assert_eq!(number(&post(MINE, "/sessions/heartbeat", named.clone()).await.ok(), "locks"), 1);
    // It is whose it is by the token's name: a new secret is no reason to lose the locks.
    server.replace_tokens(&list(RENEWED));
    post(MINE, "/sessions/heartbeat", named.clone()).await.problem(401, "unauthenticated");
    post(RENEWED, "/sessions/heartbeat", named.clone()).await.ok();
    assert_eq!(post(RENEWED, "/sessions/end", named).await.ok(), json!({ "outcome": "released" }));
}

#[actix_rt::test]
async fn open_sessions_are_listed_with_what_they_hold_and_wait_for_and_never_by_their_ids() {
    let (clock, server) = stopped_clock();
    assert_eq!(server.get("/sessions").await.ok(), json!({ "sessions": [], "open": 0 }));
    let (one, two) = (open(&server, "one").await, open(&server, "two").await);
    let over = open(&server, "over").await;
    end(&server, &over).await.ok();
    for (id, key) in [(&one, "a"), (&one, "b"), (&two, "c")] {
        server.post("/acquire", of(id, key)).await.ok();
    }
    let waiter = server.post_later("/acquire", json!({ "key": "a", "session": two, "wait_ms": 60_000 }));
    until("a waiter", || server.waiting() == 1).await;
    clock.advance(Duration::from_secs(4));
    // What took a while to make may be told again for as long as fifteen whiles.
    let mut list = Value::Null;
    while list["sessions"][0]["remaining_ms"] != 6_000 {
        let answer = server.get("/sessions").await;
        assert!(!format!("{answer:?}").contains(&one), "whoever has the id may end the session");
        list = answer.ok();
    }
    let row = |name: &str, held: u32, waiting: u32| {
        let (ttl_ms, remaining_ms, bearer) = (10_000, 6_000, Value::Null);
        json!({ "name": name, "held": held, "waiting": waiting, "ttl_ms": ttl_ms, "remaining_ms": remaining_ms, "bearer": bearer })
    };
    assert_eq!(list, json!({ "sessions": [row("two", 1, 1), row("one", 2, 0)], "open": 2 }));
    let first = server.get("/sessions?limit=1").await.ok();
    assert_eq!(first, json!({ "sessions": [row("two", 1, 1)], "open": 2 }), "how many there are is told all the same");
    waiter.abort();
}

#[actix_rt::test]
async fn a_token_sees_the_sessions_that_can_have_no_locks_but_of_its_own_keys() {
    let tokens =
        [("ci", json!(["ci:"])), ("nightly", json!(["ci:nightly:"])), ("prod", json!(["prod:"])), ("all", json!([""]))];
    let secret = |name: &str| format!("{name}-secret-0123456789");
    let entry = |(name, namespaces): &(&str, Value)| json!({ "name": name, "token": secret(name), "rights": ["acquire", "read"], "namespaces": namespaces });
    let list = Value::from(tokens.iter().map(entry).collect::<Vec<_>>());
    let access = Access::from_json(&list.to_string()).unwrap();
    let server = Server::with_access(LockManager::builder().build().unwrap(), Limits::new(), access);
    server.locks.session("of the host").register().unwrap();
    let ask = |method: Method, name: &str| server.request(method, "/sessions").bearer_auth(secret(name));
    for (name, _) in &tokens {
        Answer::of(ask(Method::POST, name).json(&json!({ "name": format!("s-{name}") }))).await.ok();
    }
    for (name, seen) in
        [("ci", "ci nightly"), ("nightly", "nightly"), ("prod", "prod"), ("all", " all ci nightly prod")]
    {
        let list = Answer::of(ask(Method::GET, name)).await.ok();
        let rows = list["sessions"].as_array().unwrap();
        let mut names: Vec<_> = rows.iter().map(|row| row["bearer"].as_str().unwrap_or_default()).collect();
        names.sort_unstable();
        assert_eq!((names.join(" ").as_str(), number(&list, "open")), (seen, rows.len() as u64), "{name}");
    }
}
