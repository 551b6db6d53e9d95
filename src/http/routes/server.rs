//! `GET /server`: what server this is, and how it and its store are.

use std::time::Duration;

use actix_web::HttpRequest;
use serde::Serialize;
use utoipa::ToSchema;

use super::health::{Look, look};
use crate::Readiness;
use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::http::query::parameters;
use crate::http::wire::whole_ms;
use crate::store::{Health, NodeHealth, StoreError, Votes};

/// What this was built from, where whoever built it has said so.
const COMMIT: Option<&str> = option_env!("LEASEHOLD_COMMIT");

/// What server this is, and how it is.
#[derive(Serialize, ToSchema)]
#[schema(as = Server, example = json!({
    "version": "0.1.0", "commit": null, "uptime_ms": 86_400_000, "status": "ready", "why": null,
    "store": {
        "kind": "redlock", "answer_ms": 0.4, "unchanged_ms": 3_600_000, "warnings": [],
        "nodes": [{
            "name": "10.0.0.1:6379", "state": "answers", "answer_ms": 0.4, "unchanged_ms": 3_600_000, "why": null,
            "votes": { "granted": 41, "refused": 0, "denied": 2, "abstained": 0, "unknown": 0 },
        }],
    },
}))]
pub(in crate::http) struct ServerAnswer {
    version: &'static str,
    /// The commit that it was built from, if whoever built it set `LEASEHOLD_COMMIT`.
    #[schema(required)]
    commit: Option<&'static str>,
    /// How long the lock manager has run.
    uptime_ms: u64,
    status: ServerStatus,
    /// Why it is not `ready`, as far as that is for the caller.
    #[schema(required)]
    why: Option<String>,
    /// `null` where locks live in memory.
    #[schema(required)]
    store: Option<StoreView>,
}

/// Whether requests are welcome.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum ServerStatus {
    Ready,
    /// It has just started, and lets holders take their locks back; nothing else is granted.
    Starting,
    ShuttingDown,
    /// The store does not answer, or refuses locks.
    StoreUnavailable,
}

/// How the store is.
#[derive(Serialize, ToSchema)]
#[schema(as = StoreHealth)]
pub(in crate::http) struct StoreView {
    /// `redis`, `redlock`, or what another one calls itself.
    kind: &'static str,
    /// How long it took to answer just now; `null` if it did not.
    #[schema(required)]
    answer_ms: Option<f64>,
    /// For how long it has answered, or not answered, whenever it was asked.
    #[schema(required)]
    unchanged_ms: Option<u64>,
    /// What is wrong with its set-up; empty for a token that is bound to namespaces.
    warnings: Vec<String>,
    /// Each of its servers; empty for a token that is bound to namespaces.
    nodes: Vec<NodeView>,
}

/// How one server of the store is.
#[derive(Serialize, ToSchema)]
#[schema(as = StoreNode)]
pub(in crate::http) struct NodeView {
    /// Its host and port, or what Sentinels call it.
    name: String,
    state: NodeState,
    /// How long it took to answer just now; `null` if it did not, or may not vote.
    #[schema(required)]
    answer_ms: Option<f64>,
    /// For how long it has been so, whenever it was asked.
    #[schema(required)]
    unchanged_ms: Option<u64>,
    /// Why it does not answer, or may not vote yet.
    #[schema(required)]
    why: Option<String>,
    /// How it has voted since this server started; `null` where nothing is voted on.
    #[schema(required)]
    votes: Option<VotesView>,
}

/// Whether a server of the store takes part.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum NodeState {
    Answers,
    /// It answers, and is not trusted yet: it may have forgotten locks, and does not vote until they have run out.
    Quarantined,
    Away,
}

/// How often a server of a quorum has given each vote.
#[derive(Serialize, ToSchema)]
#[schema(as = NodeVotes)]
pub(in crate::http) struct VotesView {
    granted: u64,
    /// The fence that was proposed was too low.
    refused: u64,
    /// Another holds the key.
    denied: u64,
    /// It was in quarantine.
    abstained: u64,
    /// It did not answer.
    unknown: u64,
}

impl From<Votes> for VotesView {
    fn from(votes: Votes) -> Self {
        let Votes { granted, refused, denied, abstained, unknown, .. } = votes;
        Self { granted, refused, denied, abstained, unknown }
    }
}

impl NodeView {
    fn of(node: &NodeHealth, does_vote: bool) -> Self {
        let state = match &node.answer {
            Ok(_) => NodeState::Answers,
            Err(StoreError::Quarantined { .. }) => NodeState::Quarantined,
            Err(_) => NodeState::Away,
        };
        Self {
            name: node.name.to_string(),
            state,
            answer_ms: node.answer.as_ref().ok().map(fine_ms),
            unchanged_ms: node.unchanged_for.map(whole_ms),
            why: node.answer.as_ref().err().map(ToString::to_string),
            votes: does_vote.then(|| node.votes.into()),
        }
    }
}

impl StoreView {
    fn of(kind: &'static str, health: &Health, sees_nodes: bool) -> Self {
        let does_vote = health.nodes.iter().any(|node| node.votes != Votes::default()) || kind == "redlock";
        let nodes = health.nodes.iter().map(|node| NodeView::of(node, does_vote));
        Self {
            kind,
            answer_ms: health.answer.as_ref().ok().map(fine_ms),
            unchanged_ms: health.unchanged_for.map(whole_ms),
            warnings: if sees_nodes { health.warnings.iter().map(ToString::to_string).collect() } else { Vec::new() },
            nodes: if sees_nodes { nodes.collect() } else { Vec::new() },
        }
    }
}

/// In milliseconds, to the microsecond.
fn fine_ms(span: &Duration) -> f64 {
    span.as_micros() as f64 / 1000.0
}

/// Tells what server this is: version, uptime, whether requests are welcome, and how the store and each of its servers
/// answer.
///
/// The store is asked at most once a second, however many look. Where locks live and how each server of a quorum has voted is told
/// to those to whom all keys are open.
#[utoipa::path(
    get, path = "/server", tag = "operating", operation_id = "server",
    responses((status = 200, description = "How it is; also while requests are not welcome.", body = ServerAnswer)),
)]
pub(in crate::http) async fn server(ctx: &RequestContext<'_>, req: &HttpRequest) -> HandlerResult {
    let [] = parameters(req, [])?;
    let Look { readiness, health } = look(ctx.locks).await;
    let sees_nodes = ctx.caller.is_unbound();
    let status = match (readiness, ctx.limits.still_starting()) {
        (Readiness::Draining, _) => ServerStatus::ShuttingDown,
        (Readiness::StoreUnavailable, _) => ServerStatus::StoreUnavailable,
        (Readiness::Ready { .. }, Some(_)) => ServerStatus::Starting,
        (Readiness::Ready { .. }, None) => ServerStatus::Ready,
    };
    let refusal = health.as_ref().and_then(|health| health.answer.as_ref().err());
    let kind = ctx.locks.store_name().unwrap_or("custom");
    Ok(body::answer(&ServerAnswer {
        version: env!("CARGO_PKG_VERSION"),
        commit: COMMIT.filter(|commit| !commit.is_empty()),
        uptime_ms: whole_ms(ctx.locks.uptime()),
        status,
        why: refusal.filter(|_| sees_nodes).map(ToString::to_string),
        store: health.map(|health| StoreView::of(kind, &health, sees_nodes)),
    }))
}
