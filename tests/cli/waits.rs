//! Fear: a wait ends before its time since a server restarted, a proxy cut it or a store was away; it loses its place;
//! or what it was granted is used after its end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::cli::{BINARY, Did, Running, Server, Terminal, command, file};
use crate::kit::port::Port;
use crate::kit::{self, until};

/// A server on a port that is its own also while it is down.
fn server_at(port: &Port) -> Server {
    Server::launch(command(BINARY, &["serve", "--grace", "0s", "--listen", &format!("127.0.0.1:{}", port.number)]))
}

fn at(url: &str, words: &[&str]) -> Running {
    let mut command = command(BINARY, words);
    command.env("LEASEHOLD_SERVER", url);
    Running(command.spawn().unwrap())
}

#[test]
fn a_wait_goes_on_over_a_restart_of_the_server() {
    let port = Port::choose();
    let server = server_at(&port);
    let url = server.url.clone();
    let _held = server.holds("k", &["--ttl", "1h"]);
    let waits = at(&url, &["run", "--key", "k", "--wait", "10m", "--", "echo", "ran"]);
    let acquires = at(&url, &["acquire", "k", "--wait", "10m", "--ttl", "300ms"]);
    until("the waiters", || server.total("waiting") == 2);
    drop(server);
    std::thread::sleep(Duration::from_millis(500));
    // It has forgotten the lock.
    let _server = server_at(&port);
    let did = waits.end();
    assert_eq!((did.code, did.stdout.as_str()), (0, "ran\n"), "{did:?}");
    assert_eq!(did.stderr.matches("still waiting").count(), 1, "once a minute: {did:?}");
    acquires.end().ok();
}

#[test]
fn a_job_that_is_started_before_the_server_waits_for_it() {
    let port = Port::choose();
    let url = format!("http://127.0.0.1:{}", port.number);
    let waits = at(&url, &["run", "--key", "k", "--wait", "10m", "--", "echo", "ran"]);
    let quiet = at(&url, &["run", "--key", "k", "--wait", "10m", "--quiet", "--", "echo", "ran"]);
    std::thread::sleep(Duration::from_millis(300));
    let _server = server_at(&port);
    assert_eq!(waits.end().ok(), "ran\n");
    let quiet = quiet.end();
    assert_eq!((quiet.code, quiet.stdout.as_str(), quiet.stderr.as_str()), (0, "ran\n", ""));
}

#[test]
fn a_job_that_is_started_before_its_redis_waits_for_it() {
    let mut redis = kit::Server::start(&[]);
    let url = redis.url();
    redis.kill9();
    let words = ["run", "--key", "k", "--store", &url, "--wait", "10m", "--", "echo", "ran"];
    let waits = Running(command(BINARY, &words).spawn().unwrap());
    std::thread::sleep(Duration::from_millis(300));
    redis.restart();
    assert_eq!(waits.end().ok(), "ran\n");
}

#[test]
fn without_a_wait_or_at_its_end_what_cannot_be_reached_ends_with_69() {
    for at in [["--server", "http://127.0.0.1:1"], ["--store", "redis://127.0.0.1:1"]] {
        for (wait, least) in [(&["--nonblock"][..], 0), (&["--wait", "0s"], 0), (&["--wait", "300ms"], 300)] {
            let began = Instant::now();
            let words = [&["run", "--key", "k"], &at[..], wait, &["--", "echo", "ran"]].concat();
            let did = Did::of(command(BINARY, &words));
            assert_eq!((did.code, did.stdout.as_str()), (69, ""), "{words:?}: {did:?}");
            assert!(began.elapsed() >= Duration::from_millis(least), "{words:?}");
            let is_told = least > 0 && at[0] == "--server";
            assert!(did.stderr.contains("still waiting") || !is_told, "{words:?}: {did:?}");
            assert!(!did.stderr.contains("still waiting") || least > 0, "{words:?}: {did:?}");
        }
    }
}

/// A proxy that answers 504 to a request that has not been answered in time, and cuts the connection.
struct Gateway {
    url: String,
    cuts: Arc<AtomicU32>,
}

impl Gateway {
    fn start(server: &Server, timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cuts = Arc::new(AtomicU32::new(0));
        let (target, counted) = (server.process.address().to_owned(), Arc::clone(&cuts));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || relay(&client, &server, timeout, &counted));
            }
        });
        Self { url, cuts }
    }
}

