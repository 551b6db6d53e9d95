//! The handlers: each reads its request, asks the manager, and answers. Whatever is refused is a [`Problem`].

use std::future::IntoFuture;
use std::time::Duration;

use actix_web::{HttpRequest, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::body;
use super::context::{Answer, RequestContext, RequestedKey};
use super::cursor;
use super::disconnect::while_present;
use super::limits::Limits;
use super::lists::Lists;
use super::number::Number;
use super::problem::{Fault, Problem};
use super::query::{invalid, key_in_path, parameters};
use super::ready::readiness;
use super::rounds::noted;
use super::sort::Sort;
use super::views;
use super::wire::{self, ModeName, Written, permits_of, whole_ms};
use super::{sessions, wire::Acquire};
use crate::manager::reclaim::Proof;
use crate::{
    FencingToken, ListQuery, LockError, LockOptions, LockRequest, Mode, Readiness, Refreshed, Release, Stats, TtlFault,
};

/// How many locks a list shows when it does not say.
const DEFAULT_LISTED: usize = 100;

/// How much later than at the end of its wait a request is answered at the latest.
const LATE: Duration = Duration::from_millis(250);

/// How many of the most contended keys the totals name.
const HOT_KEYS: usize = 10;

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
        `token`: the same request with the same token then gets the same lock. Over a store, `shared` and `permit` \
        are refused with `wrong_mode`: they would not reach other processes.",
    request_body = wire::Acquire,
    responses((status = 200, description = "The lock is yours.", body = wire::Acquired)),
)]
pub(super) async fn acquire(call: &RequestContext, payload: web::Payload) -> Answer {
    let text = body::read(&call.req, payload, call.limits).await?;
    let ask: wire::Acquire<'_> = body::parse(&text)?;
    let key = call.key(&ask.key)?;
    if let Some(after) = call.limits.still_starting() {
        return Err(Fault::Starting { after }.into());
    }
    let request = request(call, key, &ask)?;
    let granted = while_present(request.ticket().into_future(), || call.caller.wait(&ask.key, ask.token));
    let granted = match ask.token {
        // On the heap: those who wait without a token of their own have no room for it.
        Some(token) => {
            let granted = noted(&call.locks, &ask.key, token, granted);
            Box::pin(within(ask.wait_ms.and_then(Number::span), granted)).await?
        }
        None => granted.await?,
    };
    let ticket = match granted {
        Ok(ticket) => ticket,
        Err(why @ (LockError::Held | LockError::Timeout { .. })) => {
            // A store that is away by now does not change the answer.
            // On the heap, so that those who wait have no room for it.
            let in_the_way = Box::pin(call.locks.glance(&*ask.key)).await.ok().flatten();
            return Err(Problem::busy(why, in_the_way.as_ref()));
        }
        Err(why) => return Err(Problem::within(why, |key| call.may_see(key))),
    };
    // Before the remaining time is read: the client adds the two, and must not come out beyond the deadline.
    let waited = call.received.elapsed();
    let info = call.locks.inspect_holder(&ticket)?;
    let (limit, permits) = permits_of(info.mode);
    Ok(body::answer(&wire::Acquired {
        // As it is told everywhere, however the client wrote it.
        key: ticket.key().as_str(),
        token: Written(ticket.token()),
        fencing_token: ticket.fencing_token().map(|fence| fence.get()),
        owner: info.owner,
        mode: info.mode.into(),
        limit,
        permits,
        ttl_ms: whole_ms(info.ttl),
        remaining_ms: whole_ms(info.remaining),
        waited_ms: whole_ms(waited),
    }))
}

/// Ends a request that shares its place with a later one of the same token, and would wait as long as that.
async fn within<T, E>(
    wait: Option<Duration>,
    granted: impl Future<Output = Result<Result<T, LockError>, E>>,
) -> Result<Result<T, LockError>, E> {
    let Some(wait) = wait else { return granted.await };
    // The table's own end of the wait comes first wherever the place is not shared.
    let timeout = actix_web::rt::time::timeout(wait.saturating_add(LATE), granted);
    timeout.await.unwrap_or(Ok(Err(LockError::Timeout { waited: wait })))
}

