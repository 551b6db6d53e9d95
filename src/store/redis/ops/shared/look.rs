//! Looking at a lock that is shared: `look.lua`.

use super::side_keys;
use crate::clock::Moment;
use crate::store::redis::call::{Answer, Failure, call};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{SHARE_LOOK, ScriptArgs};

/// Looks once; the answer is as that of `look.lua` for exclusive locks. `token`: its text, or nothing.
pub(in crate::store) async fn send(
    inner: &Inner,
    names: &KeyNames,
    token: &str,
    begun: Moment,
) -> Result<Answer, Failure> {
    let [ends, holds] = side_keys(inner, names);
    let args = |_| ScriptArgs::of([names.lock(), names.fence(), &ends, &holds]).text(token);
    call(inner, names, &SHARE_LOOK, begun, (), args).await
}
