//! Making an exclusive lock a shared one: `downgrade.lua`.
//!
//! Asked once; an unknown answer leaves the lock exclusive or shared, held by the same token until the same end, and may be
//! asked for again.

use std::sync::Arc;

use super::side_keys;
use crate::key::{Key, Token};
use crate::store::redis::call::{Confirmable, call};
use crate::store::redis::fault::protocol_error;
use crate::store::redis::inner::Inner;
use crate::store::redis::replicas::Confirmed;
use crate::store::redis::script::{SHARE_DOWNGRADE, ScriptArgs, millis};
use crate::store::{Extended, StoreError};

/// `last_fence`: the last one that this process has given out under the token; 0 if there is none.
pub(in crate::store) async fn downgrade(inner: &Arc<Inner>, key: &Key, token: Token, last_fence: u64) -> Extended {
    attempt(inner, key, token, last_fence).await.unwrap_or_else(Extended::Unknown)
}

async fn attempt(inner: &Arc<Inner>, key: &Key, token: Token, last_fence: u64) -> Result<Extended, StoreError> {
    let begun = inner.now();
    let names = inner.names(key)?;
    let [ends, holds] = side_keys(inner, &names);
    inner.shares.insert(token);
    let answered = call(inner, &names, &SHARE_DOWNGRADE, begun, Confirmable, |not_after| {
        let keys = [names.lock(), names.fence(), names.queue(), names.tickets(), &ends, &holds];
        let args = ScriptArgs::of(keys).token(token).arg(not_after).arg(inner.highest.of(&names));
        args.arg(millis(inner.config.fence_retention)).arg(millis(inner.config.longest_life)).arg(last_fence)
    })
    .await;
    let answer = answered.map_err(|failure| failure.error)?;
    match (answer.reply.code(), answer.reply.rest()) {
        (1, _) if answer.confirmed == Confirmed::TooFew => Err(StoreError::TooFewReplicas),
        (1, &[left_ms]) => {
            let valid_for = inner.valid_for(inner.config.longest_life, left_ms);
            if inner.now().saturating_since(begun) >= valid_for {
                return Err(StoreError::Timeout);
            }
            Ok(Extended::Extended { valid_for })
        }
        (2, _) => Ok(Extended::Lost),
        (3, _) => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither shared nor lost")),
    }
}
