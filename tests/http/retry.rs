//! Fear: a client that repeats a request after a lost answer gets two locks, or a wrong one.
#![cfg(feature = "test-util")]

use std::time::Duration;

use leasehold::{LockManager, ManualClock};
use serde_json::{Value, json};

use crate::http_server::{Server, number, text, until};

const TOKEN: &str = "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001";

fn stopped_clock() -> (ManualClock, Server) {
    let clock = ManualClock::new();
    let server = Server::over(LockManager::builder().clock(clock.clock()).build().unwrap());
    (clock, server)
}

fn ask(ttl_ms: u64) -> Value {
    json!({ "key": "a", "token": TOKEN, "ttl_ms": ttl_ms, "owner": "w1" })
}

#[actix_rt::test]
async fn the_same_request_again_gets_the_same_lock_with_what_is_left_of_it() {
    let (clock, server) = stopped_clock();
    let first = server.post("/acquire", ask(10_000)).await.ok();
    assert_eq!(number(&first, "remaining_ms"), 10_000);
    clock.advance(Duration::from_micros(3_000_500));
    let again = server.post("/acquire", ask(10_000)).await.ok();
    assert_eq!(text(&again, "token"), TOKEN);
    assert_eq!(again["fencing_token"], first["fencing_token"]);
    assert_eq!(number(&again, "remaining_ms"), 6_999, "nothing is re-dated, and it is rounded down");
    assert_eq!(server.locks.stats().granted, 1);

    server.post("/heartbeat", json!({ "key": "a", "token": TOKEN })).await.ok();
    assert_eq!(number(&server.post("/acquire", ask(10_000)).await.ok(), "remaining_ms"), 10_000);
}

#[actix_rt::test]
async fn a_retry_with_wait_zero_is_answered_as_well() {
    let (_clock, server) = stopped_clock();
    let first = server.post("/acquire", ask(10_000)).await.ok();
    let mut now_or_never = ask(10_000);
    now_or_never["wait_ms"] = json!(0);
    assert_eq!(server.post("/acquire", now_or_never).await.ok()["fencing_token"], first["fencing_token"]);
}

#[actix_rt::test]
async fn other_terms_under_a_used_token_are_refused() {
    let (_clock, server) = stopped_clock();
    server.post("/acquire", ask(10_000)).await.ok();
    server.post("/acquire", ask(20_000)).await.problem(409, "token_reused");
    let mut other_owner = ask(10_000);
    other_owner["owner"] = json!("w2");
    server.post("/acquire", other_owner).await.problem(409, "token_reused");
}

#[actix_rt::test]
async fn a_retry_joins_the_request_that_still_waits() {
    let (_clock, server) = stopped_clock();
    let holder = server.post("/acquire", json!({ "key": "a" })).await.ok();
    let first = server.post_later("/acquire", ask(10_000));
    until("the first", || server.waiting() == 1).await;
    let retry = server.post_later("/acquire", ask(10_000));
    let other = server.post_later("/acquire", json!({ "key": "a", "owner": "behind" }));
    until("the other", || server.waiting() == 2).await;
    server.post("/release", json!({ "key": "a", "token": holder["token"] })).await.ok();
    let (first, retry) = (first.await.unwrap().ok(), retry.await.unwrap().ok());
    assert_eq!((text(&first, "token"), text(&retry, "token")), (TOKEN, TOKEN));
    assert_eq!(first["fencing_token"], retry["fencing_token"]);
    assert_eq!(server.waiting(), 1, "two requests, one place");
    server.post("/release", json!({ "key": "a", "token": TOKEN })).await.ok();
    assert_eq!(text(&other.await.unwrap().ok(), "owner"), "behind");
}

#[actix_rt::test]
async fn a_retry_after_the_lock_ended_hears_that_it_is_lost() {
    let (clock, server) = stopped_clock();
    server.post("/acquire", ask(10_000)).await.ok();
    clock.advance(Duration::from_secs(10));
    server.post("/acquire", ask(10_000)).await.problem(409, "lost");
    server.post("/heartbeat", json!({ "key": "a", "token": TOKEN })).await.problem(409, "lost");
    let late = server.post("/release", json!({ "key": "a", "token": TOKEN })).await.ok();
    assert_eq!(late, json!({ "outcome": "already_gone" }));
}

