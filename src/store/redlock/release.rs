//! Ending what a token holds, on all nodes (L2): `release.lua` of a single server on each, until each has answered.

use std::sync::Arc;

use futures_util::stream::FuturesUnordered;

use super::Inner;
use super::fan::{Enough, hear, no_quorum, see_off};
use super::node::Node;
use super::quorum::{Ballot, Outcome, Vote};
use super::underway::Shared;
use crate::clock::Moment;
use crate::key::{Key, Token};
use crate::store::redis::release::{Order, order_by_name};
use crate::store::{Released, StoreError};

/// What is to be released, guarded on each node from the moment that it was asked for.
pub(super) struct Orders {
    begun: Moment,
    orders: Vec<OfNode>,
}

/// What is to be released on a node, if it is asked at all, and beside what that is still under way.
type OfNode = (Arc<Node>, Option<Order>, Option<Arc<Shared>>);

/// Takes the order down. From here on it is carried out, whatever becomes of the future (S7).
pub(super) fn order(inner: &Arc<Inner>, key: &Key, token: Token) -> Result<Orders, StoreError> {
    let names = inner.names(key)?;
    let underway = inner.underway.release(token);
    let order = |node: &Arc<Node>| {
        // Of a node that is away and owes enough, the key runs out by itself: it is a minority.
        let order = (!node.owes_enough()).then(|| order_by_name(&node.redis, names.clone(), token));
        (Arc::clone(node), order, underway.clone())
    };
    Ok(Orders { begun: inner.now(), orders: inner.nodes.iter().map(order).collect() })
}

impl Orders {
    pub(super) async fn carry_out(self, inner: &Arc<Inner>) -> Released {
        let mut running: FuturesUnordered<_> =
            self.orders.into_iter().map(|(node, order, underway)| carry_out(node, order, underway)).collect();
        let (mut ballot, mut errors) = (Ballot::new(inner.quorum, Moment::FAR), Vec::new());
        hear(inner, self.begun, &mut running, |(node, answer)| {
            let vote = match answer {
                Released::Released => Vote::Granted,
                Released::AlreadyGone => Vote::Denied,
                Released::Unknown(error) => {
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
        see_off(inner, running, drop);
        match outcome {
            Outcome::Granted => Released::Released,
            Outcome::Denied => Released::AlreadyGone,
            // No majority has it any more, though it is not known whether one had it.
            _ if answered >= inner.quorum.needed() => Released::AlreadyGone,
            _ => Released::Unknown(no_quorum(inner, answered, &errors)),
        }
    }
}

async fn carry_out(node: Arc<Node>, order: Option<Order>, underway: Option<Arc<Shared>>) -> (usize, Released) {
    if let Some(underway) = underway {
        underway.until_answered(node.index).await;
    }
    let answer = match (node.failure(), order) {
        // The order takes it back when the node comes.
        (Some(why), _) => Released::Unknown(why),
        (None, Some(order)) => order.carry_out(&node.redis).await,
        (None, None) => Released::Unknown(StoreError::CleaningUp),
    };
    (node.index, answer)
}
