//! Runs `release.lua`, `release_claim.lua`, `release_value.lua` or `repeat.lua` once (R4). What is not answered, others try again: `release`, `cleanup`.

use super::shared::{self, OTHER_SCRIPT, TURNS};
use super::{moving, value};
use crate::clock::Moment;
use crate::key::Token;
use crate::store::pending::ReleaseScope;
use crate::store::redis::builder::Repeats;
use crate::store::redis::call::{Answer, Failure, SendObserver, call};
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{RELEASE, RELEASE_CLAIM, RELEASE_VALUE, REPEAT, ScriptArgs, millis};
use crate::store::redis::shares::HoldKind;
use crate::store::{Released, StoreError, ValueToLeave};

/// What became of the lock, and the answer that says so.
type Ended = Result<(Released, Answer), StoreError>;

/// One release.
pub(in crate::store) async fn once(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    scope: ReleaseScope,
    sent: &mut impl SendObserver,
) -> Ended {
    match scope {
        ReleaseScope::Any => release(inner, names, token, HoldKind::Exclusive, sent).await,
        ReleaseScope::Share => Box::pin(release(inner, names, token, HoldKind::Share, sent)).await,
        ReleaseScope::Claim(fence) => Box::pin(release_claim(inner, names, token, fence, sent)).await,
        ReleaseScope::UpTo(fence) => Box::pin(repeat(inner, names, token, fence, sent)).await,
    }
}

/// A release once more, of what was not taken since.
async fn repeat(inner: &Inner, names: &KeyNames, token: Token, fence: u64, observer: &mut impl SendObserver) -> Ended {
    let answered = call(inner, names, &REPEAT, inner.now(), observer, |not_after| {
        let args = ScriptArgs::of([names.lock(), names.fence(), names.queue(), names.tickets()]);
        args.token(token).arg(names.wake()).arg(not_after).arg(fence)
    });
    let answer = meaning(answered.await)?;
    // The key need not be gone from the server that comes next.
    inner.recent_releases.released(names, token, fence, inner.now());
    Ok(answer)
}

/// Asks the script for what the token probably holds; the other one, if that was the wrong one.
async fn release(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    mut kind: HoldKind,
    observer: &mut impl SendObserver,
) -> Ended {
    let begun = inner.now();
    let mut answered = release_as(inner, names, token, kind, begun, observer).await;
    for _ in 1..TURNS {
        if !answered.as_ref().is_ok_and(|answer| answer.reply.code() == OTHER_SCRIPT) {
            break;
        }
        kind = kind.other();
        answered = release_as(inner, names, token, kind, begun, observer).await;
    }
    let ended = meaning(answered);
    match kind {
        HoldKind::Exclusive => remembered(inner, names, token, ended),
        HoldKind::Share => {
            if ended.is_ok() {
                inner.shares.remove(token);
            }
            ended
        }
    }
}

async fn release_as(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    kind: HoldKind,
    begun: Moment,
    observer: &mut impl SendObserver,
) -> Result<Answer, Failure> {
    match kind {
        HoldKind::Exclusive => release_exclusive(inner, names, token, begun, observer).await,
        HoldKind::Share => Box::pin(shared::release::send(inner, names, token, begun, observer)).await,
    }
}

async fn release_exclusive(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    begun: Moment,
    observer: &mut impl SendObserver,
) -> Result<Answer, Failure> {
    let answered = call(inner, names, &RELEASE, begun, &mut *observer, |not_after| {
        let args = ScriptArgs::of([names.lock(), names.tickets(), names.queue(), names.fence()]);
        let args = args.limits(not_after, 0);
        let not_after = u64::try_from(not_after).unwrap_or(0);
        args.text(&inner.config.side_keys).shared().token(token).numbers([not_after])
    })
    .await;
    match answered {
        Err(Failure { ran: Ran::Split, .. }) => {
            Box::pin(moving::release::release(inner, names, token, begun, observer)).await
        }
        answered => answered,
    }
}

/// The same, and the next fence will be above this one, which the process has given out under the token.
async fn release_claim(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    fence: u64,
    observer: &mut impl SendObserver,
) -> Ended {
    let begun = inner.now();
    inner.highest.saw(names, fence);
    let answered = call(inner, names, &RELEASE_CLAIM, begun, &mut *observer, |not_after| {
        let args = ScriptArgs::of([names.lock(), names.fence(), names.queue(), names.tickets()]);
        let args = args.token(token).arg(not_after).arg(millis(inner.config.fence_retention)).arg(fence);
        args.arg(&inner.config.side_keys)
    });
    let answered = match answered.await {
        Err(Failure { ran: Ran::Split, .. }) => {
            Box::pin(moving::release::claim(inner, names, token, begun, observer)).await
        }
        answered => answered,
    };
    remembered(inner, names, token, meaning(answered))
}

/// A release that leaves a value. While the slot of the lock moves, nothing is left: the keys may be on two nodes.
pub(super) async fn leaving(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    value: &ValueToLeave,
    observer: &mut impl SendObserver,
) -> Ended {
    let (begun, left) = (inner.now(), value::name(inner, names));
    let answered = call(inner, names, &RELEASE_VALUE, begun, &mut *observer, |not_after| {
        let args = ScriptArgs::of([names.lock(), names.fence(), names.queue(), names.tickets(), &left]);
        let args = args.token(token).arg(not_after).text(&inner.config.side_keys);
        args.arg(millis(value.life).max(1)).value(value.bytes.clone())
    });
    let answered = match answered.await {
        Err(Failure { ran: Ran::Split, .. }) => {
            Box::pin(moving::release::release(inner, names, token, begun, observer)).await
        }
        answered => answered,
    };
    remembered(inner, names, token, meaning(answered))
}

/// Keeps in mind that a release was answered, also of what was gone already: it need not be gone from the server that
/// comes next.
pub(super) fn remember(inner: &Inner, names: &KeyNames, token: Token) {
    if inner.config.repeats == Repeats::On {
        inner.recent_releases.released(names, token, inner.highest.of(names), inner.now());
    }
}

fn remembered(inner: &Inner, names: &KeyNames, token: Token, ended: Ended) -> Ended {
    if ended.is_ok() {
        remember(inner, names, token);
    }
    ended
}

fn meaning(answered: Result<Answer, Failure>) -> Ended {
    let answer = answered.map_err(|failure| failure.error)?;
    match answer.reply.code() {
        1 => Ok((Released::Released, answer)),
        2 => Ok((Released::AlreadyGone, answer)),
        3 => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither released nor gone")),
    }
}
