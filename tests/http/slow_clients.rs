//! Fear: clients that are slow, or that do nothing at all, take the server from those who work.
#![cfg(all(feature = "server", target_os = "linux"))]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::http_server::{self, Answer, Listener};
use crate::served::Process;

const PATIENCE: Duration = Duration::from_secs(30);
const HEAD: &str = "POST /acquire HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

/// A server with one worker, which has to do with all of them.
fn serve(words: &[&str]) -> Process {
    Process::serve(&[&["--workers", "1"], words].concat())
}

/// All that comes until the other side closes, which it must do.
fn rest(mut socket: TcpStream) -> String {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        // It had more to say than was read before it closed.
        Err(why) if why.kind() == ErrorKind::ConnectionReset => {}
        Err(why) => panic!("it was not closed: {why}"),
    }
    String::from_utf8(bytes).unwrap()
}

/// Sends one byte at a time until the other side has had enough.
fn drip(mut socket: TcpStream, text: &str, every: Duration) -> TcpStream {
    let began = Instant::now();
    for byte in text.bytes().cycle() {
        assert!(began.elapsed() < PATIENCE, "it goes on for ever");
        sleep(every);
        if socket.write_all(&[byte]).is_err() {
            break;
        }
        socket.set_nonblocking(true).unwrap();
        let has_answer = !matches!(socket.peek(&mut [0]), Err(why) if why.kind() == ErrorKind::WouldBlock);
        socket.set_nonblocking(false).unwrap();
        if has_answer {
            break;
        }
    }
    socket
}

#[actix_rt::test]
async fn a_head_that_comes_byte_by_byte_is_cut_off() {
    let process = serve(&["--head-timeout", "1s"]);
    let socket = drip(process.connect(), "x-filler: 1\r\n", Duration::from_millis(20));
    let answer = rest(socket);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    process.takes_and_gives_back_a_lock().await;
}

#[actix_rt::test]
async fn a_body_that_comes_byte_by_byte_is_cut_off() {
    let process = serve(&["--body-timeout", "300ms"]);
    let mut socket = process.connect();
    write!(socket, "{HEAD}content-length: 10000\r\n\r\n").unwrap();
    let socket = drip(socket, " ", Duration::from_millis(20));
    Answer::parse(&rest(socket)).problem(408, "body_timeout");
    process.takes_and_gives_back_a_lock().await;
}

/// The third row is one piece: half a head right behind a whole request.
#[actix_rt::test]
async fn a_later_head_that_stops_halfway_does_not_keep_its_connection() {
    // The slack for slow stores and the patience for waiters are not what is tested here, and would take a minute.
    let quick = ["--head-timeout", "1s", "--keep-alive", "1s", "--body-timeout", "1s", "--max-wait", "1s"];
    let process = serve(&[&quick[..], &["--wait", "1s", "--slack", "1s"]].concat());
    let whole = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (first, then) in [(whole, "G"), (whole, "GET /healthz HTTP/1.1\r\nhos"), (&format!("{whole}GET /hea"), "l")] {
        let mut socket = process.connect();
        socket.write_all(first.as_bytes()).unwrap();
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
        socket.write_all(then.as_bytes()).unwrap();
        rest(socket);
    }
    process.takes_and_gives_back_a_lock().await;
}

#[actix_rt::test]
async fn an_idle_connection_is_closed_when_its_time_is_over() {
    let process = serve(&["--head-timeout", "1s", "--keep-alive", "1s"]);
    let mut socket = process.connect();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert!(rest(socket).starts_with("HTTP/1.1 200"));
}

