//! `GET /stats`: the totals since the start, of all keys or of one.

use actix_web::HttpRequest;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::problem::Fault;
use crate::http::query::parameters;
use crate::{HotKey, Stats};

/// How many of the most contended keys the totals name.
const HOT_KEYS: usize = 10;

/// The totals of all keys.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Totals {
    #[serde(flatten)]
    pub(in crate::http) stats: Stats,
    /// The most contended keys, the worst first.
    pub(in crate::http) hot_keys: Vec<HotKeyRow>,
}

/// How often requests for a key had to wait or were refused.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "key": "order:42", "contentions": 17 }))]
pub(in crate::http) struct HotKeyRow {
    key: String,
    contentions: u64,
}

impl From<HotKey> for HotKeyRow {
    fn from(hot: HotKey) -> Self {
        Self { key: hot.key.to_string(), contentions: hot.contentions }
    }
}

/// The totals of one held key.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct KeyStats {
    pub(in crate::http) key: String,
    /// `null` while nobody has had to wait for the key or was refused it: an uncontended key keeps no totals.
    #[schema(required)]
    pub(in crate::http) stats: Option<Stats>,
}

/// What `GET /stats` answers.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Counted)]
pub(in crate::http) enum StatsAnswer {
    /// Without `key`.
    All(Totals),
    /// With `key`.
    One(KeyStats),
}

/// Tells the totals since the start, of all keys or of one.
///
/// A token that is bound to namespaces sees the totals of those, where the server counts them.
///
/// One key's totals count from its first contention, for as long as it is held or waited for.
#[utoipa::path(
    get, path = "/stats", tag = "looking", operation_id = "stats",
    params(("key" = Option<String>, Query, min_length = 1, max_length = 256, description = "Only of this key.")),
    responses((status = 200, description = "The totals.", body = StatsAnswer)),
)]
pub(in crate::http) async fn stats(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    let [key] = parameters(req, ["key"])?;
    let Some(key) = key else {
        let hot = ctx.locks.hot_keys(usize::MAX).into_iter().filter(|hot| ctx.may_see(&hot.key));
        let hot_keys = hot.take(HOT_KEYS).map(HotKeyRow::from).collect();
        let totals = Totals { stats: totals(ctx)?, hot_keys };
        return Ok(body::answer(&StatsAnswer::All(totals)));
    };
    let info = ctx.locks.glance(ctx.key(&key)?).await?.ok_or(Fault::NotLocked)?;
    Ok(body::answer(&StatsAnswer::One(KeyStats { key: info.key.to_string(), stats: info.stats })))
}

/// The totals that are the caller's to see.
fn totals(ctx: &RequestContext<'_>) -> Result<Stats, Fault> {
    if ctx.sees_all_totals() {
        return Ok(ctx.locks.stats());
    }
    let own = ctx.locks.stats_within(&ctx.caller.prefixes(ctx.locks, ""));
    own.ok_or_else(not_counted)
}

/// Refuses totals to a token of whose keys there are none.
pub(super) fn not_counted() -> Fault {
    Fault::Forbidden { why: "the totals are of all keys, and those of the token's namespaces are not counted" }
}
