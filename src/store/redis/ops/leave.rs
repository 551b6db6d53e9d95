//! Giving up this process's place in a queue: `leave.lua` (R16).

use std::sync::Arc;

use crate::store::redis::call::call;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{LEAVE, ScriptArgs};
use crate::store::redis::tickets::Left;

/// Gives a place up, unless a call of this process still tries or listens for it.
pub(in crate::store) fn leave(inner: &Arc<Inner>, names: KeyNames) {
    if let Some(left) = inner.tickets.leave(&names) {
        give_up(inner, names, left);
    }
}

/// Has the server forget a ticket, and what was handed over to it, in the background. If that fails, both run out.
pub(in crate::store) fn give_up(inner: &Arc<Inner>, names: KeyNames, left: Left) {
    let Some(runtime) = inner.runtime() else { return };
    let inner = Arc::clone(inner);
    runtime.spawn(async move {
        let args = |_| {
            let ticket = format_args!("{}:{}", inner.config.process, left.ticket);
            let args = ScriptArgs::of([names.lock(), names.queue(), names.tickets()]).arg(ticket);
            match left.token {
                Some(token) => args.token(token),
                None => args.text(""),
            }
        };
        let _ = call(&inner, &names, &LEAVE, inner.now(), (), args).await;
    });
}
