//! Fear: the binary starts, ends or talks in a way that a script cannot rely on.
#![cfg(all(feature = "server", unix))]

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::binary::{self, Did, leasehold};
use crate::http_server::{self, number, text, until};
use crate::kit;
use crate::served::Process;

#[actix_rt::test]
async fn the_first_line_on_stdout_is_an_address_that_answers_already() {
    for words in [&["--listen", "127.0.0.1:0"][..], &["serve", "--listen", "localhost:0", "--workers", "1"]] {
        let process = Process::start(leasehold(words));
        assert_eq!(process.get("/healthz").await.ok(), json!({ "status": "ok" }));
        let lock = process.post("/acquire", json!({ "key": "a" })).await.ok();
        assert_eq!(number(&lock, "ttl_ms"), 30_000);
    }
}

/// A server that took one of these panicked at every connection, and one of them it forgot.
#[test]
fn a_time_beyond_all_clocks_is_refused_by_its_name() {
    let flags =
        ["ttl", "max-ttl", "wait", "max-wait", "body-timeout", "head-timeout", "keep-alive", "slack", "start-delay"];
    for flag in flags.into_iter().chain(["grace", "redlock-max-ttl"]) {
        let long = format!("--{flag}=580000000000y");
        let did = Did::of(leasehold(&["serve", "--listen", "127.0.0.1:0", &long])).fails(64, "longer than a year");
        assert!(did.stdout.is_empty() && did.stderr.contains(&format!("--{flag}")), "{did:?}");
    }
    Did::of(leasehold(&["bench", "--for=580000000000y"])).fails(64, "--for");
}

#[actix_rt::test]
async fn a_signal_refuses_waiters_lets_holders_release_and_ends_with_zero() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::serve(&["--grace", "25s"]);
        let lock = process.post("/acquire", json!({ "key": "a" })).await.ok();
        let waiter = actix_rt::spawn(process.post("/acquire", json!({ "key": "a", "wait_ms": 60_000 })));
        process.has_waiting(1).await;
        let began = Instant::now();
        process.signal(signal);
        waiter.await.unwrap().problem(503, "shutting_down");
        process.post("/acquire", json!({ "key": "b" })).await.problem(503, "shutting_down");
        let mine = json!({ "key": "a", "token": lock["token"] });
        process.post("/heartbeat", mine.clone()).await.ok();
        assert_eq!(process.post("/release", mine).await.ok(), json!({ "outcome": "released" }));
        assert_eq!(process.exit_code().await, 0, "{signal}");
        assert!(began.elapsed() < Duration::from_secs(25), "it need not wait when nothing is held");
    }
}

#[actix_rt::test]
async fn a_lock_that_is_not_released_does_not_hold_up_the_end_beyond_the_grace() {
    let mut process = Process::serve(&["--grace", "200ms"]);
    process.post("/acquire", json!({ "key": "a" })).await.ok();
    process.signal("TERM");
    assert_eq!(process.exit_code().await, 0);
    assert!(process.stderr().contains("still held"));
}

#[actix_rt::test]
async fn clients_that_idle_or_never_finish_their_request_do_not_hold_up_the_end() {
    let mut process = Process::serve(&["--grace", "400ms"]);
    let mut idle = process.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut unfinished = process.connect();
    let head =
        "POST /acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    unfinished.write_all(head.as_bytes()).unwrap();
    assert_eq!(idle.read(&mut [0]).unwrap(), 1, "it is answered, and stays open");
    process.signal("TERM");
    assert_eq!(process.exit_code().await, 0);
}

#[actix_rt::test]
async fn a_second_signal_ends_it_at_once() {
    let mut process = Process::serve(&["--grace", "1h"]);
    process.post("/acquire", json!({ "key": "a" })).await.ok();
    let waiter = actix_rt::spawn(process.post("/acquire", json!({ "key": "a", "wait_ms": 60_000 })));
    process.has_waiting(1).await;
    process.signal("TERM");
    waiter.await.unwrap().problem(503, "shutting_down");
    process.signal("INT");
    assert_eq!(process.exit_code().await, 1);
}

