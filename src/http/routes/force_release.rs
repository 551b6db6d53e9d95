//! `DELETE /locks`, `DELETE /locks/{key}`: releases by force.

use actix_web::HttpRequest;

use super::release::ReleaseAnswer;
use crate::Release;
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::problem::Fault;
use crate::http::query::{invalid, key_in_path, parameters};

/// Releases by force whatever holds a key.
///
/// The holder may still be at work: only the fencing token keeps it from the resource then. It is logged.
#[utoipa::path(
    delete, path = "/locks", tag = "operating", operation_id = "force_release",
    params(("key" = String, Query, min_length = 1, max_length = 256)),
    responses((status = 200, description = "The key is free, or the next waiter's.", body = ReleaseAnswer)),
)]
pub(in crate::http) async fn force_release(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    let [key] = parameters(req, ["key"])?;
    let key = key.ok_or_else(|| invalid("name the lock to release, as `key`"))?;
    force(ctx, &key).await
}

/// Releases by force whatever holds a key, for keys without `/`.
#[utoipa::path(
    delete, path = "/locks/{key}", tag = "operating", operation_id = "force_release_in_path",
    params(("key" = String, Path, min_length = 1, max_length = 256, description = "A `/` in it is written as `%2F`.")),
    responses((status = 200, description = "The key is free, or the next waiter's.", body = ReleaseAnswer)),
)]
pub(in crate::http) async fn force_release_in_path(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    let [] = parameters(req, [])?;
    force(ctx, &key_in_path(req)?).await
}

async fn force(ctx: &RequestContext<'_>, key: &str) -> HandlerResult {
    let release = ctx.locks.force_release(ctx.key(key)?).await?;
    if release == Release::AlreadyGone {
        return Err(Fault::NotLocked.into());
    }
    let (by, from, request_id) = (ctx.caller.name(), ctx.client_addr(), ctx.request_id());
    tracing::warn!(key, by, %from, request_id, "a lock was released by force");
    Ok(body::answer(&ReleaseAnswer::try_from(release)?))
}
