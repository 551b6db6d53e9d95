//! Ending what a token holds: `release.lua` (R4), retried by the store until it is answered (R5).

use std::sync::Arc;

use super::moving;
use crate::key::{Key, Token};
use crate::store::redis::Inner;
use crate::store::redis::builder::Repeats;
use crate::store::redis::call::{Answer, Confirm, Failure, SendObserver, call};
use crate::store::redis::cleanup::{Guard, PendingCleanup, What};
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{RELEASE, REPEAT, ScriptArgs};
use crate::store::{Released, StoreError};

/// What is to be released, guarded from the moment that it was asked for.
pub(in crate::store) struct Order {
    names: KeyNames,
    token: Token,
    guard: Guard,
}

/// Takes the order down. From here on it is carried out, whatever becomes of the future (S7).
pub(in crate::store) fn order(inner: &Arc<Inner>, key: &Key, token: Token) -> Result<Order, StoreError> {
    let names = inner.names(key)?;
    // How long the key was taken for is not known here; no key is taken for longer.
    let debt = PendingCleanup::new(inner.now().saturating_add(inner.config.longest_life));
    let guard = Guard::new(inner, &names, token, debt, Confirm::No);
    Ok(Order { names, token, guard })
}

impl Order {
    pub(in crate::store) async fn carry_out(mut self, inner: &Arc<Inner>) -> Released {
        match answer(inner, &self.names, self.token, &mut self.guard).await {
            Ok((released, _)) => {
                self.guard.disarm();
                released
            }
            Err(error) => Released::Unknown(error),
        }
    }
}

/// One release for the clean-up. Answers the wire and the server's clock.
pub(in crate::store) async fn once(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    what: What,
    sent: &mut PendingCleanup,
) -> Result<(u64, i64), StoreError> {
    let answer = match what {
        What::Any => answer(inner, names, token, sent).await?.1,
        What::UpTo(fence) => repeated(inner, names, token, fence, sent).await?,
    };
    Ok((answer.wire.id, answer.reply.server_us()))
}

/// A release once more, of what was not taken since.
async fn repeated(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    fence: u64,
    outbox: &mut impl SendObserver,
) -> Result<Answer, StoreError> {
    let answered = call(inner, names, &REPEAT, inner.now(), outbox, |not_after| {
        let parts = ScriptArgs::of([names.lock(), names.fence(), names.queue(), names.alive()]);
        parts.arg(token.as_uuid().hyphenated()).arg(names.wake()).arg(not_after).arg(fence)
    });
    let answer = answered.await.map_err(|failure| failure.error)?;
    match answer.reply.code() {
        1 | 2 => {
            // It need not be gone from the server that comes next.
            inner.release_replay.released(names, token, fence, inner.now());
            Ok(answer)
        }
        3 => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither released nor gone")),
    }
}

async fn answer(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    outbox: &mut impl SendObserver,
) -> Result<(Released, Answer), StoreError> {
    let held = token;
    let token = token.as_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let token: &str = token.hyphenated().encode_lower(&mut text);
    let begun = inner.now();
    let answered = call(inner, names, &RELEASE, begun, &mut *outbox, |not_after| {
        ScriptArgs::of([names.lock(), names.queue(), names.alive()]).arg(token).arg(names.wake()).arg(not_after)
    });
    let answered = match answered.await {
        Err(Failure { ran: Ran::Split, .. }) => moving::release(inner, names, token, begun, outbox).await,
        answered => answered,
    };
    let answer = answered.map_err(|failure| failure.error)?;
    if inner.config.repeats == Repeats::On {
        // Also what was gone already: it need not be gone from the server that comes next.
        inner.release_replay.released(names, held, inner.highest.of(names), inner.now());
    }
    match answer.reply.code() {
        1 => Ok((Released::Released, answer)),
        2 => Ok((Released::AlreadyGone, answer)),
        3 => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither released nor gone")),
    }
}