#[actix_rt::test]
async fn logs_have_no_line_per_request_and_never_a_token() {
    let mut quiet = leasehold(&["serve", "--listen", "127.0.0.1:0", "--grace", "0s", "--log-format", "json"]);
    quiet.env("RUST_LOG", "info");
    let mut loud = leasehold(&["serve", "--listen", "127.0.0.1:0", "--grace", "0s"]);
    loud.env("RUST_LOG", "trace");
    let mut logs = Vec::new();
    let mut tokens = Vec::new();
    for command in [quiet, loud] {
        let mut process = Process::start(command);
        for key in ["needle-1", "needle-2", "needle-3"] {
            let lock = process.post("/acquire", json!({ "key": key })).await.ok();
            tokens.push(text(&lock, "token").to_owned());
            let mine = json!({ "key": key, "token": lock["token"] });
            process.post("/heartbeat", mine.clone()).await.ok();
            process.post("/release", mine.clone()).await.ok();
            process.post("/release", json!({ "key": key, "token": lock["token"], "x": 1 })).await.any_problem();
        }
        process.signal("TERM");
        assert_eq!(process.exit_code().await, 0);
        logs.push(process.stderr());
    }
    assert!(!logs[0].contains("needle"), "{}", logs[0]);
    for line in logs[0].lines() {
        assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{line}");
    }
    assert!(logs[1].len() > logs[0].len());
    assert!(logs.iter().all(|log| tokens.iter().all(|token| !log.contains(token.as_str()))));
}

/// A disk that is full, a pipe whose reader has gone, and one whose reader does not read.
#[actix_rt::test]
async fn a_log_that_cannot_be_written_fails_no_request_and_is_counted() {
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    let (unread, slow) = std::io::pipe().unwrap();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    for stderr in [Stdio::from(full), closed.into(), slow.into()] {
        let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0", "--grace", "25s"]);
        command.env("RUST_LOG", "debug").stderr(stderr);
        let mut process = Process::start(command);
        let lock = process.post("/acquire", json!({ "key": "a" })).await.ok();
        let waiter = actix_rt::spawn(process.post("/acquire", json!({ "key": "a", "wait_ms": 60_000 })));
        // A line for each.
        let began = Instant::now();
        while process.metric("leasehold_log_lines_dropped_total{").await == 0 {
            assert!(began.elapsed() < Duration::from_secs(40), "nothing is dropped");
            for _ in 0..200 {
                process.get("/healthz").await.ok();
            }
        }
        process.signal("TERM");
        waiter.await.unwrap().problem(503, "shutting_down");
        let mine = json!({ "key": "a", "token": lock["token"] });
        assert_eq!(process.post("/release", mine).await.ok(), json!({ "outcome": "released" }));
        assert_eq!(process.exit_code().await, 0);
    }
    drop(unread);
}

#[actix_rt::test]
async fn a_server_without_a_stderr_takes_up_its_store_again() {
    let (gone, closed) = std::io::pipe().unwrap();
    drop(gone);
    let redis = kit::Server::start(&[]);
    let proxy = kit::Proxy::start(redis.address());
    let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0", "--store", &proxy.url()]);
    command.env("RUST_LOG", "debug").stderr(closed);
    let process = Process::start(command);
    for _ in 0..3 {
        proxy.cut();
        process.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.problem(503, "store_unavailable");
        proxy.heal();
        let began = Instant::now();
        while process.get("/readyz").await.status != 200 {
            assert!(began.elapsed() < Duration::from_secs(30), "it does not come back");
            actix_rt::time::sleep(Duration::from_millis(20)).await;
        }
        let lock = process.post("/acquire", json!({ "key": "a", "wait_ms": 10_000 })).await.ok();
        process.post("/release", json!({ "key": "a", "token": lock["token"] })).await.ok();
    }
}

