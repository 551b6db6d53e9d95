//! Question 6: do holders get through a crowd? Heartbeat and release of other locks, and of the one that all wait for,
//! while 10,000 clients are parked in its queue; and what each of them costs the server in memory, beside what a bare
//! actix-web handler costs that reads the same body and never answers.
//!
//! Each server is a process of its own, with one worker, the same allocator and small pages, on a free loopback port; ours
//! has tokens, a rate limit and logs at info. Needs 10,100 open files on either side. Leaves its figures for `report`.

#[path = "support/figures.rs"]
mod figures;
#[path = "support/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::{App, HttpResponse, HttpServer, web};
use figures::keep;
use mimalloc::MiMalloc;
use serde_json::{Value, json};
use server::{Server, leasehold};

/// The server's: the bare one is to have it too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const SECRET: &str = "load-secret-0123456789";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().any(|arg| arg == "bare-server") {
        return actix_web::rt::System::new().block_on(bare());
    }
    let short = !std::env::args().any(|arg| arg == "--bench");
    let (crowd, rounds) = if short { (100, 20) } else { (10_000, 3_000) };
    raise_open_files();
    let floor = weight_of_bare(crowd)?;
    let server = start(crowd)?;
    let mut holder = connect(&server)?;
    ask(&mut holder, "/acquire", &json!({ "key": "hot", "token": token(0), "ttl_ms": 3_600_000 }))?;
    // The first few requests bring in what the process needs once.
    round(&mut holder, 1)?;
    let before = resident_kib(&server)?;
    let _parked = park(&server, crowd)?;
    let each = weight(&server, before, &mut holder, crowd)?;
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
        "{crowd} waiters: {each:.1} KiB each, of a bare handler {floor:.1}; heartbeat and release p50 {p50:.2} ms, p99 {p99:.2} ms, worst {worst:.2} ms"
    );
    println!("the release that all wait for: {:.2} ms", release.as_secs_f64() * 1e3);
    if short {
        return Ok(());
    }
    let weights = [("http_waiter/leasehold", each), ("http_waiter/bare_actix_web", floor)];
    keep("http_waiters.json", &[&weights[..], &[("http_crowd_p99/leasehold", p99)]].concat())
}

/// What a client weighs that a bare handler has parked.
fn weight_of_bare(crowd: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let server = Server::start(Command::new(std::env::current_exe()?).arg("bare-server"))?;
    let mut asking = connect(&server)?;
    waiting(&mut asking)?;
    let before = resident_kib(&server)?;
    let _parked = park(&server, crowd)?;
    weight(&server, before, &mut asking, crowd)
}

/// Reads a body as the lock server does, and never answers; tells how many it has read.
async fn bare() -> Result<(), Box<dyn std::error::Error>> {
    static PARKED: AtomicU64 = AtomicU64::new(0);
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true)?;
    let app = || {
        let park = async |body: web::Json<Value>| -> HttpResponse {
            PARKED.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
            HttpResponse::Ok().json(body.into_inner())
        };
        let stats = async || HttpResponse::Ok().json(json!({ "waiting": PARKED.load(Ordering::Relaxed) }));
        App::new().route("/acquire", web::post().to(park)).route("/stats", web::get().to(stats))
    };
    let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0))?;
    println!("listening on http://{}", server.addrs()[0]);
    Ok(server.run().await?)
}

fn park(server: &Server, crowd: usize) -> std::io::Result<Vec<TcpStream>> {
    let ask = json!({ "key": "hot", "wait_ms": 60_000 });
    let mut parked = Vec::with_capacity(crowd);
    for _ in 0..crowd {
        let mut socket = connect(server)?;
        send(&mut socket, "/acquire", &ask)?;
        parked.push(socket);
    }
    Ok(parked)
}

/// KiB for each of a crowd, once all of them wait.
fn weight(
    server: &Server,
    before: u64,
    asking: &mut TcpStream,
    crowd: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
    while waiting(asking)? < crowd as u64 {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((resident_kib(server)? - before) as f64 / crowd as f64)
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
