//! Giving a holder notice that its lock will be ended, through all nodes: `notice.lua` of a single server on each.
//!
//! A holder has the lock on a majority, and listens to a majority: the two have a node in common. The notice may come
//! from several nodes; the same notice again changes nothing.

use std::sync::Arc;
use std::time::Duration;

use super::super::fanout::{Enough, Fanout, no_quorum};
use super::super::inner::Inner;
use super::super::node::Node;
use super::look::look;
use crate::key::Key;
use crate::store::{KeyState, Noticed, Store, StoreError};

pub(crate) async fn give(inner: &Arc<Inner>, key: &Key, within: Duration) -> Result<Noticed, StoreError> {
    let begun = inner.now();
    let mut fanout = Fanout::to_all(inner, |node| ask(Arc::clone(node), key.clone(), within));
    let (mut answered, mut was_sent, mut errors) = (0, false, Vec::new());
    let collecting = fanout.collect(inner, begun, |node, answer| {
        match answer {
            Ok(answer) => {
                answered += 1;
                was_sent |= matches!(answer, Noticed::Told { .. });
            }
            Err(error) => errors.push((node, error)),
        }
        // The holder may listen to the nodes that have not answered: as many nodes as can are to send the notice.
        Enough::No
    });
    collecting.await;
    fanout.drain_in_background(inner, |_, _| {});
    if answered < inner.quorum.needed() {
        return Err(no_quorum(inner, answered, &errors));
    }
    match look(inner, key, None).await? {
        KeyState::Held { fence, .. } if was_sent => Ok(Noticed::Told { fence }),
        KeyState::Held { .. } => Ok(Noticed::CannotTell),
        KeyState::Free => Ok(Noticed::WasFree),
    }
}

async fn ask(node: Arc<Node>, key: Key, within: Duration) -> Result<Noticed, StoreError> {
    match node.failure() {
        Some(why) => Err(why),
        None => node.store.give_notice(&key, within).await,
    }
}
