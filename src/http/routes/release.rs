//! `POST /release`: ends a lock by its token.

use serde::Serialize;
use utoipa::ToSchema;

use super::checks::checked_mode;
use super::reclaim::{body_of_held_lock, fence_while_starting, take_back};
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::{Key, LockError, ReclaimProof, Release};

body_of_held_lock! {
    /// What `POST /release` asks for.
    #[schema(example = json!({ "key": "order:42", "token": "0f8fad5b-d9cb-469f-a165-70867728950e" }))]
    ReleaseBody<'a> {}
}

/// What became of a release, by token or by force, or of the end of a session.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "outcome": "released" }))]
pub(in crate::http) struct ReleaseAnswer {
    pub(in crate::http) outcome: ReleaseOutcome,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Outcome)]
pub(in crate::http) enum ReleaseOutcome {
    Released,
    /// There was nothing to release any more: it was done before, or time ran out.
    AlreadyGone,
}

impl TryFrom<Release> for ReleaseAnswer {
    type Error = LockError;

    /// S1: where the store did not answer, the outcome is not known, and the answer is an error.
    fn try_from(release: Release) -> Result<Self, LockError> {
        let outcome = match release {
            Release::Released => ReleaseOutcome::Released,
            Release::AlreadyGone => ReleaseOutcome::AlreadyGone,
            Release::Unknown => return Err(LockError::StoreUnavailable),
        };
        Ok(Self { outcome })
    }
}

/// Releases a lock by its token.
///
/// Done twice it does no harm. It is never refused for coming too often, and does not queue behind those who wait.
#[utoipa::path(
    post, path = "/release", tag = "locking", operation_id = "release",
    request_body = ReleaseBody,
    responses((status = 200, description = "The lock is not yours any more.", body = ReleaseAnswer)),
)]
pub(in crate::http) async fn release(ctx: &RequestContext<'_>, bytes: &[u8]) -> HandlerResult {
    let body: ReleaseBody<'_> = body::parse(bytes)?;
    let key = ctx.key(&body.key)?;
    let key = Key::try_from(key).map_err(LockError::from)?;
    // A job that ends before its first heartbeat after a restart has not lost its lock.
    let fence = fence_while_starting(ctx, body.fencing_token)?;
    let mode = checked_mode(body.mode, body.limit, body.permits)?;
    let mut release = ctx.locks.release(key.clone(), body.token).await;
    if let (Some(fence), Ok(Release::AlreadyGone) | Err(LockError::NotHeld)) = (fence, &release) {
        // It is charged to nobody: it ends at once.
        let proof = ReclaimProof { token: body.token, fence, mode, owner: None, account: None, ttl: None };
        if take_back(ctx, &key, proof).is_ok() {
            release = ctx.locks.release(key, body.token).await;
        }
    }
    let release = release?;
    Ok(body::answer(&ReleaseAnswer::try_from(release)?))
}
