//! Ending what a token holds, while the lock's slot is moving.

use crate::clock::Moment;
use crate::key::Token;
use crate::store::redis::call::{Answer, Failure, SendObserver, call};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{MOVING_RELEASE, ScriptArgs};

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
