//! Sessions over HTTP: opened, kept alive and ended by their ids.
//!
//! The id ends all locks of the session, so it is a capability: a random UUID that only the answer to the opening shows,
//! that comes in bodies alone, and that no URL, event, page or log line has. Where there are tokens it is of use only to
//! the one that opened the session.

use actix_web::web;
use uuid::Uuid;

use super::body;
use super::context::{Answer, RequestContext};
use super::problem::{Fault, Problem};
use super::routes::checked_ttl;
use super::wire::{self, whole_ms};
use crate::{LockError, Session};

/// Opens a session: an owner of several locks, which live and end together.
///
/// Ask for its locks with `session`. They need no heartbeats of their own; all of them end when the session does. A
/// request that would wait in a circle with other sessions is refused with `deadlock`.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions", operation_id = "open_session",
    request_body = wire::OpenSession,
    responses((status = 200, description = "The session is open.", body = wire::SessionOpened)),
)]
pub(super) async fn open(call: &RequestContext, payload: web::Payload) -> Answer {
    let text = body::read(&call.req, payload, call.limits).await?;
    let ask: wire::OpenSession<'_> = body::parse(&text)?;
    let ttl = ask.ttl_ms.map(|ttl| checked_ttl(ttl, call.limits)).transpose()?;
    let session = match ttl {
        Some(ttl) => call.locks.session(&*ask.name).ttl(ttl),
        None => call.locks.session(&*ask.name),
    };
    let kept = match call.caller.account() {
        Some(account) => session.register_for(account),
        None => session.register(),
    };
    kept.map_err(|why| match why {
        LockError::InvalidOption { option: "owner", why } => LockError::InvalidOption { option: "name", why },
        other => other,
    })?;
    Ok(body::answer(&wire::SessionOpened {
        id: session.id().to_string(),
        name: session.name(),
        ttl_ms: whole_ms(session.lifetime()),
        remaining_ms: whole_ms(session.remaining()),
    }))
}

/// Has a session and all of its locks live for its TTL from now.
#[utoipa::path(
    post, path = "/sessions/heartbeat", tag = "sessions", operation_id = "heartbeat_session",
    request_body = wire::NamedSession,
    responses((status = 200, description = "The session lives on.", body = wire::SessionBeat)),
)]
pub(super) async fn heartbeat(call: &RequestContext, payload: web::Payload) -> Answer {
    let session = in_body(call, payload).await?;
    let remaining = session.heartbeat().await?;
    Ok(body::answer(&wire::SessionBeat { remaining_ms: whole_ms(remaining), locks: session.locks() }))
}

/// Ends a session: its locks are released, and its queued requests refused, before this answers.
#[utoipa::path(
    post, path = "/sessions/end", tag = "sessions", operation_id = "end_session",
    request_body = wire::NamedSession,
    responses((status = 200, description = "The session has ended, now or before.", body = wire::ReleaseAnswer)),
)]
pub(super) async fn end(call: &RequestContext, payload: web::Payload) -> Answer {
    let session = in_body(call, payload).await?;
    Ok(body::answer(&wire::ReleaseAnswer::try_from(session.end().await)?))
}

/// The session of an id, if it is the caller's.
pub(super) fn find(call: &RequestContext, id: Uuid) -> Result<Session, Problem> {
    call.locks.find_session_of(call.caller.account(), id).ok_or_else(|| Fault::UnknownSession.into())
}

async fn in_body(call: &RequestContext, payload: web::Payload) -> Result<Session, Problem> {
    let text = body::read(&call.req, payload, call.limits).await?;
    let ask: wire::NamedSession = body::parse(&text)?;
    find(call, ask.session)
}