/// A pipe that is full already, as some supervisors leave it.
#[actix_rt::test]
async fn a_stdout_that_nobody_reads_does_not_keep_it_from_serving() {
    let (unread, mut stdout) = std::io::pipe().unwrap();
    let filled = stdout.try_clone().unwrap();
    let filling = std::thread::spawn(move || stdout.write_all(&[b'x'; 1 << 20]));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    drop(taken);
    let mut command = leasehold(&["serve", "--listen", &address]);
    let mut child = http_server::KillOnDrop(command.stdout(filled).spawn().unwrap());
    let client = http_server::client();
    let began = Instant::now();
    while client.get(format!("http://{address}/healthz")).send().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not serve");
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    binary::signal(child.0.id(), "TERM");
    until("its end", || child.0.try_wait().unwrap().is_some_and(|status| status.success())).await;
    drop(unread);
    assert!(filling.join().unwrap().is_err());
}

#[actix_rt::test]
async fn what_is_no_http_is_told_once_with_its_address_and_never_as_an_error() {
    for filter in [None, Some("info")] {
        let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
        if let Some(filter) = filter {
            command.env("RUST_LOG", filter);
        }
        let mut process = Process::start(command);
        for at in 0..300 {
            let mut socket = process.connect();
            let garbage: &[u8] = if at % 2 == 0 { b"\x16\x03\x01\x02\x00\x01" } else { b"SSH-2.0-x\r\n\r\n" };
            socket.write_all(garbage).unwrap();
            // It may close before all was read.
            let _ = socket.read_to_end(&mut Vec::new());
        }
        while process.metric("leasehold_bad_clients_total{wrong=\"no_http\"").await < 300 {
            actix_rt::time::sleep(Duration::from_millis(20)).await;
        }
        process.signal("TERM");
        assert_eq!(process.exit_code().await, 0);
        let log = process.stderr();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<_> = lines.iter().filter(|line| line["level"] != "INFO").collect();
        assert!(told.len() == 1 && told[0]["level"] == "WARN" && told[0]["address"] == "127.0.0.1", "{log}");
    }
}

#[actix_rt::test]
async fn flags_go_over_the_environment_and_that_over_defaults() {
    let mut command = leasehold(&["--listen", "127.0.0.1:0", "--ttl", "11s"]);
    command.env("LEASEHOLD_TTL", "7s").env("LEASEHOLD_WAIT", "1ms").env("LEASEHOLD_MAX_WAIT", "2s");
    command.env("LEASEHOLD_MAX_TTL", "12s").env("LOCK_STORE", "memory");
    let process = Process::start(command);
    assert_eq!(number(&process.post("/acquire", json!({ "key": "a" })).await.ok(), "ttl_ms"), 11_000);
    process.post("/acquire", json!({ "key": "a" })).await.problem(423, "timeout");
    process.post("/acquire", json!({ "key": "a", "wait_ms": 2_001 })).await.problem(422, "invalid_option");
    process.post("/acquire", json!({ "key": "a", "ttl_ms": 12_001 })).await.problem(422, "invalid_ttl");
}

