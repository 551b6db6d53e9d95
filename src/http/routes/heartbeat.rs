//! `POST /heartbeat`: moves the deadline of a lock by its token.

use serde::Serialize;
use utoipa::ToSchema;

use super::checks::{checked_mode, checked_ttl};
use super::reclaim::{body_of_held_lock, fence_while_starting, take_back};
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::number::Number;
use crate::http::wire::{Text, whole_ms};
use crate::{Key, LockError, Loss, ReclaimProof};

body_of_held_lock! {
    /// What `POST /heartbeat` asks for.
    #[schema(example = json!({ "key": "order:42", "token": "0f8fad5b-d9cb-469f-a165-70867728950e", "ttl_ms": 30000 }))]
    #[schema(as = Heartbeat)]
    HeartbeatBody<'a> {
        /// From now on; the TTL of the acquire if it is left out, or 30000 where another server granted the lock. A
        /// deadline is never moved back.
        #[schema(value_type = Option<u64>, minimum = 10, maximum = 86_400_000)]
        pub(in crate::http) ttl_ms: Option<Number>,
        #[serde(borrow)]
        #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
        pub(in crate::http) owner: Option<Text<'a>>,
    }
}

/// A lock that lasts longer now.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "remaining_ms": 29999, "refresh_count": 1 }))]
pub(in crate::http) struct HeartbeatAnswer {
    pub(in crate::http) remaining_ms: u64,
    /// 0 where another server granted the lock.
    pub(in crate::http) refresh_count: u32,
}

/// Moves the deadline of a lock, by its token.
#[utoipa::path(
    post, path = "/heartbeat", tag = "locking", operation_id = "heartbeat",
    request_body = HeartbeatBody,
    responses((status = 200, description = "The lock lasts longer now.", body = HeartbeatAnswer)),
)]
pub(in crate::http) async fn heartbeat(ctx: &RequestContext<'_>, bytes: &[u8]) -> HandlerResult {
    let body: HeartbeatBody<'_> = body::parse(bytes)?;
    let key = ctx.key(&body.key)?;
    let ttl = body.ttl_ms.map(|ttl| checked_ttl(ttl, ctx.limits)).transpose()?;
    let key = Key::try_from(key).map_err(LockError::from)?;
    let fence = fence_while_starting(ctx, body.fencing_token)?;
    let mode = checked_mode(body.mode, body.limit, body.permits)?;
    let refreshed = match ctx.locks.refresh(key.clone(), body.token, ttl).await {
        // It ended with this server, and may go on in the next one: over a store, in a directory, or taken back.
        Err(LockError::Lost(Loss::ShutDown)) => Err(LockError::ShuttingDown),
        refreshed => refreshed,
    };
    let done = match (refreshed, fence) {
        (Err(why @ (LockError::Lost(_) | LockError::NotHeld)), Some(fence)) => {
            let owner = body.owner.as_deref().map(Into::into);
            let account = ctx.caller.account().cloned();
            let proof = ReclaimProof { token: body.token, fence, mode, owner, account, ttl };
            take_back(ctx, &key, proof).map_err(|refusal| match refusal {
                // Not that it is lost: there may be room before its time is over.
                LockError::LockQuota => refusal,
                _ => why,
            })?
        }
        (done, _) => done?,
    };
    Ok(body::answer(&HeartbeatAnswer { remaining_ms: whole_ms(done.remaining), refresh_count: done.count }))
}
