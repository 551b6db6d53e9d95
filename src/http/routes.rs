//! The handlers: each reads its request, asks the manager, and answers. Whatever is refused is a [`Problem`].

use std::future::IntoFuture;
use std::time::{Duration, Instant};

use actix_web::{HttpRequest, HttpResponse, web};

use super::body;
use super::host::Host;
use super::limits::Limits;
use super::millis::Millis;
use super::presence::while_present;
use super::problem::{Fault, Problem};
use super::query::{invalid, key_in_path, parameters};
use super::wire::{self, whole_ms};
use crate::{LockError, LockOptions, Release, TtlFault};

/// How many locks a list shows when it does not say.
const DEFAULT_LISTED: usize = 100;

/// How many of the most contended keys the totals name.
const HOT_KEYS: usize = 10;

type Answer = Result<HttpResponse, Problem>;

/// `POST /acquire`
///
/// # Cancel safety
/// actix-web drops this future when the client goes away: its waiter leaves the queue then, and a grant that was
/// already made to it goes to the next.
pub(super) async fn acquire(host: Host, req: HttpRequest, payload: web::Payload) -> Answer {
    let received = Instant::now();
    let ask: wire::Acquire = body::read(&req, payload, host.limits).await?;
    let ttl = ask.ttl_ms.map(|ttl| checked_ttl(ttl, host.limits)).transpose()?;
    let wait = ask.wait_ms.map(|wait| checked_wait(wait, host.limits)).transpose()?;

    let mut options = LockOptions::new();
    if let Some(ttl) = ttl {
        options = options.ttl(ttl);
    }
    if let Some(owner) = &ask.owner {
        options = options.owner(owner);
    }
    if let Some(token) = ask.token {
        options = options.token(token);
    }
    let request = match wait {
        Some(Duration::ZERO) => host.locks.try_lock(&ask.key).options(options),
        Some(wait) => host.locks.lock(&ask.key).options(options.wait(wait)),
        None => host.locks.lock(&ask.key).options(options),
    };
    let ticket = match while_present(request.ticket().into_future()).await {
        Ok(ticket) => ticket,
        Err(why @ (LockError::Held | LockError::Timeout { .. })) => {
            let in_the_way = host.locks.inspect(&ask.key).await?;
            return Err(Problem::busy(why, in_the_way.as_ref()));
        }
        Err(why) => return Err(why.into()),
    };
    // Before the remaining time is read: the client adds the two, and must not come out beyond the deadline.
    let waited = received.elapsed();
    let info = host.locks.inspect_ticket(&ticket)?;
    Ok(HttpResponse::Ok().json(wire::Acquired {
        key: &ask.key,
        token: ticket.token().to_string(),
        fencing_token: ticket.fencing_token().map(|fence| fence.get()),
        owner: info.owner,
        mode: ask.mode,
        ttl_ms: whole_ms(info.ttl),
        remaining_ms: whole_ms(info.remaining),
        waited_ms: whole_ms(waited),
    }))
}

/// `POST /release`
pub(super) async fn release(host: Host, req: HttpRequest, payload: web::Payload) -> Answer {
    let ask: wire::ReleaseBody = body::read(&req, payload, host.limits).await?;
    let release = host.locks.release(&ask.key, ask.token).await?;
    Ok(HttpResponse::Ok().json(wire::ReleaseAnswer::from(release)))
}

/// `POST /heartbeat`
pub(super) async fn heartbeat(host: Host, req: HttpRequest, payload: web::Payload) -> Answer {
    let ask: wire::Heartbeat = body::read(&req, payload, host.limits).await?;
    let ttl = ask.ttl_ms.map(|ttl| checked_ttl(ttl, host.limits)).transpose()?;
    let done = host.locks.refresh(&ask.key, ask.token, ttl).await?;
    Ok(HttpResponse::Ok()
        .json(wire::HeartbeatAnswer { remaining_ms: whole_ms(done.remaining), refresh_count: done.count }))
}

