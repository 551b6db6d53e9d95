//! The scenarios that people come with, each a route of one actix-web app on 127.0.0.1:3333.
//!
//! `cargo run --example scenarios --features http`; another address may follow as an argument, and how many
//! milliseconds the work takes (200). With `--features http,redis` and `REDIS_URL` set the locks are in that Redis
//! server, and hold between as many of these as you start.
//!
//! | route under /api/distributed-lock | what it shows |
//! |---|---|
//! | `/basic` | lock, work, unlock |
//! | `/order/{id}` | an order is processed once; 423 for a second submit while the first runs |
//! | `/cleanup` | a cron job that skips its turn when it runs elsewhere |
//! | `/user/{id}/operation` | one operation of a user at a time, by a middleware |
//! | `/cache/{name}` | one refresh of a cache entry for all who ask at once |
//! | `/check?key=` | who holds a key |
//! | `/concurrent-test?buyers=&stock=` | so many buyers at once, and a stock that never goes below zero |
//! | `DELETE /force-release?key=` | an operator takes a lock away |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::rt::{task::yield_now, time::sleep};
use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::future::join_all;
use leasehold::http::{LockedBy, Locks};
use leasehold::{Held, LockError, LockManager, Outcome, Release, resource_key};
use serde::Deserialize;
use serde_json::json;

/// What stands in for a database: nothing in it protects itself from two who write at once.
#[derive(Default)]
struct World {
    processed: Mutex<BTreeSet<u64>>,
    operations: Mutex<BTreeMap<String, u64>>,
    stock: AtomicI64,
    refreshes: AtomicU64,
    work: Duration,
}

impl World {
    /// What takes its time.
    fn work(&self) -> impl Future<Output = ()> + use<> {
        sleep(self.work)
    }
}

type Answer = Result<HttpResponse, LockError>;

fn fence(held: &Held) -> Option<u64> {
    held.fencing_token().map(|fence| fence.get())
}

async fn basic(locks: Locks, world: web::Data<World>) -> Answer {
    let lock = locks.lock("demo:basic").ttl(Duration::from_secs(10)).wait(Duration::from_secs(5)).await?;
    let fencing_token = fence(&lock);
    world.work().await;
    let released = lock.unlock().await == Release::Released;
    Ok(HttpResponse::Ok().json(json!({ "done": true, "fencing_token": fencing_token, "released": released })))
}

/// Whoever submits twice at once hears 423; whoever comes later, that it is done.
async fn order(locks: Locks, world: web::Data<World>, id: web::Path<u64>) -> Answer {
    let lock = locks.try_lock(resource_key("order", *id)).await?;
    // Looked at under the lock: before it, the other one may just be finishing.
    let is_processed = world.processed.lock().unwrap_or_else(PoisonError::into_inner).contains(&id);
    let status = if is_processed {
        "already_processed"
    } else {
        world.work().await;
        world.processed.lock().unwrap_or_else(PoisonError::into_inner).insert(*id);
        "processed"
    };
    lock.unlock().await;
    Ok(HttpResponse::Ok().json(json!({ "order": *id, "status": status })))
}

/// Every server's cron calls this; one of them does it.
async fn cleanup(locks: Locks, world: web::Data<World>) -> Answer {
    let job = locks.try_run("cron:cleanup", async |_| world.work().await);
    let ran = matches!(job.await?, Outcome::Ran(_));
    Ok(HttpResponse::Ok().json(json!({ "status": if ran { "cleaned" } else { "skipped" } })))
}

/// Runs under the lock of its user: see where it is mounted.
async fn operation(world: web::Data<World>, held: web::ReqData<Held>, id: web::Path<String>) -> HttpResponse {
    let count = |world: &World| {
        let mut operations = world.operations.lock().unwrap_or_else(PoisonError::into_inner);
        *operations.entry(id.to_string()).and_modify(|count| *count += 1).or_insert(1)
    };
    world.work().await;
    HttpResponse::Ok().json(json!({ "user": *id, "operations": count(&world), "fencing_token": fence(&held) }))
}

/// A hundred who miss the same entry cause one refresh.
async fn cache(locks: Locks, world: web::Data<World>, name: web::Path<String>) -> Answer {
    let refresh = async || {
        world.work().await;
        world.refreshes.fetch_add(1, Ordering::Relaxed) + 1
    };
    let version = locks.singleflight(resource_key("cache", &name), refresh).await?;
    Ok(HttpResponse::Ok().json(json!({ "entry": *name, "version": version })))
}

