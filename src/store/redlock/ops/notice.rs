//! Telling whoever holds a lock that it will be ended, through all nodes: `notice.lua` of a single server on each.
//!
//! A holder has the lock on a majority, and listens to a majority: the two have a node in common. The notice may come
//! from several nodes; the same notice again changes nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;

use super::super::Inner;
use super::super::fanout::{Enough, drain_in_background, hear, no_quorum};
use super::super::node::Node;
use super::look::look;
use crate::key::Key;
use crate::store::{KeyState, Noticed, Store, StoreError};

pub(crate) async fn give(inner: &Arc<Inner>, key: &Key, within: Duration) -> Result<Noticed, StoreError> {
    let begun = inner.now();
    let mut running: FuturesUnordered<_> =
        inner.nodes.iter().map(|node| ask(Arc::clone(node), key.clone(), within)).collect();
    let (mut answered, mut told, mut errors) = (0, false, Vec::new());
    hear(inner, begun, &mut running, |(node, answer)| {
        match answer {
            Ok(answer) => {
                answered += 1;
                told |= matches!(answer, Noticed::Told { .. });
            }
            Err(error) => errors.push((node, error)),
        }
        // The holder may listen to the others: as many as can are to tell it.
        Enough::No
    })
    .await;
    drain_in_background(inner, running, drop);
    if answered < inner.quorum.needed() {
        return Err(no_quorum(inner, answered, &errors));
    }
    match look(inner, key, None).await? {
        KeyState::Held { fence, .. } if told => Ok(Noticed::Told { fence }),
        KeyState::Held { .. } => Ok(Noticed::CannotTell),
        KeyState::Free => Ok(Noticed::WasFree),
    }
}

async fn ask(node: Arc<Node>, key: Key, within: Duration) -> (usize, Result<Noticed, StoreError>) {
    let answer = match node.failure() {
        Some(why) => Err(why),
        None => node.store.give_notice(&key, within).await,
    };
    (node.index, answer)
}
