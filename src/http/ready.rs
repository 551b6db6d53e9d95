//! Whether locks can be granted, for all who ask: the store is asked at most once a second, however many probes there
//! are and however often they come.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::{LockManager, Readiness};

/// How old an answer of the store may be.
const OLDEST: Duration = Duration::from_secs(1);

/// What the store of one manager answered last. Locked while it is asked, so that all who come meanwhile share the answer.
#[derive(Default)]
pub(super) struct LastAnswer(Mutex<Option<(Instant, Readiness)>>);

/// Whether a manager can grant locks, as of at most a second ago; that it shuts down is known at once.
///
/// # Cancel safety
/// Changes nothing; the next to come asks anew.
pub(super) async fn readiness(locks: &LockManager) -> Readiness {
    let last = locks.attached::<LastAnswer>();
    let mut last = last.0.lock().await;
    if locks.is_shutting_down() {
        return Readiness::Draining;
    }
    if let Some((at, answer)) = *last
        && at.elapsed() < OLDEST
    {
        return answer;
    }
    let answer = locks.readiness().await;
    // Without a store there is nothing to spare, and a shutdown is final anyhow.
    if !matches!(answer, Readiness::Ready { store: None } | Readiness::Draining) {
        *last = Some((Instant::now(), answer));
    }
    answer
}
