//! What does a lock cost over Redis while this process keeps its key? Takes and releases one key, over and over, in
//! memory and over a claim that lingers, in turn; medians of the rounds.
//!
//! How claims fare among tasks and processes, `contended` shows; `report` holds the figures to their targets.

#[path = "support/figures.rs"]
mod figures;
#[path = "../tests/support/redis/mod.rs"]
mod kit;

use std::time::{Duration, Instant};

use figures::keep;
use kit::Server;
use leasehold::store::ClaimReuse;
use leasehold::store::redis::RedisStore;
use leasehold::{LockManager, Release};

/// Fewer than as many microseconds as fences may run ahead of the server's clock.
const RELOCKS: u32 = 5_000;

/// Longer than the fences of a round, in microseconds.
const PAUSE: Duration = Duration::from_millis(10);

/// Nanoseconds of a lock and its release.
async fn relock(locks: &LockManager) -> f64 {
    let began = Instant::now();
    for _ in 0..RELOCKS {
        let lock = locks.lock("k").await.unwrap();
        drop(lock);
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(RELOCKS)
}

fn median(mut runs: Vec<f64>) -> f64 {
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 2]
}

fn main() {
    // `cargo test` passes no `--bench`.
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let rounds = if is_bench { 101 } else { 1 };
    let server = Server::start(&[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let memory = LockManager::builder().build().unwrap();
        let store = RedisStore::builder(&server.url()).claim_reuse(ClaimReuse::linger()).build().unwrap();
        let kept = LockManager::builder().store(store).build_and_connect().await.unwrap();
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let commands = || server.info("total_commands_processed").parse::<u64>().unwrap();
        let mut asked = 0;
        for _ in 0..rounds {
            here.push(relock(&memory).await);
            // The fences, which rise by one for each lock, must not run ahead of the server's microseconds.
            tokio::time::sleep(PAUSE).await;
            // The claim that is relocked.
            assert_eq!(kept.lock("k").await.unwrap().unlock().await, Release::Released);
            let before = commands();
            there.push(relock(&kept).await);
            asked += commands() - before;
        }
        let (here, there) = (median(here), median(there));
        let per_lock = asked as f64 / f64::from(rounds) / f64::from(RELOCKS);
        println!(
            "a lock and its release: {here:.0} ns in memory, {there:.0} ns while its claim lingers: {:.2}",
            there / here
        );
        println!("commands that the server ran for each: {per_lock:.4}");
        kept.shutdown(Duration::from_secs(1)).await;
        if is_bench {
            let figures = [("relock/leasehold/in_memory", here), ("relock/leasehold/lingering", there)];
            keep("claims.json", &figures).expect("the target folder is writable");
        }
    });
}