#[actix_rt::test]
async fn a_store_is_reached_as_the_settings_say() {
    let redis = kit::Server::start(&[]);
    let folder = kit::Dir::make();
    let file = folder.path().join("settings.toml");
    std::fs::write(
        &file,
        "store-key-template = \"app:{key}\"\nstore-connect-timeout = \"5s\"\nstore-fence-retention = \"2h\"\n",
    )
    .unwrap();
    let serve =
        |words: &[&str]| leasehold(&[&["serve", "--listen", "127.0.0.1:0", "--store", &redis.url()], words].concat());
    let mut command = serve(&["--config", file.to_str().unwrap(), "--store-timeout", "3s"]);
    command.env("LEASEHOLD_STORE_DATABASE", "3").env("LEASEHOLD_STORE_SIDE_KEY_PREFIX", "beside:");
    let process = Process::start(command);
    process.post("/acquire", json!({ "key": "a" })).await.ok();
    assert_eq!(redis.ask::<i64>("EXISTS lock:a"), 0);
    let mut third = redis.client();
    redis::cmd("SELECT").arg(3).exec(&mut third).unwrap();
    let left: i64 = redis::cmd("PTTL").arg("beside:fence:{app:a}").query(&mut third).unwrap();
    assert!((7_000_000..=7_200_000).contains(&left), "the fence is kept for {left} ms");
    let mut run = leasehold(&["run", "--key", "a", "--nonblock", "--store", &redis.url()]);
    run.args(["--store-database", "3", "--store-key-template", "app:{key}", "--store-side-key-prefix", "beside:"]);
    run.args(["--", "true"]);
    Did::of(run).fails(1, "");
    let print = |words: &[&str]| {
        let mut print = leasehold(&[&["config", "print"], words].concat());
        print.env("LEASEHOLD_STORE_SENTINEL_PASSWORD", "hunter2");
        Did::of(print).ok()
    };
    let printed = print(&["--store-timeout", "3s", "--store-replicas", "2"]);
    for line in ["store-timeout = \"3s\"  # --store-timeout", "store-replicas = 2  # --store-replicas"] {
        assert!(printed.contains(line), "{printed}");
    }
    assert!(printed.contains("store-sentinel-password") && !printed.contains("hunter2"), "{printed}");
    let rows: [(&[&str], &str); 6] = [
        (&["--store-timeout", "1ms"], "timeout"),
        (&["--store-fence-retention", "0s"], "retention"),
        (&["--store-key-template", "no key"], "--store-key-template"),
        (&["--store-tls-cert", "/nowhere.pem"], "--store-tls-key"),
        (&["--store-tls-ca", "/nowhere.pem"], "--store-tls-ca"),
        (&["--store-sentinel-user", "me"], "sentinel"),
    ];
    for (words, why) in rows {
        Did::of(serve(words)).fails(64, why);
    }
    let mut several =
        leasehold(&["serve", "--listen", "127.0.0.1:0", "--store", "redlock:redis://a,redis://b,redis://c"]);
    several.args(["--store-fence-retention", "119s"]);
    Did::of(several).fails(64, "retention");
}

/// As a compose file's `${VARIABLE:-}` leaves them.
#[actix_rt::test]
async fn empty_variables_are_unset_ones() {
    let help = Did::of(leasehold(&["serve", "--help"])).ok();
    let names = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap().to_owned());
    let names: Vec<_> = names.filter(|name| name != "LEASEHOLD_TOKENS_FILE").collect();
    assert!(names.len() > 30 && names.contains(&"LEASEHOLD_STORE".to_owned()), "{names:?}");
    let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0"]);
    command.envs(names.iter().map(|name| (name, ""))).env("LOCK_STORE", "").env("REDIS_URL", "");
    Process::start(command).get("/healthz").await.ok();
    for tokens in ["LEASEHOLD_TOKENS", "LEASEHOLD_TOKENS_FILE"] {
        let mut open = leasehold(&["serve", "--listen", "127.0.0.1:0"]);
        open.env(tokens, "");
        Did::of(open).fails(64, tokens);
    }
}

#[actix_rt::test]
async fn switches_in_the_environment_are_read_in_many_words() {
    for (word, is_on) in [("1", true), ("yes", true), ("true", true), ("on", true), ("0", false), ("no", false)] {
        let mut command = leasehold(&["serve", "--listen", "0.0.0.0:0"]);
        command.env("LEASEHOLD_INSECURE", word);
        if is_on {
            Process::start(command);
        } else {
            Did::of(command).fails(64, "--insecure");
        }
    }
    let mut neither = leasehold(&["serve"]);
    neither.env("LEASEHOLD_INSECURE", "perhaps");
    Did::of(neither).fails(64, "--insecure");
}

#[test]
fn variables_that_would_be_ignored_end_with_64() {
    let rows = [
        ("LEASEHOLD_MAX_WAITER", "9", "LEASEHOLD_MAX_WAITERS"),
        ("LEASEHOLD_STORE", "paper", "memory"),
        ("LOCK_STORE", "paper", "memory"),
        ("LEASEHOLD_TOKEN_FILE", "/tokens", "LEASEHOLD_TOKENS_FILE"),
        ("LEASEHOLD_TOKEN", "hunter2", "LEASEHOLD_TOKENS_FILE"),
    ];
    for (name, value, meant) in rows {
        let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0"]);
        command.env(name, value);
        let did = Did::of(command).fails(64, meant);
        assert!(did.stdout.is_empty() && !did.said().contains("hunter2"), "{did:?}");
    }
    let mut client = leasehold(&["ls"]);
    client.env("LEASEHOLD_SERVERS", "http://x");
    Did::of(client).fails(64, "LEASEHOLD_SERVER.");
}

