//! `GET /metrics`: the text for Prometheus, where the host has an [`Exposition`] in its `app_data`.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::http::auth::Needs;
use crate::http::context::{HandlerResult, RequestContext, guarded};
use crate::http::host::shared;
use crate::http::problem::Fault;
use crate::http::{read, resource};
use crate::metrics::Exposition;

/// What Prometheus calls this format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Adds `GET /metrics` to a scope (or to an app), before [`configure`](crate::http::configure).
///
/// It needs a token that may read and is bound to no namespaces, unless there are none or [`open_stats`](crate::http::Access::open_stats) lets everybody
/// read totals: the text names no key and no owner.
pub fn configure_metrics(cfg: &mut web::ServiceConfig) {
    cfg.app_data(Scraped).service(resource("/metrics", "GET, HEAD").route(guarded(read(), Needs::Totals, scrape)));
}

/// That the routes beside these have `/metrics`, for their description.
pub(in crate::http) struct Scraped;

/// Tells how the locks, the requests and the process do, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operating", operation_id = "metrics",
    responses((
        status = 200, description = "The exposition, in text.", body = String, content_type = "text/plain",
        example = "leasehold_locks_held{manager=\"default\",mode=\"exclusive\"} 1\n",
    )),
)]
pub(in crate::http) async fn scrape(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    if !ctx.sees_all_totals() {
        return Err(Fault::Forbidden { why: "the metrics are of all keys, and the token is bound to some" }.into());
    }
    let Some(exposition) = shared::<Exposition>(req).cloned() else {
        return Err(Fault::NotFound.into());
    };
    // It looks at every shard, which would hold up the other requests of this thread.
    let text = web::block(move || exposition.render()).await;
    let text = text.map_err(|_| Fault::Internal { why: "the metrics broke off" })?;
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, TEXT)).body(text))
}
