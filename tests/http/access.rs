//! Fear: somebody gets in who may not, or gets to see what is not theirs.

use std::num::NonZeroU32;

use leasehold::LockManager;
use leasehold::http::{Access, Limits, Quotas};
use reqwest::Method;
use serde_json::{Value, json};

use crate::http_server::{Answer, Listener, Server, number, text, until};

const CI: &str = "ci-secret-0123456789";
const READER: &str = "reader-secret-0123456789";
const OPERATOR: &str = "operator-secret-0123456789";

fn access() -> Access {
    let list = json!([
        { "name": "ci", "token": CI, "rights": ["acquire", "read"], "namespaces": ["ci:", "shared/"] },
        { "name": "reader", "token": READER, "rights": ["read"] },
        { "name": "operator", "token": OPERATOR, "rights": ["acquire", "read", "force"] },
    ]);
    Access::from_json(&list.to_string()).unwrap()
}

fn guarded(access: Access) -> Server {
    Server::with_access(LockManager::builder().build().unwrap(), Limits::new(), access)
}

async fn ask(server: &Server, token: Option<&str>, method: Method, path: &str, body: Option<Value>) -> Answer {
    let mut request = server.request(method, path);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    Answer::of(request).await
}

async fn get(server: &Server, token: &str, path: &str) -> Answer {
    ask(server, Some(token), Method::GET, path, None).await
}

async fn post(server: &Server, token: &str, path: &str, body: Value) -> Answer {
    ask(server, Some(token), Method::POST, path, Some(body)).await
}

/// Every route that asks for a token, with what it is asked.
fn routes() -> Vec<(Method, &'static str, Option<Value>)> {
    let mine = json!({ "key": "ci:a", "token": "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001" });
    vec![
        (Method::POST, "/acquire", Some(json!({ "key": "ci:a" }))),
        (Method::POST, "/release", Some(mine.clone())),
        (Method::POST, "/heartbeat", Some(mine)),
        (Method::POST, "/sessions", Some(json!({ "name": "w" }))),
        (Method::POST, "/sessions/heartbeat", Some(json!({ "session": "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001" }))),
        (Method::POST, "/sessions/end", Some(json!({ "session": "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001" }))),
        (Method::GET, "/locks", None),
        (Method::GET, "/locks?key=ci:a", None),
        (Method::GET, "/locks/ci:a", None),
        (Method::DELETE, "/locks?key=ci:a", None),
        (Method::DELETE, "/locks/ci:a", None),
        (Method::GET, "/stats", None),
        (Method::GET, "/stats?key=ci:a", None),
        (Method::GET, "/history", None),
        (Method::GET, "/sessions", None),
        (Method::GET, "/server", None),
        (Method::GET, "/events", None),
    ]
}

#[actix_rt::test]
async fn without_its_token_nobody_gets_anything() {
    let server = guarded(access());
    for (method, path, body) in routes() {
        let answer = ask(&server, None, method.clone(), path, body.clone()).await;
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"leasehold\"", "{path}");
        answer.problem(401, "unauthenticated");
        for wrong in ["wrong-secret-0123456789", "", "ci", &CI[1..], &format!("{CI}x"), &CI.to_uppercase()] {
            let answer = ask(&server, Some(wrong), method.clone(), path, body.clone()).await;
            assert!(!format!("{answer:?}").contains("wrong-secret"));
            answer.problem(401, "unauthenticated");
        }
    }
    assert_eq!((server.locks.stats().attempts, server.locks.listeners()), (0, 0));
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        server.get(path).await.ok();
    }
    let basic = server.request(Method::GET, "/locks").basic_auth(CI, Some(CI));
    Answer::of(basic).await.problem(401, "unauthenticated");
    let lower = server.request(Method::GET, "/locks").header("authorization", format!("bearer {CI}"));
    Answer::of(lower).await.ok();
}

#[actix_rt::test]
async fn a_token_does_what_it_has_the_right_to_and_nothing_else() {
    let server = guarded(access());
    for (method, path, body) in routes() {
        let of = |token| ask(&server, Some(token), method.clone(), path, body.clone());
        let is_read = method == Method::GET;
        if !is_read {
            of(READER).await.problem(403, "forbidden");
        }
        if method == Method::DELETE && path.starts_with("/locks") {
            of(CI).await.problem(403, "forbidden");
        }
    }
    assert_eq!(server.locks.stats().attempts, 0);
    post(&server, CI, "/acquire", json!({ "key": "ci:a" })).await.ok();
    get(&server, READER, "/locks/ci:a").await.ok();
    ask(&server, Some(OPERATOR), Method::DELETE, "/locks/ci:a", None).await.ok();
}

