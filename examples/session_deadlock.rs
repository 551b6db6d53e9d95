//! Two sessions that lock the same two accounts in opposite orders: the one that would close the circle is told of it,
//! lets go of what it holds, and tries again.
//!
//! `cargo run --example session_deadlock`

use std::time::Duration;

use leasehold::{LockError, LockManager, Session};
use tokio::sync::Barrier;

/// Locks one account after the other; answers how it went the first time.
async fn transfer(me: Session, from: &str, to: &str, both_hold_one: &Barrier) -> Result<(), LockError> {
    let mut first = me.lock(from).await?;
    both_hold_one.wait().await;
    loop {
        match me.lock(to).await {
            Ok(second) => {
                println!("{} has moved the money", me.name());
                second.unlock().await;
                first.unlock().await;
                return Ok(());
            }
            Err(LockError::Deadlock { cycle }) => {
                let steps: Vec<_> = cycle.iter().map(|step| format!("{} waits for {}", step.owner, step.key)).collect();
                println!("{} is refused: {}", me.name(), steps.join(", "));
                // The other one waits for this; it goes first.
                first.unlock().await;
                first = me.lock(from).await?;
            }
            Err(other) => return Err(other),
        }
    }
}

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let locks = LockManager::builder().wait(Duration::from_secs(60)).build()?;
    let both_hold_one = Barrier::new(2);

    let alice = transfer(locks.session("alice"), "account:1", "account:2", &both_hold_one);
    // He comes to the barrier last and goes on first, so it is always alice who closes the circle.
    let bob = transfer(locks.session("bob"), "account:2", "account:1", &both_hold_one);
    let (alice, bob) = futures_util::future::join(alice, bob).await;
    alice.and(bob)?;

    let stats = locks.stats();
    println!("{} request refused, {} locks left", stats.deadlocked, stats.active);
    Ok(())
}
