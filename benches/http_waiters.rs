//! Question 6: do holders get through a crowd? Heartbeat and release of other locks, and of the one that all wait for,
//! while 10,000 clients are parked in its queue; and what each of them costs the server in memory.
//!
//! The server is a process of its own, with one worker, tokens, a rate limit and logs at info, on a free loopback port.
//! Needs 10,100 open files on either side. Leaves its figures for `report`.

#[path = "support/figures.rs"]
mod figures;
#[path = "support/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use figures::keep;
use serde_json::{Value, json};
use server::{Server, leasehold};

const SECRET: &str = "load-secret-0123456789";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let short = !std::env::args().any(|arg| arg == "--bench");
    let (crowd, rounds) = if short { (100, 20) } else { (10_000, 3_000) };
    raise_open_files();
    let server = start(crowd)?;
    let mut holder = connect(&server)?;
    ask(&mut holder, "/acquire", &json!({ "key": "hot", "token": token(0), "ttl_ms": 3_600_000 }))?;
    // The first few requests bring in what the process needs once.
    round(&mut holder, 1)?;
    let before = resident_kib(&server)?;
    let mut parked = Vec::with_capacity(crowd);
    for _ in 0..crowd {
        let mut socket = connect(&server)?;
        send(&mut socket, "/acquire", &json!({ "key": "hot", "wait_ms": 60_000 }))?;
        parked.push(socket);
    }
    while waiting(&mut holder)? < crowd as u64 {
        std::thread::sleep(Duration::from_millis(20));
    }
    let each = (resident_kib(&server)? - before) as f64 / crowd as f64;
    let mut times = Vec::with_capacity(2 * rounds);
    for at in 0..rounds {
        times.extend(round(&mut holder, at as u64 + 2)?);
        times.push(timed(|| ask(&mut holder, "/heartbeat", &json!({ "key": "hot", "token": token(0) })))?);
    }
    let release = timed(|| ask(&mut holder, "/release", &json!({ "key": "hot", "token": token(0) })))?;
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let (p50, p99, worst) = (at(0.5), at(0.99), at(1.0));
    println!(
        "{crowd} waiters: {each:.1} KiB each; heartbeat and release p50 {p50:.2} ms, p99 {p99:.2} ms, worst {worst:.2} ms"
    );
    println!("the release that all wait for: {:.2} ms", release.as_secs_f64() * 1e3);
    if short {
        return Ok(());
    }
    keep("http_waiters.json", &[("http_waiter/leasehold", each), ("http_crowd_p99/leasehold", p99)])
}

/// A lock of another key: how long its heartbeat and its release take.
fn round(socket: &mut TcpStream, number: u64) -> std::io::Result<[Duration; 2]> {
    let key = format!("other:{number}");
    ask(socket, "/acquire", &json!({ "key": key, "token": token(number) }))?;
    let mine = json!({ "key": key, "token": token(number) });
    Ok([timed(|| ask(socket, "/heartbeat", &mine))?, timed(|| ask(socket, "/release", &mine))?])
}

fn timed(ask: impl FnOnce() -> std::io::Result<Value>) -> std::io::Result<Duration> {
    let began = Instant::now();
    ask()?;
    Ok(began.elapsed())
}

fn token(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn waiting(socket: &mut TcpStream) -> std::io::Result<u64> {
    write!(socket, "GET /stats HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {SECRET}\r\n\r\n")?;
    Ok(answer(socket)?["waiting"].as_u64().unwrap_or_default())
}

fn ask(socket: &mut TcpStream, path: &str, body: &Value) -> std::io::Result<Value> {
    send(socket, path, body)?;
    answer(socket)
}

fn send(socket: &mut TcpStream, path: &str, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    let head = "host: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer";
    let text = format!("POST {path} HTTP/1.1\r\n{head} {SECRET}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    socket.write_all(text.as_bytes())
}

fn answer(socket: &mut TcpStream) -> std::io::Result<Value> {
    let mut text = Vec::new();
    let mut piece = [0; 8192];
    loop {
        let read = socket.read(&mut piece)?;
        text.extend_from_slice(&piece[..read]);
        let shown = String::from_utf8_lossy(&text);
        if let Some((head, body)) = shown.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.and_then(|length| length.parse::<usize>().ok()).is_some_and(|length| body.len() >= length) {
                assert!(head.starts_with("HTTP/1.1 200"), "every request must be answered with success: {shown}");
                return Ok(serde_json::from_str(body)?);
            }
        }
        assert!(read > 0, "the server closed the connection");
    }
}

#[cfg(target_os = "linux")]
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit });
}

#[cfg(not(target_os = "linux"))]
fn raise_open_files() {}

/// A server for so many clients, and a few more.
fn start(crowd: usize) -> Result<Server, Box<dyn std::error::Error>> {
    let tokens = json!([{ "name": "load", "token": SECRET, "rights": ["acquire", "read"] }]).to_string();
    let bounds = ["--max-waiters", &(crowd + 100).to_string(), "--max-connections", &(crowd + 500).to_string()];
    let mut command = leasehold();
    Server::start(command.args(["--rate-limit", "1000000000"]).args(bounds).env("LEASEHOLD_TOKENS", tokens))
}

fn connect(server: &Server) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect(server.url.trim_start_matches("http://"))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn resident_kib(server: &Server) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("the kernel says no size")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
