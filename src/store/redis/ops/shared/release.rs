//! Ending a share: `release.lua` (R4).

use super::side_keys;
use crate::clock::Moment;
use crate::key::Token;
use crate::store::redis::call::{Answer, Failure, SendObserver, call};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{SHARE_RELEASE, ScriptArgs};

/// Asks for it once; the answer is as that for an exclusive lock, or that it is one.
pub(in crate::store) async fn send(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    begun: Moment,
    observer: impl SendObserver,
) -> Result<Answer, Failure> {
    let [ends, holds] = side_keys(inner, names);
    call(inner, names, &SHARE_RELEASE, begun, observer, |not_after| {
        let args = ScriptArgs::of([names.lock(), names.tickets(), names.queue(), &ends, &holds]);
        args.limits(not_after, 0).text(&inner.config.side_keys).shared().token(token).arg(not_after)
    })
    .await
}