#[actix_rt::test]
async fn a_supervisor_hears_when_it_serves_and_when_it_stops() {
    let path = std::env::temp_dir().join(format!("leasehold-{}", uuid::Uuid::new_v4()));
    let supervisor = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", &path);
    let mut process = Process::start(command);
    let hears = || {
        let mut text = [0; 100];
        let read = supervisor.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..read]).trim().to_owned()
    };
    assert_eq!(hears(), "READY=1");
    process.get("/healthz").await.ok();
    process.signal("TERM");
    assert_eq!(hears(), "STOPPING=1");
    assert_eq!(process.exit_code().await, 0);
    std::fs::remove_file(&path).unwrap();
}

#[actix_rt::test]
async fn health_is_told_by_the_exit_code() {
    let redis = kit::Server::start(&[]);
    let proxy = kit::Proxy::start(redis.address());
    let process = Process::serve(&["--store", &proxy.url()]);
    let health = |words: &[&str]| Did::of(leasehold(&[&["health", "--server", &process.url], words].concat()));
    assert_eq!(health(&[]).ok(), "ready\n");
    proxy.cut();
    // The store is asked once a second.
    until("that it is missed", || health(&[]).code == 69).await;
    health(&[]).fails(69, "store");
    assert_eq!(health(&["--live"]).ok(), "ok\n");
    Did::of(leasehold(&["health", "--server", "http://127.0.0.1:1"])).fails(69, "");
    let starting = Process::serve(&["--start-delay", "1h"]);
    assert_eq!(Did::of(leasehold(&["health", "--server", &starting.url])).ok(), "starting\n");
}

#[test]
fn a_port_alone_stands_for_all_addresses() {
    Did::of(leasehold(&["serve", "--listen", ":0"])).fails(64, "--insecure");
    let process = Process::start(leasehold(&["serve", "--listen", ":0", "--insecure"]));
    let port = process.url.rsplit_once(':').unwrap().1;
    std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
}

#[test]
fn help_and_version_end_with_zero_and_help_names_every_variable() {
    let help = Did::of(leasehold(&["serve", "--help"])).ok();
    for variable in ["LISTEN", "INSECURE", "TTL", "WAIT", "MAX_WAIT", "MAX_KEYS", "GRACE", "WORKERS", "LOG_FORMAT"] {
        assert!(help.contains(&format!("LEASEHOLD_{variable}")), "{variable}: {help}");
    }
    assert!(help.contains("LOCK_STORE"));
    Did::of(leasehold(&["--version"])).ok();
}

#[test]
fn what_makes_no_sense_ends_with_64_and_says_why() {
    let rows: [(&[&str], &str); 16] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["serve", "--ttl", "soon"], "soon"),
        (&["serve", "--workers", "0"], "0"),
        (&["serve", "--ttl", "0s"], "ttl"),
        (&["serve", "--ttl", "9ms"], "ttl"),
        (&["serve", "--wait", "61s"], "--max-wait"),
        (&["serve", "--head-timeout", "999ms"], "--head-timeout"),
        (&["serve", "--keep-alive", "0s"], "--keep-alive"),
        (&["serve", "--rate-limit", "0"], "--rate-limit"),
        (&["serve", "--listen", "0.0.0.0:0"], "--insecure"),
        (&["serve", "--listen", "[::]:0"], "--insecure"),
        (&["serve", "--max-waiters", "9", "--max-connections", "9"], "--max-connections"),
        (&["serve", "--store", "paper"], "memory"),
        (&["serve", "--store", "redis"], "REDIS_URL"),
        (&["serve", "--store", "redis://"], "--store"),
        (&["serve", "--store", "redlock:redis://a,redis://a"], "--store"),
    ];
    for (words, why) in rows {
        let did = Did::of(leasehold(words)).fails(64, why);
        assert!(did.stdout.is_empty(), "{did:?}");
    }
}

