//! Tries to take locks on a majority of the nodes: `acquire.lua` on each, and what is to be taken back (L2).
//!
//! What was given without a majority is taken back at once, from nodes that answer late too; a node that has denied has
//! nothing to take back. `acquire_round` says what the answers mean.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::acquire_round::{AcquireRound, Decision, Leaves, NodeReply};
use super::super::fence::RoundNumber;
use super::super::in_flight::{InFlightGuard, InFlightState};
use super::super::inner::Inner;
use super::super::lock::Lock;
use super::super::queue::TICKET;
use super::super::reply::LockReply;
use super::super::round::{Before, Request, RoundPart, broadcast};
use super::super::script::ACQUIRE;
use super::release::{MAX_BATCH, Releases};
use crate::clock::Moment;
use crate::mode::Mode;
use crate::store::batching::{BatchSender, Batcher, Slot, submit};
use crate::store::redis::call::Failure;
use crate::store::redis::millis;
use crate::store::redis::script::ScriptArgs;
use crate::store::{AcquireRequest, Acquired, OnHeld, StoreError, drift};

/// Sends tries to all nodes, several in one round where there are several.
#[derive(Clone)]
pub(crate) struct Acquires(Arc<State>);

struct State {
    inner: Arc<Inner>,
    /// Releases grants that reach nobody.
    releases: Releases,
    batcher: Batcher<AcquireCall>,
}

/// One try to take a lock.
pub(crate) struct AcquireCall {
    lock: Arc<Lock>,
    ttl: Duration,
    begun: Moment,
    /// The process's order in the queue, if it waits there.
    order: Option<u64>,
    answer: oneshot::Sender<Acquired>,
}

/// The caller of one try. Dropping it releases a grant that did not reach the caller.
struct Caller<'a> {
    releases: &'a Releases,
    lock: Arc<Lock>,
    answer: oneshot::Receiver<Acquired>,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        // After this no answer can be sent: either it is here by now, or the round finds out and takes the grant back.
        self.answer.close();
        if let Ok(Acquired::Granted { .. }) = self.answer.try_recv() {
            drop(self.releases.start(Arc::clone(&self.lock)));
        }
    }
}

impl Acquires {
    pub(crate) fn new(inner: Arc<Inner>, releases: Releases) -> Self {
        Self(Arc::new(State { inner, releases, batcher: Batcher::new(MAX_BATCH) }))
    }

    pub(crate) async fn acquire(&self, request: AcquireRequest<'_>) -> Acquired {
        let State { inner, releases, .. } = &*self.0;
        let begun = inner.now();
        if request.mode != Mode::Exclusive {
            return Acquired::Unknown(StoreError::Config("a majority of nodes keeps exclusive locks alone".into()));
        }
        let (names, ttl) = match (inner.names(request.key), inner.checked_ttl(request.ttl)) {
            (Ok(names), Ok(ttl)) => (names, ttl),
            (Err(error), _) | (_, Err(error)) => return Acquired::Unknown(error),
        };
        let lock = Arc::new(Lock { names, token: request.token });
        let (sender, answer) = oneshot::channel();
        let mut caller = Caller { releases, lock: Arc::clone(&lock), answer };
        let attempt = match request.on_held {
            OnHeld::Fail => None,
            OnHeld::Queue | OnHeld::QueueForHandOver => {
                Some(inner.queue.attempt(&lock.names, begun, || inner.micros_at(begun)))
            }
        };
        let order = attempt.as_ref().map(|attempt| attempt.order);
        let call = AcquireCall { lock: Arc::clone(&lock), ttl, begun, order, answer: sender };
        let earlier = inner.in_flight.of(&lock);
        if earlier.is_some() || inner.is_cleaning(&lock) {
            let after = Some((Arc::clone(&lock), earlier));
            inner.spawn(round(inner, vec![call], RoundStart { after, ..RoundStart::first(inner, begun) }, None));
        } else {
            submit(self, call);
        }
        // Without an answer the round ended with the runtime.
        let answer = (&mut caller.answer).await.unwrap_or(Acquired::Unknown(StoreError::NotRunning));
        if attempt.is_some() && matches!(answer, Acquired::Granted { .. }) {
            inner.queue.forget(&lock.names);
        }
        answer
    }
}