/// What an acquire asks of the manager.
fn request<'a>(call: &'a RequestContext, key: RequestedKey, ask: &Acquire<'_>) -> Result<LockRequest<'a>, Problem> {
    let (locks, limits) = (&call.locks, call.limits);
    let ttl = ask.ttl_ms.map(|ttl| checked_ttl(ttl, limits)).transpose()?;
    let wait = ask.wait_ms.map(|wait| checked_wait(wait, limits)).transpose()?;
    let mut options = LockOptions::new();
    if let Some(ttl) = ttl {
        options = options.ttl(ttl);
    }
    if let Some(owner) = &ask.owner {
        options = options.owner(&**owner);
    }
    if let Some(token) = ask.token {
        options = options.token(token);
    }
    if let Some(session) = ask.session {
        options = options.session(&sessions::find(call, session)?);
    }
    if let Some(account) = call.caller.account() {
        options = options.account(account);
    }
    let now_or_never = wait == Some(Duration::ZERO);
    if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
        options = options.wait(wait);
    }
    let request = match (ask.mode, now_or_never) {
        (ModeName::Exclusive, true) => locks.try_lock(key),
        (ModeName::Exclusive, false) => locks.lock(key),
        (ModeName::Shared, true) => locks.try_read(key),
        (ModeName::Shared, false) => locks.read(key),
        (ModeName::Permit, _) => {
            let (limit, permits) = checked_permits(ask.limit, ask.permits)?;
            let semaphore = locks.semaphore(key, limit);
            if now_or_never { semaphore.try_permits(permits) } else { semaphore.permits(permits) }
        }
    };
    if ask.mode != ModeName::Permit && (ask.limit.is_some() || ask.permits.is_some()) {
        return Err(invalid_option("limit", "it and `permits` go with the mode permit only".to_owned()));
    }
    Ok(request.options(options))
}

fn checked_permits(limit: Option<Number>, permits: Option<Number>) -> Result<(u32, u32), Problem> {
    let out_of_bounds = |option| invalid_option(option, format!("it must be a whole number from 1 to {}", u32::MAX));
    let count = |option, number: Number| number.count().filter(|count| *count > 0).ok_or_else(|| out_of_bounds(option));
    let Some(limit) = limit else {
        return Err(invalid_option("limit", "the mode permit needs it: how many permits the key has".to_owned()));
    };
    Ok((count("limit", limit)?, permits.map_or(Ok(1), |permits| count("permits", permits))?))
}

/// Releases a lock by its token.
///
/// Done twice it does no harm. It is never refused for coming too often, and does not queue behind those who wait.
#[utoipa::path(
    post, path = "/release", tag = "locking", operation_id = "release",
    request_body = wire::ReleaseBody,
    responses((status = 200, description = "The lock is not yours any more.", body = wire::ReleaseAnswer)),
)]
pub(super) async fn release(call: &RequestContext, payload: web::Payload) -> Answer {
    let text = body::read(&call.req, payload, call.limits).await?;
    let ask: wire::ReleaseBody<'_> = body::parse(&text)?;
    let key = call.key(&ask.key)?;
    let key = crate::Key::try_from(key).map_err(LockError::from)?;
    // A job that ends before its first heartbeat after a restart has not lost its lock.
    let fence = fence_while_starting(call, ask.fencing_token)?;
    let mode = checked_mode(ask.mode, ask.limit, ask.permits)?;
    let mut release = call.locks.release(key.clone(), ask.token).await;
    if let (Some(fence), Ok(Release::AlreadyGone) | Err(LockError::NotHeld)) = (fence, &release) {
        // It is charged to nobody: it ends at once.
        let proof = Proof { token: ask.token, fence, mode, owner: None, account: None, ttl: None };
        if take_back(call, &key, proof).is_ok() {
            release = call.locks.release(key, ask.token).await;
        }
    }
    let release = release?;
    Ok(body::answer(&wire::ReleaseAnswer::try_from(release)?))
}

