//! Fear: the example app that people copy from processes an order twice, or sells what is not there.
#![cfg(feature = "http")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use futures::future::join_all;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::http_server::{Answer, client, number, text};

/// The example as a process, ended with the test.
struct Example {
    child: Child,
    url: String,
    client: Client,
}

impl Example {
    fn start(redis: Option<&str>) -> Self {
        let mut path = std::env::current_exe().unwrap();
        path.pop();
        path.pop();
        path.extend(["examples", "scenarios"]);
        let mut command = Command::new(&path);
        // Long enough for all who ask at once to come while one of them works, on a busy machine too.
        command.args(["127.0.0.1:0", "1500"]).env_remove("REDIS_URL").stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some(url) = redis {
            command.env("REDIS_URL", url);
        }
        let mut child = command.spawn().unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, url, client: client() }
    }

    fn ask(&self, method: Method, path: &str) -> impl Future<Output = Answer> + use<> {
        Answer::of(self.client.request(method, format!("{}{path}", self.url)))
    }

    fn send(&self, path: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
        Answer::of(self.client.post(format!("{}{path}", self.url)).json(body))
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path).await.ok()
    }

    async fn at_once(&self, path: &str, times: usize) -> Vec<Answer> {
        join_all((0..times).map(|_| self.ask(Method::POST, path))).await
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many answers say what.
fn tally(answers: &[Answer], member: &str) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for answer in answers {
        let said = answer.body[member].as_str().or_else(|| answer.body["code"].as_str()).unwrap();
        *tally.entry(format!("{} {said}", answer.status)).or_default() += 1;
    }
    tally
}

fn rows<const N: usize>(rows: [(&str, usize); N]) -> BTreeMap<String, usize> {
    rows.into_iter().map(|(said, times)| (said.to_owned(), times)).collect()
}

#[actix_rt::test]
async fn an_order_is_processed_once_however_often_it_is_submitted() {
    let example = Example::start(None);
    for order in ["/order/ORD-123", "/order/42", "/order/caf%C3%A9"] {
        let answers = example.at_once(order, 10).await;
        assert_eq!(tally(&answers, "status"), rows([("200 processed", 1), ("423 held", 9)]));
        let busy = answers.into_iter().find(|answer| answer.status == 423).unwrap();
        busy.problem(423, "held");
    }
    let again = example.ask(Method::POST, "/order/ORD-123").await.problem(400, "already_processed");
    assert!(text(&again, "detail").contains("ORD-123"), "{again}");
    assert_eq!(text(&example.get("/order/ORD-124").await, "status"), "processed");
}

#[actix_rt::test]
async fn the_cron_job_runs_once_and_skips_elsewhere() {
    let example = Example::start(None);
    let answers = example.at_once("/cleanup", 5).await;
    assert_eq!(tally(&answers, "status"), rows([("200 cleaned", 1), ("200 skipped", 4)]));
    assert_eq!(text(&example.get("/cleanup").await, "status"), "cleaned", "the next turn");
}

#[actix_rt::test]
async fn an_action_of_a_user_is_done_once_at_a_time_and_its_data_is_kept() {
    let example = Example::start(None);
    let update = json!({ "action": "update-profile", "data": { "name": "John" } });
    let other = json!({ "action": "change-password" });
    let path = "/user/123/operation";
    let (answers, beside) =
        tokio::join!(join_all((0..5).map(|_| example.send(path, &update))), example.send(path, &other));
    assert_eq!(tally(&answers, "action"), rows([("200 update-profile", 1), ("423 held", 4)]));
    assert_eq!(beside.status, 200, "another action goes on beside it");
    let done = answers.into_iter().find(|answer| answer.status == 200).unwrap().ok();
    assert_eq!((text(&done, "key"), &done["data"]), ("lock:op:update-profile:123", &update["data"]));
    let kept = example.get(path).await;
    let kept = kept["operations"].as_array().unwrap();
    assert!(kept.len() == 2 && kept.contains(&update), "{kept:?}");
    assert_eq!(example.get("/user/124/operation").await["operations"], json!([]));
}

