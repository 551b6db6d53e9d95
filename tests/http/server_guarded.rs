//! Fear: the binary lets somebody in without a token, or shows one; speaks TLS badly; or grants too early.
#![cfg(all(feature = "server", unix))]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::binary::{self, Did};
use crate::http_server::{self, Answer, number};
use crate::served::Process;

const SECRET: &str = "hunter2-hunter2-hunter2";

fn tokens() -> String {
    json!([{ "name": "ops", "token": SECRET, "rights": ["acquire", "read", "force"] }]).to_string()
}

fn serve(words: &[&str]) -> Command {
    binary::leasehold(&[&["serve"], words].concat())
}

/// A directory of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("leasehold-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[actix_rt::test]
async fn tokens_come_from_a_file_or_the_environment() {
    let folder = Folder::new();
    let from_file = Process::serve(&["--tokens-file", &folder.file("tokens.json", &tokens())]);
    let mut command = serve(&["--listen", "127.0.0.1:0"]);
    command.env("LEASEHOLD_TOKENS", tokens());
    for process in [from_file, Process::start(command)] {
        process.get("/locks").await.problem(401, "unauthenticated");
        process.get("/healthz").await.ok();
        let with_token = process.client.get(format!("{}/locks", process.url)).bearer_auth(SECRET);
        Answer::of(with_token).await.ok();
    }
}

#[test]
fn an_address_that_others_reach_needs_tokens_or_a_word() {
    Did::of(serve(&["--listen", "0.0.0.0:0"])).fails(64, "--tokens-file").fails(64, "--insecure");
    let mut with_tokens = serve(&["--listen", "0.0.0.0:0"]);
    with_tokens.env("LEASEHOLD_TOKENS", tokens());
    let insecure = serve(&["--listen", "0.0.0.0:0", "--insecure"]);
    for command in [with_tokens, insecure] {
        assert!(Process::start(command).url.starts_with("http://0.0.0.0:"));
    }
}