/// Moves the deadline of a lock, by its token.
#[utoipa::path(
    post, path = "/heartbeat", tag = "locking", operation_id = "heartbeat",
    request_body = wire::Heartbeat,
    responses((status = 200, description = "The lock lasts longer now.", body = wire::HeartbeatAnswer)),
)]
pub(super) async fn heartbeat(call: &RequestContext, payload: web::Payload) -> Answer {
    let text = body::read(&call.req, payload, call.limits).await?;
    let ask: wire::Heartbeat<'_> = body::parse(&text)?;
    let key = call.key(&ask.key)?;
    let ttl = ask.ttl_ms.map(|ttl| checked_ttl(ttl, call.limits)).transpose()?;
    let key = crate::Key::try_from(key).map_err(LockError::from)?;
    let fence = fence_while_starting(call, ask.fencing_token)?;
    let mode = checked_mode(ask.mode, ask.limit, ask.permits)?;
    let done = match (call.locks.refresh(key.clone(), ask.token, ttl).await, fence) {
        (Err(why @ (LockError::Lost(_) | LockError::NotHeld)), Some(fence)) => {
            let owner = ask.owner.as_deref().map(Into::into);
            let account = call.caller.account().cloned();
            let proof = Proof { token: ask.token, fence, mode, owner, account, ttl };
            take_back(call, &key, proof).map_err(|refusal| match refusal {
                // Not that it is lost: there may be room before its time is over.
                LockError::LockQuota => refusal,
                _ => why,
            })?
        }
        (done, _) => done?,
    };
    Ok(body::answer(&wire::HeartbeatAnswer { remaining_ms: whole_ms(done.remaining), refresh_count: done.count }))
}

/// Takes a lock back from a server that has forgotten it. That another's was ended for it is written down: by token and
/// fence alone it cannot be told who made them up.
fn take_back(call: &RequestContext, key: &crate::Key, proof: Proof) -> Result<Refreshed, LockError> {
    let fence = proof.fence;
    let (done, put_out) = call.locks.reclaim(key.clone(), proof)?;
    if put_out > 0 {
        let (by, from, request_id) = (call.caller.name(), call.from(), call.id.as_str());
        tracing::warn!(%key, by, %from, %fence, put_out, request_id, "a lock was taken back from others with lower fences");
    }
    Ok(done)
}

fn checked_mode(mode: ModeName, limit: Option<Number>, permits: Option<Number>) -> Result<Mode, Problem> {
    Ok(match mode {
        ModeName::Exclusive => Mode::Exclusive,
        ModeName::Shared => Mode::Shared,
        ModeName::Permit => {
            let (limit, permits) = checked_permits(limit, permits)?;
            Mode::Permits { limit, permits }
        }
    })
}

/// The fence by which a lock may be taken back now: while nothing is granted yet.
fn fence_while_starting(call: &RequestContext, given: Option<Number>) -> Result<Option<FencingToken>, Problem> {
    let Some(given) = given else { return Ok(None) };
    let fence = given.whole().and_then(|number| FencingToken::try_from(number).ok());
    let fence = fence.ok_or_else(|| invalid_option("fencing_token", "it must be a whole number from 1".to_owned()))?;
    Ok(call.limits.still_starting().map(|_| fence))
}

