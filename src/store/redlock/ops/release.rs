//! Ending what tokens hold, on all nodes (L2): `release.lua` on each, until each has answered.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::fanout::{Enough, no_quorum};
use super::super::in_flight::Shared;
use super::super::quorum::{Ballot, Outcome, Vote};
use super::super::round::{Heard, Kind, Request, RoundHandler, broadcast, words};
use super::super::script::RELEASE;
use super::super::{Inner, Lock};
use crate::clock::Moment;
use crate::store::batching::{BatchSender, Batcher, Slot, submit};
use crate::store::redis::fault::protocol_error;
use crate::store::redis::script::ScriptArgs;
use crate::store::{Released, StoreError};

/// A lock is to be released.
pub(crate) struct Order {
    lock: Arc<Lock>,
    begun: Moment,
    /// What is still under way for the token.
    in_flight: Option<Arc<Shared>>,
    tell: oneshot::Sender<Released>,
}

/// Takes the order down. From here on it is carried out, whoever listens (S7).
pub(crate) fn order(inner: &Arc<Inner>, lock: Arc<Lock>) -> oneshot::Receiver<Released> {
    let (tell, hear) = oneshot::channel();
    let in_flight = inner.in_flight.release(&lock);
    submit(&ReleaseSender(Arc::clone(inner)), Order { lock, begun: inner.now(), in_flight, tell });
    hear
}

/// What the order has come to.
pub(crate) async fn answer(ordered: oneshot::Receiver<Released>) -> Released {
    // Without an answer its flight ended with the runtime.
    ordered.await.unwrap_or(Released::Unknown(StoreError::NotRunning))
}

/// Sends releases to all nodes.
#[derive(Clone)]
pub(crate) struct ReleaseSender(Arc<Inner>);

impl BatchSender for ReleaseSender {
    type Call = Order;

    fn batcher(&self) -> &Batcher<Order> {
        &self.0.releases
    }

    fn send(slot: Slot<Self>, orders: Vec<Order>) {
        let inner = &Arc::clone(&slot.sender().0);
        let mut parts = ScriptArgs::for_locks(orders.len());
        for Order { lock, .. } in &orders {
            parts = parts.key(lock.names.lock());
        }
        for Order { lock, .. } in &orders {
            parts = parts.key(lock.names.queue());
        }
        for Order { lock, .. } in &orders {
            parts = parts.arg(lock.token.as_uuid().hyphenated()).arg(lock.names.wake());
        }
        let begun = orders.iter().map(|order| order.begun).min().unwrap_or_else(|| inner.now());
        let in_flight = orders.iter().filter_map(|order| order.in_flight.clone()).collect();
        let request = Arc::new(Request::new(inner, &RELEASE, parts, begun, Kind::Release(in_flight)));
        let ordered = |order: Order| Ordered {
            lock: order.lock,
            tell: Some(order.tell),
            ballot: Ballot::new(inner.quorum, Moment::FAR),
            errors: Vec::new(),
            answered: 0,
        };
        let ordered: Vec<Ordered> = orders.into_iter().map(ordered).collect();
        let open = ordered.len();
        let load = Orders { inner: Arc::clone(inner), request: Arc::clone(&request), ordered, open };
        inner.spawn(broadcast(Arc::clone(inner), request, load, Some(slot)));
    }
}

/// Those that go out together.
struct Orders {
    inner: Arc<Inner>,
    request: Arc<Request>,
    ordered: Vec<Ordered>,
    /// How many are not decided yet.
    open: usize,
}

struct Ordered {
    lock: Arc<Lock>,
    /// Who wants to hear what came of it, until it is decided.
    tell: Option<oneshot::Sender<Released>>,
    ballot: Ballot,
    errors: Vec<(usize, StoreError)>,
    answered: usize,
}

impl RoundHandler for Orders {
    fn hear(&mut self, node: usize, heard: Heard) -> Enough {
        let now = self.inner.now();
        for (at, word) in (0..self.ordered.len()).zip(words(&heard)) {
            let said = word.map_err(|failure| failure.error).and_then(|word| match word.parts().0 {
                1 => Ok(Vote::Granted),
                2 => Ok(Vote::Denied),
                3 => Err(StoreError::Timeout),
                _ => Err(protocol_error("neither released nor gone")),
            });
            self.one_heard(at, node, said, now);
        }
        if self.open == 0 { Enough::Yes } else { Enough::No }
    }

    fn settle(&mut self) {
        (0..self.ordered.len()).for_each(|at| self.decide(at));
    }
}

impl Orders {
    fn one_heard(&mut self, at: usize, node: usize, said: Result<Vote, StoreError>, now: Moment) {
        let one = &mut self.ordered[at];
        let vote = match said {
            Ok(vote) => {
                one.answered += 1;
                vote
            }
            Err(error) => {
                one.errors.push((node, error));
                self.see_to(at, node, now);
                Vote::Unknown
            }
        };
        let one = &mut self.ordered[at];
        let _ = one.ballot.cast(node, vote, now);
        if one.ballot.outcome() != Outcome::Open {
            self.decide(at);
        }
    }

    /// Sees to it that the node gets the release when it can.
    fn see_to(&self, at: usize, node: usize, now: Moment) {
        let node = &self.inner.nodes[node];
        // Of a node that is away and owes enough, the key runs out by itself: it is a minority.
        if !node.owes_enough() {
            // How long the key was taken for is not known here; no key is taken for longer.
            let over = now.saturating_add(node.redis.config.longest_life);
            self.request.take_back(node, &self.ordered[at].lock, over);
        }
    }

    fn decide(&mut self, at: usize) {
        let one = &mut self.ordered[at];
        let Some(tell) = one.tell.take() else { return };
        self.open -= 1;
        let released = match one.ballot.settle(self.inner.now()) {
            Outcome::Granted => Released::Released,
            Outcome::Denied => Released::AlreadyGone,
            // No majority has it any more, though it is not known whether one had it.
            _ if one.answered >= self.inner.quorum.needed() => Released::AlreadyGone,
            _ => {
                let silent = |node: &usize| !one.ballot.has_heard(*node) && one.errors.iter().all(|(at, _)| at != node);
                let silent: Vec<usize> = (0..self.inner.nodes.len()).filter(silent).collect();
                one.errors.extend(silent.into_iter().map(|node| (node, StoreError::Timeout)));
                Released::Unknown(no_quorum(&self.inner, one.answered, &one.errors))
            }
        };
        // Whoever does not listen has what he wanted all the same.
        let _ = tell.send(released);
    }
}
