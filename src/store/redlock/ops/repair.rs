//! Giving a lock back to one node that has lost it, while a majority holds it (L3): `repair.lua`.
//!
//! Only for the time that is left, never over another's lock, and never after the release has begun (R6): what may have
//! been given back in spite of it is taken back.

use std::sync::Arc;
use std::time::Duration;

use super::super::in_flight::InFlightGuard;
use super::super::inner::Inner;
use super::super::lock::Lock;
use super::super::node::Node;
use super::super::script::REPAIR;
use crate::clock::Moment;
use crate::store::drift;
use crate::store::pending::PendingCleanup;
use crate::store::redis::call::{Confirm, call};
use crate::store::redis::cleanup::Guard;
use crate::store::redis::fault::Ran;
use crate::store::redis::millis;
use crate::store::redis::script::ScriptArgs;

/// With less time left a lock is not given back.
const MIN_LEFT: Duration = Duration::from_millis(10);

/// A lock that some nodes have lost.
pub(super) struct Lost {
    pub(super) lock: Arc<Lock>,
    pub(super) fence: u64,
    /// When it ends, as far as its holder knows.
    pub(super) ends: Moment,
}

/// Gives it back to one node, in the background.
pub(super) fn repair(inner: &Arc<Inner>, node: usize, lost: &Lost, left: Duration, guard: &Arc<InFlightGuard>) {
    let (Some(node), Some(runtime)) = (inner.nodes.get(node), inner.runtime()) else { return };
    if left < MIN_LEFT || guard.state().is_released() {
        return;
    }
    let (inner, node, in_flight) = (Arc::clone(inner), Arc::clone(node), Arc::clone(guard));
    let (lock, fence) = (Arc::clone(&lost.lock), lost.fence);
    runtime.spawn(async move {
        let over = inner.now().saturating_add(node.redis.config.operation_timeout * 2).saturating_add(left);
        let mut guard = Guard::new(&node.redis, &lock.names, lock.token, PendingCleanup::new(over), Confirm::No);
        let may_hold = give(&inner, &node, &lock, (fence, left), &mut guard).await;
        let is_wanted = !in_flight.state().is_released();
        if may_hold == Some(Ran::No) || (may_hold == Some(Ran::Maybe) && is_wanted) {
            guard.disarm();
        }
    });
}

/// Whether the node may hold the lock now; `None` if that is not known.
async fn give(
    inner: &Inner,
    node: &Node,
    lock: &Lock,
    (fence, left): (u64, Duration),
    guard: &mut Guard,
) -> Option<Ran> {
    let begun = inner.now();
    let answered = call(&node.redis, &lock.names, &REPAIR, begun, guard, |not_after| {
        // It must not outlast what the majority holds, though it is carried out later.
        let late = inner.now().saturating_since(begun);
        let life = left.saturating_sub(late).saturating_sub(drift(left)).max(Duration::from_millis(1));
        let parts = ScriptArgs::of([lock.names.lock(), lock.names.fence()]).arg(lock.token.as_uuid().hyphenated());
        parts.arg(millis(life)).arg(not_after).arg(fence).arg(millis(inner.config.fence_retention))
    });
    match answered.await {
        Ok(answer) if answer.reply.code() == 1 => Some(Ran::Maybe),
        Ok(_) => Some(Ran::No),
        Err(failure) if failure.ran == Ran::No => Some(Ran::No),
        Err(_) => None,
    }
}
