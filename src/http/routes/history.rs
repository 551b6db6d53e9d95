//! `GET /history`: the totals of the last ten minutes, step by step.

use actix_web::HttpRequest;
use serde::Serialize;
use utoipa::ToSchema;

use super::stats::not_counted;
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::query::parameters;
use crate::http::wire::whole_ms;
use crate::{History, HistoryStep};

/// What happened in each step: one entry of each list belongs to one step, the oldest first.
#[derive(Serialize, ToSchema)]
#[schema(as = History, example = json!({
    "every_ms": 2000, "keeps": 300, "age_ms": 412, "length_ms": [2000, 2001], "granted": [40, 38], "ended": [40, 37],
    "attempts": [44, 38], "contended": [4, 0], "handoffs": [3, 0], "waited_ms": [41.7, 0.0],
}))]
pub(in crate::http) struct HistoryAnswer {
    /// How long a step lasts, as a rule.
    every_ms: u64,
    /// How many steps are kept.
    #[schema(value_type = u64)]
    keeps: usize,
    /// How long ago the last step ended; 0 while there is none.
    age_ms: u64,
    /// How long each lasted.
    length_ms: Vec<u64>,
    /// Locks granted.
    granted: Vec<u64>,
    /// Locks that ended, however they did.
    ended: Vec<u64>,
    /// Requests that came to their end or began to wait.
    attempts: Vec<u64>,
    /// Of these, requests that had to queue or were refused at once.
    contended: Vec<u64>,
    /// Grants to a waiter at another's release.
    handoffs: Vec<u64>,
    /// How long those waiters had waited, taken together.
    waited_ms: Vec<f64>,
}

impl From<History> for HistoryAnswer {
    fn from(History { steps, age, .. }: History) -> Self {
        let of = |what: fn(&HistoryStep) -> u64| steps.iter().map(what).collect();
        // To the microsecond.
        let waited = |step: &HistoryStep| step.waited.as_micros() as f64 / 1e3;
        Self {
            every_ms: whole_ms(History::STEP),
            keeps: History::STEPS,
            age_ms: whole_ms(age),
            length_ms: of(|step| whole_ms(step.length)),
            granted: of(|step| step.granted),
            ended: of(|step| step.ended),
            attempts: of(|step| step.attempts),
            contended: of(|step| step.contended),
            handoffs: of(|step| step.handoffs),
            waited_ms: steps.iter().map(waited).collect(),
        }
    }
}

/// Tells what happened in the last ten minutes, in steps of two seconds.
///
/// The server keeps it from its start; where the routes are mounted in another app, from when that says so, or from the
/// first time that this is asked. A token that is bound to namespaces sees what happened to those, where the server
/// counts them.
#[utoipa::path(
    get, path = "/history", tag = "looking", operation_id = "history",
    responses((status = 200, description = "The steps, as lists of one length.", body = HistoryAnswer)),
)]
pub(in crate::http) async fn history(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    let [] = parameters(req, [])?;
    ctx.locks.keep_history();
    let prefixes = if ctx.sees_all_totals() { vec![String::new()] } else { ctx.caller.prefixes(ctx.locks, "") };
    let history = ctx.locks.history_within(&prefixes).ok_or_else(not_counted)?;
    Ok(body::answer(&HistoryAnswer::from(history)))
}
