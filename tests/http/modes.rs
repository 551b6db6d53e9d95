//! Fear: shared locks and permits over HTTP exclude too much, or too little.

use serde_json::{Value, json};

use crate::http_server::{Server, number, text, until};

fn shared(key: &str) -> Value {
    json!({ "key": key, "mode": "shared", "wait_ms": 0 })
}

fn permit(limit: u32, permits: u32) -> Value {
    json!({ "key": "pool", "mode": "permit", "limit": limit, "permits": permits, "wait_ms": 0 })
}

#[actix_rt::test]
async fn shares_go_together_and_exclude_who_wants_it_alone() {
    let server = Server::start();
    let one = server.post("/acquire", shared("a")).await.ok();
    let two = server.post("/acquire", shared("a")).await.ok();
    assert_eq!((text(&one, "mode"), one.get("limit")), ("shared", None));
    server.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.problem(423, "held");
    let shown = server.get("/locks/a").await.ok();
    assert_eq!((text(&shown, "mode"), number(&shown, "held_by")), ("shared", 2));
    let fences: Vec<_> = shown["holders"].as_array().unwrap().iter().map(|holder| &holder["fencing_token"]).collect();
    assert_eq!(fences, [&one["fencing_token"], &two["fencing_token"]]);
    for lock in [one, two] {
        server.post("/release", json!({ "key": "a", "token": lock["token"] })).await.ok();
    }
    server.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.ok();
    server.post("/acquire", shared("a")).await.problem(423, "held");
}

#[actix_rt::test]
async fn a_share_waits_behind_one_who_waits_for_all_of_it() {
    let server = Server::start();
    let held = server.post("/acquire", shared("a")).await.ok();
    let alone = server.post_later("/acquire", json!({ "key": "a", "wait_ms": 60_000, "owner": "alone" }));
    until("the writer", || server.waiting() == 1).await;
    let late = server.post_later("/acquire", json!({ "key": "a", "mode": "shared", "wait_ms": 60_000 }));
    until("the reader", || server.waiting() == 2).await;
    let shown = server.get("/locks/a").await.ok();
    let modes: Vec<_> = shown["queue"].as_array().unwrap().iter().map(|waiter| text(waiter, "mode")).collect();
    assert_eq!(modes, ["exclusive", "shared"]);
    server.post("/release", json!({ "key": "a", "token": held["token"] })).await.ok();
    let alone = alone.await.unwrap().ok();
    assert_eq!(text(&alone, "owner"), "alone");
    server.post("/release", json!({ "key": "a", "token": alone["token"] })).await.ok();
    assert_eq!(text(&late.await.unwrap().ok(), "mode"), "shared");
}

#[actix_rt::test]
async fn permits_are_given_up_to_the_limit() {
    let server = Server::start();
    let three = server.post("/acquire", permit(5, 3)).await.ok();
    assert_eq!((text(&three, "mode"), number(&three, "limit"), number(&three, "permits")), ("permit", 5, 3));
    let one = json!({ "key": "pool", "mode": "permit", "limit": 5, "wait_ms": 0 });
    assert_eq!(number(&server.post("/acquire", one).await.ok(), "permits"), 1, "one, when it does not say");
    server.post("/acquire", permit(5, 2)).await.problem(423, "held");
    server.post("/acquire", permit(5, 1)).await.ok();
    let shown = server.get("/locks/pool").await.ok();
    let taken: u64 = shown["holders"].as_array().unwrap().iter().map(|holder| number(holder, "permits")).sum();
    assert_eq!((taken, number(&shown["holder"], "limit")), (5, 5));
    let mine = json!({ "key": "pool", "token": three["token"] });
    assert_eq!(server.post("/release", mine).await.ok(), json!({ "outcome": "released" }));
    server.post("/acquire", permit(5, 3)).await.ok();
}

#[actix_rt::test]
async fn a_key_in_use_as_another_kind_is_the_wrong_mode() {
    let server = Server::start();
    server.post("/acquire", permit(5, 1)).await.ok();
    let stories = [
        (permit(6, 1), "1 of 6 permits are asked for, and the key is in use as a semaphore of 5"),
        (shared("pool"), "a share is asked for, and the key is in use as a semaphore of 5"),
        (json!({ "key": "pool" }), "the key alone is asked for, and the key is in use as a semaphore of 5"),
    ];
    for (asked, why) in stories {
        let refused = server.post("/acquire", asked).await.problem(409, "wrong_mode");
        assert_eq!(text(&refused, "detail"), why);
    }
}

#[actix_rt::test]
async fn a_retry_by_token_gets_the_same_permits_and_no_others() {
    let server = Server::start();
    let token = "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001";
    let ask = |permits: u32| {
        let mut ask = permit(5, permits);
        ask["token"] = json!(token);
        ask
    };
    let first = server.post("/acquire", ask(2)).await.ok();
    assert_eq!(server.post("/acquire", ask(2)).await.ok()["fencing_token"], first["fencing_token"]);
    server.post("/acquire", ask(3)).await.problem(409, "token_reused");
    server.post("/acquire", permit(5, 3)).await.ok();
}