#[actix_rt::test]
async fn keys_outside_of_a_tokens_namespaces_are_out_of_its_reach() {
    let server = guarded(access());
    let mine = |key: &str| json!({ "key": key, "token": "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001" });
    post(&server, OPERATOR, "/acquire", json!({ "key": "prod" })).await.ok();
    for path in ["/acquire", "/release", "/heartbeat"] {
        let body = if path == "/acquire" { json!({ "key": "prod" }) } else { mine("prod") };
        post(&server, CI, path, body).await.problem(403, "forbidden");
    }
    for path in ["/locks/prod", "/locks?key=prod", "/stats?key=prod", "/locks/ci", "/locks/shared"] {
        get(&server, CI, path).await.problem(403, "forbidden");
    }
    post(&server, CI, "/acquire", json!({ "key": "" })).await.problem(422, "invalid_key");
    post(&server, CI, "/acquire", json!({ "key": "shared/a" })).await.ok();
}

#[actix_rt::test]
async fn lists_totals_and_events_show_a_token_its_own_keys() {
    let locks = LockManager::builder().namespaces(access().namespaces()).build().unwrap();
    let server = Server::with_access(locks, Limits::new(), access());
    let mut all = Listener::of(server.request(Method::GET, "/events").bearer_auth(READER)).await;
    let mut some = Listener::of(server.request(Method::GET, "/events").bearer_auth(CI)).await;
    for key in ["ci:b", "prod", "ci:a", "shared/x", "a"] {
        post(&server, OPERATOR, "/acquire", json!({ "key": key })).await.ok();
        post(&server, OPERATOR, "/acquire", json!({ "key": key, "wait_ms": 0 })).await.problem(423, "held");
    }
    let keys = async |token: &str, path: &str| {
        let list = get(&server, token, path).await.ok();
        let rows = list["locks"].as_array().unwrap().clone();
        let keys: Vec<_> = rows.iter().map(|row| text(row, "key").to_owned()).collect();
        (keys.join(" "), list["truncated"].as_bool().unwrap())
    };
    assert_eq!(keys(READER, "/locks").await, ("a ci:a ci:b prod shared/x".into(), false));
    assert_eq!(keys(CI, "/locks").await, ("ci:a ci:b shared/x".into(), false));
    assert_eq!(keys(CI, "/locks?limit=2").await, ("ci:a ci:b".into(), true));
    assert_eq!(keys(CI, "/locks?prefix=ci:b").await, ("ci:b".into(), false));
    assert_eq!(keys(CI, "/locks?prefix=s").await, ("shared/x".into(), false));
    assert_eq!(keys(CI, "/locks?prefix=prod").await, (String::new(), false));

    let totals = async |token: &str| {
        let totals = get(&server, token, "/stats").await.ok();
        (totals["hot_keys"].as_array().unwrap().len(), number(&totals, "total"), number(&totals, "busy"))
    };
    assert_eq!((totals(READER).await, totals(CI).await), ((5, 5, 5), (3, 3, 3)));
    #[cfg(feature = "metrics")]
    {
        get(&server, CI, "/metrics").await.problem(403, "forbidden");
        assert_eq!(get(&server, READER, "/metrics").await.status, 200);
    }
    let uncounted = guarded(access());
    get(&uncounted, CI, "/stats").await.problem(403, "forbidden");
    get(&uncounted, CI, "/stats?key=ci:a").await.problem(404, "not_locked");
    let mut seen = 0;
    for key in ["ci:b", "prod", "ci:a", "shared/x", "a"] {
        assert_eq!(text(&all.next().await, "key"), key);
        if key.contains([':', '/']) {
            let event = some.next().await;
            seen += 1;
            assert_eq!((text(&event, "key"), number(&event, "sequence")), (key, seen), "others' are not counted");
        }
    }
}

