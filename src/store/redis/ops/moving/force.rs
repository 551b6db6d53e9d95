//! Ending any holder, while the lock's slot is moving.

use super::fence::{self, Fence};
use crate::clock::Moment;
use crate::store::redis::call::{Answer, Failure, call};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{MOVING_FORCE, Reply, ScriptArgs};

/// Ends any holder; the answer is as that of `force.lua`.
pub(in crate::store) async fn force(inner: &Inner, names: &KeyNames, begun: Moment) -> Result<Answer, Failure> {
    let fence = fence::store(inner, names, begun, Fence::Raise).await?;
    let &[number] = fence.reply.rest() else { return Ok(fence) };
    let answered = call(inner, names, &MOVING_FORCE, begun, (), |not_after| {
        ScriptArgs::of([names.lock()]).arg(names.wake()).arg(&inner.forced_channel).arg(not_after)
    });
    let mut answer = answered.await?;
    answer.reply = Reply::of([answer.reply.code(), answer.reply.server_us(), number]);
    Ok(answer)
}