#[test]
fn lists_of_tokens_that_make_no_sense_end_with_64_and_are_not_shown() {
    let folder = Folder::new();
    let missing = folder.0.join("missing").to_str().unwrap().to_owned();
    let bad = folder.file("bad.json", r#"[{"name":"x","token":"hunter2","rights":["read"]}]"#);
    let broken = folder.file("broken.json", r#"[{"name":"x","token":"hunter2-hunter2-hunter2","#);
    for path in [missing, bad, broken] {
        let did = Did::of(serve(&["--tokens-file", &path])).fails(64, "");
        assert!(!did.said().contains("hunter2"), "{did:?}");
    }
    let mut help = serve(&["--help"]);
    help.env("LEASEHOLD_TOKENS", tokens());
    assert!(!Did::of(help).said().contains("hunter2"));
}

#[actix_rt::test]
async fn logs_name_who_forced_and_in_which_request_and_show_no_capability() {
    let folder = Folder::new();
    let list = folder.file("tokens.json", &tokens());
    let mut command = serve(&["--listen", "127.0.0.1:0", "--tokens-file", &list, "--log-format", "json"]);
    command.env("RUST_LOG", "trace");
    let mut process = Process::start(command);
    let ask = |method: reqwest::Method, path: &str| {
        process.client.request(method, format!("{}{path}", process.url)).bearer_auth(SECRET)
    };
    let post = reqwest::Method::POST;
    let session = Answer::of(ask(post.clone(), "/sessions").json(&json!({ "name": "w" }))).await.ok();
    let id = session["id"].as_str().unwrap().to_owned();
    let acquire = json!({ "key": "needle", "session": id });
    let lock = Answer::of(ask(post.clone(), "/acquire").json(&acquire)).await.ok();
    let named = json!({ "session": id });
    Answer::of(ask(post.clone(), "/sessions/heartbeat").json(&named)).await.ok();
    let force = ask(reqwest::Method::DELETE, "/locks/needle").header("x-request-id", "incident-7");
    Answer::of(force).await.ok();
    Answer::of(ask(post, "/sessions/end").json(&named)).await.ok();
    process.signal("TERM");
    process.exit_code().await;
    let log = process.stderr();
    for capability in [SECRET, &id, lock["token"].as_str().unwrap()] {
        assert!(!log.contains(capability), "{capability} is in the log");
    }
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let forced = lines.iter().find(|line| line["key"] == "needle" && line["level"] == "WARN").unwrap();
    assert_eq!((&forced["by"], &forced["request_id"]), (&json!("ops"), &json!("incident-7")));
    assert_eq!(forced["from"], "127.0.0.1");
    let answered = |line: &&Value| line["message"] == "answered" && line["request_id"].is_string();
    let routes: Vec<_> = lines.iter().filter(answered).map(|line| line["route"].as_str().unwrap()).collect();
    assert!(routes.contains(&"/locks/{key}"), "{routes:?}");
}

#[actix_rt::test]
async fn guesses_leave_a_line_an_address_with_the_one_behind_the_proxy() {
    let folder = Folder::new();
    let list = folder.file("tokens.json", &tokens());
    let words = ["--tokens-file", &list, "--log-format", "json", "--trusted-proxies", "127.0.0.1"];
    let mut process = Process::start(serve(&[&["--listen", "127.0.0.1:0"], &words[..]].concat()));
    let ask = |method: reqwest::Method, path: &str, secret: &str, from: &str| {
        let request = process.client.request(method, format!("{}{path}", process.url));
        Answer::of(request.bearer_auth(secret).header("x-forwarded-for", from))
    };
    for guess in 0..200 {
        let from = if guess % 2 == 0 { "203.0.113.7" } else { "203.0.113.8" };
        ask(reqwest::Method::GET, "/locks", "a-guess-0123456789", from).await.problem(401, "unauthenticated");
    }
    process.post("/acquire", json!({ "key": "a" })).await.problem(401, "unauthenticated");
    let acquire = process.client.post(format!("{}/acquire", process.url)).bearer_auth(SECRET);
    Answer::of(acquire.json(&json!({ "key": "a" }))).await.ok();
    ask(reqwest::Method::DELETE, "/locks/a", SECRET, "203.0.113.9").await.ok();
    let metrics = process.client.get(format!("{}/metrics", process.url)).bearer_auth(SECRET);
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("leasehold_http_refusals_total{reason=\"unauthenticated\"} 201\n"), "{metrics}");
    assert!(metrics.contains("leasehold_http_refusals_total{reason=\"lock_quota\"} 0\n"));
    process.signal("TERM");
    process.exit_code().await;
    let log = process.stderr();
    assert!(!log.contains("a-guess"));
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let refused = of("a request was refused");
    let from: Vec<_> = refused.iter().map(|line| line["from"].as_str().unwrap()).collect();
    assert_eq!(from, ["203.0.113.7", "203.0.113.8", "127.0.0.1"], "{log}");
    assert_eq!((&refused[0]["by"], &refused[0]["code"]), (&json!("an unknown token"), &json!("unauthenticated")));
    assert_eq!(refused[2]["by"], "no token");
    assert_eq!(of("a lock was released by force")[0]["from"], "203.0.113.9");
}

#[actix_rt::test]
async fn with_a_start_delay_nothing_is_granted_at_first() {
    let process = Process::serve(&["--start-delay", "1h"]);
    let refused = process.post("/acquire", json!({ "key": "a" })).await;
    assert!(refused.headers["retry-after"].parse::<u64>().unwrap() > 3000);
    refused.problem(503, "starting");
    assert_eq!(process.get("/readyz").await.ok()["status"], "starting", "holders must be let in");
    process.get("/healthz").await.ok();
    let token = "0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001";
    let late = process.post("/release", json!({ "key": "a", "token": token })).await.ok();
    assert_eq!(late, json!({ "outcome": "already_gone" }));

    let soon = Process::serve(&["--start-delay", "100ms"]);
    while soon.get("/readyz").await.ok()["status"] != "ready" {
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    soon.post("/acquire", json!({ "key": "a" })).await.ok();
}

#[actix_rt::test]
async fn settings_reach_what_they_set() {
    let process = Process::serve(&[
        "--max-sessions",
        "1",
        "--max-locks-per-session",
        "1",
        "--max-streams",
        "0",
        "--max-listed",
        "5",
        "--max-key-bytes",
        "10",
        "--rate-limit",
        "1000",
    ]);
    let session = process.post("/sessions", json!({ "name": "w" })).await.ok();
    process.post("/sessions", json!({ "name": "w" })).await.problem(429, "too_many_sessions");
    let of = |key: &str| process.post("/acquire", json!({ "key": key, "session": session["id"] }));
    of("a").await.ok();
    of("b").await.problem(429, "too_many_locks");
    of("01234567890").await.problem(422, "invalid_key");
    process.get("/events").await.problem(429, "too_many_streams");
    process.get("/locks?limit=6").await.problem(422, "invalid_option");
    let slow = Process::serve(&["--rate-limit", "1"]);
    while slow.get("/locks").await.status != 429 {}
    let behind = Process::serve(&["--rate-limit", "1", "--trusted-proxies", "127.0.0.1"]);
    for client in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        let asked = behind.client.get(format!("{}/locks", behind.url)).header("x-forwarded-for", client);
        Answer::of(asked).await.ok();
    }
    Did::of(serve(&["--trusted-proxies", "somewhere"])).fails(64, "somewhere");
    let named = Process::serve(&["--allowed-hosts", "locks.example.com"]);
    for (host, status) in [("locks.example.com", 200), ("other.example.com", 403)] {
        let asked = named.client.get(format!("{}/locks", named.url)).header("host", host);
        assert_eq!(Answer::of(asked).await.status, status, "{host}");
    }
    Did::of(serve(&["--allowed-hosts", "http://locks"])).fails(64, "--allowed-hosts");
}

#[actix_rt::test]
async fn it_is_not_ready_while_it_drains_and_ends_its_streams() {
    let mut process = Process::serve(&["--grace", "20s"]);
    process.get("/readyz").await.ok();
    let mut events = http_server::Listener::of(process.client.get(format!("{}/events", process.url))).await;
    let lock = process.post("/acquire", json!({ "key": "a" })).await.ok();
    process.signal("TERM");
    while process.get("/readyz").await.status == 200 {
        actix_rt::time::sleep(Duration::from_millis(2)).await;
    }
    process.get("/readyz").await.problem(503, "shutting_down");
    process.get("/healthz").await.ok();
    process.post("/release", json!({ "key": "a", "token": lock["token"] })).await.ok();
    assert_eq!(events.next().await["kind"], "granted");
    assert_eq!(events.next().await["kind"], "released");
    assert!(events.ended().await);
    process.exit_code().await;
}

/// The server is killed and started again, at the same address and without a store.
#[actix_rt::test]
async fn holders_take_their_locks_back_from_a_server_that_has_forgotten_them() {
    let first = Process::serve(&[]);
    let address = first.address().to_owned();
    let mut locks = Vec::new();
    for body in [
        json!({ "key": "a", "owner": "me" }),
        json!({ "key": "done" }),
        json!({ "key": "shared", "mode": "shared" }),
        json!({ "key": "shared", "mode": "shared" }),
        json!({ "key": "pool", "mode": "permit", "limit": 2 }),
        json!({ "key": "forgetful" }),
        json!({ "key": "shared", "mode": "shared" }),
        json!({ "key": "pool", "mode": "permit", "limit": 2 }),
    ] {
        let lock = first.post("/acquire", body.clone()).await.ok();
        let mut mine = json!({ "token": lock["token"], "fencing_token": lock["fencing_token"] });
        mine.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        locks.push(mine);
    }
    drop(first);
    let second = Process::start(serve(&["--listen", &address, "--start-delay", "15s"]));
    let [a, done, shared, too, pool, forgetful, read, permit] = &locks[..] else { panic!("eight") };
    for mine in [a, shared, too, pool, a] {
        let beaten = second.post("/heartbeat", mine.clone()).await.ok();
        assert!((29_000..=30_000).contains(&number(&beaten, "remaining_ms")), "{beaten}");
    }
    let mine = |lock: &Value| json!({ "key": lock["key"], "token": lock["token"] });
    second.post("/heartbeat", mine(forgetful)).await.problem(409, "lost");
    // Its job ended before its first heartbeat.
    let mut released = mine(done);
    released["fencing_token"] = done["fencing_token"].clone();
    assert_eq!(second.post("/release", released.clone()).await.ok(), json!({ "outcome": "released" }));
    assert_eq!(second.post("/release", released).await.ok(), json!({ "outcome": "already_gone" }));
    // Also one of several, while others have taken theirs back.
    for mine in [read, permit] {
        assert_eq!(second.post("/release", mine.clone()).await.ok(), json!({ "outcome": "released" }));
        assert_eq!(second.post("/release", mine.clone()).await.ok(), json!({ "outcome": "already_gone" }));
    }
    // Others cannot come, whatever they say.
    let mut other = a.clone();
    other["token"] = json!("0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001");
    for fence in [number(a, "fencing_token") - 1, number(a, "fencing_token"), 1 << 62] {
        other["fencing_token"] = fence.into();
        second.post("/heartbeat", other.clone()).await.problem(409, "not_held");
    }
    let unseen = json!({ "key": "x", "token": other["token"], "fencing_token": 1_u64 << 62 });
    second.post("/heartbeat", unseen).await.problem(409, "lost");
    let none = json!({ "key": "x", "token": other["token"], "fencing_token": 0 });
    second.post("/heartbeat", none).await.problem(422, "invalid_option");
    second.post("/acquire", json!({ "key": "new" })).await.problem(503, "starting");
    while second.get("/readyz").await.ok()["status"] != "ready" {
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
    let held = second.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.problem(423, "held");
    assert_eq!((&held["holder"]["owner"], &held["holder"]["fencing_token"]), (&json!("me"), &a["fencing_token"]));
    let full = json!({ "key": "pool", "mode": "permit", "limit": 2, "permits": 2, "wait_ms": 0 });
    second.post("/acquire", full).await.problem(423, "held");
    second.post("/release", mine(a)).await.ok();
    let next = second.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.ok();
    assert!(number(&next, "fencing_token") > number(a, "fencing_token"));
    second.post("/heartbeat", forgetful.clone()).await.problem(409, "lost");
}

/// The same for a command: it runs on, and its lock is released at its end.
#[actix_rt::test]
async fn a_command_outlives_the_restart_of_its_server() {
    let folder = Folder::new();
    let first = Process::serve(&[]);
    let address = first.address().to_owned();
    let end = folder.0.join("end");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", end.display());
    let words = ["run", "--key", "job", "--shared", "--ttl", "15s", "--server", &first.url, "--", "sh", "-c", &script];
    let mut run = http_server::KillOnDrop(binary::leasehold(&words).spawn().unwrap());
    while first.get("/locks/job").await.status != 200 {
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
    let fence = first.get("/locks/job").await.ok()["holder"]["fencing_token"].clone();
    drop(first);
    let second = Process::start(serve(&["--listen", &address, "--start-delay", "5m"]));
    while second.get("/locks/job").await.status != 200 {
        assert!(run.0.try_wait().unwrap().is_none(), "it was ended");
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
    let seen = second.get("/locks/job").await.ok();
    assert_eq!((&seen["holder"]["fencing_token"], &seen["mode"]), (&fence, &json!("shared")), "{seen}");
    std::fs::write(&end, "").unwrap();
    http_server::until("its end", || run.0.try_wait().unwrap().is_some_and(|status| status.success())).await;
    second.get("/locks/job").await.problem(404, "not_locked");
}

#[actix_rt::test]
async fn tokens_are_read_again_at_a_signal_and_when_they_change() {
    let folder = Folder::new();
    let other = "correct-horse-battery";
    let list = folder.file("tokens.json", &tokens());
    let mut process = Process::serve(&["--tokens-file", &list]);
    let is_let_in = async |secret: &str| {
        Answer::of(process.client.get(format!("{}/locks", process.url)).bearer_auth(secret)).await.status == 200
    };
    let until = async |secret: &str| {
        while !is_let_in(secret).await {
            actix_rt::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(is_let_in(SECRET).await && !is_let_in(other).await);
    folder.file("tokens.json", &tokens().replace(SECRET, other));
    process.signal("HUP");
    until(other).await;
    assert!(!is_let_in(SECRET).await);
    // Half a file, and then no file.
    folder.file("tokens.json", &tokens()[..20]);
    process.signal("HUP");
    std::fs::remove_file(&list).unwrap();
    process.signal("HUP");
    actix_rt::time::sleep(Duration::from_secs(3)).await;
    assert!(is_let_in(other).await && !is_let_in(SECRET).await, "what was read last stays in force");
    folder.file("tokens.json", &tokens());
    until(SECRET).await;
    assert!(!is_let_in(other).await);
    let metrics = process.client.get(format!("{}/metrics", process.url)).bearer_auth(SECRET).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(!metrics.contains("leasehold_reloads_total{what=\"tokens\",outcome=\"failed\"} 0\n"), "{metrics}");
    process.signal("TERM");
    assert_eq!(process.exit_code().await, 0);
    let log = process.stderr();
    assert!(log.contains("stays in force") && !log.contains(other) && !log.contains(SECRET), "{log}");
}

#[actix_rt::test]
async fn a_certificate_is_exchanged_while_it_is_in_use() {
    let folder = Folder::new();
    let (old, new) = (certificate(), certificate());
    let (cert, key) = (folder.file("cert.pem", &old.0), folder.file("key.pem", &old.1));
    let process = Process::serve(&["--tls-cert", &cert, "--tls-key", &key]);
    let address = process.url.strip_prefix("https://").unwrap().to_owned();
    let is_shown = |pem: &str| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        connection.complete_io(&mut TcpStream::connect(&address).unwrap()).is_ok()
    };
    assert!(is_shown(&old.0) && !is_shown(&new.0));
    // The two do not belong together until both are there.
    folder.file("cert.pem", &new.0);
    process.signal("HUP");
    actix_rt::time::sleep(Duration::from_millis(200)).await;
    assert!(is_shown(&old.0), "the old pair stays");
    folder.file("key.pem", &new.1);
    while !is_shown(&new.0) {
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_shown(&old.0));
}

/// A certificate for `localhost` that signs itself, and its key, as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[actix_rt::test]
async fn tls_is_spoken_with_the_certificate_that_was_given() {
    let folder = Folder::new();
    let (cert, key) = certificate();
    let (cert_file, key_file) = (folder.file("cert.pem", &cert), folder.file("key.pem", &key));
    let process = Process::serve(&["--tls-cert", &cert_file, "--tls-key", &key_file]);
    let address = process.url.strip_prefix("https://").unwrap().to_owned();

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(&address).unwrap());
    let body = r#"{"key":"a"}"#;
    let head = "POST /acquire HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json";
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(Answer::parse(&text).ok()["key"], "a");
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]), "waiters of HTTP/2 are not cancelled");

    // Who does not speak it is not served.
    let mut plain = TcpStream::connect(&address).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"));
}

#[test]
fn certificates_that_make_no_sense_end_with_64() {
    let folder = Folder::new();
    let ((cert, key), (_, other_key)) = (certificate(), certificate());
    let (cert, key) = (folder.file("cert.pem", &cert), folder.file("key.pem", &key));
    let (other_key, empty) = (folder.file("other.pem", &other_key), folder.file("empty.pem", ""));
    let rows: [&[&str]; 6] = [
        &["--tls-cert", &cert],
        &["--tls-key", &key],
        &["--tls-cert", "/nowhere.pem", "--tls-key", &key],
        &["--tls-cert", &empty, "--tls-key", &key],
        &["--tls-cert", &cert, "--tls-key", &empty],
        &["--tls-cert", &cert, "--tls-key", &other_key],
    ];
    for words in rows {
        let text = Did::of(serve(&[&["--listen", "127.0.0.1:0"], words].concat())).fails(64, "").said();
        assert!(text.lines().any(|line| line.starts_with("leasehold: ")) && !text.contains("PRIVATE KEY"), "{text}");
    }
}
