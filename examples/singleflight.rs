//! A hundred requests for the same price, one look-up.
//!
//! `cargo run --example singleflight`

use std::future::IntoFuture;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use leasehold::LockManager;

#[actix_rt::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let locks = LockManager::builder().build()?;
    let lookups = AtomicU32::new(0);

    let price = || {
        locks.singleflight("price:42", || async {
            lookups.fetch_add(1, Ordering::Relaxed);
            actix_rt::time::sleep(Duration::from_millis(50)).await; // the slow thing
            1_999_u32
        })
    };
    let prices = join_all((0..100).map(|_| price().into_future())).await.into_iter().collect::<Result<Vec<_>, _>>()?;

    println!("{} answers, all {}, from {} look-up", prices.len(), prices[0], lookups.load(Ordering::Relaxed));
    let stats = locks.stats();
    println!("{} led, {} shared", stats.flights_led, stats.flights_shared);
    Ok(())
}