#[actix_rt::test]
async fn an_account_has_one_statement_at_a_time() {
    let example = Example::start(None);
    let (mine, theirs) =
        tokio::join!(example.at_once("/account/7/statement", 5), example.at_once("/account/8/statement", 5));
    for answers in [mine, theirs] {
        let done = answers.iter().filter(|answer| answer.status == 200).count();
        let busy = answers.iter().filter(|answer| answer.body["code"] == "held").count();
        assert_eq!((done, busy), (1, 4));
    }
}

#[actix_rt::test]
async fn whatever_is_refused_is_refused_in_json() {
    let example = Example::start(None);
    for (method, path, status, code) in [
        (Method::GET, "/nothing", 404, "not_found"),
        (Method::PUT, "/order/1", 405, "method_not_allowed"),
        (Method::GET, "/check", 400, "invalid_request"),
        (Method::GET, "/concurrent-test?buyers=x", 400, "invalid_request"),
        (Method::POST, "/user/1/operation", 400, "invalid_request"),
        (Method::GET, "/check?key=", 422, "invalid_key"),
    ] {
        example.ask(method, path).await.problem(status, code);
    }
    for body in [json!({}), json!({ "action": 7 }), json!({ "action": "a", "date": 1 }), json!("x")] {
        example.send("/user/1/operation", &body).await.problem(400, "invalid_request");
    }
}

#[actix_rt::test]
async fn an_entry_of_the_cache_is_refreshed_once_for_all_who_ask() {
    let example = Example::start(None);
    let answers = join_all((0..50).map(|_| example.ask(Method::GET, "/cache/prices"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body["version"] == 1));
    assert_eq!(number(&example.get("/cache/prices").await, "version"), 2);
}

#[actix_rt::test]
async fn a_hundred_buyers_never_bring_the_stock_below_zero() {
    let example = Example::start(None);
    let sale = example.get("/concurrent-test").await;
    assert_eq!(sale, json!({ "buyers": 100, "sold": 30, "stock": 0, "lowest": 0 }));
    let plenty = example.ask(Method::POST, "/concurrent-test?buyers=100&stock=250").await.ok();
    assert_eq!((number(&plenty, "sold"), number(&plenty, "stock")), (100, 150));
}

#[actix_rt::test]
async fn a_lock_is_seen_while_it_is_held_and_can_be_taken_away() {
    let example = Example::start(None);
    let working = actix_rt::spawn(example.ask(Method::POST, "/basic"));
    let seen = loop {
        let seen = example.get("/check?key=demo:basic").await;
        if seen["locked"] == true {
            break seen;
        }
    };
    assert!(number(&seen, "remaining_ms") <= 10_000);
    let force = example.ask(Method::DELETE, "/force-release?key=demo:basic").await.ok();
    assert_eq!(force, json!({ "key": "demo:basic", "released": true }));
    let done = working.await.unwrap().ok();
    assert_eq!(done["released"], false, "it was not its own any more");
    assert_eq!(example.get("/check?key=demo:basic").await["locked"], false);
    let again = example.ask(Method::DELETE, "/force-release?key=demo:basic").await.ok();
    assert_eq!(again["released"], false);
}

#[cfg(feature = "redis")]
#[actix_rt::test]
async fn over_redis_two_apps_exclude_each_other() {
    let redis = crate::kit::Server::start(&[]);
    let (one, two) = (Example::start(Some(&redis.url())), Example::start(Some(&redis.url())));
    let (mut answers, more) = tokio::join!(one.at_once("/cleanup", 3), two.at_once("/cleanup", 3));
    answers.extend(more);
    assert_eq!(tally(&answers, "status"), rows([("200 cleaned", 1), ("200 skipped", 5)]));
}
