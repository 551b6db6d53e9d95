//! How long an acquire takes, as a client sees it: in memory, over HTTP, over Redis.
//!
//! Eight clients, 1,024 keys, so that few of them wait for each other; percentiles by `leasehold bench`, which says what is
//! asked. Needs `redis-server`.

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/redis/mod.rs"]
mod kit;
#[path = "support/server.rs"]
mod server;

use std::process::Command;

use serde_json::Value;

const SECONDS: &str = "3s";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `cargo test` looks only whether it starts.
    if !std::env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let redis = kit::Server::start(&[]);
    let server = server::Server::start(&mut server::leasehold())?;
    let asked = [
        ("latency_memory", ["--store".to_owned(), "memory".to_owned()]),
        ("latency_http", ["--server".to_owned(), server.url.clone()]),
        ("latency_redis", ["--store".to_owned(), redis.url()]),
    ];
    for (group, whom) in asked {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        let output = bench.args(["bench", "--json", "--for", SECONDS]).args(&whom).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let said: Value = serde_json::from_slice(&output.stdout)?;
        let percentiles = said["acquire"]["percentiles_ns"].as_array().ok_or("percentiles")?;
        let pairs = percentiles.iter().map(|pair| Some((pair[0].as_f64()?, pair[1].as_f64()?)));
        let pairs: Vec<(f64, f64)> = pairs.collect::<Option<_>>().ok_or("pairs of numbers")?;
        let figures: Vec<(String, f64)> =
            pairs.iter().map(|(percentile, ns)| (format!("{group}/leasehold/{percentile}"), *ns)).collect();
        for (name, ns) in &figures {
            println!("{name}: {ns} ns");
        }
        figures::keep("latency.json", &figures)?;
    }
    Ok(())
}
