//! Lock, call, release, in one expression; and a job that skips its turn when it already runs.
//!
//! `cargo run --example run_and_try_run`

use std::future::IntoFuture;
use std::time::Duration;

use leasehold::{LockManager, Outcome, operation_key};

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let locks = LockManager::builder().build()?;

    let ran = locks
        .run("stock:42", async |held| {
            println!("deducting under fencing token {}", held.fencing_token().map_or(0, |fence| fence.get()));
            "one item deducted"
        })
        .ttl(Duration::from_secs(10))
        .wait(Duration::from_secs(5))
        .await?;
    println!("{}; the lock was {:?}", ran.value, ran.release);

    let job = operation_key("send-digest", "2026-11-21");
    let nightly = || {
        locks.try_run(job.as_str(), async |_| {
            actix_rt::time::sleep(Duration::from_millis(100)).await;
        })
    };
    let (first, second) = futures_util::future::join(nightly().into_future(), nightly().into_future()).await;
    for (name, outcome) in [("first", first?), ("second", second?)] {
        match outcome {
            Outcome::Ran(_) => println!("the {name} start did the job"),
            Outcome::Busy => println!("the {name} start found it running and skipped"),
        }
    }
    Ok(())
}
