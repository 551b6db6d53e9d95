//! The calls that wait for one wire: [`Batches`]. `dispatch` sends them.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::store::batching::{BatchLimits, Batcher};
use crate::store::redis::fault::Fault;
use crate::store::redis::script::{BatchKind, Reply, ScriptArgs};

/// Of one script, over one wire.
const LIMITS: BatchLimits = BatchLimits { in_flight: 2, batch: 64 };

/// Whether calls for different locks may go out as one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Batching {
    On,
    Off,
}

/// The calls that wait for a wire.
pub(in crate::store) struct Batches {
    pub(super) batching: Batching,
    /// How long a batch may take.
    pub(super) timeout: Duration,
    /// The store's.
    pub(super) runtime: Handle,
    pub(super) batchers: [Batcher<Call>; BatchKind::COUNT],
}

/// A call that waits to go out with others.
pub(in crate::store) struct Call {
    pub(super) args: ScriptArgs,
    pub(super) reply: oneshot::Sender<Result<Reply, Fault>>,
}

impl Batches {
    /// Called by a task of the store's runtime.
    pub(in crate::store) fn new(batching: Batching, timeout: Duration) -> Self {
        let batchers = std::array::from_fn(|_| Batcher::new(LIMITS));
        Self { batching, timeout, runtime: Handle::current(), batchers }
    }
}
