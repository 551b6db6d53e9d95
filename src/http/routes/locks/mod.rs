//! `GET /locks`, `GET /locks/{key}`: who holds what, and who waits for it.

mod cursor;
mod lists;
mod views;

use actix_web::HttpRequest;
use lists::Lists;
use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
pub(in crate::http) use views::{HolderView, Scope};
use views::{LockDetail, LockList, LocksAnswer};

use super::checks::invalid_option;
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::limits::Limits;
use crate::http::problem::{Fault, Problem};
use crate::http::query::{invalid, key_in_path, parameters};
use crate::http::wire::one_of;
use crate::{ListOrder, ListQuery};

/// How many locks a list shows when it does not say.
const DEFAULT_LISTED: usize = 100;

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
    responses((status = 200, description = "The locks, in order; or the one.", body = LocksAnswer)),
)]
pub(in crate::http) async fn locks(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    match parameters(req, ["key", "prefix", "limit", "sort", "cursor", "scope", "missing"])? {
        [Some(key), None, None, None, None, None, missing] => show(ctx, &key, Missing::read(missing.as_deref())?).await,
        [Some(_), ..] => Err(invalid("`key` asks for one lock; it goes with `missing` only")),
        [None, .., Some(_)] => Err(invalid("`missing` goes with `key`")),
        [None, prefix, limit, sort, cursor, Some(scope), None] if scope == "store" && ctx.locks.has_store() => {
            if sort.is_some() {
                return Err(invalid("the locks of a store come in no order: leave out `sort`"));
            }
            let limit = checked_limit(limit.as_deref(), ctx.limits)?;
            list_store(ctx, prefix.as_deref().unwrap_or_default(), cursor.as_deref(), limit).await
        }
        [None, _, _, _, _, Some(scope), None] if !["server", "store"].contains(&scope.as_str()) => {
            Err(invalid("`scope` can be `server` or `store`"))
        }
        [None, prefix, limit, sort, cursor, _, None] => {
            let order = sort.map_or(Ok(ListOrder::Key), |name| order_of(&name))?;
            let limit = checked_limit(limit.as_deref(), ctx.limits)?;
            let prefixes = ctx.caller.prefixes(ctx.locks, prefix.as_deref().unwrap_or_default());
            let mut query = ListQuery::new().prefixes(prefixes).order(order).limit(limit);
            if let Some(cursor) = cursor {
                query = query.after(cursor::read(&cursor, order)?);
            }
            let lists = ctx.locks.attached::<Lists>();
            let page = lists.page(ctx.locks, query).await.ok_or(Fault::Internal { why: "the list broke off" })?;
            Ok(body::answer(&LocksAnswer::List(LockList::of(&page, ctx.scope()))))
        }
    }
}

/// Some of the locks of the store.
async fn list_store(ctx: &RequestContext<'_>, prefix: &str, cursor: Option<&str>, limit: usize) -> HandlerResult {
    let cursor = cursor.map(cursor::read_place).transpose()?;
    let prefix = ctx.locks.canonical_prefix(prefix);
    let page = ctx.locks.list_store(&prefix, cursor.as_deref(), limit).await?;
    let page = page.ok_or_else(|| invalid("this store cannot tell which locks it keeps: leave out `scope`"))?;
    Ok(body::answer(&LocksAnswer::List(LockList::of_store(&page, |key| ctx.may_see(key)))))
}

/// Shows one lock: who holds it, and who waits for it in which place.
#[utoipa::path(
    get, path = "/locks/{key}", tag = "looking", operation_id = "show_lock",
    params(("key" = String, Path, min_length = 1, max_length = 256, description = "A `/` in it is written as `%2F`.")),
    responses((status = 200, description = "The lock.", body = LockDetail)),
)]
pub(in crate::http) async fn lock(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    let [] = parameters(req, [])?;
    show(ctx, &key_in_path(req)?, Missing::Refused).await
}

async fn show(ctx: &RequestContext<'_>, key: &str, missing: Missing) -> HandlerResult {
    let shown = match (ctx.locks.inspect(ctx.key(key)?).await?, missing) {
        (Some(info), _) => LocksAnswer::One(Box::new(info.into())),
        (None, Missing::Empty) => LocksAnswer::List(LockList { scope: ctx.scope(), ..LockList::default() }),
        (None, Missing::Refused) => return Err(Fault::NotLocked.into()),
    };
    Ok(body::answer(&shown))
}

/// The names of the orders in which a list can be asked for.
pub(in crate::http) struct Sort;

impl ToSchema for Sort {}

impl PartialSchema for Sort {
    fn schema() -> RefOr<Schema> {
        one_of(ListOrder::ALL.map(ListOrder::as_str))
    }
}

fn order_of(name: &str) -> Result<ListOrder, Problem> {
    let order = ListOrder::ALL.into_iter().find(|order| order.as_str() == name);
    order.ok_or_else(|| invalid("there is no such `sort`; see /docs for those that there are"))
}

/// What a look at a key that nobody holds is answered with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Missing {
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

/// How many rows a list is to have at most.
pub(super) fn checked_limit(asked: Option<&str>, limits: &Limits) -> Result<usize, Problem> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_read_by_the_name_under_which_it_is_described() {
        for order in ListOrder::ALL {
            assert_eq!(order_of(order.as_str()).unwrap(), order);
        }
        assert!(order_of("-wait").is_err() && order_of("").is_err());
    }
}
