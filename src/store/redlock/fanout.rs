//! One question to all nodes at once, and their answers in the order in which they come: [`hear`], [`drain_in_background`].

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Inner;
use super::node::Node;
use crate::clock::Moment;
use crate::store::StoreError;

/// Whether more answers are to be heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Enough {
    Yes,
    No,
}

/// Hears answers until it is enough, until there are no more, or for the per-node timeout.
pub(super) async fn hear<F: Future>(
    inner: &Inner,
    begun: Moment,
    running: &mut FuturesUnordered<F>,
    mut hear: impl FnMut(F::Output) -> Enough,
) {
    let hearing = async {
        while let Some(answer) = running.next().await {
            if hear(answer) == Enough::Yes {
                return;
            }
        }
    };
    // Whoever has not answered by then counts as unknown.
    let _ = inner.ticks.within(begun, inner.config.node_timeout, hearing).await;
}

/// Hears the rest in the background.
pub(super) fn drain_in_background<F>(
    inner: &Inner,
    mut running: FuturesUnordered<F>,
    mut hear: impl FnMut(F::Output) + Send + 'static,
) where
    F: Future<Output: Send> + Send + 'static,
{
    // Without a runtime the store has stopped, and what guards them takes over.
    if let (false, Some(runtime)) = (running.is_empty(), inner.runtime()) {
        runtime.spawn(async move {
            while let Some(answer) = running.next().await {
                hear(answer);
            }
        });
    }
}

/// What kept a quorum from answering, node by node.
pub(super) fn no_quorum(inner: &Inner, answered: usize, errors: &[(usize, StoreError)]) -> StoreError {
    let total = inner.nodes.len();
    // What no waiting mends is to be read by itself.
    if let Some((_, StoreError::Config(why))) = errors.iter().find(|(_, e)| matches!(e, StoreError::Config(_))) {
        return StoreError::Config(Arc::clone(why));
    }
    if errors.len() == total && errors.iter().all(|(_, error)| *error == StoreError::NotRunning) {
        return StoreError::NotRunning;
    }
    let name = |at: &usize| inner.nodes.get(*at).map_or("", |node: &Arc<Node>| &*node.name);
    let why: Vec<String> = errors.iter().map(|(at, error)| format!("{}: {error}", name(at))).collect();
    StoreError::NoQuorum { answered, needed: inner.quorum.needed(), nodes: total, why: why.join("; ").into() }
}
