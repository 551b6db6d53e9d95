//! Listing everybody who holds a lock: `holders.lua`. Tokens do not leave the server (R25).

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::side_keys;
use crate::key::{Key, Token};
use crate::mode::Mode;
use crate::store::redis::fault::protocol_error;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::ops::look;
use crate::store::redis::script::{Form, SHARE_HOLDERS, ScriptArgs};
use crate::store::{HoldInfo, Holder, KeyState, StoreError};

/// So many are listed at most.
const MOST: usize = 1000;

pub(in crate::store) async fn holders(
    inner: &Arc<Inner>,
    key: &Key,
    token: Option<Token>,
) -> Result<Vec<HoldInfo>, StoreError> {
    match look::look(inner, key, token).await? {
        KeyState::Held { by: Holder::Sharing | Holder::Ours, .. } => {
            let names = inner.names(key)?;
            let asking = list(inner, &names, token);
            let found = inner.ticks.within(inner.now(), inner.config.operation_timeout, asking).await??;
            match found.is_empty() {
                // It is the token's alone; or it has changed hands meanwhile.
                true => Ok(HoldInfo::alone(look::look(inner, key, token).await?)),
                false => Ok(found),
            }
        }
        state => Ok(HoldInfo::alone(state)),
    }
}

/// Those who share the lock.
async fn list(inner: &Inner, names: &KeyNames, token: Option<Token>) -> Result<Vec<HoldInfo>, StoreError> {
    let [ends, holds] = side_keys(inner, names);
    let args = ScriptArgs::of([names.lock(), &ends, &holds]);
    let args = match token {
        Some(token) => args.token(token),
        None => args.text(""),
    };
    let args = args.arg(MOST);
    let wire = inner.servers.of(|| names.slot()).await?.wire().await?;
    let answer = wire.send(&SHARE_HOLDERS, Form::Body, std::iter::once(&args)).await.map_err(|fault| fault.error)?;
    read(answer).ok_or_else(|| protocol_error("no list of holders"))
}

/// The limit, and four numbers of each.
fn read(answer: Value) -> Option<Vec<HoldInfo>> {
    let Value::Array(values) = answer else { return None };
    let number = |value: Value| if let Value::Int(number) = value { u64::try_from(number).ok() } else { None };
    let numbers: Vec<u64> = values.into_iter().map(number).collect::<Option<_>>()?;
    let Some((limit, shares)) = numbers.split_first() else { return Some(Vec::new()) };
    let limit = u32::try_from(*limit).ok()?;
    let share = |share: &[u64]| {
        let &[is_ours, left_ms, permits, fence] = share else { return None };
        let mode = match limit {
            0 => Mode::Shared,
            limit => Mode::Permits { limit, permits: u32::try_from(permits).ok()? },
        };
        let by = if is_ours == 1 { Holder::Ours } else { Holder::Other };
        Some(HoldInfo::new(by, mode, Some(Duration::from_millis(left_ms)), Some(fence)))
    };
    shares.chunks(4).map(share).collect()
}
