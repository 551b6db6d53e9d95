//! Taking a lock step by step, while its slot is moving.

use std::sync::Arc;
use std::time::Duration;

use super::fence::{self, Fence};
use crate::clock::Moment;
use crate::key::Token;
use crate::store::pending::PendingCleanup;
use crate::store::redis::call::{Answer, Confirm, Failure, TOO_LATE, call};
use crate::store::redis::cleanup::Guard;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::replicas::Confirmed;
use crate::store::redis::script::{MOVING_ACCEPT, MOVING_AHEAD, MOVING_RESERVE, Reply, ScriptArgs, millis};

/// What `reserve` answers where the token holds the lock already.
const HELD_ALREADY: i64 = 4;

/// A try to take a lock.
#[derive(Clone, Copy)]
pub(in crate::store) struct Try<'a> {
    pub(in crate::store) names: &'a KeyNames,
    pub(in crate::store) token: Token,
    pub(in crate::store) begun: Moment,
    /// How long the key is to live.
    pub(in crate::store) life: Duration,
}

/// How long a reservation lasts if nobody ends it: longer than the steps after it may take.
fn life_of_reservation(inner: &Inner) -> Duration {
    inner.config.operation_timeout * 2
}

/// Takes a lock step by step; the answer is that of the last step, as `acquire.lua` would give it.
pub(in crate::store) async fn acquire(inner: &Arc<Inner>, ask: Try<'_>, guard: &mut Guard) -> Result<Answer, Failure> {
    let Try { names, begun, .. } = ask;
    let ahead =
        call(inner, names, &MOVING_AHEAD, begun, (), |_| ScriptArgs::of([names.tickets()]).arg(&inner.config.process));
    let ahead = ahead.await?;
    if ahead.reply.code() != 1 {
        return Ok(ahead);
    }
    let reserved = Token::random();
    let over = begun.saturating_add(inner.config.operation_timeout * 2).saturating_add(life_of_reservation(inner));
    let mut reserving = Guard::new(inner, names, reserved, PendingCleanup::new(over), Confirm::No);
    let answer = call(inner, names, &MOVING_RESERVE, begun, &mut reserving, |not_after| {
        let args = ScriptArgs::of([names.lock()]).token(ask.token).token(reserved);
        args.arg(millis(life_of_reservation(inner))).arg(not_after)
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
    let fence = fence::store(inner, ask.names, ask.begun, Fence::Mint).await?;
    let &[number] = fence.reply.rest() else { return Ok(fence) };
    let answer = call(inner, ask.names, &MOVING_ACCEPT, ask.begun, guard, |not_after| {
        let args = ScriptArgs::of([ask.names.lock()]).token(ask.token).token(reserved);
        args.arg(millis(ask.life)).arg(not_after).arg(number)
    });
    Ok(all_confirmed(answer.await?, &fence))
}

/// R2: the same lock, with the same fence.
async fn held_already(inner: &Arc<Inner>, ask: &Try<'_>, left_ms: i64) -> Result<Answer, Failure> {
    let mut answer = fence::store(inner, ask.names, ask.begun, Fence::Keep).await?;
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
