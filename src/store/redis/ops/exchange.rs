//! Ending what one token holds and trying to take the lock for the next, in one step: `exchange.lua`.
//!
//! A process whose requests wait for each other would ask twice at each release: to release, and for a place behind the
//! processes that wait already. This asks once. What the two calls owe is as if each had been made: the release is
//! carried out whatever becomes of the future (S7), and a grant that nobody receives is taken back (S5).

use std::sync::Arc;

use super::acquire::{self, Attempt};
use super::release::GuardedRelease;
use super::release_script;
use crate::clock::Moment;
use crate::mode::Mode;
use crate::store::pending::SendOrder;
use crate::store::redis::call::{Answer, Failure, SendObserver, TOO_LATE, call};
use crate::store::redis::cleanup::Guard;
use crate::store::redis::fault::Ran;
use crate::store::redis::inner::Inner;
use crate::store::redis::script::{EXCHANGE, ScriptArgs, millis};
use crate::store::redis::shares::HoldKind;
use crate::store::{AcquireRequest, Acquired, OnHeld, Released, StoreError};

/// What the script answers where the next token was not tried.
const HELD_NOTHING: i64 = 4;
const ONLY_RELEASED: i64 = 5;

pub(in crate::store) async fn exchange(
    inner: &Arc<Inner>,
    release: GuardedRelease,
    next: AcquireRequest<'_>,
) -> (Released, Acquired) {
    // Before it is asked what is being taken back: from now on no repetition of a release begins under the token.
    inner.recent_releases.forget(release.names(), next.token);
    if is_one_step(inner, &release, next) {
        in_one_step(inner, release, next, inner.now()).await
    } else {
        (release.run(inner).await, acquire::acquire(inner, next).await)
    }
}

/// Whether one script can do both: replicas confirm on a connection of its own (R24), and what is being taken back of
/// the next token has to be out of the way first (S5).
fn is_one_step(inner: &Inner, release: &GuardedRelease, next: AcquireRequest<'_>) -> bool {
    next.on_held != OnHeld::Fail
        && next.mode == Mode::Exclusive
        && inner.shares.kind(release.token()) == HoldKind::Exclusive
        && inner.config.replicas == 0
        && inner.checked_ttl(next.ttl).is_ok()
        && !inner.cleaning.is_at(release.names(), next.token)
}

async fn in_one_step(
    inner: &Arc<Inner>,
    mut release: GuardedRelease,
    next: AcquireRequest<'_>,
    begun: Moment,
) -> (Released, Acquired) {
    let names = release.names().clone();
    let ticketed = match acquire::begin_try(inner, &names, next, begun) {
        Ok(ticketed) => ticketed,
        Err(granted) => return (release.run(inner).await, granted),
    };
    let mut attempt = Attempt::begin(inner, next, (next.ttl.as_duration(), begun), None, ticketed);
    let answered = {
        let (held, [ticket, offer], life) = (release.token(), attempt.place(), attempt.one.life);
        let both = Both(release.guard(), &mut attempt.guard);
        call(inner, &names, &EXCHANGE, begun, both, |not_after| {
            let args = ScriptArgs::of([names.lock(), names.fence(), names.queue(), names.tickets()]);
            let args = args.token(held).arg(not_after).token(next.token).arg(millis(life));
            let args = args.arg(millis(inner.config.fence_retention)).arg(inner.highest.of(&names));
            args.arg(&inner.config.process).arg(ticket).arg(offer).arg(&inner.config.side_keys)
        })
        .await
    };
    if is_still_to_be_tried(&answered) {
        attempt.disarm();
        drop(attempt);
        let released = match answered {
            // It may share the lock, for all that this process knows.
            Ok(answer) if answer.reply.code() == HELD_NOTHING => release.run(inner).await,
            Ok(answer) => conclude(inner, release, meaning(&answer)),
            Err(_) => release.run(inner).await,
        };
        return (released, acquire::acquire(inner, next).await);
    }
    let released = match &answered {
        Ok(answer) => meaning(answer),
        Err(failure) => Err(failure.error.clone()),
    };
    (conclude(inner, release, released), acquire::answered(attempt.conclude(answered)))
}

/// Whether nothing was tried for the next token.
fn is_still_to_be_tried(answered: &Result<Answer, Failure>) -> bool {
    match answered {
        Ok(answer) => matches!(answer.reply.code(), HELD_NOTHING | ONLY_RELEASED),
        // Each step is done by itself there.
        Err(failure) => failure.ran == Ran::Split,
    }
}

fn conclude(inner: &Inner, release: GuardedRelease, answered: Result<Released, StoreError>) -> Released {
    if answered.is_ok() {
        release_script::remember(inner, release.names(), release.token());
    }
    release.conclude(answered)
}

/// What the answer says of the token that held the lock.
fn meaning(answer: &Answer) -> Result<Released, StoreError> {
    match answer.reply.code() {
        HELD_NOTHING => Ok(Released::AlreadyGone),
        TOO_LATE => Err(StoreError::Timeout),
        _ => Ok(Released::Released),
    }
}

/// A command that two guards answer for.
struct Both<'a>(&'a mut Guard, &'a mut Guard);

impl SendObserver for Both<'_> {
    fn sending(&mut self, order: SendOrder, not_after_us: i64) {
        self.0.sending(order, not_after_us);
        self.1.sending(order, not_after_us);
    }
}