fn relay(client: &TcpStream, server: &TcpStream, timeout: Duration, cuts: &AtomicU32) {
    let asked = AtomicBool::new(false);
    server.set_read_timeout(Some(timeout)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pass(client, server, || asked.store(true, Ordering::SeqCst));
            let _ = server.shutdown(Shutdown::Both);
        });
        loop {
            pass(server, client, || asked.store(false, Ordering::SeqCst));
            // Its end, or that it took too long.
            if !asked.load(Ordering::SeqCst) && server.peek(&mut [0]).is_err() {
                continue;
            }
            if asked.load(Ordering::SeqCst) {
                cuts.fetch_add(1, Ordering::SeqCst);
                let mut client = client;
                let _ =
                    client.write_all(b"HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
            break;
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, seen: impl Fn()) {
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        seen();
        if to.write_all(&piece[..read]).is_err() {
            return;
        }
    }
}

#[test]
fn a_wait_goes_on_behind_a_proxy_that_cuts_long_requests() {
    let server = Server::start(&[]);
    let held = server.holds("k", &["--ttl", "1h"]);
    let gateway = Gateway::start(&server, Duration::from_millis(1_500));
    let waits = at(&gateway.url, &["run", "--key", "k", "--wait", "10m", "--", "echo", "ran"]);
    until("the first cut", || gateway.cuts.load(Ordering::SeqCst) >= 1);
    // Rounds are shorter now than the proxy's patience.
    std::thread::sleep(Duration::from_secs(3));
    let cuts = gateway.cuts.load(Ordering::SeqCst);
    assert!(cuts <= 2, "{cuts}");
    held.signal("TERM");
    assert_eq!(waits.end().ok(), "ran\n");
}

#[test]
fn rounds_keep_the_place_in_the_queue() {
    let server = Server::start(&["--max-wait", "800ms", "--wait", "100ms"]);
    let held = server.holds("k", &["--ttl", "1h"]);
    let first = server.starts(&["run", "--key", "k", "--owner", "first", "--wait", "10m", "--", "sleep", "60"]);
    until("the first", || server.total("waiting") == 1);
    let second = server.starts(&["run", "--key", "k", "--owner", "second", "--wait", "10m", "--", "true"]);
    until("the second", || server.total("waiting") == 2);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let shown = server.did(&["show", "k"]).ok();
        let queue: Vec<&str> = shown.lines().filter_map(|line| line.strip_prefix("waiter\t")).collect();
        assert!(queue.len() == 2 && queue[0].contains("first") && queue[1].contains("second"), "{shown}");
    }
    assert_eq!(server.total("timed_out"), 0, "each is one waiter, whose wait has not ended");
    held.signal("TERM");
    until("the first's turn", || server.did(&["show", "k"]).stdout.contains("holder\tfirst"));
    first.signal("TERM");
    second.end().ok();
    let did = server.did(&["run", "--key", "k", "--wait", "0s", "--", "true"]);
    assert_eq!(did.code, 0, "nothing stays behind: {did:?}");
}

#[test]
fn a_wait_has_an_end_although_it_has_many_rounds() {
    let server = Server::start(&["--max-wait", "400ms", "--wait", "100ms"]);
    let _held = server.holds("k", &["--ttl", "1h"]);
    for verb in
        [&["run", "--key", "k", "--wait", "1500ms", "--", "echo", "ran"][..], &["acquire", "k", "--wait", "1500ms"]]
    {
        let began = Instant::now();
        server.did(verb).fails(1, "k");
        assert!(began.elapsed() >= Duration::from_millis(1_500), "{verb:?}");
        until("an empty queue", || server.total("waiting") == 0);
    }
}

/// Freezes a program that waits until its turn has come and run out, while another takes the lock.
fn thaws_too_late(server: &Server, waits: &Running, held: &Running) -> Running {
    until("the waiter", || server.total("waiting") == 1);
    waits.signal("STOP");
    held.signal("TERM");
    until("the end of its turn", || server.total("expired") == 1);
    let other = server.holds("k", &["--owner", "the other", "--ttl", "1h"]);
    waits.signal("CONT");
    other
}

