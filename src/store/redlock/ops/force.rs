//! Ending any holder, on all nodes: `force.lua` of a single server on each. Never tried twice.

use std::sync::Arc;

use futures_util::stream::FuturesUnordered;

use super::super::Inner;
use super::super::fanout::{Enough, drain_in_background, hear, no_quorum};
use super::super::node::Node;
use super::super::quorum::{Ballot, Outcome, Vote};
use crate::clock::Moment;
use crate::key::Key;
use crate::store::{Forced, Store};

pub(crate) async fn force(inner: &Arc<Inner>, key: &Key) -> Forced {
    let begun = inner.now();
    let mut running: FuturesUnordered<_> = inner.nodes.iter().map(|node| ask(Arc::clone(node), key.clone())).collect();
    let (mut ballot, mut errors, mut released) = (Ballot::new(inner.quorum, Moment::FAR), Vec::new(), 0);
    hear(inner, begun, &mut running, |(node, answer)| {
        let vote = match answer {
            Forced::Released => {
                released += 1;
                Vote::Granted
            }
            Forced::WasFree => Vote::Denied,
            Forced::Unknown(error) => {
                errors.push((node, error));
                Vote::Unknown
            }
        };
        let _ = ballot.cast(node, vote, inner.now());
        if ballot.outcome() == Outcome::Open { Enough::No } else { Enough::Yes }
    })
    .await;
    let outcome = ballot.settle(inner.now());
    let answered = inner.nodes.len() - errors.len() - running.len();
    drain_in_background(inner, running, drop);
    match outcome {
        Outcome::Granted => Forced::Released,
        Outcome::Denied => Forced::WasFree,
        // No majority has anything any more, and somebody had something.
        _ if answered >= inner.quorum.needed() && released > 0 => Forced::Released,
        _ => Forced::Unknown(no_quorum(inner, answered, &errors)),
    }
}

async fn ask(node: Arc<Node>, key: Key) -> (usize, Forced) {
    let answer = match node.failure() {
        Some(why) => Forced::Unknown(why),
        None => node.store.force_release(&key).await,
    };
    (node.index, answer)
}