#[derive(Deserialize)]
struct ByKey {
    key: String,
}

async fn check(locks: Locks, asked: web::Query<ByKey>) -> Answer {
    // Another process may hold it, where there is a store: that one is asked as well.
    let info = locks.inspect(&asked.key).await?;
    Ok(HttpResponse::Ok().json(json!({
        "key": asked.key,
        "locked": info.is_some(),
        "owner": info.as_ref().and_then(|info| info.owner.as_deref()),
        "remaining_ms": info.as_ref().map(|info| info.remaining.as_millis() as u64),
        "waiting": info.as_ref().map_or(0, |info| info.waiting),
    })))
}

#[derive(Deserialize)]
struct Sale {
    #[serde(default = "a_hundred")]
    buyers: usize,
    #[serde(default = "thirty")]
    stock: i64,
}

fn a_hundred() -> usize {
    100
}

fn thirty() -> i64 {
    30
}

/// Reads, thinks, writes: without the lock most buyers would find the same piece.
async fn sale(locks: Locks, world: web::Data<World>, sale: web::Query<Sale>) -> Answer {
    let _one_sale = locks.lock("demo:sale").wait(Duration::from_secs(30)).await?;
    world.stock.store(sale.stock, Ordering::Relaxed);
    let lowest = AtomicI64::new(sale.stock);
    let buy = async || -> Result<bool, LockError> {
        let lock = locks.lock(resource_key("stock", "concert")).wait(Duration::from_secs(30)).await?;
        let left = world.stock.load(Ordering::Relaxed);
        yield_now().await;
        let is_sold = left > 0;
        if is_sold {
            world.stock.store(left - 1, Ordering::Relaxed);
            lowest.fetch_min(left - 1, Ordering::Relaxed);
        }
        lock.unlock().await;
        Ok(is_sold)
    };
    let bought = join_all((0..sale.buyers.min(1000)).map(|_| buy())).await;
    let sold = bought.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().filter(|sold| *sold).count();
    let stock = world.stock.load(Ordering::Relaxed);
    let lowest = lowest.into_inner();
    Ok(HttpResponse::Ok().json(json!({ "buyers": sale.buyers, "sold": sold, "stock": stock, "lowest": lowest })))
}

async fn force_release(locks: Locks, asked: web::Query<ByKey>) -> Answer {
    let released = locks.force_release(&asked.key).await? == Release::Released;
    Ok(HttpResponse::Ok().json(json!({ "key": asked.key, "released": released })))
}

fn routes(cfg: &mut web::ServiceConfig) {
    let by_user = LockedBy::path("id").resource("user");
    // By GET as well, so that a browser's address bar will do to try them.
    cfg.service(web::resource("/basic").route(web::post().to(basic)).route(web::get().to(basic)))
        .service(web::resource("/order/{id}").route(web::post().to(order)).route(web::get().to(order)))
        .service(web::resource("/cleanup").route(web::post().to(cleanup)).route(web::get().to(cleanup)))
        .service(
            web::resource("/user/{id}/operation")
                .wrap(by_user)
                .route(web::post().to(operation))
                .route(web::get().to(operation)),
        )
        .service(web::resource("/cache/{name}").route(web::get().to(cache)))
        .service(web::resource("/check").route(web::get().to(check)))
        .service(web::resource("/concurrent-test").route(web::post().to(sale)).route(web::get().to(sale)))
        .service(web::resource("/force-release").route(web::delete().to(force_release)));
}

async fn manager() -> Result<LockManager, Box<dyn std::error::Error>> {
    #[cfg(feature = "redis")]
    if let Ok(url) = std::env::var("REDIS_URL") {
        let store = leasehold::store::redis::RedisStore::new(url.as_str())?;
        return Ok(LockManager::builder().store(store).build_and_connect().await?);
    }
    Ok(LockManager::builder().build()?)
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Once, outside the factory, which runs once per worker: two managers do not know of each other's locks.
    let locks = manager().await?;
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3333".to_owned());
    let work = Duration::from_millis(arguments.next().map_or(Ok(200), |millis| millis.parse())?);
    let (shared, world) = (locks.clone(), web::Data::new(World { work, ..World::default() }));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .app_data(world.clone())
            .service(web::scope("/api/distributed-lock").configure(routes))
    })
    .h1_allow_half_closed(false) // a waiter whose client has gone leaves the queue
    .bind(address)?;
    for address in server.addrs() {
        println!("listening on http://{address}/api/distributed-lock");
    }
    server.run().await?;
    locks.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
