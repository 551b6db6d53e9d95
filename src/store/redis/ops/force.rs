//! Ending any holder: `force.lua` (R26). Never tried twice: the second might hit a later holder.

use std::sync::Arc;

use super::moving;
use super::shared::{self, OTHER_SCRIPT};
use crate::key::Key;
use crate::store::redis::call::{Failure, call};
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::redis::inner::Inner;
use crate::store::redis::script::{FORCE, ScriptArgs, millis};
use crate::store::{Forced, StoreError};

/// With a fence, ends the grant that has it and no other.
pub(in crate::store) async fn force(inner: &Arc<Inner>, key: &Key, fence: Option<u64>) -> Forced {
    attempt(inner, key, fence).await.unwrap_or_else(Forced::Unknown)
}

async fn attempt(inner: &Arc<Inner>, key: &Key, only: Option<u64>) -> Result<Forced, StoreError> {
    let begun = inner.now();
    let names = inner.names(key)?;
    let text = only.map(|fence| fence.to_string()).unwrap_or_default();
    let answered = call(inner, &names, &FORCE, begun, (), |not_after| {
        let args = ScriptArgs::of([names.lock(), names.fence(), names.queue(), names.tickets()]);
        let args = args.arg(names.wake()).arg(&inner.forced_channel).arg(not_after);
        args.arg(millis(inner.config.fence_retention)).arg(inner.highest.of(&names)).arg(&text)
    });
    let answered = match answered.await {
        Err(Failure { ran: Ran::Split, .. }) => moving::force::force(inner, &names, begun).await,
        answered => answered,
    };
    let answered = match (answered, only) {
        (Ok(answer), Some(fence)) if answer.reply.code() == OTHER_SCRIPT => {
            shared::force::send(inner, &names, fence, begun).await
        }
        (answered, _) => answered,
    };
    let answer = answered.map_err(|failure| failure.error)?;
    if let &[fence] = answer.reply.rest() {
        inner.highest.saw(&names, u64::try_from(fence).unwrap_or(0));
    }
    match answer.reply.code() {
        1 => Ok(Forced::Released),
        2 => Ok(Forced::WasFree),
        3 => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither released nor free")),
    }
}