#[actix_rt::test]
async fn an_expired_lock_passes_to_the_next_and_its_client_is_not_told_of_anothers_time() {
    let (clock, server) = stopped_clock();
    server.post("/acquire", ask(10_000)).await.ok();
    let next = server.post_later("/acquire", json!({ "key": "a", "ttl_ms": 77_000 }));
    until("a waiter", || server.waiting() == 1).await;
    // The wait of 5 s must not end first.
    server.post("/heartbeat", json!({ "key": "a", "token": TOKEN })).await.ok();
    clock.jump(Duration::from_millis(4_999));
    server.delete("/locks/a").await.ok();
    assert_eq!(number(&next.await.unwrap().ok(), "remaining_ms"), 77_000);
    server.post("/acquire", ask(10_000)).await.problem(409, "lost");
}

#[actix_rt::test]
async fn a_retry_that_waits_longer_keeps_the_place_and_the_first_is_answered_at_its_own_end() {
    let server = Server::start();
    let holder = server.post("/acquire", json!({ "key": "a", "ttl_ms": 600_000 })).await.ok();
    let ask = |wait_ms: u64| json!({ "key": "a", "token": TOKEN, "ttl_ms": 600_000, "wait_ms": wait_ms });
    let first = server.post_later("/acquire", ask(2_000));
    until("the first", || server.waiting() == 1).await;
    let behind = server.post_later("/acquire", json!({ "key": "a", "owner": "behind", "wait_ms": 60_000 }));
    until("the one behind", || server.waiting() == 2).await;
    let retry = server.post_later("/acquire", ask(60_000));
    first.await.unwrap().problem(423, "timeout");
    assert_eq!(server.waiting(), 2, "the retry waits in the same place");
    server.post("/release", json!({ "key": "a", "token": holder["token"] })).await.ok();
    assert_eq!(text(&retry.await.unwrap().ok(), "token"), TOKEN);
    server.post("/release", json!({ "key": "a", "token": TOKEN })).await.ok();
    assert_eq!(text(&behind.await.unwrap().ok(), "owner"), "behind");
}

#[actix_rt::test]
async fn a_wait_that_is_made_of_several_requests_is_no_row_of_failures() {
    let server = Server::over(LockManager::builder().build().unwrap());
    let holder = server.post("/acquire", json!({ "key": "a" })).await.ok();
    let round = json!({ "key": "a", "token": TOKEN, "wait_ms": 20 });
    for _ in 0..3 {
        server.post("/acquire", round.clone()).await.problem(423, "timeout");
    }
    let stats = server.locks.stats();
    assert_eq!((stats.timed_out, stats.continued, stats.failed), (3, 2, 1));
    server.post("/acquire", json!({ "key": "a", "wait_ms": 20 })).await.problem(423, "timeout");
    assert_eq!(server.locks.stats().continued, 2, "who lets the server choose the token is nobody in particular");
    server.post("/release", json!({ "key": "a", "token": holder["token"] })).await.ok();
    server.post("/acquire", round).await.ok();
    let stats = server.locks.stats();
    assert_eq!((stats.timed_out, stats.continued, stats.failed, stats.granted), (4, 3, 1, 2));
}

#[actix_rt::test]
async fn a_request_that_shares_the_place_of_another_ends_no_round() {
    let (clock, server) = stopped_clock();
    server.post("/acquire", json!({ "key": "a", "ttl_ms": 60_000 })).await.ok();
    let ask = |wait_ms: u64| json!({ "key": "a", "token": TOKEN, "wait_ms": wait_ms });
    let first = server.post_later("/acquire", ask(100));
    until("the first", || server.waiting() == 1).await;
    let second = server.post_later("/acquire", ask(30_000));
    first.await.unwrap().problem(423, "timeout");
    let third = server.post_later("/acquire", ask(100));
    third.await.unwrap().problem(423, "timeout");
    assert_eq!(server.locks.stats().timed_out, 0, "their waiter waits on");
    clock.advance(Duration::from_secs(30));
    second.await.unwrap().problem(423, "timeout");
    let stats = server.locks.stats();
    assert_eq!((stats.timed_out, stats.continued), (1, 0), "all were one waiter");
}
