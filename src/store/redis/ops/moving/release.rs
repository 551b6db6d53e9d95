//! Ending what a token holds, while the lock's slot is moving.

use super::fence::{self, Fence};
use crate::clock::Moment;
use crate::key::Token;
use crate::store::redis::call::{Answer, Failure, SendObserver, call};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{LOOK, MOVING_RELEASE, ScriptArgs};

/// Releases by comparison; the answer is as that of `release.lua`.
pub(in crate::store) async fn release(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    begun: Moment,
    observer: impl SendObserver,
) -> Result<Answer, Failure> {
    let args = |not_after| ScriptArgs::of([names.lock()]).token(token).arg(names.wake()).arg(not_after);
    call(inner, names, &MOVING_RELEASE, begun, observer, args).await
}

/// The same, after a fence was stored that is above all that this process has seen. That is done only while the token
/// holds the lock: the fence of another holder stays what it is.
pub(in crate::store) async fn claim(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    begun: Moment,
    observer: impl SendObserver,
) -> Result<Answer, Failure> {
    let look = |_| ScriptArgs::of([names.lock()]).token(token);
    if let (1, [OURS, ..]) = code_and_rest(&call(inner, names, &LOOK, begun, (), look).await?) {
        fence::store(inner, names, begun, Fence::Mint).await?;
    }
    release(inner, names, token, begun, observer).await
}

/// What `look.lua` answers of the token that it was asked about.
const OURS: i64 = 1;

fn code_and_rest(answer: &Answer) -> (i64, &[i64]) {
    (answer.reply.code(), answer.reply.rest())
}