/// `GET /locks`, of one key or of all with a prefix
pub(super) async fn locks(host: Host, req: HttpRequest) -> Answer {
    match parameters(&req, ["key", "prefix", "limit"])? {
        [Some(key), None, None] => show(&host, &key).await,
        [Some(_), ..] => Err(invalid("`key` asks for one lock; it goes with neither `prefix` nor `limit`")),
        [None, prefix, limit] => {
            let limit = checked_limit(limit.as_deref(), host.limits)?;
            // It looks at every lock there is, which would hold up the other requests of this thread.
            let list = move || host.locks.list(prefix.as_deref().unwrap_or_default(), limit.saturating_add(1));
            let mut found = web::block(list).await.map_err(|_| Fault::Internal { why: "the list broke off" })?;
            let truncated = found.len() > limit;
            found.truncate(limit);
            let locks = found.into_iter().map(wire::LockRow::from).collect();
            Ok(HttpResponse::Ok().json(wire::LockList { locks, truncated }))
        }
    }
}

/// `GET /locks/{key}`
pub(super) async fn lock(host: Host, req: HttpRequest) -> Answer {
    let [] = parameters(&req, [])?;
    show(&host, &key_in_path(&req)?).await
}

async fn show(host: &Host, key: &str) -> Answer {
    let info = host.locks.inspect(key).await?.ok_or(Fault::NotLocked)?;
    Ok(HttpResponse::Ok().json(wire::LockDetail::from(info)))
}

/// `DELETE /locks`
pub(super) async fn force_release(host: Host, req: HttpRequest) -> Answer {
    let [key] = parameters(&req, ["key"])?;
    let key = key.ok_or_else(|| invalid("name the lock to release, as `key`"))?;
    force(&host, &req, &key).await
}

/// `DELETE /locks/{key}`
pub(super) async fn force_release_in_path(host: Host, req: HttpRequest) -> Answer {
    let [] = parameters(&req, [])?;
    force(&host, &req, &key_in_path(&req)?).await
}

async fn force(host: &Host, req: &HttpRequest, key: &str) -> Answer {
    let release = host.locks.force_release(key).await?;
    if release == Release::AlreadyGone {
        return Err(Fault::NotLocked.into());
    }
    tracing::warn!(key, peer = ?req.peer_addr(), "a lock was released by force");
    Ok(HttpResponse::Ok().json(wire::ReleaseAnswer::from(release)))
}

/// `GET /stats`, of all keys or of one
pub(super) async fn stats(host: Host, req: HttpRequest) -> Answer {
    let [key] = parameters(&req, ["key"])?;
    let Some(key) = key else {
        let hot_keys = host.locks.hot_keys(HOT_KEYS).into_iter().map(wire::HotKeyRow::from).collect();
        return Ok(HttpResponse::Ok().json(wire::Totals { stats: host.locks.stats(), hot_keys }));
    };
    let info = host.locks.inspect(&key).await?.ok_or(Fault::NotLocked)?;
    Ok(HttpResponse::Ok().json(wire::KeyStats { key, stats: info.stats }))
}

/// `GET /healthz`
pub(super) async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(wire::Health { status: "ok" })
}

fn checked_ttl(asked: Millis, limits: Limits) -> Result<Duration, Problem> {
    let refused = |fault: TtlFault| Problem::from(LockError::from(fault));
    match (asked, asked.span()) {
        (Millis::Negative, _) => Err(refused(TtlFault::Negative)),
        (Millis::Fraction, _) => {
            Err(refused(TtlFault::NotANumber).saying("invalid ttl: it is not a whole number of milliseconds"))
        }
        (_, Some(Duration::ZERO)) => Err(refused(TtlFault::Zero)),
        (_, Some(ttl)) if ttl < limits.min_ttl => Err(refused(TtlFault::TooShort { min: limits.min_ttl })),
        (_, Some(ttl)) if ttl <= limits.max_ttl => Ok(ttl),
        _ => Err(refused(TtlFault::TooLong { max: limits.max_ttl })),
    }
}

fn checked_wait(asked: Millis, limits: Limits) -> Result<Duration, Problem> {
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
