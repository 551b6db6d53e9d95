//! Moving the end of a share: `extend.lua` (R3).

use std::time::Duration;

use super::side_keys;
use crate::clock::Moment;
use crate::key::Token;
use crate::store::redis::call::{Answer, Confirmable, Failure, call};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{SHARE_EXTEND, ScriptArgs, millis};

/// Asks for it once; the answer is as that for an exclusive lock, or that it is one.
pub(in crate::store) async fn send(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    (begun, life): (Moment, Duration),
) -> Result<Answer, Failure> {
    let [ends, holds] = side_keys(inner, names);
    call(inner, names, &SHARE_EXTEND, begun, Confirmable, |not_after| {
        ScriptArgs::of([names.lock(), &ends, &holds]).token(token).arg(millis(life)).arg(not_after)
    })
    .await
}
