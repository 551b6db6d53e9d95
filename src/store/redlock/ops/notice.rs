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
    // Before the notice: whoever gets it may release the lock before the last node is asked.
    let KeyState::Held { fence, .. } = look(inner, key, None).await? else { return Ok(Noticed::WasFree) };
    let begun = inner.now();
    let mut fanout = Fanout::to_all(inner, |node| ask(Arc::clone(node), key.clone(), within));
    let (mut answers, mut errors) = (Vec::new(), Vec::new());
    let collecting = fanout.collect(inner, begun, |node, answer| {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => errors.push((node, error)),
        }
        // The holder may listen to the nodes that have not answered: as many nodes as can are to send the notice.
        Enough::No
    });
    collecting.await;
    fanout.drain_in_background(inner, |_, _| {});
    if answers.len() < inner.quorum.needed() {
        return Err(no_quorum(inner, answers.len(), &errors));
    }
    let no_node_can = answers.iter().all(|answer| *answer == Noticed::CannotTell);
    Ok(if no_node_can { Noticed::CannotTell } else { Noticed::Told { fence } })
}

async fn ask(node: Arc<Node>, key: Key, within: Duration) -> Result<Noticed, StoreError> {
    node.reachable()?.give_notice(&key, within).await
}
