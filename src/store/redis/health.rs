//! How every server is that the store has a link to, asked now. Redlock asks each of its nodes so.

use std::sync::Arc;

use futures_util::future::join_all;

use super::Inner;
use super::link::{Link, Phase};
use crate::store::{Health, NodeHealth, StoreError, Votes, Warning};

pub(super) async fn health(inner: &Inner) -> Health {
    let begun = inner.now();
    let mut links = inner.servers.links();
    links.sort_unstable_by_key(|link| link.name());
    let asked = join_all(links.iter().map(|link| ask(inner, link))).await;
    let mut warnings = Vec::new();
    let (mut answer, mut nodes) = (Ok(()), Vec::new());
    for (node, heard) in asked {
        for warning in heard {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        answer = answer.and(node.answer.as_ref().map(|_| ()).map_err(StoreError::clone));
        nodes.push(node);
    }
    Health::new(answer.map(|()| inner.now().saturating_since(begun)), warnings).with_nodes(nodes)
}

async fn ask(inner: &Inner, link: &Arc<Link>) -> (NodeHealth, Vec<Warning>) {
    let begun = inner.now();
    let mut warnings = Vec::new();
    let asking = async {
        let wire = link.wire().await?;
        warnings.clone_from(&wire.warnings);
        wire.ping().await
    };
    let asked = inner.ticks.within(begun, inner.config.operation_timeout, asking).await.and_then(|asked| asked);
    let answer = match (asked, link.phase()) {
        (Ok(()), _) => Ok(inner.now().saturating_since(begun)),
        (Err(StoreError::Timeout), Phase::Down(why)) => Err(why),
        (Err(error), _) => Err(error),
    };
    (NodeHealth::new(link.name(), answer, Votes::default()), warnings)
}