/// Lists the locks that are held through this server, or shows one of them with its queue.
#[utoipa::path(
    get, path = "/locks", tag = "looking", operation_id = "list_locks",
    params(
        ("prefix" = Option<String>, Query, description = "Only keys that begin so."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "How many, 100 if it is left out."),
        ("sort" = Option<Sort>, Query, description = "Of all that there are, the first in this order; by `key` if it is \
            left out. `age` is the longest held first, `remaining` the earliest deadline, `waiting` the longest queue, \
            `wait` the one who has waited the longest; a `-` turns it round."),
        ("cursor" = Option<String>, Query,
            description = "Where to go on: `next_cursor` of the page before. Only in an order by `key`, or in the store's."),
        ("scope" = Option<String>, Query, pattern = "^(server|store)$",
            description = "Over a store: `server` (the default) lists the locks that are held through this server, `store` all \
                that it keeps, whoever holds them, in no order: pages hold about `limit` of them and may be empty, a lock \
                may come twice, and of those of other processes only the time that is left is known."),
        ("key" = Option<String>, Query, min_length = 1, max_length = 256,
            description = "This one lock, as `GET /locks/{key}` shows it; without the others."),
        ("missing" = Option<Missing>, Query,
            description = "What to answer if nobody holds `key`: `empty` is an empty list; without it, 404 `not_locked`."),
    ),
    responses((status = 200, description = "The locks, in order; or the one.", body = views::Listed)),
)]
pub(super) async fn locks(call: &RequestContext, _: web::Payload) -> Answer {
    match parameters(&call.req, ["key", "prefix", "limit", "sort", "cursor", "scope", "missing"])? {
        [Some(key), None, None, None, None, None, missing] => {
            show(call, &key, Missing::read(missing.as_deref())?).await
        }
        [Some(_), ..] => Err(invalid("`key` asks for one lock; it goes with `missing` only")),
        [None, .., Some(_)] => Err(invalid("`missing` goes with `key`")),
        [None, prefix, limit, sort, cursor, Some(scope), None] if scope == "store" && call.locks.has_store() => {
            if sort.is_some() {
                return Err(invalid("the locks of a store come in no order: leave out `sort`"));
            }
            let limit = checked_limit(limit.as_deref(), call.limits)?;
            list_store(call, prefix.as_deref().unwrap_or_default(), cursor.as_deref(), limit).await
        }
        [None, _, _, _, _, Some(scope), None] if !["server", "store"].contains(&scope.as_str()) => {
            Err(invalid("`scope` can be `server` or `store`"))
        }
        [None, prefix, limit, sort, cursor, _, None] => {
            let order = Sort::read(sort.as_deref())?.order();
            let limit = checked_limit(limit.as_deref(), call.limits)?;
            let prefixes = call.caller.prefixes(&call.locks, prefix.as_deref().unwrap_or_default());
            let mut query = ListQuery::new().prefixes(prefixes).order(order).limit(limit);
            if let Some(cursor) = cursor {
                query = query.after(cursor::read(&cursor, order)?);
            }
            let lists = call.locks.attached::<Lists>();
            let page = lists.page(&call.locks, query).await.ok_or(Fault::Internal { why: "the list broke off" })?;
            Ok(body::answer(&views::Listed::List(views::LockList::of(&page, call.scope()))))
        }
    }
}

/// Some of the locks of the store.
async fn list_store(call: &RequestContext, prefix: &str, cursor: Option<&str>, limit: usize) -> Answer {
    let cursor = cursor.map(cursor::read_place).transpose()?;
    let prefix = call.locks.canonical_prefix(prefix);
    let page = call.locks.list_store(&prefix, cursor.as_deref(), limit).await?;
    let page = page.ok_or_else(|| invalid("this store cannot tell which locks it keeps: leave out `scope`"))?;
    Ok(body::answer(&views::Listed::List(views::LockList::of_store(&page, |key| call.may_see(key)))))
}

/// Shows one lock: who holds it, and who waits for it in which place.
#[utoipa::path(
    get, path = "/locks/{key}", tag = "looking", operation_id = "show_lock",
    params(("key" = String, Path, min_length = 1, max_length = 256, description = "A `/` in it is written as `%2F`.")),
    responses((status = 200, description = "The lock.", body = views::LockDetail)),
)]
pub(super) async fn lock(call: &RequestContext, _: web::Payload) -> Answer {
    let [] = parameters(&call.req, [])?;
    show(call, &key_in_path(&call.req)?, Missing::Refused).await
}

