//! Question 6: does the lock server keep up with a server that does nothing? Acquire and release, in requests per second, beside
//! a bare actix-web JSON echo of the same bodies: the same workers, the same load by `wrk` (Debian's package), in turns.
//!
//! The server asks for a token, counts the rate, names every request, and logs at info. Both run as processes of their
//! own, with one worker, on free loopback ports. Leaves its medians for `report`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use actix_web::{App, HttpResponse, HttpServer, web};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

    let mut server = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    server.env("LEASEHOLD_TOKENS", TOKENS).env("RUST_LOG", "info");
    let rate = ["--rate-limit", "1000000000"];
    let server = Server::start(server.args(["serve", "--listen", "127.0.0.1:0", "--workers", "1"]).args(rate))?;
    let echo = Server::start(Command::new(std::env::current_exe()?).arg("echo-server"))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(load(&server.url, "locks", seconds)?);
        theirs.push(load(&echo.url, "echo", seconds)?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("leasehold {ours:.0} requests/s, echo {theirs:.0} requests/s, ratio {:.2}", ours / theirs);
    if short { Ok(()) } else { keep(ours, theirs) }
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

/// Requests per second of one round, all of them answered with success.
fn load(url: &str, what: &str, seconds: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/http.lua");
    let duration = format!("{seconds}s");
    let output = Command::new("wrk")
        .args(["-t1", "-c32", "-d", &duration, "-s", script, url, "--", what])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    assert!(!text.contains("Non-2xx"), "every request must be answered with success:\n{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).ok_or("wrk says no rate")?;
    Ok(line.trim().parse()?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn keep(ours: f64, theirs: f64) -> Result<(), Box<dyn std::error::Error>> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = std::path::Path::new(&target).join("criterion");
    std::fs::create_dir_all(&folder)?;
    let mut answers = Map::new();
    answers.insert("http/leasehold".into(), ours.into());
    answers.insert("http/echo".into(), theirs.into());
    Ok(std::fs::write(folder.join("http.json"), Value::from(answers).to_string())?)
}

/// A server process, ended by its own handle.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(command: &mut Command) -> Result<Self, Box<dyn std::error::Error>> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("stdout is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ").ok_or("the server says where it listens")?.to_owned();
        Ok(Self { child, url })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
