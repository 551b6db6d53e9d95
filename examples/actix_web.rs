//! An actix-web app that lets nobody pay for the same order twice at once.
//!
//! `cargo run --example actix_web --features http`

use std::time::Duration;

use actix_web::rt::time::sleep;
use actix_web::{App, HttpResponse, HttpServer, post, web};
use leasehold::http::Locks;
use leasehold::{LockError, LockManager};
use serde_json::json;

/// 423 if another request is paying for this order now; every other error has its status too.
#[post("/orders/{id}/pay")]
async fn pay(locks: Locks, id: web::Path<u64>) -> Result<HttpResponse, LockError> {
    let lock = locks.try_lock(format!("order:{id}")).await?;
    // The work. Whatever it writes to should refuse a fencing token lower than the highest it has seen.
    sleep(Duration::from_millis(200)).await;
    Ok(HttpResponse::Ok().json(json!({
        "paid": *id,
        "fencing_token": lock.fencing_token().map(|fence| fence.get()),
        "released": format!("{:?}", lock.unlock().await),
    })))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Once, outside the factory, which runs once per worker: two managers do not know of each other's locks.
    let locks = LockManager::builder().build()?;
    let shared = locks.clone();

    let server = HttpServer::new(move || {
        App::new()
            .app_data(shared.clone())
            .service(pay)
            // The lock server's own routes, beside yours. Guard them: they may release by force.
            .service(web::scope("/locks").configure(leasehold::http::configure))
    })
    .h1_allow_half_closed(false) // a waiter whose client has gone leaves the queue
    .bind(("127.0.0.1", 8080))?;

    println!("one of these two is paid, the other is told that it is busy:");
    println!("  curl -X POST http://127.0.0.1:8080/orders/42/pay & curl -X POST http://127.0.0.1:8080/orders/42/pay");
    println!("what is locked just now:");
    println!("  curl http://127.0.0.1:8080/locks/locks");
    server.run().await?;
    locks.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
