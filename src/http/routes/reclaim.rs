//! Locks that are taken back from a server that has forgotten them, as one without a store does when it starts again.

use super::checks::invalid_option;
use crate::http::context::RequestContext;
use crate::http::number::Number;
use crate::http::problem::Problem;
use crate::{FencingToken, Key, LockError, ReclaimProof, Refreshed};

/// Declares the body of a request about a lock that is held: a struct with the fields that such bodies have in common, and
/// its own.
macro_rules! body_of_held_lock {
    ($(#[$meta:meta])* $name:ident<'a> { $($own:tt)* }) => {
        #[derive(serde::Deserialize, utoipa::ToSchema)]
        $(#[$meta])*
        #[serde(deny_unknown_fields)]
        pub(in crate::http) struct $name<'a> {
            #[serde(borrow)]
            #[schema(value_type = String, min_length = 1, max_length = 256)]
            pub(in crate::http) key: $crate::http::wire::Text<'a>,
            /// The token that the acquire answered with.
            #[serde(deserialize_with = "crate::http::wire::token")]
            #[schema(value_type = String, format = Uuid)]
            pub(in crate::http) token: $crate::Token,
            /// That of the grant. While a server without a store starts (`--start-delay`), the lock is taken back with it:
            /// the server has forgotten it, and nobody else can have had it. Of two who cannot hold a key together the
            /// higher number stays, and a number that was made up cannot be told from a true one. Send it always, with
            /// `owner`, `mode`, `limit` and `permits` as they were at the acquire; else they are not looked at.
            #[schema(value_type = Option<u64>, minimum = 1)]
            pub(in crate::http) fencing_token: Option<$crate::http::number::Number>,
            #[serde(default)]
            #[schema(value_type = Option<$crate::http::wire::ModeName>)]
            pub(in crate::http) mode: $crate::http::wire::ModeName,
            #[schema(value_type = Option<u32>, minimum = 1)]
            pub(in crate::http) limit: Option<$crate::http::number::Number>,
            #[schema(value_type = Option<u32>, minimum = 1)]
            pub(in crate::http) permits: Option<$crate::http::number::Number>,
            $($own)*
        }
    };
}
pub(super) use body_of_held_lock;

/// The fence by which a lock may be taken back now: while nothing is granted yet.
pub(super) fn fence_while_starting(
    ctx: &RequestContext<'_>,
    given: Option<Number>,
) -> Result<Option<FencingToken>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let fence = given.whole().and_then(|number| FencingToken::try_from(number).ok());
    let fence = fence.ok_or_else(|| invalid_option("fencing_token", "it must be a whole number from 1".to_owned()))?;
    Ok(ctx.limits.still_starting().map(|_| fence))
}

/// Takes a lock back from a server that has forgotten it. That another's was ended for it is written down: by token and
/// fence alone it cannot be told who made them up.
pub(super) fn take_back(ctx: &RequestContext<'_>, key: &Key, proof: ReclaimProof) -> Result<Refreshed, LockError> {
    let fence = proof.fence;
    let done = ctx.locks.reclaim(key.clone(), proof)?;
    let ended = done.ended;
    if ended > 0 {
        let (by, from, request_id) = (ctx.caller.name(), ctx.client_addr(), ctx.request_id());
        tracing::warn!(%key, by, %from, %fence, ended, request_id, "a lock was taken back from others with lower fences");
    }
    Ok(done.lock)
}
