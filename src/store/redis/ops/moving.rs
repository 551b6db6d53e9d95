//! A lock whose slot is moving between two nodes of a Cluster: each of its keys is asked for by itself.
//!
//! Until the move ends, every key of the slot is on the old node or on the new one, and one that does not exist yet is
//! made on the new one. A script of several keys is refused ([`Ran::Split`]) unless one node has them all, and so is
//! every script that finds the lock free. One of a single key is passed on to whoever has that key. What is atomic
//! elsewhere is a row of steps here:
//!
//! | step | key | what it does | if it is the last one |
//! |---|---|---|---|
//! | `ahead` | alive | denies while other processes have live tickets; nobody can renew them, so for a second at most | nothing was done |
//! | `reserve` | lock | sets a fresh token that is nobody's, if the lock is free; else denies | it is taken back, or runs out after [a while](life_of_reservation) |
//! | `fence` | fence | mints a fence (R12) | the same; fences skip one |
//! | `accept` | lock | compares the reserved token, and sets the one that asks in its place, for the full TTL | it is granted |
//!
//! So a token never holds a lock without a fence of its own, which a repetition (R2) would take from an earlier holder;
//! and a fence is minted while nobody else can hold the lock: `accept` denies where the reservation has ended meanwhile.
//! The grant's time is counted from before the first step (R8).
//!
//! Release, look and force do without the queue. Whoever waits has no ticket, is called by nobody, and polls: turns are
//! not kept while a slot moves. An extend has one key only, and needs none of this.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::key::Token;
use crate::store::redis::call::{Answer, Confirm, Confirmable, Failure, SendObserver, TOO_LATE, call};
use crate::store::redis::cleanup::{Guard, PendingCleanup};
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::redis::keys::KeyNames;
use crate::store::redis::replicas::Confirmed;
use crate::store::redis::script::{
    MOVING_ACCEPT, MOVING_AHEAD, MOVING_FENCE, MOVING_FORCE, MOVING_RELEASE, MOVING_RESERVE,
};
use crate::store::redis::script::{Reply, ScriptArgs};
use crate::store::redis::{Inner, millis};

/// What `reserve` answers where the token holds the lock already.
const HELD_ALREADY: i64 = 4;

/// A try to take a lock.
pub(in crate::store) struct Try<'a> {
    pub(in crate::store) names: &'a KeyNames,
    pub(in crate::store) token: &'a str,
    pub(in crate::store) begun: Moment,
    /// How long the key is to live.
    pub(in crate::store) life: Duration,
}

/// Whether the fence that is stored will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fence {
    Mint,
    Keep,
}

/// How long a reservation lasts if nobody ends it: longer than the steps after it may take.
fn life_of_reservation(inner: &Inner) -> Duration {
    inner.config.operation_timeout * 2
}

/// Takes a lock step by step; the answer is that of the last step, as `acquire.lua` would give it.
pub(in crate::store) async fn acquire(inner: &Arc<Inner>, ask: Try<'_>, guard: &mut Guard) -> Result<Answer, Failure> {
    let Try { names, begun, .. } = ask;
    let ahead =
        call(inner, names, &MOVING_AHEAD, begun, (), |_| ScriptArgs::of([names.alive()]).arg(&inner.config.process));
    let ahead = ahead.await?;
    if ahead.reply.code() != 1 {
        return Ok(ahead);
    }
    let reserved = Token::random();
    let over = begun.saturating_add(inner.config.operation_timeout * 2).saturating_add(life_of_reservation(inner));
    let mut reserving = Guard::new(inner, names, reserved, PendingCleanup::new(over), Confirm::No);
    let answer = call(inner, names, &MOVING_RESERVE, begun, &mut reserving, |not_after| {
        let parts = ScriptArgs::of([names.lock()]).arg(ask.token).arg(reserved.as_uuid().hyphenated());
        parts.arg(millis(life_of_reservation(inner))).arg(not_after)
    });
    let answer = answer.await?;
    let answer = match (answer.reply.code(), answer.reply.rest()) {
        (1, _) => accept(inner, &ask, reserved, guard).await?,
        (HELD_ALREADY, &[left_ms]) => held_already(inner, &ask, left_ms).await?,
        _ => answer,
    };
    // Whatever was answered in time has left no reservation.
    if answer.reply.code() != TOO_LATE {
        reserving.disarm();
    }
    Ok(answer)
}

