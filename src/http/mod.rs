//! The same locks over HTTP, to mount into any actix-web app; the `leasehold` binary is such an app.
//!
//! It sees only the crate's public face. A lock that is asked for over HTTP is a [`Ticket`](crate::Ticket): whoever
//! has its token refreshes and releases it, and nothing but a release, an operator or its deadline ends it.
//!
//! Several servers over one store share its locks, and nothing else. A token is one lock through all of them, and through
//! one that was started anew: any server refreshes and releases it. What one of them extends or
//! releases, the others find out before the end that they know of, or when they are asked for it; until then they
//! list it as they last knew it. A request that is given up gives its token up everywhere.
//!
//! Host apps: build the manager once, outside the factory, and clone it in. Call
//! [`h1_allow_half_closed(false)`](actix_web::HttpServer::h1_allow_half_closed), or a waiter whose client has gone
//! keeps its place until its wait ends; leave out HTTP/2, whose handlers actix-web does not cancel at all. Without an
//! [`Access`] in `app_data` whoever reaches the routes by the server's address may do everything, release by force
//! included; to be reached by a name it needs [`Access::allow_hosts`], lest web pages of other sites use it.
//!
//! [`keep_history`](crate::LockManager::keep_history), called once, has the charts of the status page filled at the first look.
//!
//! Your own handlers take the manager as [`Locks`]; [`LockedBy`] runs a whole route under a lock.
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

mod arrival;
mod auth;
mod body;
mod context;
mod direct;
mod extractor;
mod host;
mod limits;
mod middleware;
mod number;
mod openapi;
mod page;
mod problem;
mod query;
mod routes;
mod status;
mod wire;

use actix_web::{Resource, Route, guard, web};
use auth::Needs;
pub use auth::{Access, AccessError, Quotas, ReloadableAccess};
use context::{guarded, open, presented, reading};
pub use direct::{DirectCall, DirectCalls};
pub use extractor::Locks;
pub use limits::Limits;
pub use middleware::{LockedBy, Locking};
use openapi::docs;
use problem::Fault;
#[cfg(feature = "prometheus")]
#[cfg_attr(docsrs, doc(cfg(feature = "prometheus")))]
pub use routes::metrics::configure_metrics;
use routes::{
    acquire, events, force_release, health, heartbeat, history, locks, release, server, session_list, sessions, stats,
    whoami,
};

/// Adds the routes to a scope (or to an app).
///
/// The manager comes from the host's `app_data`, as a [`LockManager`](crate::LockManager) or as `web::Data` of one;
/// [`Limits`] and [`Access`] may stand beside it. Without a manager the routes answer 500 and log why.
///
/// | route | what it does |
/// |---|---|
/// | `POST /acquire` | asks for a lock, and waits for it |
/// | `POST /release`, `POST /heartbeat` | by the token of the grant |
/// | `POST /sessions`, `POST /sessions/heartbeat`, `POST /sessions/end` | owners of several locks |
/// | `GET /sessions?limit=` | the open sessions |
/// | `GET /locks?prefix=&limit=&sort=&cursor=` | the held locks, page by page |
/// | `GET /locks/{key}`, `GET /locks?key=` | one of them, with its queue |
/// | `DELETE /locks/{key}`, `DELETE /locks?key=` | releases it by force |
/// | `GET /stats`, `GET /stats?key=` | totals, of all or of one key |
/// | `GET /history` | the totals of the last ten minutes, in steps of two seconds |
/// | `GET /events?prefix=` | what happens to locks, as server-sent events |
/// | `GET /server` | version, uptime, how the store and each of its servers answer |
/// | `GET /whoami` | whom the server takes the caller for |
/// | `GET /healthz` | 200 for as long as the process lives |
/// | `GET /readyz` | 200 while requests are welcome |
/// | `GET /openapi.json`, `GET /docs` | all of this for machines, and for people |
/// | `GET /` | the status page: locks, queues, sessions and events as they are, charts, release by force |
///
/// Every answer names its request in `x-request-id`, by the client's own name if it sent one. At log level debug each
/// request has a line with it.
///
/// Unknown routes below it answer `not_found` in the same shape as every other error; mounted straight into an app
/// that has routes of its own, this would be the app's answer too, so give it a scope there.
pub fn configure(cfg: &mut web::ServiceConfig) {
    locking(cfg);
    looking(cfg);
    describing(cfg);
    cfg.default_service(open(web::route(), |_| Err(Fault::NotFound.into())));
}

fn locking(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/acquire", "POST").route(reading(web::post(), Needs::Acquire, acquire::acquire)))
        .service(resource("/release", "POST").route(reading(web::post(), Needs::GiveBack, release::release)))
        .service(resource("/heartbeat", "POST").route(reading(web::post(), Needs::GiveBack, heartbeat::heartbeat)))
        .service(
            resource("/sessions", "GET, HEAD, POST")
                .route(reading(web::post(), Needs::Acquire, sessions::open))
                .route(guarded(read(), Needs::Read, session_list::list)),
        )
        .service(resource("/sessions/heartbeat", "POST").route(reading(
            web::post(),
            Needs::GiveBack,
            sessions::heartbeat,
        )))
        .service(resource("/sessions/end", "POST").route(reading(web::post(), Needs::GiveBack, sessions::end)));
}

fn looking(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/stats", "GET, HEAD").route(guarded(read(), Needs::Totals, stats::stats)))
        .service(resource("/history", "GET, HEAD").route(guarded(read(), Needs::Totals, history::history)))
        .service(
            resource("/locks", "GET, HEAD, DELETE").route(guarded(read(), Needs::Read, locks::locks)).route(guarded(
                web::delete(),
                Needs::Force,
                force_release::force_release,
            )),
        )
        .service(
            resource("/locks/{key}", "GET, HEAD, DELETE")
                .route(guarded(read(), Needs::Read, locks::lock))
                .route(guarded(web::delete(), Needs::Force, force_release::force_release_in_path)),
        )
        .service(resource("/events", "GET").route(guarded(web::get(), Needs::Read, events::events)))
        .service(resource("/server", "GET, HEAD").route(guarded(read(), Needs::Read, server::server)))
        .service(resource("/whoami", "GET, HEAD").route(guarded(read(), Needs::Name, whoami::whoami)))
        .service(resource("/readyz", "GET, HEAD").route(guarded(read(), Needs::Nothing, health::readyz)))
        .service(resource("/healthz", "GET, HEAD").route(open(read(), health::healthz)));
}

fn describing(cfg: &mut web::ServiceConfig) {
    cfg.service(resource("/openapi.json", "GET, HEAD").route(presented(read(), openapi::document)))
        .service(resource("/docs", "GET, HEAD").route(presented(read(), docs::page)))
        .service(resource("", "GET, HEAD").route(presented(read(), page::page_beside)))
        .service(resource("/", "GET, HEAD").route(presented(read(), page::page)))
        .service(resource("/page/{file}", "GET, HEAD").route(presented(read(), page::file)))
        .service(resource("/docs/style.css", "GET, HEAD").route(presented(read(), docs::style)));
}

/// A path that answers every method it has no route for with 405.
fn resource(path: &str, allow: &'static str) -> Resource {
    let refuse = move |_: &_| Err(Fault::MethodNotAllowed { allow }.into());
    web::resource(path).default_service(open(web::route(), refuse))
}

fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}
