//! `GET /healthz`, `GET /readyz`: whether the process lives, and whether requests are welcome.
//!
//! The store is asked at most once a second, however many probes there are and however often they come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::http::body;
use crate::http::context::{HandlerResult, RequestContext};
use crate::store::Health as StoreHealth;
use crate::{LockError, LockManager, Readiness};

/// How old an answer of the store may be.
const OLDEST: Duration = Duration::from_secs(1);

/// The process lives.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "status": "ok" }))]
pub(in crate::http) struct Health {
    pub(in crate::http) status: &'static str,
}

/// Locks can be granted.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "status": "ready", "store_ms": 0.4 }))]
pub(in crate::http) struct Ready {
    pub(in crate::http) status: &'static str,
    /// How long the store took to answer; `null` without one.
    #[schema(required)]
    pub(in crate::http) store_ms: Option<f64>,
}

/// Says that the process lives.
#[utoipa::path(
    get, path = "/healthz", tag = "operating", operation_id = "healthz", security(()),
    responses((status = 200, description = "It does.", body = Health)),
)]
pub(in crate::http) fn healthz(_: &HttpRequest) -> HandlerResult {
    Ok(body::answer(&Health { status: "ok" }))
}

/// Says whether requests are welcome: the store answers, and the server is not shutting down. While it starts, holders
/// can take their locks back; nothing else is granted.
#[utoipa::path(
    get, path = "/readyz", tag = "operating", operation_id = "readyz", security(()),
    responses((status = 200, description = "They can.", body = Ready)),
)]
pub(in crate::http) async fn readyz(ctx: &RequestContext<'_>, _: &HttpRequest) -> HandlerResult {
    match (look(ctx.locks).await.readiness, ctx.limits.still_starting()) {
        (Readiness::Draining, _) => Err(LockError::ShuttingDown.into()),
        (Readiness::StoreUnavailable, _) => Err(LockError::StoreUnavailable.into()),
        // Who has a lock must be let in to take it back.
        (Readiness::Ready { store }, starting) => {
            let store_ms = store.map(|took| took.as_micros() as f64 / 1000.0);
            let status = if starting.is_some() { "starting" } else { "ready" };
            Ok(body::answer(&Ready { status, store_ms }))
        }
    }
}

/// How a manager and its store are.
#[derive(Clone)]
pub(in crate::http) struct Look {
    pub(in crate::http) readiness: Readiness,
    /// What the store answered; `None` without one, and while the manager shuts down.
    pub(in crate::http) health: Option<Arc<StoreHealth>>,
}

/// What the store of one manager answered last. Locked while it is asked, so that all who come meanwhile share the answer.
#[derive(Default)]
pub(in crate::http) struct LastAnswer(Mutex<Option<(Instant, Look)>>);

/// Whether a manager can grant locks, as of at most a second ago; that it shuts down is known at once.
///
/// # Cancel safety
/// Changes nothing; the next to come asks anew.
pub(in crate::http) async fn look(locks: &LockManager) -> Look {
    let draining = Look { readiness: Readiness::Draining, health: None };
    let last = locks.attached::<LastAnswer>();
    let mut last = last.0.lock().await;
    if locks.is_shutting_down() {
        return draining;
    }
    if let Some((at, answer)) = &*last
        && at.elapsed() < OLDEST
    {
        return answer.clone();
    }
    // Without a store there is nothing to spare.
    let Some(health) = locks.store_health().await else {
        return Look { readiness: Readiness::Ready { store: None }, health: None };
    };
    let readiness = match health.answer {
        // It may have been closed while the store took its time.
        _ if locks.is_shutting_down() => return draining,
        Ok(took) => Readiness::Ready { store: Some(took) },
        Err(_) => Readiness::StoreUnavailable,
    };
    let answer = Look { readiness, health: Some(Arc::new(health)) };
    *last = Some((Instant::now(), answer.clone()));
    answer
}
