//! Giving a lock back to one node that has lost it, while a majority holds it (L3): `repair.lua`.
//!
//! Only for the time that is left, never over another's lock, and never after the release has begun (R6): what may have
//! been given back in spite of it is taken back.

use std::sync::Arc;
use std::time::Duration;

use super::super::Inner;
use super::super::in_flight::InFlightGuard;
use super::super::node::Node;
use super::super::script::REPAIR;
use crate::clock::Moment;
use crate::key::Token;
use crate::store::drift;
use crate::store::redis::call::{Confirm, call};
use crate::store::redis::cleanup::Guard;
use crate::store::redis::fault::Ran;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::millis;
use crate::store::redis::pending::PendingCleanup;
use crate::store::redis::script::ScriptArgs;

/// Less than this is not worth the trouble.
const LEAST: Duration = Duration::from_millis(10);

/// What some nodes have lost.
pub(crate) struct Lost {
    /// The lock and its token.
    pub(crate) question: (KeyNames, Token),
    pub(crate) fence: u64,
    /// When it ends, as far as its holder knows.
    pub(crate) ends: Moment,
}

/// Gives it back to one node, in the background.
pub(crate) fn repair(inner: &Arc<Inner>, node: usize, lost: &Lost, left: Duration, stay: &Arc<InFlightGuard>) {
    let (Some(node), Some(runtime)) = (inner.nodes.get(node), inner.runtime()) else { return };
    if left < LEAST || !stay.goes_on() {
        return;
    }
    let (node, stay, inner) = (Arc::clone(node), Arc::clone(stay), Arc::clone(inner));
    let (names, token, fence) = (lost.question.0.clone(), lost.question.1, lost.fence);
    runtime.spawn(async move {
        let over = inner.now().saturating_add(node.redis.config.operation_timeout * 2).saturating_add(left);
        let mut guard = Guard::new(&node.redis, &names, token, PendingCleanup::new(over), Confirm::No);
        let is_there = give(&inner, &node, (&names, token), (fence, left), &mut guard).await;
        if is_there == Some(Ran::No) || (is_there == Some(Ran::Maybe) && stay.goes_on()) {
            guard.disarm();
        }
    });
}

/// Whether the node may hold it now; nothing if that is not known.
async fn give(
    inner: &Inner,
    node: &Node,
    (names, token): (&KeyNames, Token),
    (fence, left): (u64, Duration),
    guard: &mut Guard,
) -> Option<Ran> {
    let begun = inner.now();
    let answered = call(&node.redis, names, &REPAIR, begun, guard, |not_after| {
        // It must not outlive what the majority holds, though it is carried out later.
        let late = inner.now().saturating_since(begun);
        let life = left.saturating_sub(late).saturating_sub(drift(left)).max(Duration::from_millis(1));
        let parts = ScriptArgs::of([names.lock(), names.fence()]).arg(token.as_uuid().hyphenated());
        parts.arg(millis(life)).arg(not_after).arg(fence).arg(millis(inner.config.fence_retention))
    });
    match answered.await {
        Ok(answer) if answer.reply.code() == 1 => Some(Ran::Maybe),
        Ok(_) => Some(Ran::No),
        Err(failure) if failure.ran == Ran::No => Some(Ran::No),
        Err(_) => None,
    }
}
