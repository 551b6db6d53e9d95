//! Moving the end of a lock: `extend.lua` (R3). An unknown answer changes nothing.

use std::sync::Arc;
use std::time::Duration;

use super::shared::{self, OTHER_SCRIPT, TURNS};
use crate::clock::Moment;
use crate::key::{Key, Token, Ttl};
use crate::store::redis::call::{Answer, Confirmable, Failure, call};
use crate::store::redis::fault::protocol_error;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::replicas::Confirmed;
use crate::store::redis::script::{EXTEND, ScriptArgs, millis};
use crate::store::redis::shares::HoldKind;
use crate::store::{Extended, StoreError};

pub(in crate::store) async fn extend(inner: &Arc<Inner>, key: &Key, token: Token, ttl: Ttl) -> Extended {
    attempt(inner, key, token, ttl).await.unwrap_or_else(Extended::Unknown)
}

async fn attempt(inner: &Arc<Inner>, key: &Key, token: Token, ttl: Ttl) -> Result<Extended, StoreError> {
    let begun = inner.now();
    let names = inner.names(key)?;
    let ttl = inner.checked_ttl(ttl)?;
    let life = ttl.saturating_add(inner.config.lock_delay);
    let answer = ask(inner, &names, token, (begun, life)).await.map_err(|failure| failure.error)?;
    match (answer.reply.code(), answer.reply.rest()) {
        (1, &[left_ms]) => {
            // It may have had more left than was asked for now.
            let left = u64::try_from(left_ms).map_or(ttl, Duration::from_millis);
            let valid_for = inner.valid_for(ttl.max(left.saturating_sub(inner.config.lock_delay)), left_ms);
            if answer.confirmed == Confirmed::TooFew {
                return Err(StoreError::TooFewReplicas);
            }
            if inner.now().saturating_since(begun) >= valid_for {
                return Err(StoreError::Timeout);
            }
            Ok(Extended::Extended { valid_for })
        }
        (2, _) => Ok(Extended::Lost),
        (3, _) => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither extended nor lost")),
    }
}

/// Asks the script for what the token probably holds; the other one, if that was the wrong one.
async fn ask(inner: &Inner, names: &KeyNames, token: Token, until: (Moment, Duration)) -> Result<Answer, Failure> {
    let mut kind = inner.shares.kind(token);
    for _ in 1..TURNS {
        let answer = send(inner, names, token, until, kind).await?;
        if answer.reply.code() != OTHER_SCRIPT {
            return Ok(answer);
        }
        kind = kind.other();
    }
    send(inner, names, token, until, kind).await
}

async fn send(
    inner: &Inner,
    names: &KeyNames,
    token: Token,
    (begun, life): (Moment, Duration),
    kind: HoldKind,
) -> Result<Answer, Failure> {
    if kind == HoldKind::Share {
        return Box::pin(shared::extend::send(inner, names, token, (begun, life))).await;
    }
    call(inner, names, &EXTEND, begun, Confirmable, |not_after| {
        ScriptArgs::of([names.lock()]).token(token).arg(millis(life)).arg(not_after)
    })
    .await
}