#[actix_rt::test]
async fn who_listens_or_waits_behind_another_request_does_not_idle() {
    let process = serve(&["--head-timeout", "1s", "--keep-alive", "1s"]);
    let lock = process.post_afresh("/acquire", json!({ "key": "a" })).await.ok();
    let mut events = Listener::of(process.client.get(format!("{}/events", process.url))).await;
    let mut waits = process.connect();
    let (whole, body) = ("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", r#"{"key":"a","wait_ms":60000}"#);
    write!(waits, "{whole}{HEAD}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    while process.post_afresh("/acquire", json!({ "key": "a", "wait_ms": 0 })).await.body["queue_length"] != 1 {}
    // These come later, and are cut off.
    for _ in 0..2 {
        let mut idle = process.connect();
        idle.write_all(whole.as_bytes()).unwrap();
        rest(idle);
    }
    process.post_afresh("/release", json!({ "key": "a", "token": lock["token"] })).await.ok();
    let (mut answers, mut piece) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&answers).contains("waited_ms") {
        let read = waits.read(&mut piece).unwrap();
        assert!(read > 0, "it was cut off: {}", String::from_utf8_lossy(&answers));
        answers.extend_from_slice(&piece[..read]);
    }
    assert_eq!([events.next().await["kind"].clone(), events.next().await["kind"].clone()], ["released", "granted"]);
}

#[actix_rt::test]
async fn a_client_that_sends_all_and_closes_its_half_does_not_hold_anything_up() {
    let process = serve(&[]);
    for _ in 0..50 {
        let mut socket = process.connect();
        let body = r#"{"key":"busy","ttl_ms":60000,"wait_ms":0}"#;
        write!(socket, "{HEAD}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        rest(socket);
    }
    process.takes_and_gives_back_a_lock().await;
}

#[actix_rt::test]
async fn a_body_larger_than_taken_is_refused_before_it_has_come() {
    let process = serve(&["--max-body-bytes", "1000"]);
    let mut socket = process.connect();
    write!(socket, "{HEAD}content-length: 99999999999\r\n\r\n").unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 413");
    process.takes_and_gives_back_a_lock().await;
}

#[actix_rt::test]
async fn five_thousand_idle_connections_leave_room_for_who_works() {
    const IDLE: usize = 5_000;
    let limit = getrlimit(Resource::Nofile);
    // For the whole process; no other test here needs a low limit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(open_files > IDLE as u64 + 200, "this machine allows {open_files} open files: raise `ulimit -Hn`");
    let process = serve(&["--head-timeout", "1h", "--keep-alive", "1h"]);
    let mut idle = Vec::with_capacity(IDLE);
    for at in 0..IDLE {
        let mut socket = process.connect();
        // Some have said nothing yet, some half a head, some have had an answer.
        match at % 3 {
            0 => {}
            1 => socket.write_all(b"GET /heal").unwrap(),
            _ => socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap(),
        }
        idle.push(socket);
    }
    for _ in 0..20 {
        process.takes_and_gives_back_a_lock().await;
    }
    for socket in idle.iter_mut().skip(2).step_by(3) {
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
    }
    drop(idle);
    process.takes_and_gives_back_a_lock().await;
}

/// Somebody who holds a lock, and comes over a new connection each time.
struct Holder<'a> {
    process: &'a Process,
    lock: serde_json::Value,
}

impl<'a> Holder<'a> {
    async fn of(process: &'a Process) -> Self {
        let lock = process.post_afresh("/acquire", json!({ "key": "held", "ttl_ms": 10_000 })).await.ok();
        Self { process, lock }
    }

    async fn stays_alive(&self) {
        let mine = json!({ "key": "held", "token": self.lock["token"] });
        self.process.post_afresh("/heartbeat", mine).await.ok();
    }
}

/// Of an address of its own, as far as this machine has them.
fn connect_from(process: &Process, address: [u8; 4]) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&process.address().parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.into()
}

#[actix_rt::test]
async fn idle_connections_beyond_the_bound_make_room_for_a_holder() {
    for address in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        let process =
            serve(&["--max-connections", "100", "--max-waiters", "50", "--head-timeout", "1h", "--keep-alive", "1h"]);
        let holder = Holder::of(&process).await;
        let mut idle = Vec::new();
        for round in 0..10 {
            for at in 0..13 {
                let mut socket = connect_from(&process, address);
                match at % 3 {
                    0 => {}
                    1 => socket.write_all(b"GET /heal").unwrap(),
                    _ => socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap(),
                }
                idle.push(socket);
            }
            holder.stays_alive().await;
            assert!(round < 9 || process.metric("leasehold_connections_evicted_total").await >= 30);
        }
        assert!(process.metric("leasehold_connections_open").await <= 100);
        assert_eq!(process.metric("leasehold_connections_refused_total").await, 0);
    }
}

#[actix_rt::test]
async fn an_address_that_takes_all_it_can_has_no_more_than_its_share() {
    let process = serve(&["--max-connections-per-address", "10", "--head-timeout", "1h", "--keep-alive", "1h"]);
    let greedy: Vec<_> = (0..30).map(|_| connect_from(&process, [127, 0, 0, 2])).collect();
    while process.metric("leasehold_connections_evicted_total").await < 20 {}
    assert!(process.metric("leasehold_connections_open").await <= 10 + 2);
    process.takes_and_gives_back_a_lock().await;
    drop(greedy);
}