impl BatchSender for Acquires {
    type Call = AcquireCall;

    fn batcher(&self) -> &Batcher<AcquireCall> {
        &self.0.batcher
    }

    fn send(slot: Slot<Self>, mut calls: Vec<AcquireCall>) {
        let inner = Arc::clone(&slot.sender().0.inner);
        Arc::clone(&inner).spawn(async move {
            // Whoever was woken together with these asks first.
            tokio::task::yield_now().await;
            slot.fill(&mut calls);
            // Nothing is sent for a caller that has gone while its call waited.
            calls.retain(|call| !call.answer.is_closed());
            if let Some(begun) = calls.iter().map(|call| call.begun).min() {
                round(&inner, calls, RoundStart::first(&inner, begun), Some(slot)).await;
            }
        });
    }
}

/// How a round begins.
struct RoundStart {
    number: RoundNumber,
    /// The fence that is proposed.
    fence: u64,
    begun: Moment,
    /// What must have ended before the only try of the round: the lock, and what goes on for it.
    after: Option<(Arc<Lock>, Option<Arc<InFlightState>>)>,
}

impl RoundStart {
    fn first(inner: &Inner, begun: Moment) -> Self {
        let fence = inner.proposal(begun);
        Self { number: RoundNumber::First, fence, begun, after: None }
    }
}

/// Sends the tries, and decides them.
fn round(
    inner: &Arc<Inner>,
    calls: Vec<AcquireCall>,
    start: RoundStart,
    slot: Option<Slot<Acquires>>,
) -> impl Future<Output = ()> + Send + use<> {
    let parts = script_args(inner, &calls, &start);
    let RoundStart { number, fence, begun, after } = start;
    let earlier = after.as_ref().and_then(|(_, earlier)| earlier.clone());
    let request = Arc::new(Request::new(inner, &ACQUIRE, parts, begun, Before::Acquire { after }));
    let pending = |call: AcquireCall| {
        let deadline = call.begun.saturating_add(call.ttl.saturating_sub(drift(call.ttl)));
        let round = AcquireRound::new(inner, number, fence, deadline);
        let AcquireCall { lock, ttl, begun, order, answer } = call;
        let (answer, earlier) = (Some(answer), earlier.clone());
        PendingAcquire { lock, ttl, begun, order, answer, number, earlier, round, guard: None }
    };
    let pending: Vec<PendingAcquire> = calls.into_iter().map(pending).collect();
    broadcast(request, pending, slot)
}

/// The arguments of `acquire.lua`, but for the not-after.
fn script_args(inner: &Inner, calls: &[AcquireCall], start: &RoundStart) -> ScriptArgs {
    let mut parts = ScriptArgs::for_locks(calls.len()).key(&inner.config.marker);
    for AcquireCall { lock, .. } in calls {
        parts = parts.key(lock.names.lock()).key(lock.names.fence());
    }
    for AcquireCall { lock, .. } in calls {
        parts = parts.key(lock.names.queue());
    }
    let config = &inner.config;
    parts = parts.arg(start.fence).arg(millis(config.fence_retention)).arg(millis(config.silence()));
    parts = parts.arg(if start.number == RoundNumber::First { 1 } else { 2 }).arg(&config.process).arg(millis(TICKET));
    parts = parts.tokens(calls.iter().map(|call| call.lock.token));
    let terms = |call: &AcquireCall| (millis(call.ttl), call.order.unwrap_or(0));
    // Mostly they are those of all.
    let are_alike = calls.windows(2).all(|two| terms(&two[0]) == terms(&two[1]));
    let each = if are_alike { &calls[..1] } else { calls };
    for (ttl_ms, order) in each.iter().map(terms) {
        parts = parts.numbers([ttl_ms]).numbers([order]);
    }
    parts
}

/// One try of a round.
struct PendingAcquire {
    lock: Arc<Lock>,
    ttl: Duration,
    begun: Moment,
    order: Option<u64>,
    /// Where the answer goes to; `None` once the try is decided.
    answer: Option<oneshot::Sender<Acquired>>,
    number: RoundNumber,
    /// What went on for the token when the round began, if that is this try's alone.
    earlier: Option<Arc<InFlightState>>,
    round: AcquireRound,
    /// Set when the try was decided while nodes had not answered; kept until all have.
    guard: Option<InFlightGuard>,
}

