//! Ending the share with a fence: `force.lua` (R26). Never tried twice.

use super::side_keys;
use crate::clock::Moment;
use crate::store::redis::call::{Answer, Failure, call};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{SHARE_FORCE, ScriptArgs, millis};

/// The answer is as that of `force.lua` for exclusive locks.
pub(in crate::store) async fn send(
    inner: &Inner,
    names: &KeyNames,
    fence: u64,
    begun: Moment,
) -> Result<Answer, Failure> {
    let [ends, holds] = side_keys(inner, names);
    call(inner, names, &SHARE_FORCE, begun, (), |not_after| {
        let keys = [names.lock(), names.fence(), names.queue(), names.tickets(), &ends, &holds];
        let args = ScriptArgs::of(keys).arg(&inner.forced_channel).arg(not_after);
        let args = args.arg(millis(inner.config.fence_retention)).arg(inner.highest.of(names));
        args.arg(fence).text(&inner.config.side_keys)
    })
    .await
}
