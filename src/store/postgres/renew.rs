//! What is done in the background, round by round: tickets are renewed, keys marked as watched, and idle rows forgotten.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::call::{call, rows};
use super::ears::WATCH;
use super::inner::{Inner, micros};
use super::places::{ROUND, Standing};
use super::wires::Route;
use crate::clock::Moment;
use crate::key::Key;
use crate::store::{Hint, StoreError};
use crate::supervise::guarded;

/// So many keys are renewed by one statement, which keeps them to itself until it is committed.
const AT_ONCE: usize = 16;
/// So many statements at a time.
const STATEMENTS: usize = 8;
/// How often it is looked what is due.
const STEP: Duration = Duration::from_millis(ROUND.as_millis() as u64 / 4);
/// Between two looks at keys that are watched.
const LOOK: Duration = Duration::from_secs(1);
/// Between two pages of rows that are looked at for idle ones.
const SWEEP: Duration = Duration::from_secs(5);
/// After the last page, and before the first.
const SWEPT: Duration = Duration::from_mins(10);
/// So many rows are a page.
const PAGE: i64 = 2000;

/// Renews tickets and watches, until the store stops.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut looked = Instant::now();
    loop {
        if inner.places.is_idle() && inner.ears.watched().is_empty() {
            // A watch marks its key itself at first.
            let _ = tokio::time::timeout(LOOK, inner.places.wake.notified()).await;
        }
        let round = inner.places.round();
        for (key, ticket) in round.abandoned {
            forget(&inner, key, ticket);
        }
        let mut due: Vec<(Key, Option<Uuid>)> =
            round.renewals.into_iter().map(|(key, ticket)| (key, Some(ticket))).collect();
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            due.extend(inner.ears.watched().into_iter().map(|key| (key, None)));
        }
        // In one order in every process: no two statements wait for each other.
        due.sort_unstable();
        let chunks: Vec<_> = due.chunks(AT_ONCE).collect();
        for some in chunks.chunks(STATEMENTS) {
            join_all(some.iter().map(|chunk| renew(&inner, chunk))).await;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Renews some, and passes the answers on.
async fn renew(inner: &Arc<Inner>, some: &[(Key, Option<Uuid>)]) {
    let keys: Vec<&str> = some.iter().map(|(key, _)| key.as_str()).collect();
    let tickets: Vec<Option<Uuid>> = some.iter().map(|(_, ticket)| *ticket).collect();
    let params: &[_] = &[(&keys as _, Type::TEXT_ARRAY), (&tickets as _, Type::UUID_ARRAY)];
    // Unanswered, they are renewed in the next round.
    let Ok(reply) = call(inner, (inner.now(), Route::of(keys[0])), inner.statements.renew(), params, &mut ()).await
    else {
        return;
    };
    for ((key, ticket), answer) in some.iter().zip(reply.rest()) {
        match (ticket, answer) {
            (Some(ticket), 0) => inner.places.renewed(key, *ticket, Standing::Gone),
            (Some(ticket), 2) => inner.places.renewed(key, *ticket, Standing::Turn),
            (Some(ticket), _) => inner.places.renewed(key, *ticket, Standing::Waits),
            (None, 3) => inner.ears.hint(key, Hint::Free),
            (None, _) => {}
        }
    }
}

/// Marks a key as watched.
pub(super) async fn mark(inner: &Arc<Inner>, key: &Key, begun: Moment) -> Result<(), StoreError> {
    const { assert!(WATCH.as_secs() > 3 * LOOK.as_secs()) }
    let (keys, tickets) = (vec![key.as_str()], vec![None::<Uuid>]);
    let params: &[_] = &[(&keys as _, Type::TEXT_ARRAY), (&tickets as _, Type::UUID_ARRAY)];
    let answered = call(inner, (begun, Route::of(keys[0])), inner.statements.renew(), params, &mut ()).await;
    answered.map(|_| ()).map_err(|failure| failure.error)
}

/// Has the server forget a ticket. If that is not answered, the ticket runs out.
pub(super) fn forget(inner: &Arc<Inner>, key: Key, ticket: Uuid) {
    let Some(runtime) = inner.runtime() else { return };
    let inner = Arc::clone(inner);
    let mut leaving = Box::pin(guarded("leaving a queue", async move {
        let name = key.as_str();
        let params: &[_] = &[(&name as _, Type::TEXT), (&ticket as _, Type::UUID)];
        let _ = call(&inner, (inner.now(), Route::of(name)), inner.statements.leave(), params, &mut ()).await;
    }));
    // It goes out at once: a try that comes next must not find the place of its own process ahead.
    if leaving.as_mut().now_or_never().is_none() {
        runtime.spawn(leaving);
    }
}

/// Forgets rows that have been idle for the retention, page by page, until the store stops. What fails (a user may not
/// delete) is tried again with the next round.
pub(super) async fn sweep(inner: Arc<Inner>) {
    let idle = micros(inner.settings.fence_retention);
    loop {
        // Not all processes of a fleet at the same moment.
        tokio::time::sleep(SWEPT.mul_f64(0.5 + fastrand::f64())).await;
        let mut after = Some(String::new());
        while let Some(from) = after {
            let params: &[_] = &[(&from as _, Type::TEXT), (&idle as _, Type::INT8), (&PAGE as _, Type::INT8)];
            let page = rows(&inner, inner.statements.sweep(), params).await;
            after = page.ok().and_then(|page| page.first()?.try_get::<_, Option<String>>(0).ok().flatten());
            tokio::time::sleep(SWEEP).await;
        }
    }
}