#[actix_rt::test]
async fn a_circle_names_no_key_outside_of_the_namespaces() {
    let server = guarded(access());
    let mut events = Listener::of(server.request(Method::GET, "/events").bearer_auth(CI)).await;
    let lock = |key: &str, session: &Value| json!({ "key": key, "session": session, "wait_ms": 60_000 });
    let mut ids = Vec::new();
    for (token, name, key) in [(CI, "ci", "ci:a"), (OPERATOR, "one", "ci:b"), (OPERATOR, "two", "prod")] {
        let id = post(&server, token, "/sessions", json!({ "name": name })).await.ok()["id"].clone();
        post(&server, token, "/acquire", lock(key, &id)).await.ok();
        ids.push(id);
    }
    for (at, (session, key)) in [(1, "prod"), (2, "ci:a")].into_iter().enumerate() {
        let waits = server.request(Method::POST, "/acquire").bearer_auth(OPERATOR).json(&lock(key, &ids[session]));
        actix_rt::spawn(Answer::of(waits));
        until("its wait", || server.waiting() == at as u64 + 1).await;
    }
    let seen = post(&server, CI, "/acquire", lock("ci:b", &ids[0])).await.problem(409, "deadlock");
    assert!(!seen.to_string().contains("prod"), "{seen}");
    assert_eq!(seen["cycle"].as_array().unwrap().len(), 2, "{seen}");
    let told = loop {
        let event = events.next().await;
        if event["kind"] == "deadlock" {
            break event;
        }
    };
    assert!(!told.to_string().contains("prod"), "{told}");
    for id in &ids[1..] {
        post(&server, OPERATOR, "/sessions/end", json!({ "session": id })).await.ok();
    }
}

#[actix_rt::test]
async fn totals_may_be_open_and_then_name_no_key() {
    let server = guarded(access().open_stats());
    post(&server, OPERATOR, "/acquire", json!({ "key": "prod" })).await.ok();
    post(&server, OPERATOR, "/acquire", json!({ "key": "prod", "wait_ms": 0 })).await.problem(423, "held");
    let totals = server.get("/stats").await.ok();
    assert_eq!((number(&totals, "total"), &totals["hot_keys"]), (1, &json!([])));
    server.get("/stats?key=prod").await.problem(403, "forbidden");
    server.get("/locks").await.problem(401, "unauthenticated");
    get(&server, "wrong-secret-0123456789", "/stats").await.problem(401, "unauthenticated");
}

#[actix_rt::test]
async fn who_comes_too_often_is_told_when_to_come_again_and_may_always_release() {
    let server = guarded(access().rate_limit(NonZeroU32::new(3).unwrap()));
    let lock = post(&server, CI, "/acquire", json!({ "key": "ci:a" })).await.ok();
    let refused = loop {
        let answer = get(&server, CI, "/locks/ci:a").await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() >= 1);
    refused.problem(429, "rate_limited");
    let mine = json!({ "key": "ci:a", "token": lock["token"] });
    for _ in 0..20 {
        post(&server, CI, "/heartbeat", mine.clone()).await.ok();
    }
    post(&server, CI, "/release", mine).await.ok();
    get(&server, READER, "/locks").await.ok();
}

#[actix_rt::test]
async fn who_guesses_is_slowed_down_as_well() {
    let server = guarded(access().rate_limit(NonZeroU32::new(3).unwrap()));
    let guess = || post(&server, "wrong-secret-0123456789", "/release", json!({}));
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(guess().await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    get(&server, CI, "/locks").await.ok();
}

#[actix_rt::test]
async fn without_tokens_the_limit_is_per_address() {
    let server = guarded(Access::open().rate_limit(NonZeroU32::new(2).unwrap()));
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(server.get("/locks").await.status);
    }
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
    server.get("/healthz").await.ok();
}

/// Asks as a proxy does, until it is refused or has asked for many clients.
async fn status_of_many_clients(server: &Server) -> u16 {
    for client in 1..=250 {
        let asked = server.request(Method::GET, "/locks").header("x-forwarded-for", format!("203.0.113.{client}"));
        let status = Answer::of(asked).await.status;
        if status != 200 {
            return status;
        }
    }
    200
}

