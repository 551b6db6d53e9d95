//! The same locks over HTTP, to mount into any actix-web app; the `leasehold` binary is such an app.
//!
//! It sees only the crate's public face. A lock that is asked for over HTTP is a [`Ticket`](crate::Ticket): whoever
//! has its token refreshes and releases it, and nothing but a release, an operator or its deadline ends it.
//!
//! Host apps: build the manager once, outside the factory, and clone it in. Call
//! [`h1_allow_half_closed(false)`](actix_web::HttpServer::h1_allow_half_closed), or a waiter whose client has gone
//! keeps its place until its wait ends; leave out HTTP/2, whose handlers actix-web does not cancel at all. There is
//! no authorisation in these routes: whoever reaches them may force-release, so put a guard in front of the scope.
//!
//! ```no_run
//! # #[actix_web::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use actix_web::{App, HttpServer, web};
//!
//! let locks = leasehold::LockManager::builder().build()?;
//! HttpServer::new(move || {
//!     App::new().app_data(locks.clone()).service(web::scope("/locks").configure(leasehold::http::configure))
//! })
//! .h1_allow_half_closed(false)
//! .bind(("127.0.0.1", 8080))?
//! .run()
//! .await?;
//! # Ok(()) }
//! ```

mod body;
mod host;
mod limits;
mod millis;
mod presence;
mod problem;
mod query;
mod routes;
mod wire;

use std::future::ready;

use actix_web::{HttpResponse, Resource, Route, guard, web};

pub use limits::Limits;
use problem::{Fault, Problem};

/// Adds the routes to a scope (or to an app).
///
/// The manager comes from the host's `app_data`, as a [`LockManager`](crate::LockManager) or as `web::Data` of one;
/// [`Limits`] may stand beside it. Without a manager every route but `/healthz` answers 500 and logs why.
///
/// | route | what it does |
/// |---|---|
/// | `POST /acquire` | asks for a lock, and waits for it |
/// | `POST /release`, `POST /heartbeat` | by the token of the grant |
/// | `GET /locks?prefix=&limit=` | the held locks |
/// | `GET /locks/{key}`, `GET /locks?key=` | one of them, with its queue |
/// | `DELETE /locks/{key}`, `DELETE /locks?key=` | releases it by force |
/// | `GET /stats`, `GET /stats?key=` | totals, of all or of one key |
/// | `GET /healthz` | 200 for as long as the process lives |
///
/// Unknown routes below it answer `not_found` in the same shape as every other error; mounted straight into an app
/// that has routes of its own, this would be the app's answer too, so give it a scope there.
pub fn configure(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/acquire", "POST").route(web::post().to(routes::acquire)))
        .service(resource("/release", "POST").route(web::post().to(routes::release)))
        .service(resource("/heartbeat", "POST").route(web::post().to(routes::heartbeat)))
        .service(resource("/stats", "GET, HEAD").route(read().to(routes::stats)))
        .service(
            resource("/locks", "GET, HEAD, DELETE")
                .route(read().to(routes::locks))
                .route(web::delete().to(routes::force_release)),
        )
        .service(
            resource("/locks/{key}", "GET, HEAD, DELETE")
                .route(read().to(routes::lock))
                .route(web::delete().to(routes::force_release_in_path)),
        )
        .service(resource("/healthz", "GET, HEAD").route(read().to(routes::healthz)))
        .default_service(web::to(|| ready(refuse(Fault::NotFound))));
}

/// A path that answers every method it has no route for with 405.
fn resource(path: &str, allow: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move || ready(refuse(Fault::MethodNotAllowed { allow }))))
}

fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

fn refuse(fault: Fault) -> Result<HttpResponse, Problem> {
    Err(fault.into())
}
