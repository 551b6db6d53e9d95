//! Giving notice to the holder of a lock that it will be ended: `notice.lua`. Every process receives it, on one channel.

use std::sync::Arc;
use std::time::Duration;

use crate::key::Key;
use crate::store::redis::call::call;
use crate::store::redis::fault::protocol_error;
use crate::store::redis::inner::Inner;
use crate::store::redis::script::{NOTICE, ScriptArgs, millis};
use crate::store::{Event, Noticed, StoreError};

pub(in crate::store) async fn give(inner: &Arc<Inner>, key: &Key, within: Duration) -> Result<Noticed, StoreError> {
    let names = inner.names(key)?;
    let args = |_| ScriptArgs::of([names.lock(), names.fence()]).arg(&inner.notice_channel).arg(millis(within));
    let answer = call(inner, &names, &NOTICE, inner.now(), (), args).await.map_err(|failure| failure.error)?;
    match (answer.reply.code(), answer.reply.rest()) {
        (1, &[fence]) => Ok(Noticed::Told { fence: known(fence) }),
        (2, _) => Ok(Noticed::WasFree),
        (3, _) => Ok(Noticed::CannotTell),
        _ => Err(protocol_error("neither told nor free")),
    }
}

/// What `notice.lua` has published: the fence, the milliseconds, and the lock. `None`: it is no notice.
pub(in crate::store) fn read(inner: &Inner, text: &str) -> Option<Event> {
    let mut args = text.splitn(3, ' ');
    let (fence, within_ms) = (args.next()?.parse().ok()?, args.next()?.parse().ok()?);
    let key = inner.config.template.canonical(&Key::new(args.next()?).ok()?)?;
    Some(Event::Notice { key, fence: known(fence), within: Duration::from_millis(within_ms) })
}

fn known(fence: i64) -> Option<u64> {
    u64::try_from(fence).ok().filter(|fence| *fence > 0)
}
