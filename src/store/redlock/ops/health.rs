//! The health of the nodes, asked now.

use std::sync::Arc;

use futures_util::future::join_all;

use super::super::fanout::no_quorum;
use super::super::inner::Inner;
use super::super::node::Node;
use crate::store::{Health, NodeHealth, Store, StoreError, Warning};

pub(crate) async fn health(inner: &Arc<Inner>) -> Health {
    let begun = inner.now();
    // All are admitted before any is asked: of two names of one server the second may have been connected first.
    join_all(inner.nodes.iter().map(|node| node.wire(begun))).await;
    let answers = join_all(inner.nodes.iter().map(|node| ask(inner, node))).await;
    let mut warnings = Vec::new();
    let (mut spans, mut errors, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
    for (node, (health, its_warnings)) in answers.into_iter().enumerate() {
        for warning in its_warnings {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        match &health.answer {
            Ok(span) => spans.push(*span),
            Err(error) => errors.push((node, error.clone())),
        }
        nodes.push(health);
    }
    // A wrong set-up is reported at the start, though a majority may do without the node.
    let misconfigured = errors.iter().find(|(_, error)| matches!(error, StoreError::Config(_)));
    // A round takes as long as a majority takes to answer. A node in quarantine answers too, and will vote.
    let away = errors.iter().filter(|(_, error)| !matches!(error, StoreError::Quarantined { .. })).count();
    spans.sort_unstable();
    let answer = match (misconfigured, spans.get(inner.quorum.needed() - 1)) {
        (Some((_, error)), _) => Err(error.clone()),
        (None, Some(span)) => Ok(*span),
        (None, None) if inner.nodes.len() - away >= inner.quorum.needed() => {
            Ok(spans.last().copied().unwrap_or_default())
        }
        (None, None) => Err(no_quorum(inner, spans.len(), &errors)),
    };
    Health::new(answer, warnings).with_nodes(nodes)
}

async fn ask(inner: &Inner, node: &Node) -> (NodeHealth, Vec<Warning>) {
    let Health { answer, warnings, .. } = match node.wire(inner.now()).await {
        Err(why) => Health::new(Err(why), Vec::new()),
        Ok(_) => node.store.health().await,
    };
    let left = node.silent_for();
    let answer = match answer {
        Ok(_) if !left.is_zero() => Err(StoreError::Quarantined { left }),
        answer => answer,
    };
    (NodeHealth::new(Arc::clone(&node.name), answer, node.votes()), warnings)
}
