//! What goes on for a token on a key after its caller has been answered: [`InFlight`]. A client may use one token for
//! several keys; those have nothing to do with each other.
//!
//! A majority decides, and the slower nodes answer later. What the caller does next may meet what is still on its way
//! to them (R6):
//!
//! * a release follows the acquire on the same wire, whose order the server keeps. Where the wire has changed, the
//!   release may have overtaken the acquire; the task that collects the late answers finds that out here, and takes
//!   back what the node has given;
//! * another try of the token waits for the answer, and for what is taken back then (S5).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::lock::Lock;

#[derive(Default)]
pub(super) struct InFlight(Mutex<HashMap<Arc<Lock>, Entry, foldhash::fast::RandomState>>);

/// The operations of one token on one key.
#[derive(Default)]
struct Entry {
    operations: usize,
    state: Arc<InFlightState>,
}

/// What the operations of one token on one key share.
#[derive(Default)]
pub(super) struct InFlightState {
    /// The token's release has begun.
    is_released: AtomicBool,
    /// The token got nothing, or its grant reached nobody.
    has_failed: AtomicBool,
    /// The nodes that have not answered the acquire. Another try of the token waits until its node is gone from here.
    unanswered: Mutex<Vec<usize>>,
    /// The nodes that the release was sent to, and on which wire.
    releases: Mutex<Vec<(usize, u64)>>,
    answered: Notify,
    /// The same of the acquire's first round, if this is its second.
    earlier: Option<Arc<InFlightState>>,
}

/// A command that went out to a node.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) wire: u64,
    pub(super) not_after_us: i64,
    pub(super) when: When,
}

/// Whether any caller had been answered when the command went out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Undecided,
    Decided,
}

/// Keeps the entry of one operation for as long as it goes on.
pub(super) struct InFlightGuard {
    in_flight: Arc<InFlight>,
    lock: Arc<Lock>,
    state: Arc<InFlightState>,
}

impl InFlightGuard {
    /// An acquire goes on in the background; the nodes of `unanswered` have not answered it. What becomes of the token
    /// concerns the `earlier` round too.
    pub(super) fn of_acquire(
        in_flight: &Arc<InFlight>,
        lock: Arc<Lock>,
        unanswered: Vec<usize>,
        earlier: Option<Arc<InFlightState>>,
    ) -> Self {
        let state = Arc::new(InFlightState { unanswered: Mutex::new(unanswered), earlier, ..InFlightState::default() });
        // It takes the place of an earlier try's entry: this one has waited for all of that.
        let entry = Entry { operations: 1, state: Arc::clone(&state) };
        in_flight.0.lock().insert(Arc::clone(&lock), entry);
        Self { in_flight: Arc::clone(in_flight), lock, state }
    }

    /// An extend goes on in the background.
    pub(super) fn of_extend(in_flight: &Arc<InFlight>, lock: Arc<Lock>) -> Self {
        let state = {
            let mut entries = in_flight.0.lock();
            let entry = entries.entry(Arc::clone(&lock)).or_default();
            entry.operations += 1;
            Arc::clone(&entry.state)
        };
        Self { in_flight: Arc::clone(in_flight), lock, state }
    }

    pub(super) fn state(&self) -> &Arc<InFlightState> {
        &self.state
    }
}

impl InFlightState {
    /// The token got nothing, or its grant reached nobody.
    pub(super) fn fail(&self) {
        self.rounds().for_each(|round| round.has_failed.store(true, Ordering::SeqCst));
    }

    /// This round, and the one before it.
    fn rounds(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |round| round.earlier.as_deref())
    }

    /// Whether the token's release has begun.
    pub(super) fn is_released(&self) -> bool {
        self.is_released.load(Ordering::SeqCst)
    }

    /// Whether the token is to hold what it can.
    pub(super) fn is_wanted(&self) -> bool {
        !self.has_failed.load(Ordering::SeqCst) && !self.is_released()
    }

    /// Whether the node may keep what it has given: the token is wanted, or the release reaches the node after the
    /// acquire.
    pub(super) fn keeps(&self, node: usize, sent: Sent) -> bool {
        let is_overtaken = || self.releases.lock().iter().any(|(at, wire)| *at == node && *wire != sent.wire);
        match sent.when {
            When::Undecided => !self.has_failed.load(Ordering::SeqCst) && !is_overtaken(),
            // The release may have begun at the same time.
            When::Decided => self.is_wanted(),
        }
    }

    /// The release is about to be sent to the node.
    pub(super) fn releasing(&self, node: usize, wire: u64) {
        self.rounds().for_each(|round| round.releases.lock().push((node, wire)));
    }

    /// The node has answered, or will not; what it may have given is taken back where it has to be.
    pub(super) fn answered(&self, node: usize) {
        self.unanswered.lock().retain(|other| *other != node);
        self.answered.notify_waiters();
    }

    /// Waits until the node has no acquire to answer.
    pub(super) async fn until_answered(&self, node: usize) {
        loop {
            let answered = self.answered.notified();
            if !self.unanswered.lock().contains(&node) {
                return;
            }
            answered.await;
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut entries = self.in_flight.0.lock();
        if let Some(entry) = entries.get_mut(&*self.lock)
            && Arc::ptr_eq(&entry.state, &self.state)
        {
            entry.operations -= 1;
            if entry.operations == 0 {
                entries.remove(&*self.lock);
            }
        }
    }
}

impl InFlight {
    /// What goes on for a token, if anything does.
    pub(super) fn of(&self, lock: &Lock) -> Option<Arc<InFlightState>> {
        self.0.lock().get(lock).map(|entry| Arc::clone(&entry.state))
    }

    /// The token's release begins.
    pub(super) fn release(&self, lock: &Lock) -> Option<Arc<InFlightState>> {
        let state = self.of(lock)?;
        state.rounds().for_each(|round| round.is_released.store(true, Ordering::SeqCst));
        Some(state)
    }
}
