//! Looking who holds a lock: `look.lua`. No value leaves the server (R25).

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use super::call::call;
use super::fault::nonsense;
use super::script::{LOOK, Parts};
use crate::key::{Key, Token};
use crate::store::{Holder, Seen, StoreError};

pub(super) async fn look(inner: &Arc<Inner>, key: &Key, token: Option<Token>) -> Result<Seen, StoreError> {
    let names = inner.names(key)?;
    let token = token.map(|token| token.as_uuid().hyphenated().to_string()).unwrap_or_default();
    let answered =
        call(inner, &names, &LOOK, inner.now(), (), |_| Parts::of([names.lock(), names.fence()]).arg(&token));
    let answer = answered.await.map_err(|failure| failure.error)?;
    match (answer.reply.code(), answer.reply.rest()) {
        (0, _) => Ok(Seen::Free),
        (1, &[who, left_ms, fence]) => {
            let by = match who {
                0 => Holder::Other,
                1 => Holder::Ours,
                _ => Holder::OtherKind,
            };
            let ends_in = u64::try_from(left_ms).ok().map(Duration::from_millis);
            Ok(Seen::Held { by, ends_in, fence: u64::try_from(fence).ok().filter(|fence| *fence > 0) })
        }
        _ => Err(nonsense("neither free nor held")),
    }
}
