//! Fear: the routes answer other than the contract says.

use std::time::{Duration, Instant};

use leasehold::LockManager;
use leasehold::http::Limits;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http_server::{Answer, Server, number, text, until};

async fn acquire(server: &Server, key: &str) -> Value {
    server.post("/acquire", json!({ "key": key })).await.ok()
}

fn members(body: &Value) -> Vec<&str> {
    body.as_object().unwrap().keys().map(String::as_str).collect()
}

#[actix_rt::test]
async fn an_acquire_answers_with_everything_the_holder_needs() {
    let server = Server::start();
    let body = json!({ "key": "order:42", "ttl_ms": 20_000, "wait_ms": 10, "owner": "w1", "mode": "exclusive" });
    let lock = server.post("/acquire", body).await.ok();
    let mut all = ["key", "token", "fencing_token", "owner", "mode", "ttl_ms", "remaining_ms", "waited_ms"];
    all.sort_unstable();
    assert_eq!(members(&lock), all);
    assert_eq!((text(&lock, "key"), text(&lock, "owner"), text(&lock, "mode")), ("order:42", "w1", "exclusive"));
    assert_eq!(number(&lock, "ttl_ms"), 20_000);
    assert!((1..=20_000).contains(&number(&lock, "remaining_ms")));
    assert!(text(&lock, "token").parse::<leasehold::Token>().is_ok());
    let info = server.locks.inspect("order:42").await.unwrap().unwrap();
    assert_eq!(number(&lock, "fencing_token"), info.fencing_token.unwrap().get(), "a JSON number, not a string");
}

#[actix_rt::test]
async fn what_an_acquire_leaves_out_or_gives_as_null_has_its_default() {
    let server = Server::start();
    let body = json!({ "key": "b", "ttl_ms": null, "wait_ms": null, "owner": null, "mode": null, "token": null });
    for lock in [acquire(&server, "a").await, server.post("/acquire", body).await.ok()] {
        assert_eq!(number(&lock, "ttl_ms"), 30_000);
        assert_eq!(lock["owner"], Value::Null);
        assert_eq!(text(&lock, "mode"), "exclusive");
    }
}

#[actix_rt::test]
async fn the_defaults_of_ttl_and_wait_are_the_managers() {
    let ms = Duration::from_millis;
    let server = Server::over(LockManager::builder().ttl(ms(7_000)).wait(ms(1)).build().unwrap());
    assert_eq!(number(&acquire(&server, "a").await, "ttl_ms"), 7_000);
    server.post("/acquire", json!({ "key": "a" })).await.problem(423, "timeout");
}

#[actix_rt::test]
async fn who_will_not_wait_hears_that_it_is_held_and_by_whom() {
    let server = Server::start();
    let held = server.post("/acquire", json!({ "key": "a", "owner": "w1", "ttl_ms": 90_000 })).await.ok();
    let waiter = server.post_later("/acquire", json!({ "key": "a", "wait_ms": 30_000 }));
    until("a waiter", || server.waiting() == 1).await;

    let answer = server.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await;
    let retry_after: u64 = answer.headers["retry-after"].parse().unwrap();
    let problem = answer.problem(423, "held");
    assert_eq!(number(&problem, "queue_length"), 1);
    let holder = &problem["holder"];
    assert_eq!(text(holder, "owner"), "w1");
    assert_eq!(holder["fencing_token"], held["fencing_token"]);
    assert_eq!((number(holder, "ttl_ms"), number(holder, "refresh_count")), (90_000, 0));
    assert!(number(holder, "age_ms") + number(holder, "remaining_ms") <= 90_000);
    assert_eq!(retry_after, number(holder, "remaining_ms").div_ceil(1000).max(1), "rounded up");
    waiter.abort();
}

