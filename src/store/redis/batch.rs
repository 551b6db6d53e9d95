//! Calls that go out together: [`Batches`], one queue per script and wire.
//!
//! A server spends more on reading a command and finding its script than on the lock itself. So a call that finds a
//! few under way does not follow them but waits for one of them to come back, and then goes out with everybody else
//! who has waited, as one command. Alone, a call goes ahead at once and meets none of this.
//!
//! | a call | goes | until |
//! |---|---|---|
//! | finds fewer than [`AHEAD`] under way | ahead, sent by its caller | its reply; then whoever waits goes out |
//! | finds as many | along, in a batch of at most [`BATCH`] | its own reply, or its caller drops it |
//!
//! A dropped call that still waits is not sent. One that was taken from the queue may reach the server after what its
//! caller sent later: its order is open, and the clean-up counts on its not-after alone (R5).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::cleanup::Order;
use super::fault::{Fault, Ran, Then};
use super::script::{Lane, Reply, Script, ScriptArgs, Takes};
use super::wire::{Asking, Wire};
use crate::store::StoreError;

/// So many commands of one script are under way before calls begin to wait for each other.
const AHEAD: usize = 8;
/// So many locks at most go into one command: a server does nothing else meanwhile.
const BATCH: usize = 32;

/// Whether calls for different locks may go out as one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Batching {
    On,
    Off,
}

/// The queues of a wire.
pub(super) struct Batches {
    batching: Batching,
    /// How long a batch may take.
    patience: Duration,
    /// The wire is opened by the store's runtime.
    runtime: Handle,
    lanes: [Mutex<Queue>; Lane::COUNT],
}

/// The calls of one script.
#[derive(Default)]
struct Queue {
    under_way: usize,
    waiting: VecDeque<Waiting>,
    next: u64,
}

struct Waiting {
    number: u64,
    parts: ScriptArgs,
    tell: oneshot::Sender<Result<Reply, Fault>>,
}

/// How a call goes out.
pub(super) enum Dispatch {
    /// By itself, and nobody waits for it.
    Alone,
    /// At once; others may wait for its return.
    Ahead(Flight),
    /// With others.
    Along(Lane),
}

impl Dispatch {
    pub(super) fn order(&self, wire: u64) -> Order {
        match self {
            Self::Alone | Self::Ahead(_) => Order::Kept(wire),
            Self::Along(_) => Order::Open,
        }
    }
}

impl Batches {
    /// Called by a task of the store's runtime.
    pub(super) fn new(batching: Batching, patience: Duration) -> Self {
        Self { batching, patience, runtime: Handle::current(), lanes: Default::default() }
    }

    fn lane(&self, lane: Lane) -> MutexGuard<'_, Queue> {
        self.lanes[lane as usize].lock()
    }
}

/// How the next call of a script goes out.
pub(super) fn going(wire: &Arc<Wire>, script: &'static Script, asking: Asking) -> Dispatch {
    match (wire.batches.batching, asking, script.takes) {
        (Batching::On, Asking::No, Takes::Many(lane)) => {
            let mut queue = wire.batches.lane(lane);
            if queue.under_way >= AHEAD {
                return Dispatch::Along(lane);
            }
            queue.under_way += 1;
            Dispatch::Ahead(Flight { wire: Arc::clone(wire), lane, script })
        }
        _ => Dispatch::Alone,
    }
}

/// A command under way, for whose return others wait.
pub(super) struct Flight {
    wire: Arc<Wire>,
    lane: Lane,
    script: &'static Script,
}

impl Flight {
    pub(super) async fn run(self, parts: ScriptArgs) -> Result<Reply, Fault> {
        self.wire.run_one(self.script, Asking::No, parts).await
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut queue = self.wire.batches.lane(self.lane);
        if queue.waiting.is_empty() {
            queue.under_way -= 1;
        } else {
            drop(queue);
            flush(&self.wire, self.lane, self.script);
        }
    }
}

/// Waits for others to go out with. Dropped before that, it is not sent.
pub(super) async fn along(
    wire: &Arc<Wire>,
    lane: Lane,
    script: &'static Script,
    parts: ScriptArgs,
) -> Result<Reply, Fault> {
    let (tell, hear) = oneshot::channel();
    let place = {
        let mut queue = wire.batches.lane(lane);
        let number = queue.next;
        queue.next += 1;
        queue.waiting.push_back(Waiting { number, parts, tell });
        // Those that were under way may all have come back since.
        if queue.under_way < AHEAD {
            queue.under_way += 1;
            drop(queue);
            flush(wire, lane, script);
        }
        Place { wire, lane, number }
    };
    let reply = hear.await;
    drop(place);
    reply.unwrap_or_else(|_| Err(Fault { error: StoreError::NotRunning, ran: Ran::Maybe, then: Then::Nothing }))
}

/// A place in a queue, which its caller may give up.
struct Place<'a> {
    wire: &'a Wire,
    lane: Lane,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.wire.batches.lane(self.lane);
        if let Ok(at) = queue.waiting.binary_search_by_key(&self.number, |waiting| waiting.number) {
            queue.waiting.remove(at);
        }
    }
}

/// Sends whoever waits, batch by batch, until nobody does.
fn flush(wire: &Arc<Wire>, lane: Lane, script: &'static Script) {
    let wire = Arc::clone(wire);
    wire.batches.runtime.clone().spawn(async move {
        loop {
            let batch: Vec<Waiting> = {
                let mut queue = wire.batches.lane(lane);
                let some = queue.waiting.len().min(BATCH);
                if some == 0 {
                    queue.under_way -= 1;
                    return;
                }
                queue.waiting.drain(..some).collect()
            };
            let (parts, tells): (Vec<_>, Vec<_>) = batch.into_iter().map(|one| (one.parts, one.tell)).unzip();
            let running = tokio::time::timeout(wire.batches.patience, wire.run(script, Asking::No, &parts));
            // Its callers have given up before.
            let late = Fault { error: StoreError::Timeout, ran: Ran::Maybe, then: Then::Reconnect };
            let replies: Vec<_> = match running.await.unwrap_or(Err(late)) {
                Ok(replies) => replies,
                Err(fault) => parts.iter().map(|_| Err(fault.clone())).collect(),
            };
            for (tell, reply) in tells.into_iter().zip(replies) {
                // Whoever does not listen any more has a clean-up under way (R5).
                let _ = tell.send(reply);
            }
        }
    });
}
