//! One command for some locks, to all nodes at once, and what each of them answers: [`Request`], [`broadcast`].
//!
//! The arguments are the same for all nodes but for the last one, the not-after by each node's clock (R5). Each lock is
//! decided as soon as the answers allow it. The round goes on until every node has answered, or the time for it is
//! over: what the slower nodes have done may have to be taken back.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::fanout::Fanout;
use super::in_flight::{InFlightState, Sent, When};
use super::inner::Inner;
use super::lock::Lock;
use super::node::Node;
use super::reply::{LockReply, NodeAnswer, Replies, each_reply};
use crate::clock::Moment;
use crate::store::StoreError;
use crate::store::batching::{BatchSender, Slot};
use crate::store::owed::take_back;
use crate::store::pending::{PendingCleanup, SendOrder};
use crate::store::redis::call::Failure;
use crate::store::redis::conn::link::Phase;
use crate::store::redis::conn::wire::Wire;
use crate::store::redis::fault::{Fault, Ran, Then};
use crate::store::redis::script::{Form, Script, ScriptArgs};

/// After this time other calls wait no longer for a round: its nodes are far away, or do not answer.
const MAX_SLOT: Duration = Duration::from_millis(5);

/// What all nodes are asked.
pub(super) struct Request {
    pub(super) inner: Arc<Inner>,
    script: &'static Script,
    /// All keys and arguments but the not-after.
    parts: ScriptArgs,
    /// From here the not-after counts.
    pub(super) begun: Moment,
    before: Before,
    /// The acquires whose callers have been answered while nodes had not.
    decided: Mutex<Vec<Arc<InFlightState>>>,
    /// The last command to each node.
    sent: Mutex<Vec<Option<Sent>>>,
}

/// What comes before the command goes out to a node.
pub(super) enum Before {
    /// Of an acquire. The node must be admitted. Once any caller does not want what it asked for any more, nothing goes
    /// out: its release would be overtaken.
    Acquire {
        /// An earlier try of the only lock, which must have ended (S5).
        after: Option<(Arc<Lock>, Option<Arc<InFlightState>>)>,
    },
    /// Of a release. What goes on for the tokens is marked as released.
    Release(Vec<Arc<InFlightState>>),
}

impl Request {
    pub(super) fn new(
        inner: &Arc<Inner>,
        script: &'static Script,
        parts: ScriptArgs,
        begun: Moment,
        before: Before,
    ) -> Self {
        let sent = Mutex::new(vec![None; inner.nodes.len()]);
        Self { inner: Arc::clone(inner), script, parts, begun, before, decided: Mutex::default(), sent }
    }

    /// The last command that went out to the node.
    pub(super) fn sent_to(&self, node: usize) -> Option<Sent> {
        self.sent.lock()[node]
    }

    /// A caller is answered now, while some nodes have not answered.
    pub(super) fn decide(&self, state: &Arc<InFlightState>) {
        self.decided.lock().push(Arc::clone(state));
    }

    /// Takes back at a node what the request may have left there, or may leave there yet, until `over` at most.
    pub(super) fn take_back(&self, node: &Node, lock: &Lock, over: Moment) {
        let mut pending = PendingCleanup::new(over);
        if let Some(sent) = self.sent_to(node.index) {
            pending.add(SendOrder::Kept(sent.wire), sent.not_after_us);
        }
        take_back(&node.redis, lock.names.clone(), lock.token, pending);
    }

    /// The wire to the node, once all that comes before has happened.
    async fn wire(&self, node: &Node) -> Result<Arc<Wire>, StoreError> {
        match &self.before {
            Before::Acquire { after } => {
                let wire = node.wire(self.begun).await?;
                if let Some((lock, earlier)) = after {
                    if let Some(earlier) = earlier {
                        earlier.until_answered(node.index).await;
                    }
                    let limit = node.redis.config.operation_timeout;
                    let waiting = node.redis.cleaning.wait_for(&lock.names, lock.token);
                    let waited = node.redis.ticks.within(self.begun, limit, waiting).await;
                    waited.map_err(|_| StoreError::CleaningUp)?;
                }
                Ok(wire)
            }
            Before::Release(_) => match (node.failure(), node.redis.link()) {
                (Some(why), _) => Err(why),
                (None, Some(link)) => link.wire().await,
                (None, None) => Err(StoreError::NotRunning),
            },
        }
    }

