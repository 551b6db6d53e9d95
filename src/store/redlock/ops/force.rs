//! Ending any holder, on all nodes: `force.lua` of a single server on each. Never tried twice.

use std::sync::Arc;

use super::super::fanout::{Enough, Fanout, undecided};
use super::super::inner::Inner;
use super::super::node::Node;
use super::super::quorum::{Ballot, BallotState, Vote};
use crate::clock::Moment;
use crate::key::Key;
use crate::store::{Forced, Store};

pub(crate) async fn force(inner: &Arc<Inner>, key: &Key) -> Forced {
    let begun = inner.now();
    let mut fanout = Fanout::to_all(inner, |node| ask(Arc::clone(node), key.clone()));
    let (mut ballot, mut errors, mut released) = (Ballot::new(inner.quorum, Moment::FAR), Vec::new(), 0);
    let counting = fanout.collect(inner, begun, |node, answer| {
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
        ballot.cast(node, vote, inner.now());
        if ballot.state() == BallotState::Open { Enough::No } else { Enough::Yes }
    });
    counting.await;
    let state = ballot.settle(inner.now());
    fanout.drain_in_background(inner, |_, _| {});
    match state {
        BallotState::Granted => Forced::Released,
        BallotState::Denied => Forced::WasFree,
        // No majority has anything any more, and at least one node had something.
        _ if ballot.answered() >= inner.quorum.needed() && released > 0 => Forced::Released,
        _ => Forced::Unknown(undecided(inner, &ballot, errors)),
    }
}

async fn ask(node: Arc<Node>, key: Key) -> Forced {
    match node.reachable() {
        Ok(store) => store.force_release(&key).await,
        Err(why) => Forced::Unknown(why),
    }
}
