//! A lock that keeps itself alive while its holder works, and tells when it no longer can.
//!
//! `cargo run --example auto_refresh`

use std::time::Duration;

use leasehold::LockManager;

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ms = Duration::from_millis;
    let locks = LockManager::builder().build()?;

    let lock = locks.lock("report:daily").ttl(ms(300)).await?;
    let refreshing = lock.auto_refresh(ms(100), ms(100))?;
    actix_rt::time::sleep(ms(1_000)).await;
    println!("after a second with a TTL of 300 ms: held = {}", lock.is_held());

    // An operator steps in. The holder hears of it and stops.
    locks.force_release("report:daily").await?;
    if let Some(why) = refreshing.failed().await {
        println!("refreshing failed: {why}");
    }

    // A cap on the whole hold ends what refreshing would keep for ever.
    let capped = locks.lock("report:weekly").ttl(ms(300)).max_hold(ms(500)).await?;
    let _refreshing = capped.auto_refresh(ms(100), ms(100))?;
    println!("capped at 500 ms: {}", capped.lost().await.map_or("unlocked".into(), |loss| loss.to_string()));
    Ok(())
}
