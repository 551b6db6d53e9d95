//! Sessions over HTTP: opened, kept alive and ended by their ids.
//!
//! The id ends all locks of the session, so it is a capability: a random UUID that only the answer to the opening shows,
//! that comes in bodies alone, and that no URL, event, page or log line has. Where there are tokens it is of use only to
//! the one that opened the session.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::checks::checked_ttl;
use super::release::ReleaseAnswer;
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::number::Number;
use crate::http::problem::{Fault, Problem};
use crate::http::wire::{Text, session, whole_ms};
use crate::{LockError, Session};

/// What `POST /sessions` asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "name": "worker-7", "ttl_ms": 10000 }))]
pub(in crate::http) struct OpenSession<'a> {
    /// The owner of its locks, for people who look.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    pub(in crate::http) name: Text<'a>,
    /// How long it lives from now and from each heartbeat; the server's default is 30000.
    #[schema(value_type = Option<u64>, minimum = 10, maximum = 86_400_000)]
    pub(in crate::http) ttl_ms: Option<Number>,
}

/// What `POST /sessions/heartbeat` and `POST /sessions/end` ask for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "session": "7c9e6679-7425-40de-944b-e07fc1f90ae7" }))]
pub(in crate::http) struct NamedSession {
    /// The `id` that the opening answered with.
    #[serde(deserialize_with = "session")]
    #[schema(value_type = String, format = Uuid)]
    pub(in crate::http) session: Uuid,
}

/// A session that was opened.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "name": "worker-7", "ttl_ms": 10000, "remaining_ms": 9999,
}))]
pub(in crate::http) struct SessionOpened {
    /// Whoever has it (and the bearer token that opened the session, where there are tokens) may use and end the session:
    /// keep it as you keep a token.
    #[schema(format = Uuid)]
    pub(in crate::http) id: String,
    #[schema(value_type = String)]
    pub(in crate::http) name: Arc<str>,
    pub(in crate::http) ttl_ms: u64,
    pub(in crate::http) remaining_ms: u64,
}

/// A session that lives longer now, and all of its locks with it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "remaining_ms": 9999, "locks": 3 }))]
pub(in crate::http) struct SessionBeat {
    pub(in crate::http) remaining_ms: u64,
    /// How many locks it holds and waits for.
    pub(in crate::http) locks: usize,
}

/// Opens a session: an owner of several locks, which live and end together.
///
/// Ask for its locks with `session`. They need no heartbeats of their own; all of them end when the session does. A
/// request that would wait in a circle with other sessions is refused with `deadlock`.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions", operation_id = "open_session",
    request_body = OpenSession,
    responses((status = 200, description = "The session is open.", body = SessionOpened)),
)]
pub(in crate::http) async fn open(ctx: &RequestContext<'_>, bytes: &[u8]) -> HandlerResult {
    let body: OpenSession<'_> = body::parse(bytes)?;
    let ttl = body.ttl_ms.map(|ttl| checked_ttl(ttl, ctx.limits)).transpose()?;
    let session = match ttl {
        Some(ttl) => ctx.locks.session(&*body.name).ttl(ttl),
        None => ctx.locks.session(&*body.name),
    };
    let session = session.outlives_process();
    let kept = match ctx.caller.account() {
        Some(account) => session.register_for(account),
        None => session.register(),
    };
    kept.map_err(|why| match why {
        LockError::InvalidOption { option: "owner", why } => LockError::InvalidOption { option: "name", why },
        other => other,
    })?;
    Ok(body::answer(&SessionOpened {
        id: session.id().to_string(),
        name: session.name(),
        ttl_ms: whole_ms(session.lifetime()),
        remaining_ms: whole_ms(session.remaining()),
    }))
}

/// Has a session and all of its locks live for its TTL from now.
#[utoipa::path(
    post, path = "/sessions/heartbeat", tag = "sessions", operation_id = "heartbeat_session",
    request_body = NamedSession,
    responses((status = 200, description = "The session lives on.", body = SessionBeat)),
)]
pub(in crate::http) async fn heartbeat(ctx: &RequestContext<'_>, bytes: &[u8]) -> HandlerResult {
    let session = in_body(ctx, bytes)?;
    let remaining = session.heartbeat().await?;
    Ok(body::answer(&SessionBeat { remaining_ms: whole_ms(remaining), locks: session.locks() }))
}

/// Ends a session: its locks are released, and its queued requests refused, before this answers.
#[utoipa::path(
    post, path = "/sessions/end", tag = "sessions", operation_id = "end_session",
    request_body = NamedSession,
    responses((status = 200, description = "The session has ended, now or before.", body = ReleaseAnswer)),
)]
pub(in crate::http) async fn end(ctx: &RequestContext<'_>, bytes: &[u8]) -> HandlerResult {
    let session = in_body(ctx, bytes)?;
    Ok(body::answer(&ReleaseAnswer::try_from(session.end().await)?))
}

/// The session of an id, if it is the caller's.
pub(in crate::http) fn find(ctx: &RequestContext<'_>, id: Uuid) -> Result<Session, Problem> {
    ctx.locks.find_session_of(ctx.caller.account(), id).ok_or_else(|| Fault::UnknownSession.into())
}

fn in_body(ctx: &RequestContext<'_>, bytes: &[u8]) -> Result<Session, Problem> {
    let body: NamedSession = body::parse(bytes)?;
    find(ctx, body.session)
}
