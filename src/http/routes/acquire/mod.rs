//! `POST /acquire`: asks for a lock, and waits for it.

mod disconnect;
mod rounds;

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use disconnect::while_present;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::checks::{checked_permits, checked_ttl, checked_wait, invalid_option};
use super::sessions;
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext, RequestedKey};
use crate::http::number::Number;
use crate::http::problem::{Fault, Problem};
use crate::http::wire::{GrantedToken, ModeFields, ModeName, Text, maybe_session, maybe_token, whole_ms};
use crate::{LockError, LockOptions, LockRequest, TicketFuture, Token};

/// What `POST /acquire` asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "key": "order:42", "owner": "worker-7", "ttl_ms": 30000, "wait_ms": 5000 }))]
#[schema(as = Acquire)]
pub(in crate::http) struct AcquireBody<'a> {
    /// 1 to 256 bytes without control characters.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 256)]
    pub(in crate::http) key: Text<'a>,
    /// How long the lock lasts unless it gets a heartbeat; the server's default is 30000. Not with a `session`.
    #[schema(value_type = Option<u64>, minimum = 10, maximum = 86_400_000)]
    pub(in crate::http) ttl_ms: Option<Number>,
    /// How long to wait in the queue; 0 is now or never, the server's default is 5000.
    #[schema(value_type = Option<u64>, maximum = 60_000)]
    pub(in crate::http) wait_ms: Option<Number>,
    /// Who asks, for people who look.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    pub(in crate::http) owner: Option<Text<'a>>,
    /// The id of a session: the lock then lives as long as that does.
    #[serde(default, deserialize_with = "maybe_session")]
    #[schema(value_type = Option<String>, format = Uuid)]
    pub(in crate::http) session: Option<Uuid>,
    #[serde(default)]
    #[schema(value_type = Option<ModeName>)]
    pub(in crate::http) mode: ModeName,
    /// How many permits the key has; all who use it must name the same number. Only with `mode` permit.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(in crate::http) limit: Option<Number>,
    /// How many of them to take, 1 if it is left out. Only with `mode` permit.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(in crate::http) permits: Option<Number>,
    /// A fresh UUID chosen by the client: the same request may then be sent again after a lost answer.
    #[serde(default, deserialize_with = "maybe_token")]
    #[schema(value_type = Option<String>, format = Uuid)]
    pub(in crate::http) token: Option<Token>,
}

/// A lock that was granted.
///
/// The client's deadline is the time at which it sent the request, plus `waited_ms`, plus `remaining_ms`, less its own
/// clock's drift.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "key": "order:42", "token": "0f8fad5b-d9cb-469f-a165-70867728950e", "fencing_token": 1795229686733898_u64,
    "owner": "worker-7", "mode": "exclusive", "ttl_ms": 30000, "remaining_ms": 29999, "waited_ms": 0,
}))]
pub(in crate::http) struct Acquired<'a> {
    pub(in crate::http) key: &'a str,
    /// The proof of holding: whoever has it may release the lock. It belongs into bodies, never into a URL or a log.
    #[schema(value_type = String, format = Uuid)]
    pub(in crate::http) token: GrantedToken,
    /// For the protected resource: it should refuse one that is lower than the highest it has seen. `null` where the
    /// store cannot promise one.
    #[schema(required)]
    pub(in crate::http) fencing_token: Option<u64>,
    #[schema(value_type = Option<String>, required)]
    pub(in crate::http) owner: Option<Arc<str>>,
    #[serde(flatten)]
    pub(in crate::http) mode: ModeFields,
    pub(in crate::http) ttl_ms: u64,
    pub(in crate::http) remaining_ms: u64,
    pub(in crate::http) waited_ms: u64,
}

