//! A fence for a lock whose slot is moving (R12).

use crate::clock::Moment;
use crate::store::redis::call::{Answer, Confirmable, Failure, TOO_LATE, call};
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{MOVING_FENCE, ScriptArgs, millis};

/// Whether the fence that is stored will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Fence {
    Keep,
    Mint,
    /// As a forced release raises it.
    Raise,
}

/// Stores a fence for the lock, and answers it.
pub(in crate::store) async fn store(
    inner: &Inner,
    names: &KeyNames,
    begun: Moment,
    which: Fence,
) -> Result<Answer, Failure> {
    let answered = call(inner, names, &MOVING_FENCE, begun, Confirmable, |not_after| {
        let args = ScriptArgs::of([names.fence()]).arg(not_after).arg(millis(inner.config.fence_retention));
        args.arg(inner.highest.of(names)).arg(which as u8)
    });
    let answer = answered.await?;
    match (answer.reply.code(), answer.reply.rest()) {
        (1, [_]) | (TOO_LATE, _) => Ok(answer),
        _ => Err(Failure { error: protocol_error("no fence"), ran: Ran::Maybe }),
    }
}
