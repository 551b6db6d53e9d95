//! What must happen once the shard's mutex is dropped: wake-ups and notices, never run under it (peer bug 22). So with
//! wakers that are only dropped: that too may run code of the caller's.
//!
//! They run when this is dropped, so that a panic in between hangs nobody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use super::ended::End;
use super::slot::Watcher;
use crate::clock::Moment;

pub(crate) struct Effects {
    wakes: SmallVec<[Waker; 1]>,
    notices: SmallVec<[(Arc<dyn Watcher>, End); 1]>,
    /// Wakers that nobody will wake. Dropping one may drop a task, and with it a lock of this very shard.
    spent: SmallVec<[Waker; 1]>,
    /// The earliest deadline that somebody now waits for.
    earliest: Moment,
}

impl Effects {
    pub(crate) fn new() -> Self {
        Self { wakes: SmallVec::new(), notices: SmallVec::new(), spent: SmallVec::new(), earliest: Moment::FAR }
    }

    /// Somebody waits for this deadline: the actor must not sleep past it.
    pub(crate) fn due(&mut self, deadline: Moment) {
        self.earliest = self.earliest.min(deadline);
    }

    pub(crate) fn earliest(&self) -> Moment {
        self.earliest
    }

    pub(crate) fn wake(&mut self, wakers: impl Iterator<Item = Waker>) {
        self.wakes.extend(wakers);
    }

    /// Drops wakers after the mutex.
    pub(crate) fn discard(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.spent.extend(wakers);
    }

    pub(crate) fn notice(&mut self, watcher: Arc<dyn Watcher>, end: End) {
        self.notices.push((watcher, end));
    }
}

/// Tells and wakes. One waker that panics keeps no other from being woken.
impl Drop for Effects {
    fn drop(&mut self) {
        for (watcher, end) in self.notices.drain(..) {
            // A watcher is ours and does not panic; its own wakers may.
            let _ = catch_unwind(AssertUnwindSafe(|| watcher.ended(end)));
        }
        for waker in self.wakes.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        for waker in self.spent.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
        }
    }
}
