//! What is still under way for a token on a key whose caller has its answer: [`Underway`]. A client may use one token
//! for several keys; those have nothing to do with each other.
//!
//! A majority decides, and the slower nodes are heard out later. What the caller does next may meet what is still on
//! its way to them (R6):
//!
//! * a release follows the acquire on the same wire, whose order the server keeps. Where the wire has changed it may
//!   have overtaken the acquire; whoever hears that node out finds out here, and takes back what it has given;
//! * another try of the token waits for the answer, and for what is taken back then (S5).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::round::{Sent, When};
use super::{Inner, Lock};

/// How many operations are under way, and what they share.
type Entry = (usize, Arc<Shared>);

#[derive(Default)]
pub(super) struct Underway(Mutex<HashMap<Arc<Lock>, Entry, foldhash::fast::RandomState>>);

/// What the operations of one token share.
#[derive(Default)]
pub(super) struct Shared {
    released: AtomicBool,
    failed: AtomicBool,
    /// The nodes that have an acquire to answer.
    asked: Mutex<Vec<usize>>,
    /// The nodes that the release was sent to, and on which wire.
    releases: Mutex<Vec<(usize, u64)>>,
    answered: Notify,
    /// Of the round before this one.
    earlier: Option<Arc<Shared>>,
}

/// One operation that is under way.
pub(super) struct InFlightGuard {
    inner: Arc<Inner>,
    lock: Arc<Lock>,
    shared: Arc<Shared>,
}

impl InFlightGuard {
    /// An acquire goes on in the background; `asked` are the nodes that have it to answer. What becomes of the token
    /// concerns the `earlier` round too.
    pub(super) fn of_acquire(
        inner: &Arc<Inner>,
        lock: Arc<Lock>,
        asked: Vec<usize>,
        earlier: Option<Arc<Shared>>,
    ) -> Self {
        let shared = Arc::new(Shared { asked: Mutex::new(asked), earlier, ..Shared::default() });
        // Of an earlier try nothing is under way that this one has not waited for.
        inner.in_flight.0.lock().insert(Arc::clone(&lock), (1, Arc::clone(&shared)));
        Self { inner: Arc::clone(inner), lock, shared }
    }

    /// An extend goes on in the background.
    pub(super) fn of_extend(inner: &Arc<Inner>, lock: Arc<Lock>) -> Self {
        let mut entries = inner.in_flight.0.lock();
        let (stays, shared) = entries.entry(Arc::clone(&lock)).or_default();
        *stays += 1;
        let shared = Arc::clone(shared);
        drop(entries);
        Self { inner: Arc::clone(inner), lock, shared }
    }

    /// Whether the token's release has not begun.
    pub(super) fn goes_on(&self) -> bool {
        !self.shared.released.load(Ordering::SeqCst)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    /// The token got nothing, or nobody heard that it did.
    pub(super) fn fail(&self) {
        self.rounds().for_each(|round| round.failed.store(true, Ordering::SeqCst));
    }

    /// This round, and the one before it.
    fn rounds(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |round| round.earlier.as_deref())
    }

    /// Whether what the node has given is to stay: nobody wants it released, or whoever does finds it.
    pub(super) fn keeps(&self, node: usize, sent: Sent) -> bool {
        let overtaken = || self.releases.lock().iter().any(|(at, wire)| *at == node && *wire != sent.wire);
        match sent.when {
            When::Undecided => !self.failed.load(Ordering::SeqCst) && !overtaken(),
            // The release may have begun at the same time.
            When::Decided => self.is_wanted(),
        }
    }

    /// Whether the token is to hold what it can.
    pub(super) fn is_wanted(&self) -> bool {
        !self.failed.load(Ordering::SeqCst) && !self.released.load(Ordering::SeqCst)
    }

    /// The release is about to be sent.
    pub(super) fn releasing(&self, node: usize, wire: u64) {
        self.rounds().for_each(|round| round.releases.lock().push((node, wire)));
    }

    /// The node has answered, or will not; what it may have given is seen to.
    pub(super) fn answered(&self, node: usize) {
        self.asked.lock().retain(|asked| *asked != node);
        self.answered.notify_waiters();
    }

    /// Waits until the node has no acquire to answer.
    pub(super) async fn until_answered(&self, node: usize) {
        loop {
            let answered = self.answered.notified();
            if !self.asked.lock().contains(&node) {
                return;
            }
            answered.await;
        }
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut entries = self.inner.in_flight.0.lock();
        if let Some((stays, shared)) = entries.get_mut(&*self.lock)
            && Arc::ptr_eq(shared, &self.shared)
        {
            *stays -= 1;
            if *stays == 0 {
                entries.remove(&*self.lock);
            }
        }
    }
}

impl Underway {
    /// What is under way for a token, if anything is.
    pub(super) fn of(&self, lock: &Lock) -> Option<Arc<Shared>> {
        self.0.lock().get(lock).map(|(_, shared)| Arc::clone(shared))
    }

    /// The token's release begins.
    pub(super) fn release(&self, lock: &Lock) -> Option<Arc<Shared>> {
        let shared = self.of(lock)?;
        shared.rounds().for_each(|round| round.released.store(true, Ordering::SeqCst));
        Some(shared)
    }
}