/// Mints a fence under the reservation, and gives the lock to the token that asks.
async fn accept(inner: &Arc<Inner>, ask: &Try<'_>, reserved: Token, guard: &mut Guard) -> Result<Answer, Failure> {
    let fence = fence(inner, ask.names, ask.begun, Fence::Mint).await?;
    let &[number] = fence.reply.rest() else { return Ok(fence) };
    let answer = call(inner, ask.names, &MOVING_ACCEPT, ask.begun, guard, |not_after| {
        let parts = ScriptArgs::of([ask.names.lock()]).arg(ask.token).arg(reserved.as_uuid().hyphenated());
        parts.arg(millis(ask.life)).arg(not_after).arg(number)
    });
    Ok(all_confirmed(answer.await?, &fence))
}

/// R2: the same lock, with the same fence.
async fn held_already(inner: &Arc<Inner>, ask: &Try<'_>, left_ms: i64) -> Result<Answer, Failure> {
    let mut answer = fence(inner, ask.names, ask.begun, Fence::Keep).await?;
    if let &[fence] = answer.reply.rest() {
        answer.reply = Reply::of([1, answer.reply.server_us(), fence, left_ms, 1]);
    }
    Ok(answer)
}

/// A grant whose fence replicas may forget is not confirmed (R24).
fn all_confirmed(mut grant: Answer, fence: &Answer) -> Answer {
    if fence.confirmed == Confirmed::TooFew {
        grant.confirmed = Confirmed::TooFew;
    }
    grant
}

async fn fence(inner: &Arc<Inner>, names: &KeyNames, begun: Moment, which: Fence) -> Result<Answer, Failure> {
    let answered = call(inner, names, &MOVING_FENCE, begun, Confirmable, |not_after| {
        let parts = ScriptArgs::of([names.fence()]).arg(not_after).arg(millis(inner.config.fence_retention));
        parts.arg(inner.highest.of(names)).arg(u8::from(which == Fence::Mint))
    });
    let answer = answered.await?;
    match (answer.reply.code(), answer.reply.rest()) {
        (1, [_]) | (TOO_LATE, _) => Ok(answer),
        _ => Err(Failure { error: protocol_error("no fence"), ran: Ran::Maybe }),
    }
}

/// Releases by comparison; the answer is as that of `release.lua`.
pub(in crate::store) async fn release(
    inner: &Inner,
    names: &KeyNames,
    token: &str,
    begun: Moment,
    outbox: impl SendObserver,
) -> Result<Answer, Failure> {
    let parts = |not_after| ScriptArgs::of([names.lock()]).arg(token).arg(names.wake()).arg(not_after);
    call(inner, names, &MOVING_RELEASE, begun, outbox, parts).await
}

/// Ends any holder; the answer is as that of `force.lua`.
pub(in crate::store) async fn force(inner: &Arc<Inner>, names: &KeyNames, begun: Moment) -> Result<Answer, Failure> {
    let fence = fence(inner, names, begun, Fence::Mint).await?;
    let &[number] = fence.reply.rest() else { return Ok(fence) };
    let answered = call(inner, names, &MOVING_FORCE, begun, (), |not_after| {
        ScriptArgs::of([names.lock()]).arg(names.wake()).arg(&inner.forced_channel).arg(not_after)
    });
    let mut answer = answered.await?;
    answer.reply = Reply::of([answer.reply.code(), answer.reply.server_us(), number]);
    Ok(answer)
}
