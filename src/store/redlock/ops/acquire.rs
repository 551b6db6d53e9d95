//! Tries to take locks on a majority of the nodes: `acquire.lua` on each, and what is to be taken back (L2).
//!
//! What was given without a majority is taken back at once, from nodes that answer late too; a node that has said no
//! has nothing to take back. `poll` says what the answers come to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::acquire_round::{Decision, Leaves, NodeReply, Poll};
use super::super::fanout::Enough;
use super::super::fence::Turn;
use super::super::in_flight::{InFlightGuard, Shared};
use super::super::queue::TICKET;
use super::super::round::{Heard, Kind, Request, RoundHandler, broadcast, words};
use super::super::script::ACQUIRE;
use super::super::{Inner, Lock};
use super::release;
use crate::clock::Moment;
use crate::store::batching::{BatchSender, Batcher, Slot, submit};
use crate::store::redis::millis;
use crate::store::redis::script::ScriptArgs;
use crate::store::{AcquireRequest, Acquired, OnHeld, StoreError, drift};

/// Somebody wants a lock.
pub(crate) struct Try {
    lock: Arc<Lock>,
    ttl: Duration,
    begun: Moment,
    /// Its place in the queue, if it waits.
    order: Option<u64>,
    tell: oneshot::Sender<Acquired>,
}

/// Waits for his answer. A grant that he does not hear of is released.
struct Caller<'a> {
    inner: &'a Arc<Inner>,
    lock: Arc<Lock>,
    answer: oneshot::Receiver<Acquired>,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        // From here on it cannot be told any more: either it is here, or its flight takes it back.
        self.answer.close();
        if let Ok(Acquired::Granted { .. }) = self.answer.try_recv() {
            drop(release::order(self.inner, Arc::clone(&self.lock)));
        }
    }
}

pub(crate) async fn acquire(inner: &Arc<Inner>, ask: AcquireRequest<'_>) -> Acquired {
    let begun = inner.now();
    let (names, ttl) = match (inner.names(ask.key), inner.checked_ttl(ask.ttl)) {
        (Ok(names), Ok(ttl)) => (names, ttl),
        (Err(error), _) | (_, Err(error)) => return Acquired::Unknown(error),
    };
    let lock = Arc::new(Lock { names, token: ask.token });
    let (tell, answer) = oneshot::channel();
    let mut caller = Caller { inner, lock: Arc::clone(&lock), answer };
    let asking = match ask.on_held {
        OnHeld::Fail => None,
        OnHeld::Queue => Some(inner.queue.ask(&lock.names, begun, || inner.micros_at(begun))),
    };
    let order = asking.as_ref().map(|asking| asking.order);
    let one = Try { lock: Arc::clone(&lock), ttl, begun, order, tell };
    let before = inner.in_flight.of(&lock);
    if before.is_some() || inner.is_cleaning(&lock) {
        let after = Some((Arc::clone(&lock), before));
        flush(inner, vec![one], Going { after, ..Going::at(inner, begun) }, None);
    } else {
        submit(&AcquireSender(Arc::clone(inner)), one);
    }
    // Without an answer its flight ended with the runtime.
    let answer = (&mut caller.answer).await.unwrap_or(Acquired::Unknown(StoreError::NotRunning));
    if asking.is_some() && matches!(answer, Acquired::Granted { .. }) {
        inner.queue.forget(&lock.names);
    }
    answer
}

/// Sends tries to all nodes.
#[derive(Clone)]
pub(crate) struct AcquireSender(Arc<Inner>);

impl BatchSender for AcquireSender {
    type Call = Try;

    fn batcher(&self) -> &Batcher<Try> {
        &self.0.acquires
    }

    fn send(slot: Slot<Self>, mut tries: Vec<Try>) {
        let inner = &Arc::clone(&slot.sender().0);
        // Whoever has gone while he waited is not asked for.
        tries.retain(|one| !one.tell.is_closed());
        if let Some(begun) = tries.iter().map(|one| one.begun).min() {
            flush(inner, tries, Going::at(inner, begun), Some(slot));
        }
    }
}

/// How some tries go out.
struct Going {
    turn: Turn,
    fence: u64,
    begun: Moment,
    /// What the only one of them has to wait for.
    after: Option<(Arc<Lock>, Option<Arc<Shared>>)>,
}

impl Going {
    fn at(inner: &Inner, begun: Moment) -> Self {
        let fence = inner.proposal(begun);
        Self { turn: Turn::First, fence, begun, after: None }
    }
}

fn flush(inner: &Arc<Inner>, tries: Vec<Try>, going: Going, slot: Option<Slot<AcquireSender>>) {
    let Going { turn, fence, begun, after } = going;
    let mut parts = ScriptArgs::for_locks(tries.len()).key(&inner.marker);
    for Try { lock, .. } in &tries {
        parts = parts.key(lock.names.lock()).key(lock.names.fence());
    }
    for Try { lock, .. } in &tries {
        parts = parts.key(lock.names.queue());
    }
    parts = parts.arg(fence).arg(millis(inner.config.fence_retention)).arg(millis(inner.config.silence()));
    parts = parts.arg(if turn == Turn::First { 1 } else { 2 }).arg(&inner.config.process).arg(millis(TICKET));
    for Try { lock, ttl, order, .. } in &tries {
        parts = parts.arg(lock.token.as_uuid().hyphenated()).arg(millis(*ttl)).arg(order.unwrap_or(0));
    }
    let before = after.as_ref().and_then(|(_, before)| before.clone());
    let request = Request::new(inner, &ACQUIRE, parts, begun, Kind::Acquire { after });
    let request = Arc::new(request);
    let asked = |one: Try| {
        let deadline = one.begun.saturating_add(one.ttl.saturating_sub(drift(one.ttl)));
        let Try { lock, ttl, begun, order, tell } = one;
        Asked { poll: Poll::new(inner, turn, fence, deadline), lock, ttl, begun, order, tell: Some(tell), stay: None }
    };
    let asked: Vec<Asked> = tries.into_iter().map(asked).collect();
    let open = asked.len();
    let load = Tries { inner: Arc::clone(inner), request: Arc::clone(&request), turn, before, asked, open };
    inner.spawn(broadcast(Arc::clone(inner), request, load, slot));
}