#[test]
fn a_run_whose_turn_ran_out_while_it_was_frozen_does_not_start_its_command_but_waits_on() {
    let server = Server::start(&[]);
    let path = server.path("began");
    let held = server.holds("k", &["--ttl", "1h"]);
    let script = "echo $LEASEHOLD_FENCING_TOKEN > \"$0\"";
    let words = ["run", "--key", "k", "--ttl", "1s", "--wait", "10m", "--", "sh", "-c", script, path.to_str().unwrap()];
    let waits = server.starts(&words);
    let other = thaws_too_late(&server, &waits, &held);
    until("its place at the end of the queue", || server.total("waiting") == 1);
    assert!(!path.exists(), "the other has the lock");
    other.signal("TERM");
    waits.end().ok();
    file(&path);
}

#[test]
fn an_acquire_whose_turn_ran_out_while_it_was_frozen_prints_no_lease_but_waits_on() {
    let server = Server::start(&[]);
    let held = server.holds("k", &["--ttl", "1h"]);
    let waits = server.starts(&["acquire", "k", "--ttl", "1s", "--wait", "10m"]);
    let other = thaws_too_late(&server, &waits, &held);
    until("its place at the end of the queue", || server.total("waiting") == 1);
    other.signal("TERM");
    let out = waits.end().ok();
    let left: u64 = out.trim().split('\t').nth(2).unwrap().parse().unwrap();
    assert!((1..=1000).contains(&left), "{out}");
}

#[test]
fn a_run_over_redis_whose_turn_ran_out_while_it_was_frozen_waits_on() {
    let redis = kit::Server::start(&[]);
    let dir = kit::Dir::make();
    let (url, path) = (redis.url(), dir.path().join("began"));
    let run = |words: &[&str]| {
        Running(command(BINARY, &[&["run", "--key", "k", "--store", &url], words].concat()).spawn().unwrap())
    };
    let held = run(&["--ttl", "1h", "--", "sleep", "60"]);
    until("the holder", || redis.ask::<i64>("EXISTS lock:k") == 1);
    let waits = run(&["--ttl", "1s", "--wait", "10m", "--", "sh", "-c", "echo > \"$0\"", path.to_str().unwrap()]);
    std::thread::sleep(Duration::from_millis(500));
    waits.signal("STOP");
    held.signal("TERM");
    held.end();
    let other = run(&["--ttl", "1h", "--", "sleep", "60"]);
    until("the other", || redis.ask::<i64>("PTTL lock:k") > 60_000);
    waits.signal("CONT");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!path.exists(), "the other has the lock");
    other.signal("TERM");
    waits.end().ok();
    file(&path);
}

#[test]
fn on_a_terminal_a_wait_says_who_is_in_the_way() {
    let server = Server::start(&[]);
    let held = server.holds("k", &["--owner", "the other", "--ttl", "1h"]);
    let ahead = server.starts(&["run", "--key", "k", "--wait", "10m", "--", "sleep", "60"]);
    until("the one before", || server.total("waiting") == 1);
    let words = |more: &[&'static str]| {
        [&[BINARY, "run", "--key", "k", "--wait", "10m"], more, &["--", "echo", "ran"]].concat()
    };
    let variables = [("LEASEHOLD_SERVER", server.url.as_str())];
    let waits = Terminal::start(&words(&[]), &variables);
    until("the waiter", || server.total("waiting") == 2);
    let quiet = Terminal::start(&words(&["--quiet"]), &variables);
    waits.shows("waiting for k, held by the other for ");
    waits.shows("s, 1 before you");
    held.signal("TERM");
    held.end();
    ahead.signal("TERM");
    let (code, screen) = waits.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.ends_with("\r\x1b[Kran\r\n"), "the line is taken away: {screen:?}");
    assert_eq!(quiet.end(), (0, "ran\r\n".to_owned()));
}

/// Answers one request after the other, and remembers the bodies.
fn fake_server(answers: [&'static str; 3]) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut bodies = Vec::new();
        for answer in answers {
            let mut text = String::new();
            let mut piece = [0; 4096];
            // A body of ours is one JSON object.
            while !text.ends_with('}') {
                let read = client.read(&mut piece).unwrap();
                assert!(read > 0, "{text}");
                text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            }
            bodies.push(text.split_once("\r\n\r\n").unwrap().1.to_owned());
            let length = answer.len();
            write!(client, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}").unwrap();
        }
        bodies
    });
    (url, asked)
}