#[actix_rt::test]
async fn a_stores_password_is_not_shown() {
    let mut refused = leasehold(&["serve"]);
    let mut help = leasehold(&["serve", "--help"]);
    for command in [&mut refused, &mut help] {
        // Nobody listens there.
        command.env("LOCK_STORE", "redis://user:hunter2@127.0.0.1:1");
    }
    refused.args(["--listen", "127.0.0.1:0", "--grace", "0s"]);
    let mut process = Process::start(refused);
    process.get("/readyz").await.problem(503, "store_unavailable");
    process.signal("TERM");
    assert_eq!(process.exit_code().await, 0);
    let log = process.stderr();
    assert!(log.contains("the store does not answer") && !log.contains("hunter2"), "{log}");
    assert!(!Did::of(help).ok().contains("hunter2"));
}

#[test]
fn an_address_that_cannot_be_had_ends_with_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    Did::of(leasehold(&["serve", "--listen", &address])).fails(69, &address);
}

#[actix_rt::test]
async fn two_servers_over_one_redis_exclude_each_other() {
    let redis = kit::Server::start(&[]);
    let url = redis.url();
    let one = Process::serve(&["--store", &url]);
    let two = {
        let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("LOCK_STORE", "redis").env("REDIS_URL", &url);
        Process::start(command)
    };
    let lock = one.post("/acquire", json!({ "key": "a" })).await.ok();
    two.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.problem(423, "held");
    let waits = actix_rt::spawn(two.post("/acquire", json!({ "key": "a", "wait_ms": 60_000 })));
    // Until the other server has a place in the queue there.
    until("the waiter", || redis.ask::<i64>("DBSIZE") > 2).await;
    let mine = json!({ "key": "a", "token": lock["token"] });
    assert_eq!(one.post("/release", mine).await.ok(), json!({ "outcome": "released" }));
    let next = waits.await.unwrap().ok();
    assert!(number(&next, "fencing_token") > number(&lock, "fencing_token"));
    let theirs = json!({ "key": "a", "token": next["token"] });
    assert_eq!(two.post("/release", theirs).await.ok(), json!({ "outcome": "released" }));
    assert_eq!(redis.ask::<i64>("EXISTS lock:a"), 0);
}

#[actix_rt::test]
async fn a_server_waits_for_a_store_that_is_not_there_yet() {
    let redis = kit::Server::start(&[]);
    let proxy = kit::Proxy::start(redis.address());
    proxy.cut();
    let process = Process::serve(&["--store", &proxy.url()]);
    process.get("/healthz").await.ok();
    process.get("/readyz").await.problem(503, "store_unavailable");
    process.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.problem(503, "store_unavailable");
    let waits = actix_rt::spawn(process.post("/acquire", json!({ "key": "a", "wait_ms": 60_000 })));
    actix_rt::time::sleep(Duration::from_millis(500)).await;
    proxy.heal();
    waits.await.unwrap().ok();
    until_ready(&process).await;
}

