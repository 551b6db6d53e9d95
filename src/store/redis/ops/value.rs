//! The value that a release has left beside its lock: `value.lua`. How it is left, `release_value.lua` says.

use std::sync::Arc;
use std::time::Duration;

use crate::key::Key;
use crate::store::redis::call::{Answer, call};
use crate::store::redis::fault::protocol_error;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{ScriptArgs, VALUE};
use crate::store::{LeftValue, StoreError};

/// What the value of a lock is called.
pub(super) fn name(inner: &Inner, names: &KeyNames) -> String {
    names.beside(&inner.config.side_keys, "value:")
}

/// The value that was left within this time before the call.
pub(in crate::store) async fn value(
    inner: &Arc<Inner>,
    key: &Key,
    within: Duration,
) -> Result<Option<LeftValue>, StoreError> {
    let names = inner.names(key)?;
    let (name, begun) = (name(inner, &names), inner.now());
    // When the call is answered, the value is older by as long as that took.
    let within_us = within.saturating_add(inner.config.operation_timeout).as_micros();
    let within_us = u64::try_from(within_us).unwrap_or(u64::MAX);
    let answered = call(inner, &names, &VALUE, begun, (), |_| ScriptArgs::of([&name]).arg(within_us));
    let Answer { reply, wire, .. } = answered.await.map_err(|failure| failure.error)?;
    match (reply.code(), reply.rest()) {
        (0, _) => Ok(None),
        (1, &[left_us]) => {
            let age_us = wire.clock.latest_at(begun).saturating_sub(left_us);
            let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
            let bytes = reply.value().ok_or_else(|| protocol_error("a value without bytes"))?;
            Ok((age <= within).then(|| LeftValue::new(bytes, age)))
        }
        _ => Err(protocol_error("neither a value nor none")),
    }
}