async fn show(call: &RequestContext, key: &str, missing: Missing) -> Answer {
    let shown = match (call.locks.inspect(call.key(key)?).await?, missing) {
        (Some(info), _) => views::Listed::One(Box::new(info.into())),
        (None, Missing::Empty) => {
            views::Listed::List(views::LockList { scope: call.scope(), ..views::LockList::default() })
        }
        (None, Missing::Refused) => return Err(Fault::NotLocked.into()),
    };
    Ok(body::answer(&shown))
}

/// What a look at a key that nobody holds is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Missing {
    /// An empty list: for those whom an error would disturb. A browser writes each down in its console.
    Empty,
    #[serde(skip)]
    Refused,
}

impl Missing {
    fn read(name: Option<&str>) -> Result<Self, Problem> {
        match name {
            None => Ok(Self::Refused),
            Some("empty") => Ok(Self::Empty),
            Some(_) => Err(invalid("`missing` can be `empty` only")),
        }
    }
}

/// Releases by force whatever holds a key.
///
/// The holder may still be at work: only the fencing token keeps it from the resource then. It is logged.
#[utoipa::path(
    delete, path = "/locks", tag = "operating", operation_id = "force_release",
    params(("key" = String, Query, min_length = 1, max_length = 256)),
    responses((status = 200, description = "The key is free, or the next waiter's.", body = wire::ReleaseAnswer)),
)]
pub(super) async fn force_release(call: &RequestContext, _: web::Payload) -> Answer {
    let [key] = parameters(&call.req, ["key"])?;
    let key = key.ok_or_else(|| invalid("name the lock to release, as `key`"))?;
    force(call, &key).await
}

/// Releases by force whatever holds a key, for keys without `/`.
#[utoipa::path(
    delete, path = "/locks/{key}", tag = "operating", operation_id = "force_release_in_path",
    params(("key" = String, Path, min_length = 1, max_length = 256, description = "A `/` in it is written as `%2F`.")),
    responses((status = 200, description = "The key is free, or the next waiter's.", body = wire::ReleaseAnswer)),
)]
pub(super) async fn force_release_in_path(call: &RequestContext, _: web::Payload) -> Answer {
    let [] = parameters(&call.req, [])?;
    force(call, &key_in_path(&call.req)?).await
}

async fn force(call: &RequestContext, key: &str) -> Answer {
    let release = call.locks.force_release(call.key(key)?).await?;
    if release == Release::AlreadyGone {
        return Err(Fault::NotLocked.into());
    }
    let (by, from, request_id) = (call.caller.name(), call.from(), call.id.as_str());
    tracing::warn!(key, by, %from, request_id, "a lock was released by force");
    Ok(body::answer(&wire::ReleaseAnswer::try_from(release)?))
}

/// Tells the totals since the start, of all keys or of one.
///
/// A token that is bound to namespaces sees the totals of those, where the server counts them.
///
/// One key's totals count from its first contention, for as long as it is held or waited for.
#[utoipa::path(
    get, path = "/stats", tag = "looking", operation_id = "stats",
    params(("key" = Option<String>, Query, min_length = 1, max_length = 256, description = "Only of this key.")),
    responses((status = 200, description = "The totals.", body = views::Counted)),
)]
pub(super) async fn stats(call: &RequestContext, _: web::Payload) -> Answer {
    let [key] = parameters(&call.req, ["key"])?;
    let Some(key) = key else {
        let hot = call.locks.hot_keys(usize::MAX).into_iter().filter(|hot| call.may_see(&hot.key));
        let hot_keys = hot.take(HOT_KEYS).map(views::HotKeyRow::from).collect();
        let totals = views::Totals { stats: totals(call)?, hot_keys };
        return Ok(body::answer(&views::Counted::All(totals)));
    };
    let info = call.locks.glance(call.key(&key)?).await?.ok_or(Fault::NotLocked)?;
    Ok(body::answer(&views::Counted::One(views::KeyStats { key: info.key.to_string(), stats: info.stats })))
}

