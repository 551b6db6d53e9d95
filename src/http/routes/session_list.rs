//! `GET /sessions`: the open sessions, for people who look.
//!
//! Whoever asks soon after another shares that one's answer: to look at each session takes its time where they are many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::{HttpRequest, web};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::locks::checked_limit;
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::problem::Fault;
use crate::http::query::parameters;
use crate::http::wire::whole_ms;
use crate::{LockManager, SessionInfo};

/// How old an answer may be.
const OLDEST: Duration = Duration::from_secs(1);
/// How many times as long as it took to make it an answer is good for.
const RESTS: u32 = 15;

/// What `GET /sessions` answers.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct SessionList {
    /// Those that wait for the most locks first, then those that hold the most.
    sessions: Vec<SessionRow>,
    /// How many there are, listed or not.
    #[schema(value_type = u64)]
    open: usize,
}

/// An open session. Its id is nobody's to see.
#[derive(Serialize, ToSchema)]
#[schema(as = SessionView, example = json!({
    "name": "worker-7", "remaining_ms": 8123, "ttl_ms": 10000, "held": 2, "waiting": 0, "bearer": "ci",
}))]
pub(in crate::http) struct SessionRow {
    name: String,
    remaining_ms: u64,
    ttl_ms: u64,
    /// How many locks it holds.
    held: u32,
    /// How many locks it waits for.
    waiting: u32,
    /// The name of the bearer token that opened it; `null` where none was asked for.
    #[schema(required)]
    bearer: Option<String>,
}

impl From<&SessionInfo> for SessionRow {
    fn from(session: &SessionInfo) -> Self {
        Self {
            name: session.name.to_string(),
            remaining_ms: whole_ms(session.remaining),
            ttl_ms: whole_ms(session.lifetime),
            held: session.held,
            waiting: session.waiting,
            bearer: session.account.as_deref().map(str::to_owned),
        }
    }
}

/// Lists the open sessions.
///
/// A token that is bound to namespaces sees those that were opened by tokens of no other keys than its own: a session may
/// have locks of any key that its token may use. A list may be up to a second old.
#[utoipa::path(
    get, path = "/sessions", tag = "looking", operation_id = "list_sessions",
    params(("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "How many at most; 100 by default.")),
    responses((status = 200, description = "The sessions.", body = SessionList)),
)]
pub(in crate::http) async fn list(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    let [limit] = parameters(req, ["limit"])?;
    let limit = checked_limit(limit.as_deref(), ctx.limits)?;
    let all = all(ctx.locks).await?;
    let within = ctx.caller.tokens_within(ctx.locks);
    let may_see = |session: &&SessionInfo| match (&within, session.account.as_deref()) {
        (None, _) => true,
        (Some(names), Some(account)) => names.contains(&account),
        (Some(_), None) => false,
    };
    let mut seen = all.iter().filter(may_see);
    let sessions: Vec<SessionRow> = seen.by_ref().take(limit).map(SessionRow::from).collect();
    let open = sessions.len() + seen.count();
    Ok(body::answer(&SessionList { sessions, open }))
}

/// The last list. Locked while it is made, so that all who come meanwhile share it.
#[derive(Default)]
struct LastList(Mutex<Option<MadeList>>);

struct MadeList {
    sessions: Arc<[SessionInfo]>,
    good_until: Instant,
}

async fn all(locks: &LockManager) -> Result<Arc<[SessionInfo]>, Fault> {
    let last = locks.attached::<LastList>();
    let mut last = last.0.lock().await;
    let begun = Instant::now();
    if let Some(list) = last.as_ref().filter(|list| list.good_until > begun) {
        return Ok(Arc::clone(&list.sessions));
    }
    let manager = locks.clone();
    // It would hold up the other requests of this thread.
    let made = web::block(move || (manager.list_sessions(), begun.elapsed())).await;
    let (sessions, took) = made.map_err(|_| Fault::Internal { why: "the list of sessions broke off" })?;
    let sessions: Arc<[SessionInfo]> = sessions.into();
    let rest = (took * RESTS).min(OLDEST);
    *last = Some(MadeList { sessions: Arc::clone(&sessions), good_until: Instant::now() + rest });
    Ok(sessions)
}