#[actix_rt::test]
async fn the_clients_of_a_trusted_proxy_are_counted_each() {
    let limited = || Access::open().rate_limit(NonZeroU32::new(1).unwrap());
    let behind = guarded(limited().trust_proxies("::1, 127.0.0.0/8").unwrap());
    assert_eq!(status_of_many_clients(&behind).await, 200);
    for access in [limited(), limited().trust_proxies("10.0.0.0/8").unwrap()] {
        assert_eq!(status_of_many_clients(&guarded(access)).await, 429, "anybody could say so");
    }
}

/// What a server without tokens says to requests that name it so.
async fn asked_as(server: &Server, headers: &[(&str, &str)]) -> Answer {
    let mut request = server.request(Method::POST, "/acquire").json(&json!({ "key": "a", "wait_ms": 0 }));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request).await
}

#[actix_rt::test]
async fn without_tokens_pages_of_other_sites_get_nothing() {
    let server = Server::start();
    for path in ["/locks", "/locks/a", "/stats", "/events", "/whoami", "/", "/docs", "/openapi.json", "/page/page.js"] {
        let of = |host: &str| Answer::of(server.request(Method::GET, path).header("host", host));
        let refused = of("evil.example:7420").await.problem(403, "forbidden_host");
        assert!(text(&refused, "detail").contains("evil.example:7420"), "{refused}");
        let framed = server.request(Method::GET, path).header("sec-fetch-site", "cross-site");
        Answer::of(framed).await.problem(403, "cross_site");
    }
    for path in ["/release", "/heartbeat", "/sessions"] {
        let request = server.request(Method::POST, path).header("origin", "http://evil.example").json(&json!({}));
        Answer::of(request).await.problem(403, "cross_site");
    }
    for host in ["evil.example", "evil.example:7420", "127.0.0.1.evil.example"] {
        asked_as(&server, &[("host", host)]).await.problem(403, "forbidden_host");
    }
    let port = server.address.port();
    let (own, other) = (format!("http://127.0.0.1:{port}"), "http://127.0.0.1:1");
    for (name, value) in [("origin", other), ("origin", "null"), ("sec-fetch-site", "same-site")] {
        asked_as(&server, &[(name, value)]).await.problem(403, "cross_site");
    }
    let force = server.request(Method::DELETE, "/locks/a").header("host", "evil.example");
    Answer::of(force).await.problem(403, "forbidden_host");
    assert_eq!((server.locks.stats().attempts, server.locks.listeners()), (0, 0));

    asked_as(&server, &[("origin", &own), ("sec-fetch-site", "same-origin")]).await.ok();
    for host in ["localhost", "localhost.:7420", "[::1]:7420", "192.0.2.7"] {
        asked_as(&server, &[("host", host)]).await.problem(423, "held");
    }
    // A probe may call the server whatever it likes.
    for path in ["/healthz", "/readyz"] {
        Answer::of(server.request(Method::GET, path).header("host", "balancer.example")).await.ok();
    }
}

#[actix_rt::test]
async fn hosts_that_were_allowed_are_answered_and_tokens_make_them_needless() {
    let server = guarded(Access::open().allow_hosts("locks.example.com, lock_server").unwrap());
    asked_as(&server, &[("host", "LOCKS.example.com:443"), ("origin", "https://locks.example.com")]).await.ok();
    // A proxy may ask by the server's own address, for a page that has another name.
    let through = [("host", "127.0.0.1:7420"), ("origin", "https://locks.example.com")];
    asked_as(&server, &through).await.problem(423, "held");
    asked_as(&server, &[("host", "lock_server:7420")]).await.problem(423, "held");
    asked_as(&server, &[("host", "evil.example")]).await.problem(403, "forbidden_host");
    let with_tokens = guarded(access());
    let foreign = with_tokens.request(Method::GET, "/locks").bearer_auth(CI).header("host", "evil.example");
    Answer::of(foreign.header("origin", "http://other.example")).await.ok();
}