async fn until_ready(process: &Process) {
    while process.get("/readyz").await.status != 200 {
        actix_rt::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_rt::test]
async fn a_server_goes_on_without_its_store_if_it_is_told_to() {
    let redis = kit::Server::start(&[]);
    let proxy = kit::Proxy::start(redis.address());
    let (closed, local) = {
        let serve = |mode| Process::serve(&["--store", &proxy.url(), "--fail-mode", mode]);
        (serve("closed"), serve("local"))
    };
    proxy.cut();
    let ask = || json!({ "key": "a", "wait_ms": 0 });
    closed.post("/acquire", ask()).await.problem(503, "store_unavailable");
    let degraded = local.post("/acquire", ask()).await.ok();
    assert_eq!(degraded["fencing_token"], serde_json::Value::Null);
    local.post("/acquire", ask()).await.problem(423, "held");
    proxy.heal();
    until("the key", || redis.ask::<i64>("EXISTS lock:a") == 1).await;
    closed.post("/acquire", ask()).await.problem(423, "held");
}

/// Row by row what Redis refuses, what that is called, and what is done about it.
#[actix_rt::test]
async fn what_redis_refuses_is_named_in_the_answer_the_log_and_the_metrics() {
    let redis = kit::Server::start(&["--lua-time-limit", "50"]);
    let rights = "~lock:* ~leasehold:* &leasehold:* +@all -@dangerous +info";
    redis.ask::<()>(&format!("ACL SETUSER app reset on >secret {rights}"));
    let set = |name: &str, value: &str| {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut redis.client()).unwrap();
    };
    // Where a folder has the name of its file, it cannot save.
    let file = std::path::PathBuf::from(&redis.ask::<Vec<String>>("CONFIG GET dir")[1]).join("dump.rdb");
    let save = async |outcome: &str| {
        redis.ask::<String>("BGSAVE");
        until("the save", || {
            redis.info("rdb_bgsave_in_progress") == "0" && redis.info("rdb_last_bgsave_status") == outcome
        })
        .await;
    };
    set("save", "3600 1000000");
    let mut command = leasehold(&["serve", "--listen", "127.0.0.1:0", "--grace", "0s", "--log-format", "json"]);
    command.args(["--store", &format!("redis://app:secret@{}", redis.address())]);
    let mut process = Process::start(command);
    let ready = async || {
        until_ready(&process).await;
        process.takes_and_gives_back_a_lock().await;
    };
    ready().await;
    let refused = async |cause: &str| {
        for _ in 0..3 {
            let problem = process.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await;
            let problem = problem.problem(503, "store_unavailable");
            assert!(text(&problem, "detail").contains(&format!("({cause})")), "{problem}");
        }
        while process.get("/readyz").await.status == 200 {
            actix_rt::time::sleep(Duration::from_millis(20)).await;
        }
        let metrics = process.get("/metrics").await;
        let label = format!("cause=\"{cause}\"");
        let is_counted = |line: &str| line.starts_with("leasehold_store_errors_total{") && line.contains(&label);
        let counted = metrics.body.as_str().unwrap().lines().filter(|line| is_counted(line) && !line.ends_with(" 0"));
        assert_eq!(counted.count(), 1, "{cause}");
    };

    std::fs::create_dir(&file).unwrap();
    save("err").await;
    refused("cannot_save").await;
    std::fs::remove_dir(&file).unwrap();
    save("ok").await;
    ready().await;

    set("min-replicas-to-write", "1");
    refused("too_few_replicas").await;
    set("min-replicas-to-write", "0");
    ready().await;

    redis.ask::<()>("ACL SETUSER app resetkeys ~lock:*");
    refused("denied").await;
    redis.ask::<()>("ACL SETUSER app ~leasehold:*");
    ready().await;

    let mut endless = redis.client();
    let busy = std::thread::spawn(move || redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut endless));
    until("a busy server", || redis.try_ask::<()>("PING").is_err_and(|why| why.code() == Some("BUSY"))).await;
    refused("busy").await;
    until("the end of the script", || redis.try_ask::<()>("SCRIPT KILL").is_ok()).await;
    assert!(busy.join().unwrap().is_err());
    ready().await;

    redis.ask::<()>("ACL SETUSER app resetpass >other");
    redis.ask::<u64>("CLIENT KILL USER app");
    // The first answers may say that the connection was lost.
    loop {
        let problem = process.post("/acquire", json!({ "key": "a", "wait_ms": 0 })).await;
        if text(&problem.problem(503, "store_unavailable"), "detail").contains("(unauthenticated)") {
            break;
        }
    }
    refused("unauthenticated").await;

    process.signal("TERM");
    assert_eq!(process.exit_code().await, 0);
    let log = process.stderr();
    for cause in ["cannot_save", "too_few_replicas", "denied", "busy", "unauthenticated"] {
        let lines = log.lines().filter(|line| line.contains("cannot answer") && line.contains(cause)).count();
        assert_eq!(lines, 1, "{cause}: {log}");
    }
    assert!(!log.contains("secret"), "{log}");
}