/// The totals that are the caller's to see.
fn totals(call: &RequestContext) -> Result<Stats, Fault> {
    if call.sees_all_totals() {
        return Ok(call.locks.stats());
    }
    let own = call.locks.stats_within(&call.caller.prefixes(&call.locks, ""));
    own.ok_or(Fault::Forbidden {
        why: "the totals are of all keys, and those of the token's namespaces are not counted",
    })
}

/// Says whom the server takes the caller for, and what that one may do.
#[utoipa::path(
    get, path = "/whoami", tag = "operating", operation_id = "whoami",
    responses((status = 200, description = "The token's name and rights.", body = views::Whoami)),
)]
pub(super) async fn whoami(call: &RequestContext, _: web::Payload) -> Answer {
    Ok(body::answer(&call.caller.whoami()))
}

/// Says that the process lives.
#[utoipa::path(
    get, path = "/healthz", tag = "operating", operation_id = "healthz", security(()),
    responses((status = 200, description = "It does.", body = views::Health)),
)]
pub(super) fn healthz(_: &HttpRequest) -> Answer {
    Ok(body::answer(&views::Health { status: "ok" }))
}

/// Says whether requests are welcome: the store answers, and the server is not shutting down. While it starts, holders
/// can take their locks back; nothing else is granted.
#[utoipa::path(
    get, path = "/readyz", tag = "operating", operation_id = "readyz", security(()),
    responses((status = 200, description = "They can.", body = views::Ready)),
)]
pub(super) async fn readyz(call: &RequestContext, _: web::Payload) -> Answer {
    match (readiness(&call.locks).await, call.limits.still_starting()) {
        (Readiness::Draining, _) => Err(LockError::ShuttingDown.into()),
        (Readiness::StoreUnavailable, _) => Err(LockError::StoreUnavailable.into()),
        // Who has a lock must be let in to take it back.
        (Readiness::Ready { store }, starting) => {
            let store_ms = store.map(|took| took.as_micros() as f64 / 1000.0);
            let status = if starting.is_some() { "starting" } else { "ready" };
            Ok(body::answer(&views::Ready { status, store_ms }))
        }
    }
}

pub(super) fn checked_ttl(asked: Number, limits: Limits) -> Result<Duration, Problem> {
    let refused = |fault: TtlFault| Problem::from(LockError::from(fault));
    match (asked, asked.span()) {
        (Number::Negative, _) => Err(refused(TtlFault::Negative)),
        (Number::Fraction, _) => {
            Err(refused(TtlFault::NotANumber).saying("invalid ttl: it is not a whole number of milliseconds"))
        }
        (_, Some(Duration::ZERO)) => Err(refused(TtlFault::Zero)),
        (_, Some(ttl)) if ttl < limits.min_ttl => Err(refused(TtlFault::TooShort { min: limits.min_ttl })),
        (_, Some(ttl)) if ttl <= limits.max_ttl => Ok(ttl),
        _ => Err(refused(TtlFault::TooLong { max: limits.max_ttl })),
    }
}

fn checked_wait(asked: Number, limits: Limits) -> Result<Duration, Problem> {
    asked.span().filter(|wait| *wait <= limits.max_wait).ok_or_else(|| {
        let max = whole_ms(limits.max_wait);
        invalid_option("wait_ms", format!("it must be a whole number from 0 to {max}"))
    })
}

fn checked_limit(asked: Option<&str>, limits: Limits) -> Result<usize, Problem> {
    let Some(asked) = asked else { return Ok(DEFAULT_LISTED.min(limits.max_listed)) };
    let max = limits.max_listed;
    match asked.parse::<i128>() {
        Ok(limit) => usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=max).contains(limit))
            .ok_or_else(|| invalid_option("limit", format!("it must be from 1 to {max}"))),
        Err(_) => Err(invalid("`limit` is not a number")),
    }
}

fn invalid_option(option: &'static str, why: String) -> Problem {
    let problem = Problem::from(LockError::InvalidOption { option, why: "it is out of bounds" });
    problem.saying(format!("invalid option `{option}`: {why}"))
}
