//! Giving up this process's place in a queue: `leave.lua` (R16).

use std::sync::Arc;

use crate::store::redis::call::call;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{LEAVE, ScriptArgs};

/// Gives a place up, unless a call of this process still tries or listens for it.
pub(in crate::store) fn leave(inner: &Arc<Inner>, names: KeyNames) {
    if let Some(number) = inner.tickets.leave(&names) {
        give_up(inner, names, number);
    }
}

/// Has the server forget a ticket, in the background. If that fails, the ticket runs out.
pub(in crate::store) fn give_up(inner: &Arc<Inner>, names: KeyNames, number: u64) {
    let Some(runtime) = inner.runtime() else { return };
    let inner = Arc::clone(inner);
    runtime.spawn(async move {
        let args = |_| {
            let ticket = format_args!("{}:{number}", inner.config.process);
            ScriptArgs::of([names.lock(), names.queue(), names.alive()]).arg(ticket)
        };
        let _ = call(&inner, &names, &LEAVE, inner.now(), (), args).await;
    });
}
