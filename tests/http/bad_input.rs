//! Fear: bad input brings the server down, is half understood, or is answered in another shape.

use std::io::Write;
use std::time::Duration;

use leasehold::LockManager;
use leasehold::http::Limits;
use reqwest::Method;
use serde_json::json;

use crate::http_server::{Answer, Server, read_to_end, until};

const TOKEN: &str = "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001";

#[actix_rt::test]
async fn a_body_that_is_not_the_routes_is_an_invalid_body() {
    let server = Server::start();
    let bodies: Vec<&[u8]> = vec![
        b"",
        b" ",
        b"{",
        b"nonsense",
        b"null",
        b"42",
        b"\"a\"",
        b"[]",
        br#"["a"]"#,
        br#"{"key":"a"} x"#,
        br#"{"key":"a"}{"key":"b"}"#,
        br#"{}"#,
        br#"{"key":null}"#,
        br#"{"key":7}"#,
        br#"{"key":["a"]}"#,
        br#"{"key":"a","key":"b"}"#,
        br#"{"key":"a","ttl":30}"#,
        br#"{"key":"a","session":"s"}"#,
        br#"{"key":"a","limit":"3"}"#,
        br#"{"key":"a","permits":[1]}"#,
        br#"{"key":"a","ttl_ms":"30000"}"#,
        br#"{"key":"a","ttl_ms":true}"#,
        br#"{"key":"a","ttl_ms":[1]}"#,
        br#"{"key":"a","ttl_ms":NaN}"#,
        br#"{"key":"a","wait_ms":"5"}"#,
        br#"{"key":"a","wait_ms":{}}"#,
        br#"{"key":"a","owner":7}"#,
        br#"{"key":"a","mode":"permits"}"#,
        br#"{"key":"a","mode":"Exclusive"}"#,
        br#"{"key":"a","mode":1}"#,
        br#"{"key":"a","token":""}"#,
        br#"{"key":"a","token":"not-a-uuid"}"#,
        br#"{"key":"a","token":7}"#,
        br#"{"key":"a\ud800"}"#,
        b"{\"key\":\"a\xff\"}",
        b"{\"key\":\"a\",\"ttl_ms\":\xff}",
        b"\xef\xbb\xbf{\"key\":\"a\"}",
    ];
    for body in bodies {
        let answer = server.post_bytes("/acquire", body).await;
        let shown = String::from_utf8_lossy(body).into_owned();
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
        answer.problem(400, "invalid_body");
    }
    for path in ["/release", "/heartbeat"] {
        for body in [json!({ "key": "a" }), json!({ "token": TOKEN }), json!({ "key": "a", "token": null })] {
            server.post(path, body).await.problem(400, "invalid_body");
        }
        let more = json!({ "key": "a", "token": TOKEN, "wait_ms": 0 });
        server.post(path, more).await.problem(400, "invalid_body");
    }
    assert_eq!(server.locks.stats().attempts, 0);
}

