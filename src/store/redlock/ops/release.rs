//! Ending what tokens hold, on all nodes (L2): `release.lua` on each, until each has answered.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::fanout::undecided;
use super::super::in_flight::InFlightState;
use super::super::inner::Inner;
use super::super::lock::Lock;
use super::super::quorum::{Ballot, BallotState, Vote};
use super::super::reply::LockReply;
use super::super::round::{Before, Request, RoundPart, broadcast};
use super::super::script::RELEASE;
use crate::clock::Moment;
use crate::store::batching::{BatchLimits, BatchSender, Batcher, Slot, submit};
use crate::store::redis::call::Failure;
use crate::store::redis::fault::protocol_error;
use crate::store::redis::script::ScriptArgs;
use crate::store::{Released, StoreError};

/// Of the acquires, and of the releases: with N nodes each command is paid N times.
pub(super) const MAX_BATCH: BatchLimits = BatchLimits { in_flight: 1, batch: 64 };

/// Sends releases to all nodes, several in one round where there are several.
#[derive(Clone)]
pub(crate) struct Releases(Arc<State>);

struct State {
    inner: Arc<Inner>,
    batcher: Batcher<ReleaseCall>,
}

/// One lock that is to be released.
pub(crate) struct ReleaseCall {
    lock: Arc<Lock>,
    begun: Moment,
    /// What goes on for the token.
    in_flight: Option<Arc<InFlightState>>,
    result: oneshot::Sender<Released>,
}

/// The result of a release that was started.
pub(crate) async fn result(started: oneshot::Receiver<Released>) -> Released {
    // Without a result the round ended with the runtime.
    started.await.unwrap_or(Released::Unknown(StoreError::NotRunning))
}

impl Releases {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self(Arc::new(State { inner, batcher: Batcher::new(MAX_BATCH) }))
    }

    /// Starts a release. It is carried out even if the receiver is dropped (S7).
    pub(crate) fn start(&self, lock: Arc<Lock>) -> oneshot::Receiver<Released> {
        let (result, receiver) = oneshot::channel();
        let inner = &self.0.inner;
        let in_flight = inner.in_flight.release(&lock);
        submit(self, ReleaseCall { lock, begun: inner.now(), in_flight, result });
        receiver
    }
}

impl BatchSender for Releases {
    type Call = ReleaseCall;

    fn batcher(&self) -> &Batcher<ReleaseCall> {
        &self.0.batcher
    }

    fn send(slot: Slot<Self>, mut calls: Vec<ReleaseCall>) {
        let inner = Arc::clone(&slot.sender().0.inner);
        Arc::clone(&inner).spawn(async move {
            // Whoever was woken together with these asks first.
            tokio::task::yield_now().await;
            slot.fill(&mut calls);
            round(&inner, calls, slot).await;
        });
    }
}

/// Sends the releases, and decides them.
fn round(inner: &Arc<Inner>, calls: Vec<ReleaseCall>, slot: Slot<Releases>) -> impl Future<Output = ()> + Send + use<> {
    let begun = calls.iter().map(|call| call.begun).min().unwrap_or_else(|| inner.now());
    let before = Before::Release(calls.iter().filter_map(|call| call.in_flight.clone()).collect());
    let request = Arc::new(Request::new(inner, &RELEASE, script_args(&calls), begun, before));
    let pending = |call: ReleaseCall| PendingRelease {
        lock: call.lock,
        result: Some(call.result),
        ballot: Ballot::new(inner.quorum, Moment::FAR),
        errors: Vec::new(),
    };
    let pending: Vec<PendingRelease> = calls.into_iter().map(pending).collect();
    broadcast(request, pending, Some(slot))
}

/// The arguments of `release.lua`, but for the not-after.
fn script_args(calls: &[ReleaseCall]) -> ScriptArgs {
    let mut parts = ScriptArgs::for_locks(calls.len());
    for ReleaseCall { lock, .. } in calls {
        parts = parts.key(lock.names.lock());
    }
    for ReleaseCall { lock, .. } in calls {
        parts = parts.key(lock.names.queue());
    }
    parts = parts.tokens(calls.iter().map(|call| call.lock.token));
    for ReleaseCall { lock, .. } in calls {
        parts = parts.text(lock.names.wake());
    }
    parts
}

/// One release of a round.
struct PendingRelease {
    lock: Arc<Lock>,
    /// Where the result goes to; `None` once the release is decided.
    result: Option<oneshot::Sender<Released>>,
    ballot: Ballot,
    errors: Vec<(usize, StoreError)>,
}

impl RoundPart for PendingRelease {
    fn count(&mut self, request: &Arc<Request>, node: usize, reply: Result<LockReply, Failure>, now: Moment) {
        let vote = vote(reply).unwrap_or_else(|error| {
            self.release_later(request, node, now);
            self.errors.push((node, error));
            Vote::Unknown
        });
        self.ballot.cast(node, vote, now);
        if self.ballot.state() != BallotState::Open {
            self.decide(request);
        }
    }

    fn decide(&mut self, request: &Arc<Request>) {
        let (Some(result), inner) = (self.result.take(), &request.inner) else { return };
        let released = match self.ballot.settle(inner.now()) {
            BallotState::Granted => Released::Released,
            BallotState::Denied => Released::AlreadyGone,
            // No majority has it any more, though it is not known whether one had it.
            _ if self.ballot.answered() >= inner.quorum.needed() => Released::AlreadyGone,
            _ => Released::Unknown(undecided(inner, &self.ballot, std::mem::take(&mut self.errors))),
        };
        // A caller that has gone needs no result.
        let _ = result.send(released);
    }

    fn is_decided(&self) -> bool {
        self.result.is_none()
    }
}

fn vote(reply: Result<LockReply, Failure>) -> Result<Vote, StoreError> {
    match reply.map_err(|failure| failure.error)?.parts().0 {
        1 => Ok(Vote::Granted),
        2 => Ok(Vote::Denied),
        3 => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither released nor gone")),
    }
}

impl PendingRelease {
    /// Has the node release the lock when it can.
    fn release_later(&self, request: &Request, node: usize, now: Moment) {
        let node = &request.inner.nodes[node];
        // Beyond that the key runs out by itself on a node that is away: such nodes are a minority.
        if !node.has_enough_pending_releases() {
            // The TTL of the key is not known here; none is longer than this.
            let over = now.saturating_add(node.redis.config.longest_life);
            request.take_back(node, &self.lock, over);
        }
    }
}
