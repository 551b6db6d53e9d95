//! The scenarios that people come with, each a route of one actix-web app on 127.0.0.1:3333.
//!
//! `cargo run --example scenarios --features http`; another address may follow as an argument, and how many
//! milliseconds the work takes (200). With `--features http,redis` and `REDIS_URL` set the locks are in that Redis
//! server, and hold between as many of these as you start.
//!
//! | route under /api/distributed-lock | what it shows |
//! |---|---|
//! | `/basic` | lock, work, unlock |
//! | `/order/{id}` | an order is processed once: 423 for a second submit while the first runs, 400 for one after it |
//! | `/cleanup` | a cron job that skips its turn when it runs elsewhere |
//! | `/user/{id}/operation` | each action of a user once at a time: 423 for a double submit; by GET what was done |
//! | `/account/{id}/statement` | one statement of an account at a time, by a middleware |
//! | `/cache/{name}` | one refresh of a cache entry for all who ask at once |
//! | `/check?key=` | who holds a key |
//! | `/concurrent-test?buyers=&stock=` | so many buyers at once, and a stock that never goes below zero |
//! | `DELETE /force-release?key=` | an operator takes a lock away |
//!
//! ```text
//! curl -X POST http://127.0.0.1:3333/api/distributed-lock/order/ORD-123
//! curl -X POST http://127.0.0.1:3333/api/distributed-lock/user/123/operation \
//!      -H 'content-type: application/json' -d '{"action":"update-profile","data":{"name":"John"}}'
//! ```
//!
//! Whatever is refused is answered in JSON, with a `code` for programs and a `detail` for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::rt::{task::yield_now, time::sleep};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Resource, Route, web};
use futures_util::future::join_all;
use leasehold::http::{LockedBy, Locks};
use leasehold::{Held, LockError, LockManager, Outcome, Release, operation_key, resource_key};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What stands in for a database: nothing in it protects itself from two who write at once.
#[derive(Default)]
struct World {
    processed: Mutex<BTreeSet<String>>,
    /// Of each user, in the order in which they were done.
    operations: Mutex<BTreeMap<String, Vec<Operation>>>,
    statements: AtomicU64,
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

/// A refusal in the form in which the library's own are (RFC 9457).
fn refusal(status: StatusCode, code: &str, detail: impl Display) -> HttpResponse {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "title": title, "status": status.as_u16(), "code": code, "detail": detail.to_string() });
    HttpResponse::build(status).content_type("application/problem+json").body(body.to_string())
}

/// The same for what actix-web itself refuses: a body that is no JSON, a parameter that is missing.
fn refused(why: impl Display + Debug + 'static) -> actix_web::Error {
    let answer = refusal(StatusCode::BAD_REQUEST, "invalid_request", &why);
    InternalError::from_response(why, answer).into()
}

async fn not_found(req: HttpRequest) -> HttpResponse {
    refusal(StatusCode::NOT_FOUND, "not_found", format_args!("there is no {} {}", req.method(), req.path()))
}

async fn method_not_allowed(req: HttpRequest) -> HttpResponse {
    let detail = format!("{} cannot be used with {}", req.method(), req.path());
    refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

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

/// Whoever submits twice at once hears 423; whoever comes later, 400 and why.
async fn order(locks: Locks, world: web::Data<World>, id: web::Path<String>) -> Answer {
    let lock = locks.try_lock(resource_key("order", &*id)).await?;
    // Looked at under the lock: before it, the other one may just be finishing.
    let is_processed = world.processed.lock().unwrap_or_else(PoisonError::into_inner).contains(&*id);
    let answer = if is_processed {
        let detail = format!("the order {id} was processed already");
        refusal(StatusCode::BAD_REQUEST, "already_processed", detail)
    } else {
        world.work().await;
        world.processed.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_string());
        HttpResponse::Ok().json(json!({ "order": *id, "status": "processed" }))
    };
    lock.unlock().await;
    Ok(answer)
}

/// Every server's cron calls this; one of them does it.
async fn cleanup(locks: Locks, world: web::Data<World>) -> Answer {
    let job = locks.try_run("cron:cleanup", async |_| world.work().await);
    let ran = matches!(job.await?, Outcome::Ran(_));
    Ok(HttpResponse::Ok().json(json!({ "status": if ran { "cleaned" } else { "skipped" } })))
}

/// What a user wants done.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    action: String,
    #[serde(default)]
    data: Value,
}

/// Each action of a user is done once at a time: a double click hears 423, another action goes on beside it.
async fn operation(
    locks: Locks,
    world: web::Data<World>,
    id: web::Path<String>,
    operation: web::Json<Operation>,
) -> Answer {
    let key = operation_key(&operation.action, &*id);
    let lock = locks.try_lock(key.as_str()).await?;
    world.work().await;
    let done = {
        let mut operations = world.operations.lock().unwrap_or_else(PoisonError::into_inner);
        let done = operations.entry(id.to_string()).or_default();
        done.push(operation.clone());
        done.len()
    };
    let fencing_token = fence(&lock);
    lock.unlock().await;
    let Operation { action, data } = operation.into_inner();
    Ok(HttpResponse::Ok().json(json!({
        "user": *id, "action": action, "data": data, "key": key, "operations": done, "fencing_token": fencing_token,
    })))
}

/// What was done for a user.
async fn operations(world: web::Data<World>, id: web::Path<String>) -> HttpResponse {
    let operations = world.operations.lock().unwrap_or_else(PoisonError::into_inner);
    let done = operations.get(&*id).cloned().unwrap_or_default();
    HttpResponse::Ok().json(json!({ "user": *id, "operations": done }))
}

/// Runs under the lock of its account: see where it is mounted.
async fn statement(world: web::Data<World>, held: web::ReqData<Held>, id: web::Path<String>) -> HttpResponse {
    world.work().await;
    let number = world.statements.fetch_add(1, Ordering::Relaxed) + 1;
    HttpResponse::Ok().json(json!({ "account": *id, "statement": number, "fencing_token": fence(&held) }))
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

/// A path, by these methods; others are answered in JSON.
fn resource(path: &str, routes: impl IntoIterator<Item = Route>) -> Resource {
    let resource = web::resource(path).default_service(web::to(method_not_allowed));
    routes.into_iter().fold(resource, Resource::route)
}

fn routes(cfg: &mut web::ServiceConfig) {
    let (get, post) = (web::get, web::post);
    // By GET as well, so that a browser's address bar will do to try them.
    cfg.service(resource("/basic", [post().to(basic), get().to(basic)]))
        .service(resource("/order/{id}", [post().to(order), get().to(order)]))
        .service(resource("/cleanup", [post().to(cleanup), get().to(cleanup)]))
        .service(resource("/user/{id}/operation", [post().to(operation), get().to(operations)]))
        .service(
            resource("/account/{id}/statement", [post().to(statement), get().to(statement)])
                .wrap(LockedBy::path("id").resource("account")),
        )
        .service(resource("/cache/{name}", [get().to(cache)]))
        .service(resource("/check", [get().to(check)]))
        .service(resource("/concurrent-test", [post().to(sale), get().to(sale)]))
        .service(resource("/force-release", [web::delete().to(force_release)]));
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
            .app_data(web::JsonConfig::default().error_handler(|why, _| refused(why)))
            .app_data(web::QueryConfig::default().error_handler(|why, _| refused(why)))
            .app_data(web::PathConfig::default().error_handler(|why, _| refused(why)))
            .service(web::scope("/api/distributed-lock").configure(routes))
            .default_service(web::to(not_found))
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
