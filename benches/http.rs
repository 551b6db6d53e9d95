//! Question 6: does the lock server keep up with a server that does nothing? Acquire and release, in requests per second,
//! beside a bare actix-web JSON echo of the same bodies: the same workers, the same load by `wrk` (Debian's package), in
//! turns.
//!
//! With everything on, the server asks for a token with namespaces, counts the rate, and logs at info; bare, it does not.
//! Either way it measures and names every request. All run as processes of their own, with one worker, on free loopback
//! ports, and have the same allocator. A share is the median of the rounds'; the processor time is the server's own.
//! `wrk` needs a core for itself: where it has none, the two disturb each other, the slower server the more. Leaves its
//! medians for `report`.

#[path = "support/figures.rs"]
mod figures;
#[path = "support/server.rs"]
mod server;

use std::process::{Command, Stdio};

use actix_web::{App, HttpResponse, HttpServer, web};
use figures::keep;
use mimalloc::MiMalloc;
use serde::{Deserialize, Serialize};
use server::{Server, leasehold};

/// The server's: the echo is to have it too.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const ROUNDS: usize = 5;
const SECONDS: usize = 4;
/// The load's script has the same secret.
const TOKENS: &str =
    r#"[{"name":"load","token":"load-secret-0123456789","rights":["acquire"],"namespaces":["load:"]}]"#;

#[derive(Serialize, Deserialize)]
struct Body {
    key: String,
    token: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().any(|arg| arg == "echo-server") {
        return actix_web::rt::System::new().block_on(echo());
    }
    if Command::new("wrk").arg("--version").output().is_err() {
        println!("wrk is not installed: nothing measured");
        return Ok(());
    }
    let short = !std::env::args().any(|arg| arg == "--bench");
    let (rounds, seconds) = if short { (1, 1) } else { (ROUNDS, SECONDS) };

    let (mut bare, mut full) = (leasehold(), leasehold());
    bare.env("RUST_LOG", "off");
    full.env("RUST_LOG", "info").env("LEASEHOLD_TOKENS", TOKENS).args(["--rate-limit", "1000000000"]);
    let mut echo = Command::new(std::env::current_exe()?);
    let mut contenders = [
        Contender::start("echo", "echo", echo.arg("echo-server"))?,
        Contender::start("leasehold, bare", "locks", &mut bare)?,
        Contender::start("leasehold, everything on", "locks", &mut full)?,
    ];
    for _ in 0..rounds {
        for contender in &mut contenders {
            contender.run(seconds)?;
        }
    }
    let [echo, bare, full] = &contenders;
    println!("{:<26}{:>12}{:>24}{:>18}", "", "requests/s", "of the echo (range)", "CPU/request");
    for contender in [echo, bare, full] {
        let shares = contender.rounds.iter().zip(&echo.rounds).map(|(ours, theirs)| ours.rate / theirs.rate);
        let mut shares: Vec<f64> = shares.collect();
        shares.sort_by(f64::total_cmp);
        let range = format!("({:.2}-{:.2})", shares[0], shares[shares.len() - 1]);
        let cpu = median(contender.rounds.iter().filter_map(|round| round.cpu));
        let cpu = cpu.map_or("?".to_owned(), |cpu| format!("{:.2} us", cpu * 1e6));
        let (name, rate, share) = (contender.name, contender.rate(), shares[shares.len() / 2]);
        println!("{name:<26}{rate:>12.0}{share:>12.2} {range:>11}{cpu:>18}");
    }
    if short {
        return Ok(());
    }
    let figures = [("leasehold", full), ("leasehold_bare", bare), ("echo", echo)];
    let figures = figures.map(|(name, contender)| (format!("http/{name}"), contender.rate()));
    keep("http.json", &figures)
}

/// Who is measured, and what was.
struct Contender {
    name: &'static str,
    /// What the load's script is told to ask for.
    asked: &'static str,
    server: Server,
    rounds: Vec<Round>,
}

struct Round {
    /// Requests per second.
    rate: f64,
    /// Seconds of processor time for each, where the system tells.
    cpu: Option<f64>,
}

impl Contender {
    fn start(
        name: &'static str,
        asked: &'static str,
        command: &mut Command,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self { name, asked, server: Server::start(command)?, rounds: Vec::new() })
    }

    fn run(&mut self, seconds: usize) -> Result<(), Box<dyn std::error::Error>> {
        let before = cpu_seconds(&self.server);
        let (requests, rate) = load(&self.server.url, self.asked, seconds)?;
        let after = cpu_seconds(&self.server);
        let cpu = before.zip(after).map(|(before, after)| (after - before) / requests);
        self.rounds.push(Round { rate, cpu });
        Ok(())
    }

    fn rate(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.rate)).unwrap_or_default()
    }
}

async fn echo() -> Result<(), Box<dyn std::error::Error>> {
    let app = || {
        let echo = async |body: web::Json<Body>| HttpResponse::Ok().json(body.into_inner());
        App::new().route("/echo", web::post().to(echo))
    };
    let server = HttpServer::new(app).workers(1).bind(("127.0.0.1", 0))?;
    println!("listening on http://{}", server.addrs()[0]);
    Ok(server.run().await?)
}

/// Requests in all and per second of one round, all of them answered with success.
fn load(url: &str, what: &str, seconds: usize) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/http.lua");
    let duration = format!("{seconds}s");
    let output = Command::new("wrk")
        .args(["-t1", "-c32", "-d", &duration, "-s", script, url, "--", what])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(!text.contains("Non-2xx"), "every request must be answered with success:\n{text}");
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).ok_or("wrk says no rate")?;
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")).ok_or("wrk says no number")?;
    Ok((requests.0.trim().parse()?, rate.trim().parse()?))
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// What all threads of a server have used.
fn cpu_seconds(server: &Server) -> Option<f64> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.child.id())).ok()?;
    let used = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    used.sum::<Option<f64>>().map(|nanos| nanos / 1e9)
}