/// It comes whole before the server has looked at its head, and was taken for a head that is too large.
#[actix_rt::test]
async fn a_body_as_long_as_taken_may_come_together_with_its_head() {
    let process = serve(&[]);
    for _ in 0..5 {
        let mut socket = process.connect();
        let body = format!("{{\"key\":\"a\",\"token\":\"0f8fad5b-d9cb-469f-a165-70867728950e\"{:16326}}}", "");
        assert_eq!(body.len(), 16 * 1024);
        let request = format!("{HEAD}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        socket.write_all(request.as_bytes()).unwrap();
        let answer = rest(socket);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[actix_rt::test]
async fn heads_that_are_too_large_are_refused_before_they_fill_memory() {
    let process = serve(&["--head-timeout", "1h", "--keep-alive", "1h"]);
    let holder = Holder::of(&process).await;
    let filler = format!("x-filler: {}\r\n", "x".repeat(1000)).repeat(126);
    let whole = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut crowd = Vec::new();
    for at in 0..100 {
        let mut socket = process.connect();
        if at % 2 == 0 {
            // The head of a later request.
            socket.write_all(whole.as_bytes()).unwrap();
            assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
        }
        // It may be closed before all is written.
        let _ = socket.write_all(format!("GET /healthz HTTP/1.1\r\n{filler}").as_bytes());
        let mut answer = Vec::new();
        match socket.read_to_end(&mut answer) {
            Ok(_) => assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}"),
            Err(why) => assert_eq!(why.kind(), ErrorKind::ConnectionReset),
        }
        crowd.push(socket);
    }
    holder.stays_alive().await;
    assert_eq!(process.metric("leasehold_bad_clients_total{wrong=\"head_too_large\"").await, 100);
    let mut large = process.connect();
    write!(large, "GET /healthz HTTP/1.1\r\nhost: localhost\r\nx-filler: {}\r\n\r\n", "x".repeat(12_000)).unwrap();
    let mut head = [0; 12];
    large.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

#[actix_rt::test]
async fn a_later_head_that_comes_byte_by_byte_is_cut_off() {
    let process = serve(&["--head-timeout", "1s"]);
    let mut socket = process.connect();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
    socket.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    // All other times are far longer.
    let answer = rest(drip(socket, "x-filler: 1\r\n", Duration::from_millis(20)));
    assert!(answer.is_empty(), "{answer}");
    process.takes_and_gives_back_a_lock().await;
}

#[actix_rt::test]
async fn clients_that_never_finish_tls_do_not_keep_those_who_do() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!("leasehold-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let words = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap(), "--head-timeout", "1h"];
    let process = serve(&words);
    // It sees to a provider of TLS.
    drop(http_server::client());
    let client = || {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        client.tls_danger_accept_invalid_certs(true).build().unwrap()
    };
    let post = |path: &str, body| Answer::of(client().post(format!("{}{path}", process.url)).json(&body));
    let lock = post("/acquire", json!({ "key": "held", "ttl_ms": 10_000 })).await.ok();
    let mut silent = Vec::new();
    for at in 0..600 {
        silent.push(process.connect());
        if at % 50 == 49 {
            post("/heartbeat", json!({ "key": "held", "token": lock["token"] })).await.ok();
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Without it each answer waits until the client has acknowledged the one before, which it puts off for 40 ms.
#[actix_rt::test]
async fn answers_to_pipelined_requests_do_not_wait_for_each_other() {
    let process = serve(&[]);
    let mut socket = process.connect();
    let one = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let (rounds, each) = (30, 4);
    let mut quickest = Duration::MAX;
    let mut piece = [0; 65_536];
    // The machine may have other things to do, but not always.
    for _ in 0..10 {
        let began = Instant::now();
        for _ in 0..rounds {
            socket.write_all(one.repeat(each).as_bytes()).unwrap();
            let mut text = String::new();
            while text.matches("HTTP/1.1 200").count() < each || !text.ends_with('}') {
                let read = socket.read(&mut piece).unwrap();
                text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
            }
        }
        quickest = quickest.min(began.elapsed());
    }
    assert!(quickest < Duration::from_millis(40) * rounds / 2, "{quickest:?}");
}

#[actix_rt::test]
async fn a_thousand_clients_that_come_at_once_find_room() {
    let process = serve(&[]);
    // While it stands still it takes nobody: all must fit where the system keeps them.
    let address = process.address().parse().unwrap();
    process.signal("STOP");
    let crowd: Vec<_> = (0..1000).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(900))).collect();
    process.signal("CONT");
    assert!(crowd.iter().all(Result::is_ok), "a client had to try again");
    process.takes_and_gives_back_a_lock().await;
}

#[actix_rt::test]
async fn holders_release_while_every_waiters_place_is_taken() {
    let process = serve(&["--max-waiters", "200", "--max-connections", "400"]);
    let lock = process.post("/acquire", json!({ "key": "a" })).await.ok();
    let body = r#"{"key":"a","wait_ms":60000}"#;
    let crowd: Vec<_> = (0..250)
        .map(|_| {
            let mut socket = process.connect();
            write!(socket, "{HEAD}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
            socket
        })
        .collect();
    let full = async || process.post("/acquire", json!({ "key": "a", "wait_ms": 1 })).await;
    let began = Instant::now();
    while full().await.status != 429 {
        assert!(began.elapsed() < PATIENCE, "the queue never was full");
    }
    let mine = json!({ "key": "a", "token": lock["token"] });
    process.post("/heartbeat", mine.clone()).await.ok();
    assert_eq!(process.post("/release", mine).await.ok(), json!({ "outcome": "released" }));
    drop(crowd);
}