#[actix_rt::test]
async fn who_waited_in_vain_hears_of_a_timeout() {
    let server = Server::start();
    acquire(&server, "a").await;
    let began = Instant::now();
    let answer = server.post("/acquire", json!({ "key": "a", "wait_ms": 20 })).await;
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert!(answer.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    let problem = answer.problem(423, "timeout");
    assert_eq!(number(&problem, "queue_length"), 0);
    assert!(problem["holder"]["fencing_token"].is_u64());
    assert_eq!(server.waiting(), 0);
}

#[actix_rt::test]
async fn a_client_that_counts_from_its_send_never_believes_to_hold_longer_than_it_does() {
    let server = Server::start();
    let first = acquire(&server, "a").await;
    let sent = Instant::now();
    let waiter = server.post_later("/acquire", json!({ "key": "a", "ttl_ms": 60_000, "wait_ms": 30_000 }));
    until("a waiter", || server.waiting() == 1).await;
    let queued = sent.elapsed();
    actix_rt::time::sleep(Duration::from_millis(5)).await;
    server.post("/release", json!({ "key": "a", "token": first["token"] })).await.ok();
    let lock = waiter.await.unwrap().ok();

    let left = server.locks.inspect("a").await.unwrap().unwrap().remaining;
    let truly = Instant::now() + left;
    let believed = sent + Duration::from_millis(number(&lock, "waited_ms") + number(&lock, "remaining_ms"));
    assert!(believed <= truly, "believed {:?} too much", believed - truly);
    assert!(number(&lock, "waited_ms") >= 4, "it waited, {queued:?} after sending, while the test slept");
}

#[actix_rt::test]
async fn a_release_says_whether_there_was_anything_to_release() {
    let server = Server::start();
    let lock = acquire(&server, "a").await;
    let release = |token: Value| server.post("/release", json!({ "key": "a", "token": token }));
    assert_eq!(release(lock["token"].clone()).await.ok(), json!({ "outcome": "released" }));
    assert_eq!(release(lock["token"].clone()).await.ok(), json!({ "outcome": "already_gone" }));

    let next = acquire(&server, "a").await;
    assert_eq!(release(lock["token"].clone()).await.ok(), json!({ "outcome": "already_gone" }), "it is remembered");
    release(json!("7a1e5ad1-5f5f-4b9f-8e63-0f3c1a2f0d11")).await.problem(409, "not_held");
    assert!(server.locks.is_locked("a").await.unwrap(), "neither ended the next holder's lock");
    assert!(number(&next, "fencing_token") > number(&lock, "fencing_token"));
}

#[actix_rt::test]
async fn a_heartbeat_moves_the_deadline_until_the_lock_is_lost() {
    let server = Server::start();
    let lock = server.post("/acquire", json!({ "key": "a", "ttl_ms": 5_000 })).await.ok();
    let beat = |more: Value| {
        let mut body = json!({ "key": "a", "token": lock["token"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/heartbeat", body)
    };
    let longer = beat(json!({ "ttl_ms": 60_000 })).await.ok();
    assert_eq!(members(&longer), ["refresh_count", "remaining_ms"]);
    assert_eq!(number(&longer, "refresh_count"), 1);
    assert!((5_001..=60_000).contains(&number(&longer, "remaining_ms")));
    let not_shorter = beat(json!({})).await.ok();
    assert_eq!(number(&not_shorter, "refresh_count"), 2);
    assert!(number(&not_shorter, "remaining_ms") > 5_000);

    let other = json!({ "key": "a", "token": "7a1e5ad1-5f5f-4b9f-8e63-0f3c1a2f0d11" });
    server.post("/heartbeat", other).await.problem(409, "not_held");
    server.delete("/locks/a").await.ok();
    beat(json!({})).await.problem(409, "lost");
}

#[actix_rt::test]
async fn a_lock_is_shown_with_its_holder_and_its_queue() {
    let server = Server::start();
    let held = server.post("/acquire", json!({ "key": "a/b c", "owner": "w0" })).await.ok();
    let body = |owner: &str| json!({ "key": "a/b c", "owner": owner, "wait_ms": 30_000 });
    let mut waiters = Vec::new();
    for (at, owner) in ["w1", "w2"].into_iter().enumerate() {
        waiters.push(server.post_later("/acquire", body(owner)));
        until("a waiter", || server.waiting() == at as u64 + 1).await;
    }
    for path in ["/locks/a%2Fb%20c", "/locks?key=a/b+c", "/locks?key=a%2Fb%20c"] {
        let shown = server.get(path).await.ok();
        assert_eq!(
            members(&shown),
            ["held_by", "holder", "holders", "key", "longest_wait_ms", "mode", "queue", "waiting"],
            "{path}"
        );
        assert_eq!((text(&shown, "key"), text(&shown, "mode")), ("a/b c", "exclusive"));
        assert_eq!(shown["holder"]["fencing_token"], held["fencing_token"]);
        assert_eq!(shown["holder"]["owner"], "w0");
        assert!(number(&shown["holder"], "since_unix_ms") > 1_600_000_000_000);
        assert_eq!(shown["waiting"], 2);
        let places: Vec<_> = shown["queue"].as_array().unwrap().iter().map(|w| (&w["position"], &w["owner"])).collect();
        assert_eq!(places, [(&json!(1), &json!("w1")), (&json!(2), &json!("w2"))]);
        assert!(shown["queue"][0]["waited_ms"].is_u64());
    }
    waiters.iter().for_each(|waiter| waiter.abort());
}

#[actix_rt::test]
async fn a_free_key_is_not_locked() {
    let server = Server::start();
    for path in ["/locks/free", "/locks?key=free", "/stats?key=free"] {
        server.get(path).await.problem(404, "not_locked");
    }
    for path in ["/locks/free", "/locks?key=free"] {
        server.delete(path).await.problem(404, "not_locked");
    }
    let empty = server.get("/locks?key=free&missing=empty").await.ok();
    assert_eq!(empty, json!({ "locks": [], "truncated": false, "next_cursor": null, "scope": "all" }));
    acquire(&server, "taken").await;
    assert_eq!(server.get("/locks?missing=empty&key=taken").await.ok()["key"], "taken");
    for path in ["/locks?missing=empty", "/locks?key=free&missing=null", "/locks?key=free&missing=empty&limit=1"] {
        server.get(path).await.problem(400, "invalid_query");
    }
}

#[actix_rt::test]
async fn a_list_is_in_order_by_prefix_and_says_when_it_is_cut() {
    let server = Server::start();
    for key in ["b:2", "a:1", "a:3", "a:2"] {
        acquire(&server, key).await;
    }
    let keys = async |path: &str| {
        let list = server.get(path).await.ok();
        assert_eq!(members(&list), ["locks", "next_cursor", "scope", "truncated"]);
        let rows = list["locks"].as_array().unwrap().clone();
        assert!(rows.iter().all(|row| members(row) == ["held_by", "holder", "key", "mode", "waiting"]));
        let keys: Vec<_> = rows.iter().map(|row| text(row, "key").to_owned()).collect();
        (keys.join(" "), list["truncated"].as_bool().unwrap())
    };
    assert_eq!(keys("/locks").await, ("a:1 a:2 a:3 b:2".into(), false));
    assert_eq!(keys("/locks?prefix=a:").await, ("a:1 a:2 a:3".into(), false));
    assert_eq!(keys("/locks?prefix=a%3A&limit=2").await, ("a:1 a:2".into(), true));
    assert_eq!(keys("/locks?prefix=a:&limit=3").await, ("a:1 a:2 a:3".into(), false));
    assert_eq!(keys("/locks?prefix=none&limit=1000").await, (String::new(), false));
}

#[actix_rt::test]
async fn a_cursor_leads_from_page_to_page_until_the_last_lock() {
    let server = Server::start();
    for n in 0..25 {
        acquire(&server, &format!("a:{n:02}")).await;
    }
    for (sort, first) in [("key", "a:00"), ("-key", "a:24")] {
        let (mut keys, mut cursor) = (Vec::new(), String::new());
        loop {
            let list = server.get(&format!("/locks?prefix=a:&limit=10&sort={sort}{cursor}")).await.ok();
            keys.extend(list["locks"].as_array().unwrap().iter().map(|lock| text(lock, "key").to_owned()));
            assert_eq!(list["truncated"], !list["next_cursor"].is_null());
            let Some(next) = list["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
            // What comes or goes behind the cursor changes nothing for those who stay.
            acquire(&server, &format!("b:{sort}:{}", keys.len())).await;
        }
        assert_eq!((keys.len(), keys[0].as_str()), (25, first));
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 25);
    }
    for bad in ["sort=age&cursor=61", "cursor=x", "cursor=", "cursor=6"] {
        server.get(&format!("/locks?{bad}")).await.problem(400, "invalid_query");
    }
}

#[actix_rt::test]
async fn a_list_shows_a_hundred_locks_when_it_does_not_say() {
    let server = Server::start();
    for number in 0..101 {
        let _ = server.locks.try_lock(format!("k{number}")).ticket().await.unwrap();
    }
    let list = server.get("/locks").await.ok();
    assert_eq!((list["locks"].as_array().unwrap().len(), &list["truncated"]), (100, &json!(true)));
}

#[actix_rt::test]
async fn a_forced_release_hands_on_to_the_next_waiter() {
    let server = Server::start();
    for path in ["/locks/a", "/locks?key=a"] {
        let first = acquire(&server, "a").await;
        let waiter = server.post_later("/acquire", json!({ "key": "a", "wait_ms": 30_000 }));
        until("a waiter", || server.waiting() == 1).await;
        assert_eq!(server.delete(path).await.ok(), json!({ "outcome": "released" }));
        let next = waiter.await.unwrap().ok();
        assert!(number(&next, "fencing_token") > number(&first, "fencing_token"));
        server.post("/release", json!({ "key": "a", "token": next["token"] })).await.ok();
    }
    assert_eq!(server.locks.stats().forced, 2);
}

#[actix_rt::test]
async fn stats_are_the_managers_and_one_keys_once_it_was_contended() {
    let server = Server::start();
    acquire(&server, "calm").await;
    acquire(&server, "busy").await;
    server.post("/acquire", json!({ "key": "busy", "wait_ms": 0 })).await.problem(423, "held");
    let totals = server.get("/stats").await.ok();
    assert_eq!((number(&totals, "total"), number(&totals, "active"), number(&totals, "busy")), (2, 2, 1));
    for rate in ["success_rate", "contention_rate", "average_hold_ms", "average_wait_ms"] {
        assert!(totals[rate].is_f64(), "{rate}");
    }
    assert_eq!(server.get("/stats?key=calm").await.ok(), json!({ "key": "calm", "stats": null }));
    let busy = server.get("/stats?key=busy").await.ok();
    assert_eq!((text(&busy, "key"), number(&busy["stats"], "busy")), ("busy", 1));
}

#[actix_rt::test]
async fn health_is_ok_and_head_is_get_without_a_body() {
    let server = Server::start();
    assert_eq!(server.get("/healthz").await.ok(), json!({ "status": "ok" }));
    for path in ["/healthz", "/stats", "/history", "/locks", "/sessions", "/server"] {
        let head = Answer::of(server.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.body), (200, Value::Null), "{path}");
    }
}

#[actix_rt::test]
async fn a_token_is_in_the_acquires_answer_and_nowhere_else() {
    let server = Server::start();
    let token = "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001";
    let ask = json!({ "key": "a", "token": token, "owner": "w1" });
    assert_eq!(text(&server.post("/acquire", ask).await.ok(), "token"), token);
    let mut answers = vec![
        server.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await,
        server.post("/acquire", json!({ "key": "a", "wait_ms": 1 })).await,
        server.post("/acquire", json!({ "key": "a", "token": token, "owner": "other" })).await,
        server.post("/acquire", json!({ "key": "a", "mode": token })).await,
        server.post("/acquire", json!({ "key": "a", "ttl_ms": token })).await,
        server.post("/acquire", json!({ "key": "a", "wait_ms": token })).await,
        server.post("/acquire", json!({ "key": "a", "token": format!("{token}0") })).await,
        server.post("/release", json!({ "key": "a", "token": format!("{token}0") })).await,
        server.post("/release", json!(token)).await,
        server.post("/heartbeat", json!({ "key": "a", "token": token })).await,
    ];
    for path in ["/locks", "/locks/a", "/locks?key=a", "/stats", "/stats?key=a", "/sessions", "/server"] {
        answers.push(server.get(path).await);
    }
    answers.push(server.post("/release", json!({ "key": "a", "token": token })).await);
    for answer in answers {
        assert!(!format!("{answer:?}").contains(token), "{answer:?}");
    }
}

#[actix_rt::test]
async fn release_and_heartbeat_work_while_every_waiters_place_is_taken() {
    let server = Server::over(LockManager::builder().shards(1).max_waiters(3).build().unwrap());
    let lock = acquire(&server, "a").await;
    let waiters: Vec<_> =
        (0..3).map(|_| server.post_later("/acquire", json!({ "key": "a", "wait_ms": 60_000 }))).collect();
    until("a full queue", || server.waiting() == 3).await;
    server.post("/acquire", json!({ "key": "a" })).await.problem(429, "queue_full");
    let mine = json!({ "key": "a", "token": lock["token"] });
    server.post("/heartbeat", mine.clone()).await.ok();
    server.post("/release", mine).await.ok();
    waiters.iter().for_each(|waiter| waiter.abort());
}

#[actix_rt::test]
async fn the_bounds_on_keys_and_of_the_host_are_held() {
    let full = Server::over(LockManager::builder().shards(1).max_keys(1).build().unwrap());
    acquire(&full, "a").await;
    full.post("/acquire", json!({ "key": "b" })).await.problem(429, "too_many_keys");

    let ms = Duration::from_millis;
    let limits = Limits::new().min_ttl(ms(100)).max_ttl(ms(200)).max_wait(ms(300)).max_body_bytes(64).max_listed(5);
    let narrow = Server::with_limits(LockManager::builder().build().unwrap(), limits);
    for ttl in [99, 201] {
        narrow.post("/acquire", json!({ "key": "a", "ttl_ms": ttl })).await.problem(422, "invalid_ttl");
    }
    narrow.post("/acquire", json!({ "key": "a", "wait_ms": 301 })).await.problem(422, "invalid_option");
    narrow.post("/acquire", json!({ "key": "k".repeat(64) })).await.problem(413, "too_large");
    narrow.get("/locks?limit=6").await.problem(422, "invalid_option");
    narrow.get("/locks?limit=5").await.ok();
}

#[actix_rt::test]
async fn shutdown_refuses_who_waits_and_who_comes_and_lets_holders_release() {
    let server = Server::start();
    let lock = acquire(&server, "a").await;
    let waiter = server.post_later("/acquire", json!({ "key": "a", "wait_ms": 60_000 }));
    until("a waiter", || server.waiting() == 1).await;
    let locks = server.locks.clone();
    let down = actix_rt::spawn(async move { locks.shutdown(Duration::from_secs(30)).await });
    waiter.await.unwrap().problem(503, "shutting_down");
    server.post("/acquire", json!({ "key": "b" })).await.problem(503, "shutting_down");
    let mine = json!({ "key": "a", "token": lock["token"] });
    server.post("/heartbeat", mine.clone()).await.ok();
    assert_eq!(server.post("/release", mine).await.ok(), json!({ "outcome": "released" }));
    assert_eq!(down.await.unwrap(), 0, "nothing was left");
    server.get("/healthz").await.ok();
}