/// Asks for a lock, and waits for it in the queue of its key.
///
/// Who goes away while waiting leaves the queue at once. To make a retry safe, choose a fresh UUID as `token`: the same
/// request with the same token then gets the same lock.
///
/// # Cancel safety
/// actix-web drops this future when the client goes away: its waiter leaves the queue then, and a grant that was
/// already made to it goes to the next.
#[utoipa::path(
    post, path = "/acquire", tag = "locking", operation_id = "acquire",
    description = "Who goes away while waiting leaves the queue at once. To make a retry safe, choose a fresh UUID as \
        `token`: the same request with the same token then gets the same lock. Over a store that keeps \
        exclusive locks alone (Redlock), `shared` and `permit` are refused with `wrong_mode`: they would not reach \
        other processes.",
    request_body = AcquireBody,
    responses((status = 200, description = "The lock is yours.", body = Acquired)),
)]
pub(in crate::http) async fn acquire(ctx: &RequestContext<'_>, bytes: &[u8]) -> HandlerResult {
    let Asked { mut request, key, token, longest } = Asked::read(ctx, bytes)?;
    if let Some(token) = token {
        rounds::take_up(ctx.locks, &key, token);
    }
    let granted = while_present(&mut request, || ctx.caller.count_waiter(&key, token), longest).await?;
    // Whoever waits no longer is not in the queue that is told of.
    drop(request);
    if let (Some(token), Some(Err(LockError::Timeout { .. }))) = (token, &granted) {
        rounds::remember(ctx.locks, &key, token);
    }
    let ticket = match granted.unwrap_or(Err(LockError::Timeout { waited: longest.unwrap_or_default() })) {
        Ok(ticket) => ticket,
        Err(why @ (LockError::Held | LockError::Timeout { .. })) => {
            // A store that is away by now does not change the answer.
            // On the heap, so that those who wait have no room for it.
            let in_the_way = Box::pin(ctx.locks.glance(&*key)).await.ok().flatten();
            return Err(Problem::busy(why, in_the_way.as_ref()));
        }
        Err(why) => return Err(Problem::within(why, |key| ctx.may_see(key))),
    };
    // Before the remaining time is read: the client adds the two, and must not come out beyond the deadline.
    let waited = ctx.received().elapsed();
    let info = ctx.locks.inspect_holder(&ticket)?;
    Ok(body::answer(&Acquired {
        // As the manager spells it, however the client wrote it.
        key: ticket.key().as_str(),
        token: GrantedToken(ticket.token()),
        fencing_token: ticket.fencing_token().map(|fence| fence.get()),
        owner: info.owner,
        mode: info.mode.into(),
        ttl_ms: whole_ms(info.ttl),
        remaining_ms: whole_ms(info.remaining),
        waited_ms: whole_ms(waited),
    }))
}

/// What of an acquire is needed while it waits. Thousands may, so it is no more than that.
struct Asked<'a> {
    request: TicketFuture<'a>,
    key: Text<'a>,
    token: Option<Token>,
    /// How long it waits, where its place may be shared with a later request of the same token, which would wait as long
    /// as that.
    longest: Option<Duration>,
}

impl<'a> Asked<'a> {
    fn read(ctx: &'a RequestContext<'_>, bytes: &'a [u8]) -> Result<Self, Problem> {
        let body: AcquireBody<'a> = body::parse(bytes)?;
        let key = ctx.key(&body.key)?;
        if let Some(after) = ctx.limits.still_starting() {
            return Err(Fault::Starting { after }.into());
        }
        let request = request(ctx, key, &body)?.ticket().into_future();
        let longest = body.token.and_then(|_| body.wait_ms.and_then(Number::span));
        Ok(Self { request, key: body.key, token: body.token, longest })
    }
}

/// What an acquire asks of the manager.
fn request<'a>(ctx: &'a RequestContext, key: RequestedKey, body: &AcquireBody<'_>) -> Result<LockRequest<'a>, Problem> {
    let (locks, limits) = (ctx.locks, ctx.limits);
    let ttl = body.ttl_ms.map(|ttl| checked_ttl(ttl, limits)).transpose()?;
    let wait = body.wait_ms.map(|wait| checked_wait(wait, limits)).transpose()?;
    let mut options = LockOptions::new();
    if let Some(ttl) = ttl {
        options = options.ttl(ttl);
    }
    if let Some(owner) = &body.owner {
        options = options.owner(&**owner);
    }
    if let Some(token) = body.token {
        options = options.token(token);
    }
    if let Some(session) = body.session {
        options = options.session(&sessions::find(ctx, session)?);
    }
    if let Some(account) = ctx.caller.account() {
        options = options.account(account);
    }
    let now_or_never = wait == Some(Duration::ZERO);
    if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
        options = options.wait(wait);
    }
    let request = match (body.mode, now_or_never) {
        (ModeName::Exclusive, true) => locks.try_lock(key),
        (ModeName::Exclusive, false) => locks.lock(key),
        (ModeName::Shared, true) => locks.try_read(key),
        (ModeName::Shared, false) => locks.read(key),
        (ModeName::Permit, _) => {
            let (limit, permits) = checked_permits(body.limit, body.permits)?;
            let semaphore = locks.semaphore(key, limit);
            if now_or_never { semaphore.try_permits(permits) } else { semaphore.permits(permits) }
        }
    };
    if body.mode != ModeName::Permit && (body.limit.is_some() || body.permits.is_some()) {
        return Err(invalid_option("limit", "it and `permits` go with the mode permit only".to_owned()));
    }
    Ok(request.options(options))
}
