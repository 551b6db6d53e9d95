//! Runs `release.lua` or `repeat.lua` once (R4). What is not answered, others try again: `release`, `cleanup`.

use super::moving;
use crate::key::Token;
use crate::store::redis::builder::Repeats;
use crate::store::redis::call::{Answer, Failure, SendObserver, call};
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::pending::{PendingCleanup, ReleaseScope};
use crate::store::redis::script::{RELEASE, REPEAT, ScriptArgs};
use crate::store::{Released, StoreError};

/// One release for the clean-up. Answers the wire and the server's clock.
pub(in crate::store) async fn once(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    scope: ReleaseScope,
    sent: &mut PendingCleanup,
) -> Result<(u64, i64), StoreError> {
    let answer = match scope {
        ReleaseScope::Any => release(inner, names, token, sent).await?.1,
        ReleaseScope::UpTo(fence) => repeat(inner, names, token, fence, sent).await?.1,
    };
    Ok((answer.wire.id, answer.reply.server_us()))
}

/// A release once more, of what was not taken since.
async fn repeat(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    fence: u64,
    observer: &mut impl SendObserver,
) -> Result<(Released, Answer), StoreError> {
    let answered = call(inner, names, &REPEAT, inner.now(), observer, |not_after| {
        let args = ScriptArgs::of([names.lock(), names.fence(), names.queue(), names.alive()]);
        args.token(token).arg(names.wake()).arg(not_after).arg(fence)
    });
    let answer = meaning(answered.await)?;
    // The key need not be gone from the server that comes next.
    inner.recent_releases.released(names, token, fence, inner.now());
    Ok(answer)
}

pub(in crate::store) async fn release(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    observer: &mut impl SendObserver,
) -> Result<(Released, Answer), StoreError> {
    let begun = inner.now();
    let answered = call(inner, names, &RELEASE, begun, &mut *observer, |not_after| {
        ScriptArgs::of([names.lock(), names.queue(), names.alive()]).token(token).arg(names.wake()).arg(not_after)
    });
    let answered = match answered.await {
        Err(Failure { ran: Ran::Split, .. }) => moving::release::release(inner, names, token, begun, observer).await,
        answered => answered,
    };
    let answer = meaning(answered);
    if answer.is_ok() && inner.config.repeats == Repeats::On {
        // Also what was gone already: it need not be gone from the server that comes next.
        inner.recent_releases.released(names, token, inner.highest.of(names), inner.now());
    }
    answer
}

fn meaning(answered: Result<Answer, Failure>) -> Result<(Released, Answer), StoreError> {
    let answer = answered.map_err(|failure| failure.error)?;
    match answer.reply.code() {
        1 => Ok((Released::Released, answer)),
        2 => Ok((Released::AlreadyGone, answer)),
        3 => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither released nor gone")),
    }
}