#[test]
fn heartbeats_prove_the_lock_to_a_server_that_has_forgotten_it() {
    let (url, asked) = fake_server([
        r#"{"token":"0b9f1f2e-52a3-4b61-9a08-6bb7a6b1d001","fencing_token":77,"remaining_ms":900,"waited_ms":0}"#,
        r#"{"remaining_ms":900,"refresh_count":1}"#,
        r#"{"outcome":"released"}"#,
    ]);
    let run = at(&url, &["run", "--key", "k", "--ttl", "900ms", "--", "sleep", "0.45"]);
    assert_eq!(run.end().code, 0);
    let bodies = asked.join().unwrap();
    assert!(bodies[1].contains(r#""fencing_token":77"#), "{bodies:?}");
}

#[test]
fn locks_that_are_held_get_heartbeats_during_many_short_waits_for_others() {
    let server = Server::start(&[]);
    let keys = ["b", "c", "d", "e", "f"];
    let others = keys.map(|key| server.holds(key, &["--ttl", "1h"]));
    let all = ["a", "b", "c", "d", "e", "f"].map(|key| ["--key", key]).concat();
    let run = [&["run", "--ttl", "3s", "--wait", "10m"][..], &all, &["--", "echo", "ran"]].concat();
    let waits = server.starts(&run);
    for (key, other) in keys.iter().zip(others) {
        until("the next wait", || server.did(&["show", key]).stdout.contains("waiter"));
        // Shorter than the pause between two heartbeats; together they are longer than the TTL.
        std::thread::sleep(Duration::from_millis(700));
        other.signal("TERM");
    }
    assert_eq!(waits.end().ok(), "ran\n");
}

#[test]
fn a_wait_with_a_token_that_may_wait_once_goes_on_over_its_rounds() {
    let token = "a-long-enough-secret-of-ci";
    let words = ["serve", "--listen", "127.0.0.1:0", "--grace", "0s", "--max-wait", "800ms", "--wait", "100ms"];
    let mut guarded = command(BINARY, &words);
    let list = r#"[{"name":"ci","token":"TOKEN","rights":["acquire","read"],"namespaces":[""],"max_waiters":1}]"#;
    guarded.env("LEASEHOLD_TOKENS", list.replace("TOKEN", token));
    let server = Server::launch(guarded);
    let with_token = |words: &[&str]| {
        let mut command = command(BINARY, words);
        command.env("LEASEHOLD_SERVER", &server.url).env("LEASEHOLD_TOKEN", token);
        Running(command.spawn().unwrap())
    };
    let held = with_token(&["run", "--key", "k", "--ttl", "1h", "--", "sleep", "60"]);
    let show = || with_token(&["show", "k"]).end().stdout;
    until("the holder", || show().contains("holder"));
    let waits = with_token(&["run", "--key", "k", "--wait", "10m", "--", "echo", "ran"]);
    until("the waiter", || show().contains("waiter"));
    std::thread::sleep(Duration::from_secs(3));
    held.signal("TERM");
    let did = waits.end();
    assert_eq!((did.code, did.stdout.as_str(), did.stderr.as_str()), (0, "ran\n", ""), "it never lost its place");
}

/// Refuses the first request as too long, keeps the second waiting, and refuses all others; counts them.
fn busy_server() -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, counter) = (client.unwrap(), Arc::clone(&counter));
            std::thread::spawn(move || {
                loop {
                    let mut text = String::new();
                    let mut piece = [0; 4096];
                    while !text.ends_with('}') {
                        let Ok(read @ 1..) = client.read(&mut piece) else { return };
                        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
                    }
                    let (status, code, detail) = match text.contains("POST /acquire") {
                        false => (404, "not_locked", "not here"),
                        true => match counter.fetch_add(1, Ordering::SeqCst) {
                            0 => (422, "invalid_option", "`wait_ms` is too long"),
                            1 => return std::thread::sleep(Duration::from_secs(60)),
                            _ => (429, "waiter_quota", "too many wait"),
                        },
                    };
                    let body = format!(r#"{{"status":{status},"code":"{code}","detail":"{detail}"}}"#);
                    let length = body.len();
                    let _ = write!(client, "HTTP/1.1 {status} No\r\ncontent-length: {length}\r\n\r\n{body}");
                }
            });
        }
    });
    (url, asked)
}

#[test]
fn a_refused_round_beside_one_that_waits_is_repeated_after_pauses_only() {
    let (url, asked) = busy_server();
    let waits = at(&url, &["run", "--key", "k", "--wait", "6s", "--", "echo", "ran"]);
    until("the first refusal", || asked.load(Ordering::SeqCst) >= 3);
    std::thread::sleep(Duration::from_millis(1_500));
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 12, "{asked} requests in 1.5 s");
    waits.signal("TERM");
    waits.end();
}
