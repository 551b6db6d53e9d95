//! Sessions over HTTP: opened, kept alive and ended by their ids.
//!
//! The routes have the id in the URL. It ends all locks of the session, so it is a capability: a random UUID that only
//! the answer to the opening shows, and that no other answer, event, page or log line of ours does.

use std::str::FromStr;

use actix_web::{HttpRequest, web};
use uuid::Uuid;

use super::body;
use super::call::{Answer, Call};
use super::problem::{Fault, Problem};
use super::query::parameters;
use super::routes::checked_ttl;
use super::wire::{self, whole_ms};
use crate::{LockError, LockManager, Session};

/// Opens a session: an owner of several locks, which live and end together.
///
/// Ask for its locks with `session`. They need no heartbeats of their own; all of them end when the session does. A
/// request that would wait in a circle with other sessions is refused with `deadlock`.
#[utoipa::path(
    post, path = "/sessions", tag = "sessions", operation_id = "open_session",
    request_body = wire::OpenSession,
    responses((status = 200, description = "The session is open.", body = wire::SessionOpened)),
)]
pub(super) async fn open(call: &Call, payload: web::Payload) -> Answer {
    let text = body::read(&call.req, payload, call.limits).await?;
    let ask: wire::OpenSession<'_> = body::parse(&text)?;
    let ttl = ask.ttl_ms.map(|ttl| checked_ttl(ttl, call.limits)).transpose()?;
    let session = match ttl {
        Some(ttl) => call.locks.session(&*ask.name).ttl(ttl),
        None => call.locks.session(&*ask.name),
    };
    session.keep().map_err(|why| match why {
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
    post, path = "/sessions/{id}/heartbeat", tag = "sessions", operation_id = "heartbeat_session",
    params(("id" = String, Path, format = Uuid, description = "The session's id.")),
    responses((status = 200, description = "The session lives on.", body = wire::SessionBeat)),
)]
pub(super) async fn heartbeat(call: &Call, _: web::Payload) -> Answer {
    let [] = parameters(&call.req, [])?;
    let session = in_path(&call.locks, &call.req)?;
    let remaining = session.heartbeat().await?;
    Ok(body::answer(&wire::SessionBeat { remaining_ms: whole_ms(remaining), locks: session.locks() }))
}

/// Ends a session: its locks are released, and its queued requests refused, before this answers.
#[utoipa::path(
    delete, path = "/sessions/{id}", tag = "sessions", operation_id = "end_session",
    params(("id" = String, Path, format = Uuid, description = "The session's id.")),
    responses((status = 200, description = "The session has ended, now or before.", body = wire::ReleaseAnswer)),
)]
pub(super) async fn end(call: &Call, _: web::Payload) -> Answer {
    let [] = parameters(&call.req, [])?;
    let session = in_path(&call.locks, &call.req)?;
    Ok(body::answer(&wire::ReleaseAnswer::from(session.end().await)))
}

/// The session of an id.
pub(super) fn find(locks: &LockManager, id: Uuid) -> Result<Session, Problem> {
    locks.find_session(id).ok_or_else(|| Fault::UnknownSession.into())
}

fn in_path(locks: &LockManager, req: &HttpRequest) -> Result<Session, Problem> {
    let id = req.match_info().get("id").unwrap_or_default();
    // What is no id at all is not the id of any session.
    find(locks, Uuid::from_str(id).map_err(|_| Fault::UnknownSession)?)
}
