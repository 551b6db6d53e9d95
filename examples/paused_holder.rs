//! A holder is paused past its TTL, somebody else goes on, and the resource refuses the one that wakes up.
//!
//! `cargo run --example paused_holder`, all within this process; or, with the lock and the resource in Redis,
//! `REDIS_URL=redis://127.0.0.1/ cargo run --example paused_holder --features redis`

use std::error::Error;
use std::time::Duration;

use leasehold::fence::FenceGuard;
use leasehold::{FencingToken, Held, LockManager};

type Done = Result<(), Box<dyn Error>>;

#[actix_rt::main]
async fn main() -> Done {
    match std::env::var("REDIS_URL") {
        Ok(url) => in_redis(&url).await,
        Err(_) => in_memory().await,
    }
}

/// `write` is the resource: it is shown a fence with each write.
async fn story(
    alice: &LockManager,
    bob: &LockManager,
    write: impl AsyncFn(FencingToken, &'static str) -> Done,
) -> Done {
    let alices = alice.lock("report").ttl(Duration::from_millis(300)).await?;
    let early = fence_of(&alices)?;
    println!("alice holds the report, and is paused: nothing refreshes her lock");

    let bobs = bob.lock("report").ttl(Duration::from_secs(30)).await?;
    println!("bob was granted it when alice's TTL had run out");
    write(fence_of(&bobs)?, "bob's report").await?;

    // She woke up in the middle of her work, and does not look at her lock before she writes.
    match write(early, "alice's report").await {
        Ok(()) => println!("alice has overwritten what bob wrote!"),
        Err(refused) => println!("alice is refused: {refused}"),
    }
    println!("her lock says so, too: held = {}", alices.is_held());
    Ok(())
}

fn fence_of(lock: &Held) -> Result<FencingToken, Box<dyn Error>> {
    lock.fencing_token().ok_or_else(|| "this store hands out no fences".into())
}

async fn in_memory() -> Done {
    let locks = LockManager::builder().build()?;
    let report = std::sync::Mutex::new("");
    let guard = FenceGuard::<String>::new();
    let write = async |fence, text| Ok(guard.write("report", fence, || *report.lock().expect("not poisoned") = text)?);
    story(&locks, &locks, write).await?;
    println!("in the end there is {}", report.into_inner()?);
    Ok(())
}

#[cfg(feature = "redis")]
async fn in_redis(url: &str) -> Done {
    use leasehold::fence::RedisGuard;
    use leasehold::store::redis::RedisStore;

    // Two processes in real life.
    let alice = LockManager::builder().store(RedisStore::new(url)?).build_and_connect().await?;
    let bob = LockManager::builder().store(RedisStore::new(url)?).build_and_connect().await?;
    let connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let guard = RedisGuard::new().expire_after(Duration::from_secs(60)).forget_after(Duration::from_secs(3600));
    let write = async |fence, text| Ok(guard.set(&mut connection.clone(), "paused_holder:report", fence, text).await?);
    story(&alice, &bob, write).await?;
    let report: String = redis::cmd("GET").arg("paused_holder:report").query_async(&mut connection.clone()).await?;
    println!("in the end there is {report}");
    Ok(())
}

#[cfg(not(feature = "redis"))]
async fn in_redis(_: &str) -> Done {
    Err("REDIS_URL is set: build with --features redis, or unset it".into())
}
