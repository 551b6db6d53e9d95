//! Locks that are taken back from a server that has forgotten them, as one without a store does when it starts again.

use super::checks::invalid_option;
use crate::http::context::RequestContext;
use crate::http::number::Number;
use crate::http::problem::Problem;
use crate::{FencingToken, Key, LockError, ReclaimProof, Refreshed};

/// The fence by which a lock may be taken back now: while nothing is granted yet.
pub(super) fn fence_while_starting(
    ctx: &RequestContext,
    given: Option<Number>,
) -> Result<Option<FencingToken>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let fence = given.whole().and_then(|number| FencingToken::try_from(number).ok());
    let fence = fence.ok_or_else(|| invalid_option("fencing_token", "it must be a whole number from 1".to_owned()))?;
    Ok(ctx.limits.still_starting().map(|_| fence))
}

/// Takes a lock back from a server that has forgotten it. That another's was ended for it is written down: by token and
/// fence alone it cannot be told who made them up.
pub(super) fn take_back(ctx: &RequestContext, key: &Key, proof: ReclaimProof) -> Result<Refreshed, LockError> {
    let fence = proof.fence;
    let done = ctx.locks.reclaim(key.clone(), proof)?;
    let ended = done.ended;
    if ended > 0 {
        let (by, from, request_id) = (ctx.caller.name(), ctx.client_addr(), ctx.id.as_str());
        tracing::warn!(%key, by, %from, %fence, ended, request_id, "a lock was taken back from others with lower fences");
    }
    Ok(done.lock)
}