/// Those who are asked for together.
struct Tries {
    inner: Arc<Inner>,
    request: Arc<Request>,
    turn: Turn,
    /// Of the only one, what was under way when it was asked for.
    before: Option<Arc<Shared>>,
    asked: Vec<Asked>,
    /// How many have no answer yet.
    open: usize,
}

struct Asked {
    lock: Arc<Lock>,
    ttl: Duration,
    begun: Moment,
    order: Option<u64>,
    /// Who is to hear the answer, until he has.
    tell: Option<oneshot::Sender<Acquired>>,
    poll: Poll,
    /// For as long as nodes have not answered.
    stay: Option<InFlightGuard>,
}

impl RoundHandler for Tries {
    fn hear(&mut self, node: usize, heard: Heard) -> Enough {
        let now = self.inner.now();
        for (at, word) in (0..self.asked.len()).zip(words(&heard)) {
            let said = NodeReply::of(&self.inner, word, self.asked[at].ttl);
            self.count(node, &said);
            if self.asked[at].tell.is_none() {
                self.late(at, node, &said);
            } else if self.asked[at].poll.hear(&self.inner, node, said, now) == Enough::Yes {
                self.decide(at);
            }
        }
        if self.open == 0 { Enough::Yes } else { Enough::No }
    }

    fn settle(&mut self) {
        for at in 0..self.asked.len() {
            if self.asked[at].tell.is_some() {
                self.decide(at);
            }
        }
    }
}

impl Tries {
    fn count(&self, node: usize, said: &NodeReply) {
        let node = &self.inner.nodes[node];
        node.count(said.vote());
        if let NodeReply::Quarantined { left } = said {
            node.quarantined(*left);
        }
    }

    /// Tells the caller, or asks again.
    fn decide(&mut self, at: usize) {
        let asked = &mut self.asked[at];
        let Some(tell) = asked.tell.take() else { return };
        self.open -= 1;
        let silent = asked.poll.silent();
        if !silent.is_empty() {
            let earlier = self.before.clone().filter(|_| self.turn == Turn::Second);
            let stay = InFlightGuard::of_acquire(&self.inner, Arc::clone(&asked.lock), silent, earlier);
            self.request.decide(stay.shared());
            asked.stay = Some(stay);
        }
        let inner = Arc::clone(&self.inner);
        match asked.poll.decide(&inner, asked.ttl, asked.begun) {
            Decision::Again(fence) => {
                self.take_back(at, &[Leaves::Doubt]);
                let Asked { lock, ttl, begun, order, stay, .. } = &self.asked[at];
                let after = Some((Arc::clone(lock), stay.as_ref().map(|stay| Arc::clone(stay.shared()))));
                let again = Try { lock: Arc::clone(lock), ttl: *ttl, begun: *begun, order: *order, tell };
                flush(&inner, vec![again], Going { turn: Turn::Second, fence, begun: inner.now(), after }, None);
            }
            Decision::Answer(answer) => {
                let holds = matches!(answer, Acquired::Granted { .. });
                if let Acquired::Granted { fence: Some(fence), .. } = answer {
                    inner.highest_fence.fetch_max(fence, Ordering::Relaxed);
                }
                // It is known to have failed before anybody can try again.
                if !holds {
                    self.fail(at);
                } else {
                    self.take_back(at, &[Leaves::Doubt]);
                }
                if tell.send(answer).is_err() && holds {
                    self.fail(at);
                }
            }
        }
    }

    /// The token got nothing, or nobody heard that it did.
    fn fail(&self, at: usize) {
        let under_way = self.asked[at].stay.as_ref().map(InFlightGuard::shared).into_iter().chain(&self.before);
        under_way.for_each(|shared| shared.fail());
        self.take_back(at, &[Leaves::Doubt, Leaves::Token]);
    }

    /// Takes back what the nodes that were heard have.
    fn take_back(&self, at: usize, what: &[Leaves]) {
        let heard = self.asked[at].poll.heard();
        heard
            .filter(|(_, said)| what.contains(&said.leaves(self.turn)))
            .for_each(|(node, _)| self.take_back_at(at, node));
    }

    fn take_back_at(&self, at: usize, node: usize) {
        let Asked { lock, ttl, .. } = &self.asked[at];
        let (redis, begun) = (&self.inner.nodes[node].redis, self.request.begun);
        // The last moment at which a lost grant could begin, and its life; the second is for the difference of clocks.
        let over = begun.saturating_add(redis.config.operation_timeout * 2).saturating_add(*ttl);
        self.request.take_back(&self.inner.nodes[node], lock, over);
    }

    /// Hears a node for a caller who has his answer.
    fn late(&mut self, at: usize, node: usize, said: &NodeReply) {
        let Some(stay) = &self.asked[at].stay else { return };
        let keeps = match (said.leaves(self.turn), self.request.sent_to(node)) {
            (Leaves::Nothing, _) => true,
            (Leaves::Token, Some(sent)) => stay.shared().keeps(node, sent),
            _ => false,
        };
        if !keeps {
            self.take_back_at(at, node);
        }
        stay.shared().answered(node);
    }
}
