//! Giving up this process's place in a queue, on all nodes: `leave.lua` on each.

use std::sync::Arc;

use super::super::inner::Inner;
use super::super::script::LEAVE;
use crate::store::redis::call::call;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::ScriptArgs;

/// Gives the place up, unless this process still tries or listens: in this process at once, and in the background on
/// the nodes that can be reached. On the others it runs out.
pub(crate) fn leave(inner: &Arc<Inner>, names: KeyNames) {
    if !inner.queue.give_up(&names) {
        return;
    }
    let names = Arc::new(names);
    for node in inner.nodes.iter().filter(|node| node.failure().is_none()) {
        let (store, node, names) = (Arc::clone(inner), Arc::clone(node), Arc::clone(&names));
        inner.spawn(async move {
            let leaving = call(&node.redis, &names, &LEAVE, store.now(), (), |_| {
                ScriptArgs::of([names.lock(), names.queue()]).arg(&store.config.process)
            });
            // Without an answer the place runs out.
            let _ = leaving.await;
        });
    }
}