impl RoundPart for PendingAcquire {
    fn count(&mut self, request: &Arc<Request>, node: usize, reply: Result<LockReply, Failure>, now: Moment) {
        let inner = &request.inner;
        let reply = NodeReply::of(inner, reply, self.ttl);
        inner.nodes[node].count(reply.vote());
        if let NodeReply::Quarantined { left } = reply {
            inner.nodes[node].quarantined(left);
        }
        if self.is_decided() {
            self.late(request, node, &reply);
        } else if self.round.count(inner, node, reply, now) {
            self.decide(request);
        }
    }

    /// Answers the caller, or begins a second round.
    fn decide(&mut self, request: &Arc<Request>) {
        let Some(answer) = self.answer.take() else { return };
        let inner = &request.inner;
        let silent = self.round.silent();
        if !silent.is_empty() {
            let earlier = self.earlier.clone().filter(|_| self.number == RoundNumber::Second);
            let guard = InFlightGuard::of_acquire(&inner.in_flight, Arc::clone(&self.lock), silent, earlier);
            request.decide(guard.state());
            self.guard = Some(guard);
        }
        match self.round.decide(inner, self.ttl, self.begun) {
            Decision::Again(fence) => self.begin_second_round(request, fence, answer),
            Decision::Answer(acquired) => self.answer(request, acquired, answer),
        }
    }

    fn is_decided(&self) -> bool {
        self.answer.is_none()
    }
}

impl PendingAcquire {
    fn begin_second_round(&self, request: &Request, fence: u64, answer: oneshot::Sender<Acquired>) {
        self.take_back(request, &[Leaves::Doubt]);
        let Self { ttl, begun, order, .. } = *self;
        let after = Some((Arc::clone(&self.lock), self.guard.as_ref().map(|guard| Arc::clone(guard.state()))));
        let again = AcquireCall { lock: Arc::clone(&self.lock), ttl, begun, order, answer };
        let start = RoundStart { number: RoundNumber::Second, fence, begun: request.inner.now(), after };
        request.inner.spawn(round(&request.inner, vec![again], start, None));
    }

    fn answer(&self, request: &Request, acquired: Acquired, answer: oneshot::Sender<Acquired>) {
        let is_granted = matches!(acquired, Acquired::Granted { .. });
        if let Acquired::Granted { fence: Some(fence), .. } = acquired {
            request.inner.proved(fence);
        }
        // The failure is marked before the answer goes out: the caller may try again at once.
        if is_granted {
            self.take_back(request, &[Leaves::Doubt]);
        } else {
            self.fail(request);
        }
        if answer.send(acquired).is_err() && is_granted {
            self.fail(request);
        }
    }

    /// The token got nothing, or its grant reached nobody.
    fn fail(&self, request: &Request) {
        let states = self.guard.as_ref().map(InFlightGuard::state).into_iter().chain(&self.earlier);
        states.for_each(|state| state.fail());
        self.take_back(request, &[Leaves::Doubt, Leaves::Token]);
    }

    /// Takes back what the nodes that have answered keep.
    fn take_back(&self, request: &Request, what: &[Leaves]) {
        let replies = self.round.replies();
        replies
            .filter(|(_, reply)| what.contains(&reply.leaves(self.number)))
            .for_each(|(node, _)| self.take_back_at(request, node));
    }

    fn take_back_at(&self, request: &Request, node: usize) {
        let node = &request.inner.nodes[node];
        // The last moment at which a lost grant could begin, and its TTL. The operation timeout counts twice because
        // clocks differ.
        let over = request.begun.saturating_add(node.redis.config.operation_timeout * 2).saturating_add(self.ttl);
        request.take_back(node, &self.lock, over);
    }

    /// Takes back what a node has given after the try was decided, unless the token may keep it.
    fn late(&self, request: &Request, node: usize, reply: &NodeReply) {
        let Some(guard) = &self.guard else { return };
        let keeps = match (reply.leaves(self.number), request.sent_to(node)) {
            (Leaves::Nothing, _) => true,
            (Leaves::Token, Some(sent)) => guard.state().keeps(node, sent),
            _ => false,
        };
        if !keeps {
            self.take_back_at(request, node);
        }
        guard.state().answered(node);
    }
}
