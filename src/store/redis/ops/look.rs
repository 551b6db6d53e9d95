//! Looking who holds a lock, and for how long: `look.lua`. No value leaves the server (R25).

use std::sync::Arc;
use std::time::Duration;

use super::shared::{self, OTHER_SCRIPT};
use crate::claim_reuse::KeptIdle;
use crate::key::{Key, Token};
use crate::store::redis::call::{Failure, call};
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::redis::inner::Inner;
use crate::store::redis::script::{LOOK, ScriptArgs};
use crate::store::{Extended, Holder, KeyState, StoreError};

pub(in crate::store) async fn look(
    inner: &Arc<Inner>,
    key: &Key,
    token: Option<Token>,
) -> Result<KeyState, StoreError> {
    let names = inner.names(key)?;
    let token = token.map(|token| token.as_uuid().hyphenated().to_string()).unwrap_or_default();
    let begun = inner.now();
    let both = |_| ScriptArgs::of([names.lock(), names.fence()]).arg(&token);
    let answered = match call(inner, &names, &LOOK, begun, (), both).await {
        // Its slot is moving (`moving`): without the fence.
        Err(Failure { ran: Ran::Split, .. }) => {
            call(inner, &names, &LOOK, begun, (), |_| ScriptArgs::of([names.lock()]).arg(&token)).await
        }
        answered => answered,
    };
    let answered = match answered {
        Ok(answer) if answer.reply.rest().first() == Some(&OTHER_SCRIPT) => {
            Box::pin(shared::look::send(inner, &names, &token, begun)).await
        }
        answered => answered,
    };
    let answer = answered.map_err(|failure| failure.error)?;
    match (answer.reply.code(), answer.reply.rest()) {
        (0, _) => Ok(KeyState::Free),
        (1, &[who, left_ms, fence]) => {
            let ends_in = u64::try_from(left_ms).ok().map(Duration::from_millis);
            let by = match who {
                0 => Holder::Other,
                1 => Holder::Ours,
                4 => Holder::Sharing,
                digit @ 16.. => claimed(digit - 16, ends_in),
                _ => Holder::OtherKind,
            };
            Ok(KeyState::Held { by, ends_in, fence: u64::try_from(fence).ok().filter(|fence| *fence > 0) })
        }
        _ => Err(protocol_error("neither free nor held")),
    }
}

/// Who holds a key by the claim of a process, whose token has this digit.
pub(super) fn claimed(digit: i64, ends_in: Option<Duration>) -> Holder {
    let kept_idle = KeptIdle::of_digit(u8::try_from(digit).unwrap_or(u8::MAX));
    if kept_idle.allows(ends_in) { Holder::Claim } else { Holder::Other }
}

/// For how long a token still holds its lock, from now: as R8 and R2 count it.
pub(in crate::store) async fn confirm(inner: &Arc<Inner>, key: &Key, token: Token) -> Extended {
    if inner.config.replicas > 0 {
        // What the master says may be known to it alone (R24).
        return Extended::Unknown(StoreError::Other("replicas may not have confirmed it".into()));
    }
    let begun = inner.now();
    match look(inner, key, Some(token)).await {
        Ok(KeyState::Held { by: Holder::Ours, ends_in: Some(left), .. }) => {
            let left_ms = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
            let valid_for = inner.valid_for(left, left_ms);
            if inner.now().saturating_since(begun) < valid_for {
                Extended::Extended { valid_for }
            } else {
                Extended::Unknown(StoreError::Timeout)
            }
        }
        Ok(KeyState::Held { by: Holder::Ours, ends_in: None, .. }) => {
            Extended::Unknown(StoreError::Other("the key has no end".into()))
        }
        Ok(_) => Extended::Lost,
        Err(error) => Extended::Unknown(error),
    }
}