#[actix_rt::test]
async fn numbers_and_texts_out_of_bounds_are_named_as_such() {
    let server = Server::start();
    let rows = [
        (r#""ttl_ms":0"#, "invalid_ttl"),
        (r#""ttl_ms":-1"#, "invalid_ttl"),
        (r#""ttl_ms":9"#, "invalid_ttl"),
        (r#""ttl_ms":1.5"#, "invalid_ttl"),
        (r#""ttl_ms":1000.25"#, "invalid_ttl"),
        (r#""ttl_ms":86400001"#, "invalid_ttl"),
        (r#""ttl_ms":99999999999999999999999999"#, "invalid_ttl"),
        (r#""ttl_ms":1e400"#, "invalid_ttl"),
        (r#""ttl_ms":-1e400"#, "invalid_ttl"),
        (r#""wait_ms":-1"#, "invalid_option"),
        (r#""wait_ms":60001"#, "invalid_option"),
        (r#""wait_ms":0.5"#, "invalid_option"),
        (r#""wait_ms":1e400"#, "invalid_option"),
        (r#""owner":"""#, "invalid_option"),
        (r#""owner":"a\nb""#, "invalid_option"),
        (&format!(r#""owner":"{}""#, "o".repeat(129)), "invalid_option"),
        (r#""limit":3"#, "invalid_option"),
        (r#""permits":3"#, "invalid_option"),
        (r#""mode":"shared","limit":3"#, "invalid_option"),
        (r#""mode":"permit""#, "invalid_option"),
        (r#""mode":"permit","permits":1"#, "invalid_option"),
        (r#""mode":"permit","limit":0"#, "invalid_option"),
        (r#""mode":"permit","limit":-1"#, "invalid_option"),
        (r#""mode":"permit","limit":1.5"#, "invalid_option"),
        (r#""mode":"permit","limit":4294967296"#, "invalid_option"),
        (r#""mode":"permit","limit":3,"permits":0"#, "invalid_option"),
        (r#""mode":"permit","limit":3,"permits":4"#, "invalid_option"),
        (r#""mode":"permit","limit":3,"permits":1e400"#, "invalid_option"),
    ];
    for (field, code) in rows {
        let answer = server.post_bytes("/acquire", format!(r#"{{"key":"a",{field}}}"#)).await;
        assert_eq!(answer.body["code"], code, "{field}");
        answer.problem(422, code);
    }
    for ttl in ["0", "-1", "1.5", "9", "86400001", "1e400"] {
        let body = format!(r#"{{"key":"a","token":"{TOKEN}","ttl_ms":{ttl}}}"#);
        server.post_bytes("/heartbeat", body).await.problem(422, "invalid_ttl");
    }
    assert!(!server.locks.is_locked("a").await.unwrap());
}

#[cfg(feature = "test-util")]
#[actix_rt::test]
async fn the_bounds_themselves_are_allowed() {
    // Time stands still: 10 ms would else be over before the answer on a busy machine.
    let clock = leasehold::ManualClock::new();
    let server = Server::over(LockManager::builder().clock(clock.clock()).build().unwrap());
    let owner = "o".repeat(128);
    let bodies = [
        json!({ "key": "a", "ttl_ms": 86_400_000, "wait_ms": 60_000, "owner": owner }),
        json!({ "key": "k".repeat(256), "ttl_ms": 60_000.0, "wait_ms": 0 }),
        json!({ "key": "größe 日本/x", "ttl_ms": 10 }),
    ];
    for body in bodies {
        server.post("/acquire", body).await.ok();
    }
}

#[actix_rt::test]
async fn bad_keys_are_refused_on_every_route() {
    let server = Server::start();
    for key in ["", "a\nb", "\u{0}", "a\u{7f}", "é\u{85}", &"k".repeat(257)] {
        server.post("/acquire", json!({ "key": key })).await.problem(422, "invalid_key");
        let with_token = json!({ "key": key, "token": TOKEN });
        server.post("/release", with_token.clone()).await.problem(422, "invalid_key");
        server.post("/heartbeat", with_token).await.problem(422, "invalid_key");
    }
    for bad in ["a%0Ab", "%00", "%C2%85", &"k".repeat(257)] {
        for path in [format!("/locks/{bad}"), format!("/locks?key={bad}")] {
            server.get(&path).await.problem(422, "invalid_key");
            server.delete(&path).await.problem(422, "invalid_key");
        }
        server.get(&format!("/stats?key={bad}")).await.problem(422, "invalid_key");
    }
}

#[actix_rt::test]
async fn bad_queries_are_refused() {
    let server = Server::start();
    for path in [
        "/locks?prefx=a",
        "/locks?key=a&prefix=b",
        "/locks?key=a&limit=3",
        "/locks?key=a&key=b",
        "/locks?limit=ten",
        "/locks?limit=",
        "/locks?limit=1.5",
        "/locks?prefix=%FF",
        "/locks/%FF",
        "/locks/a?b=c",
        "/stats?keys=a",
        "/history?key=a",
        "/sessions?limit=ten",
        "/sessions?name=a",
        "/server?x=1",
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        answer.problem(400, "invalid_query");
    }
    for path in ["/locks", "/locks?prefix=a", "/locks?key=%FF", "/locks/a?force=1"] {
        server.delete(path).await.problem(400, "invalid_query");
    }
    for limit in ["0", "-1", "1001", "99999999999999999999999"] {
        for path in ["/locks", "/sessions"] {
            server.get(&format!("{path}?limit={limit}")).await.problem(422, "invalid_option");
        }
    }
    server.get("/locks?key=").await.problem(422, "invalid_key");
}

#[actix_rt::test]
async fn unknown_routes_and_methods_are_refused_in_the_same_shape() {
    let server = Server::start();
    for path in ["/nothing", "/acquire/", "/locks/", "/locks/a/b", "/healthz/x", "/%FF"] {
        server.get(path).await.problem(404, "not_found");
        server.post(path, json!({})).await.problem(404, "not_found");
    }
    let rows = [
        ("/acquire", "POST", vec![Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS]),
        ("/release", "POST", vec![Method::GET]),
        ("/heartbeat", "POST", vec![Method::PATCH]),
        ("/stats", "GET, HEAD", vec![Method::POST, Method::DELETE]),
        ("/history", "GET, HEAD", vec![Method::POST]),
        ("/locks", "GET, HEAD, DELETE", vec![Method::POST, Method::PUT]),
        ("/locks/a", "GET, HEAD, DELETE", vec![Method::POST, Method::PATCH]),
        ("/healthz", "GET, HEAD", vec![Method::POST]),
        ("/readyz", "GET, HEAD", vec![Method::POST]),
        ("/events", "GET", vec![Method::POST]),
        ("/sessions", "GET, HEAD, POST", vec![Method::PUT, Method::DELETE]),
        ("/server", "GET, HEAD", vec![Method::POST]),
        ("/sessions/heartbeat", "POST", vec![Method::GET]),
        ("/sessions/end", "POST", vec![Method::GET, Method::DELETE]),
        ("/openapi.json", "GET, HEAD", vec![Method::POST]),
        ("/docs", "GET, HEAD", vec![Method::POST]),
    ];
    for (path, allow, methods) in rows {
        for method in methods {
            let answer = Answer::of(server.request(method, path)).await;
            assert_eq!(answer.headers["allow"], allow, "{path}");
            answer.problem(405, "method_not_allowed");
        }
    }
}

#[actix_rt::test]
async fn only_json_that_says_so_is_read() {
    let server = Server::start();
    let send = async |key: &str, content_type: Option<&str>| {
        let mut request = server.request(Method::POST, "/acquire").body(format!(r#"{{"key":"{key}"}}"#));
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        Answer::of(request).await
    };
    let others = ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", "json", ""];
    for content_type in others.into_iter().map(Some).chain([None]) {
        send("a", content_type).await.problem(415, "unsupported_media_type");
    }
    assert_eq!(server.locks.stats().attempts, 0);
    let json = ["application/json", "Application/JSON; Charset=UTF-8", "application/vnd.x+json"];
    for (key, content_type) in ["a", "b", "c"].into_iter().zip(json) {
        send(key, Some(content_type)).await.ok();
    }
}

#[actix_rt::test]
async fn a_body_of_16_kib_is_read_and_a_longer_one_is_not() {
    let server = Server::start();
    let padded = |length: usize| format!("{:<length$}", r#"{"key":"a"}"#);
    server.post_bytes("/acquire", padded(16 * 1024)).await.ok();
    server.post_bytes("/acquire", padded(16 * 1024 + 1)).await.problem(413, "too_large");

    // Without a length announced, too.
    let body = padded(17 * 1024);
    let mut socket = server.connect();
    let head = "POST /acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n";
    write!(socket, "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).unwrap();
    Answer::parse(&read_to_end(socket).await).problem(413, "too_large");
}

#[actix_rt::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let limits = Limits::new().body_timeout(Duration::from_millis(30));
    let server = Server::with_limits(LockManager::builder().build().unwrap(), limits);
    let socket = server.raw_acquire(100, r#"{"key":"#);
    // To the end: the connection is closed, since the rest of the body may still come.
    Answer::parse(&read_to_end(socket).await).problem(408, "body_timeout");
    assert_eq!(server.locks.stats().attempts, 0);
}

#[actix_rt::test]
async fn a_client_that_goes_in_the_middle_of_its_body_leaves_nothing() {
    let server = Server::start();
    for _ in 0..20 {
        drop(server.raw_acquire(100, r#"{"key":"a""#));
    }
    server.get("/healthz").await.ok();
    assert_eq!(server.locks.stats().attempts, 0);
}

#[actix_rt::test]
async fn a_body_in_broken_chunks_is_an_invalid_body() {
    let server = Server::start();
    let mut socket = server.connect();
    let head = "POST /acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    write!(socket, "{head}transfer-encoding: chunked\r\n\r\n5\r\n{{\"key\r\nzz\r\n").unwrap();
    let text = read_to_end(socket).await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    server.get("/healthz").await.ok();
}

#[actix_rt::test]
async fn bytes_that_are_not_http_are_refused_and_harm_nobody() {
    let server = Server::start();
    for garbage in [&b"GARBAGE\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", &[b'x'; 300_000]]
    {
        let mut socket = server.connect();
        // The server may have had enough before all is written.
        let _ = socket.write_all(garbage);
        drop(socket);
    }
    server.get("/healthz").await.ok();
}

#[actix_rt::test]
async fn no_mutation_of_a_good_body_is_an_error_of_the_servers() {
    let locks = LockManager::builder().wait(Duration::from_millis(1)).ttl(Duration::from_millis(20)).build().unwrap();
    let server = Server::over(locks);
    let good = format!(r#"{{"key":"a","ttl_ms":20,"wait_ms":0,"owner":"w","mode":"exclusive","token":"{TOKEN}"}}"#);
    let mut random = fastrand::Rng::with_seed(20_260_101);
    let mut bodies: Vec<Vec<u8>> = (0..good.len()).map(|end| good.as_bytes()[..end].to_vec()).collect();
    for _ in 0..600 {
        let mut body = good.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..body.len());
            match random.u8(..4) {
                0 => body[at] = random.u8(..),
                1 => body.insert(at, random.choice(*b"{}[]\",:0159-e.\\\xff\0").unwrap()),
                2 => drop(body.remove(at)),
                _ => body.extend_from_within(at..),
            }
        }
        bodies.push(body);
    }
    let paths = ["/acquire", "/release", "/heartbeat"];
    for (at, body) in bodies.into_iter().enumerate() {
        let answer = server.post_bytes(paths[at % 3], body.clone()).await;
        let shown = String::from_utf8_lossy(&body).into_owned();
        assert!(answer.status < 500, "{shown}: {answer:?}");
        if answer.status != 200 {
            answer.any_problem();
        }
    }
    until("no waiter is left", || server.waiting() == 0).await;
}
