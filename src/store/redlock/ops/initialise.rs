//! Ending all quarantines for an operator: `initialise.lua` on every node.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::super::inner::Inner;
use super::super::node::Node;
use super::super::script::INITIALISE;
use crate::store::StoreError;
use crate::store::redis::conn::wire::Asking;
use crate::store::redis::millis;
use crate::store::redis::script::ScriptArgs;

/// An operator waits longer than a caller who wants a lock.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn initialise(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let done = join_all(inner.nodes.iter().map(|node| one(inner, node))).await;
    done.into_iter().collect()
}

async fn one(inner: &Inner, node: &Node) -> Result<(), StoreError> {
    let begun = inner.now();
    let Some(link) = node.redis.link() else { return Err(StoreError::NotRunning) };
    let initialising = async {
        let wire = link.wire().await?;
        let longest = millis(inner.config.silence());
        let parts = ScriptArgs::of([&*inner.config.marker]).arg(longest).arg(&wire.process.run_id);
        wire.run_one(&INITIALISE, Asking::No, parts).await.map_err(|fault| fault.error)?;
        node.initialised(&wire).await
    };
    node.redis.ticks.within(begun, TIMEOUT, initialising).await.and_then(|done| done)
}