    /// Keeps what is about to be sent; an acquire that is not wanted any more is refused.
    fn sending(&self, node: usize, wire: u64, not_after_us: i64) -> Result<(), Failure> {
        let decided = self.decided.lock();
        match &self.before {
            Before::Acquire { .. } if !decided.iter().all(|state| state.is_wanted()) => {
                return Err(Failure { error: StoreError::Timeout, ran: Ran::No });
            }
            Before::Acquire { .. } => {}
            Before::Release(states) => states.iter().for_each(|state| state.releasing(node, wire)),
        }
        let when = if decided.is_empty() { When::Undecided } else { When::Decided };
        self.sent.lock()[node] = Some(Sent { wire, not_after_us, when });
        Ok(())
    }
}

/// Asks one node.
async fn ask(node: Arc<Node>, request: Arc<Request>) -> NodeAnswer {
    let inner = &request.inner;
    let wire = request.wire(&node).await.map_err(|error| Failure { error, ran: Ran::No })?;
    let (mut form, mut clock_corrected) = (Form::Hash, false);
    loop {
        let sent = inner.now();
        let not_after_us = wire.clock.at(request.begun, node.redis.config.operation_timeout);
        request.sending(node.index, wire.id, not_after_us)?;
        let last = ScriptArgs::of([]).arg(not_after_us);
        let answer = wire.send(request.script, form, [&request.parts, &last].into_iter()).await;
        match answer.and_then(Replies::read) {
            Ok((replies, now_us)) => {
                wire.clock.learn(sent, inner.now(), now_us);
                if !replies.is_too_late() || clock_corrected {
                    return Ok(replies);
                }
                // In time by this clock, too late by the server's: that was set, and the answer says by how much.
                clock_corrected = true;
            }
            // R7: it was not carried out.
            Err(Fault { then: Then::SendBody, .. }) if form == Form::Hash => form = Form::Body,
            Err(fault) => {
                if fault.then == Then::Reconnect {
                    wire.mark_broken();
                }
                return Err(Failure { error: fault.error, ran: fault.ran });
            }
        }
    }
}

/// One lock of a round.
pub(super) trait RoundPart: Send + 'static {
    /// Counts the reply of one node, also of one that replies after the lock was decided; each node replies once.
    fn count(&mut self, request: &Arc<Request>, node: usize, reply: Result<LockReply, Failure>, now: Moment);

    /// Decides the lock, if it is not decided yet: no further reply is waited for.
    fn decide(&mut self, request: &Arc<Request>);

    fn is_decided(&self) -> bool;
}

/// Asks all nodes, and gives their answers to the locks of the round.
pub(super) async fn broadcast<S: BatchSender>(
    request: Arc<Request>,
    mut parts: Vec<impl RoundPart>,
    mut slot: Option<Slot<S>>,
) {
    let inner = &request.inner;
    let begun = inner.now();
    let mut fanout = Fanout::to_all(inner, |node| ask(Arc::clone(node), Arc::clone(&request)));
    let deciding = async {
        if tokio::time::timeout(MAX_SLOT, collect(&mut fanout, &request, &mut parts)).await.is_err() {
            slot = None;
            collect(&mut fanout, &request, &mut parts).await;
        }
    };
    // A node that has not answered by then counts as unknown.
    let _ = inner.ticks.within(begun, inner.config.node_timeout, deciding).await;
    parts.iter_mut().for_each(|part| part.decide(&request));
    drop(slot);
    let rest = async {
        while let Some((node, answer)) = fanout.next().await {
            count(&request, &mut parts, node, &answer);
        }
    };
    if let Err(late) = inner.ticks.within(begun, inner.config.node_timeout * 2, rest).await {
        for node in fanout.running() {
            let sent = request.sent_to(node);
            mark_broken(&inner.nodes[node], sent);
            let ran = if sent.is_some() { Ran::Maybe } else { Ran::No };
            count(&request, &mut parts, node, &Err(Failure { error: late.clone(), ran }));
        }
    }
}

/// Counts answers until every lock is decided, or there are no more.
async fn collect<F: Future<Output = NodeAnswer>>(
    fanout: &mut Fanout<F>,
    request: &Arc<Request>,
    parts: &mut [impl RoundPart],
) {
    while !parts.iter().all(RoundPart::is_decided)
        && let Some((node, answer)) = fanout.next().await
    {
        count(request, parts, node, &answer);
    }
}

fn count(request: &Arc<Request>, parts: &mut [impl RoundPart], node: usize, answer: &NodeAnswer) {
    let now = request.inner.now();
    for (part, reply) in parts.iter_mut().zip(each_reply(answer)) {
        part.count(request, node, reply, now);
    }
}

/// A wire that did not answer in time may be dead.
fn mark_broken(node: &Node, sent: Option<Sent>) {
    if let (Some(link), Some(sent)) = (node.redis.link(), sent)
        && let Phase::Up(wire) = link.phase()
        && wire.id == sent.wire
    {
        wire.mark_broken();
    }
}
