//! Fear: a call that the server answers without its router is answered, counted or logged in another way than the routes
//! do it. A path with an escape in it is the router's.
#![cfg(all(feature = "server", unix))]

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::binary::leasehold;
use crate::http_server::Answer;
use crate::served::Process;

const SECRET: &str = "hunter2-hunter2-hunter2";
const TOKEN: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const OTHER_TOKEN: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
/// The beginning of a longer body than is taken.
const TOO_LONG: &str = "{ ";

fn guarded() -> Process {
    let tokens = json!([
        { "name": "some", "token": SECRET, "rights": ["acquire"], "namespaces": ["a:"] },
        { "name": "reader", "token": "reader-reader-reader", "rights": ["read"] },
    ]);
    let mut command =
        leasehold(&["serve", "--listen", "127.0.0.1:0", "--open-stats", "--log-format", "json", "--grace", "0s"]);
    command.env("LEASEHOLD_TOKENS", tokens.to_string());
    Process::start(command)
}

/// The whole answer to a request with these further lines in its head.
fn ask(process: &Process, path: &str, lines: &str, body: &str) -> String {
    let mut socket = process.connect();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-request-id: mine-1\r\n");
    let length = if body == TOO_LONG { 17 * 1024 } else { body.len() };
    socket.write_all(format!("{head}{lines}content-length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Without what differs from one answer to the next: times, and the number of the grant.
fn comparable(answer: &str) -> (Vec<String>, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let differs = |line: &&str| line.starts_with("date:") || line.starts_with("content-length:");
    let mut lines: Vec<String> = head.lines().filter(|line| !differs(line)).map(str::to_owned).collect();
    lines[1..].sort_unstable();
    let mut body: Value = serde_json::from_str(body).unwrap();
    for path in
        ["/fencing_token", "/refresh_count", "/remaining_ms", "/waited_ms", "/holder/remaining_ms", "/holder/age_ms"]
    {
        if let Some(number) = body.pointer_mut(path) {
            assert!(number.is_u64(), "{path}: {answer}");
            *number = Value::Null;
        }
    }
    if let Some(detail) = body.get_mut("detail") {
        *detail = text_without_digits(detail).into();
    }
    (lines, body)
}

fn text_without_digits(text: &Value) -> String {
    text.as_str().unwrap().replace(|c: char| c.is_ascii_digit(), "")
}

#[actix_rt::test]
async fn a_call_is_answered_alike_with_the_router_and_without() {
    let mut process = guarded();
    let json = format!("content-type: application/json\r\nauthorization: Bearer {SECRET}\r\n");
    let plain = json.replace("application/json", "text/plain");
    let unknown = json.replace("hunter2", "hunter3");
    let reader = json.replace(SECRET, "reader-reader-reader");
    let mine = json!({ "key": "a:1", "token": TOKEN }).to_string();
    let others = json!({ "key": "a:1", "token": OTHER_TOKEN, "wait_ms": 0 }).to_string();
    let patient = json!({ "key": "a:1", "token": OTHER_TOKEN, "wait_ms": 20 }).to_string();
    let rows = [
        ("acquire", json.as_str(), mine.as_str(), "200"),
        ("heartbeat", &json, &mine, "200"),
        ("acquire", &json, &others, "423"),
        ("acquire", &json, &patient, "423"),
        ("acquire", &json, r#"{"key":"b:1"}"#, "403"),
        ("acquire", &json, r#"{"key":"a:1","ttl":1}"#, "400"),
        ("acquire", &json, r#"{"key":"a:1","ttl_ms":1}"#, "422"),
        ("acquire", &json, "{", "400"),
        ("acquire", &json, TOO_LONG, "413"),
        ("acquire", &plain, &mine, "415"),
        ("acquire", "content-type: application/json\r\n", &mine, "401"),
        ("acquire", &unknown, &mine, "401"),
        ("acquire", &reader, &mine, "403"),
        ("release", &reader, &mine, "403"),
        ("heartbeat", &json, r#"{"key":"a:1","token":"x"}"#, "400"),
        ("heartbeat", &json, r#"{"key":"a:2","token":"0f8fad5b-d9cb-469f-a165-70867728950f"}"#, "409"),
        ("release", &json, r#"{"key":"a:2","token":"0f8fad5b-d9cb-469f-a165-70867728950f"}"#, "200"),
    ];
    let escaped = |verb: &str| format!("/%{:02x}{}", verb.as_bytes()[0], &verb[1..]);
    for (verb, lines, body, status) in rows {
        let direct = ask(&process, &format!("/{verb}?"), lines, body);
        let routed = ask(&process, &escaped(verb), lines, body);
        assert!(direct.starts_with(&format!("HTTP/1.1 {status} ")), "{verb} {body}: {direct}");
        assert_eq!(comparable(&direct), comparable(&routed), "{verb} {body}");
        assert!(direct.contains("x-request-id: mine-1"), "{direct}");
    }
    let counted = |verb: &str, code: &str| {
        format!(r#"leasehold_http_requests_total{{route="/{verb}",method="POST",code="{code}"}}"#)
    };
    for (verb, code, times) in [("acquire", "423", 4), ("acquire", "401", 4), ("heartbeat", "200", 2)] {
        assert_eq!(process.metric(&counted(verb, code)).await, times, "{verb} {code}");
    }
    let refused = r#"leasehold_http_refusals_total{reason="forbidden"}"#;
    assert_eq!(process.metric(refused).await, 6);
    process.signal("TERM");
    process.exit_code().await;
    let log = process.stderr();
    let line = log.lines().find(|line| line.contains("a request was refused")).unwrap_or_else(|| panic!("{log}"));
    let line: Value = serde_json::from_str(line).unwrap();
    for (field, value) in [("by", "some"), ("code", "forbidden"), ("route", "/acquire"), ("request_id", "mine-1")] {
        assert_eq!(line[field], value, "{line}");
    }
}

#[actix_rt::test]
async fn other_methods_and_paths_are_the_routers() {
    let process = Process::serve(&[]);
    let to = |method: &str, path: &str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        process.client.request(method, format!("{}{path}", process.url))
    };
    Answer::of(to("GET", "/acquire")).await.problem(405, "method_not_allowed");
    Answer::of(to("DELETE", "/release")).await.problem(405, "method_not_allowed");
    Answer::of(to("POST", "/acquire/").json(&json!({ "key": "a" }))).await.problem(404, "not_found");
    let lock = Answer::of(to("POST", "/acquire?at=once").json(&json!({ "key": "a" }))).await.ok();
    assert_eq!(lock["key"], "a", "what stands behind the path is not looked at, here as there");
    Answer::of(to("POST", "/%61cquire?at=once").json(&json!({ "key": "b" }))).await.ok();
}

/// One answer of several over the same connection.
fn answer(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let is_whole = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        body.len() >= length.parse::<usize>().unwrap()
    };
    while !is_whole(&text) {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[actix_rt::test]
async fn a_body_that_comes_late_is_read_and_behind_an_earlier_call_too() {
    let process = Process::serve(&["--body-timeout", "200ms", "--head-timeout", "1s"]);
    let whole = |key: &str| {
        let body = json!({ "key": key }).to_string();
        let head = "POST /acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length:";
        format!("{head} {}\r\n\r\n{body}", body.len())
    };
    let mut socket = process.connect();
    let (first, second) = (whole("a"), whole("b"));
    let (begun, rest) = second.split_at(second.len() - 3);
    socket.write_all(format!("{first}{begun}").as_bytes()).unwrap();
    // Once it has come, the server has read what was sent with its request.
    assert!(answer(&mut socket).contains(r#""key":"a""#));
    socket.write_all(rest.as_bytes()).unwrap();
    assert!(answer(&mut socket).contains(r#""key":"b""#));
    let mut never = process.connect();
    never.write_all(begun.as_bytes()).unwrap();
    assert!(answer(&mut never).starts_with("HTTP/1.1 408 "));
}

#[actix_rt::test]
async fn who_comes_too_often_may_still_refresh_and_release() {
    let process = Process::serve(&["--rate-limit", "1"]);
    let mine = json!({ "key": "a", "token": TOKEN });
    process.post("/acquire", mine.clone()).await.ok();
    let mut last = process.post("/acquire", mine.clone()).await;
    while last.status == 200 {
        last = process.post("/acquire", mine.clone()).await;
    }
    last.problem(429, "rate_limited");
    for _ in 0..20 {
        process.post("/heartbeat", mine.clone()).await.ok();
    }
    assert_eq!(process.post("/release", mine).await.ok(), json!({ "outcome": "released" }));
}
