//! How a call goes out over a wire: by itself, or together with others ([`Dispatch`]).
//!
//! | a call | goes out | until |
//! |---|---|---|
//! | of a script for one lock, or over a wire without batching | by itself | its reply |
//! | while no other of its script is in flight | by itself | its reply |
//! | else | in a batch, with all that ask before the batch is sent | its own reply, or its caller drops it |
//!
//! A dropped call that still waits is not sent. A call that was taken from the queue may reach the server after what its
//! caller sent later: its order is open, and the clean-up counts on its not-after alone (R5).

use std::sync::Arc;

use tokio::sync::oneshot;

use super::batch::{Batching, Call};
use super::wire::{Asking, Wire};
use crate::store::StoreError;
use crate::store::batching::{BatchSender, Batcher, Slot, submit};
use crate::store::pending::SendOrder;
use crate::store::redis::fault::{Fault, Ran, Then};
use crate::store::redis::script::{BatchKind, Reply, Script, ScriptArgs, Takes};

/// How a call goes out.
pub(in crate::store) enum Dispatch {
    /// By itself. Nobody waits for its reply.
    Alone,
    /// By itself. Others may wait for its reply.
    InSlot(Slot<WireSender>),
    /// With others.
    Queued(WireSender),
}

/// Sends the calls of one script over one wire.
#[derive(Clone)]
pub(in crate::store) struct WireSender {
    wire: Arc<Wire>,
    kind: BatchKind,
    script: &'static Script,
}

impl Dispatch {
    /// How the next call of a script goes out.
    pub(in crate::store) fn of(wire: &Arc<Wire>, script: &'static Script, asking: Asking) -> Self {
        match (wire.batches.batching, asking, script.takes) {
            (Batching::On, Asking::No, Takes::Many(kind)) => {
                let sender = WireSender { wire: Arc::clone(wire), kind, script };
                Slot::try_begin(sender).map_or_else(Self::Queued, Self::InSlot)
            }
            _ => Self::Alone,
        }
    }

    /// Whether what is sent over the wire later may overtake it.
    pub(in crate::store) fn order(&self, wire: u64) -> SendOrder {
        match self {
            Self::Alone | Self::InSlot(_) => SendOrder::Kept(wire),
            Self::Queued(_) => SendOrder::Open,
        }
    }
}

impl BatchSender for WireSender {
    type Call = Call;

    fn batcher(&self) -> &Batcher<Call> {
        &self.wire.batches.batchers[self.kind as usize]
    }

    fn send(slot: Slot<Self>, mut calls: Vec<Call>) {
        let runtime = slot.sender().wire.batches.runtime.clone();
        runtime.spawn(async move {
            // Whoever was woken together with these has asked by now.
            slot.fill(&mut calls);
            slot.sender().run(calls).await;
        });
    }
}

impl WireSender {
    /// Waits to go out with others. Dropped before that, the call is not sent.
    pub(in crate::store) async fn join(&self, args: ScriptArgs) -> Result<Reply, Fault> {
        let (sender, reply) = oneshot::channel();
        let number = submit(self, Call { args, reply: sender });
        let waiting = Cancel { sender: self, number };
        let reply = reply.await;
        // It went out: there is nothing to be searched for.
        std::mem::forget(waiting);
        reply.unwrap_or_else(|_| Err(Fault { error: StoreError::NotRunning, ran: Ran::Maybe, then: Then::Nothing }))
    }

    async fn run(&self, calls: Vec<Call>) {
        let (args, senders): (Vec<_>, Vec<_>) = calls.into_iter().map(|call| (call.args, call.reply)).unzip();
        let running = tokio::time::timeout(self.wire.batches.timeout, self.wire.run(self.script, Asking::No, &args));
        // The callers' own timeouts are shorter: they have given up before.
        let late = Fault { error: StoreError::Timeout, ran: Ran::Maybe, then: Then::Reconnect };
        let replies: Vec<_> = match running.await.unwrap_or(Err(late)) {
            Ok(replies) => replies,
            Err(fault) => args.iter().map(|_| Err(fault.clone())).collect(),
        };
        for (sender, reply) in senders.into_iter().zip(replies) {
            // A caller that is gone has left a clean-up behind (R5).
            let _ = sender.send(reply);
        }
    }
}

/// Takes a call that still waits out of the queue when its caller drops it.
struct Cancel<'a> {
    sender: &'a WireSender,
    number: u64,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        self.sender.batcher().cancel(self.number);
    }
}