#[actix_rt::test]
async fn what_is_taken_back_after_a_restart_is_charged_to_the_token() {
    let list = json!([{ "name": "ci", "token": CI, "rights": ["acquire", "read"] }]);
    let access = Access::from_json(&list.to_string()).unwrap().quotas(Quotas::new().max_locks(2));
    let limits = Limits::new().start_delay(std::time::Duration::from_secs(3600));
    let server = Server::with_access(LockManager::builder().build().unwrap(), limits, access);
    let mine = |key: &str| json!({ "key": key, "token": "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001", "fencing_token": 7 });
    for key in ["1", "2"] {
        post(&server, CI, "/heartbeat", mine(key)).await.ok();
    }
    post(&server, CI, "/heartbeat", mine("3")).await.problem(429, "lock_quota");
    // Who has finished meanwhile is told so all the same, and an end makes room.
    assert_eq!(post(&server, CI, "/release", mine("4")).await.ok()["outcome"], "released");
    assert_eq!(post(&server, CI, "/release", mine("1")).await.ok()["outcome"], "released");
    post(&server, CI, "/heartbeat", mine("3")).await.ok();
}

#[actix_rt::test]
async fn one_token_cannot_take_what_there_is_for_all() {
    const GREEDY: &str = "greedy-secret-0123456789";
    let quotas = Quotas::new().max_locks(3).max_sessions(1).max_waiters(9).max_streams(1);
    let list = json!([
        { "name": "greedy", "token": GREEDY, "rights": ["acquire", "read"], "max_waiters": 1 },
        { "name": "ci", "token": CI, "rights": ["acquire", "read"] },
    ]);
    let server = guarded(Access::from_json(&list.to_string()).unwrap().quotas(quotas));
    let listen = |token: &str| server.request(Method::GET, "/events").bearer_auth(token);
    let acquire = async |token: &str, key: &str, wait: u32| {
        post(&server, token, "/acquire", json!({ "key": key, "wait_ms": wait })).await
    };
    acquire(CI, "busy", 0).await.ok();
    let one = acquire(GREEDY, "1", 0).await.ok();
    let waits = server.request(Method::POST, "/acquire").bearer_auth(GREEDY).json(&json!({ "key": "busy" }));
    let waits = actix_rt::spawn(Answer::of(waits));
    until("its wait", || server.waiting() == 1).await;
    acquire(GREEDY, "busy", 5000).await.problem(429, "waiter_quota");
    assert_eq!(server.waiting(), 1);
    acquire(GREEDY, "2", 0).await.ok();
    acquire(GREEDY, "3", 0).await.problem(429, "lock_quota");
    post(&server, GREEDY, "/release", json!({ "key": "1", "token": one["token"] })).await.ok();
    acquire(GREEDY, "3", 0).await.ok();

    let session = post(&server, GREEDY, "/sessions", json!({ "name": "w" })).await.ok();
    post(&server, GREEDY, "/sessions", json!({ "name": "w" })).await.problem(429, "session_quota");
    let first = Listener::of(listen(GREEDY)).await;
    Answer::of(listen(GREEDY)).await.problem(429, "stream_quota");
    // The others have theirs.
    acquire(CI, "4", 0).await.ok();
    post(&server, CI, "/sessions", json!({ "name": "w" })).await.ok();
    let _others = Listener::of(listen(CI)).await;

    drop(first);
    post(&server, GREEDY, "/sessions/end", json!({ "session": session["id"] })).await.ok();
    post(&server, GREEDY, "/sessions", json!({ "name": "w" })).await.ok();
    waits.abort();
    until("it has left", || server.waiting() == 0).await;
    // A stream's end is noticed when it is next written to.
    loop {
        acquire(CI, "5", 0).await;
        if Answer::of(server.request(Method::HEAD, "/events").bearer_auth(GREEDY)).await.status == 405
            && listen(GREEDY).send().await.unwrap().status() == 200
        {
            break;
        }
        actix_rt::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[actix_rt::test]
async fn another_list_of_tokens_takes_the_place_of_the_first_for_all_at_once() {
    let server = guarded(access());
    let mut events = Listener::of(server.request(Method::GET, "/events").bearer_auth(CI)).await;
    let lock = post(&server, CI, "/acquire", json!({ "key": "ci:a" })).await.ok();
    let list = json!([{ "name": "new", "token": "new-secret-0123456789", "rights": ["acquire", "read"] }]);
    server.replace_tokens(&list);
    get(&server, CI, "/locks").await.problem(401, "unauthenticated");
    let mine = json!({ "key": "ci:a", "token": lock["token"] });
    post(&server, "new-secret-0123456789", "/release", mine).await.ok();
    // What had happened before may still be told; what happens now is not for one who is gone.
    while !events.ended().await {}
    assert!(!events.seen().contains("released"), "{}", events.seen());
}
