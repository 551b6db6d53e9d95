//! What must happen once the shard's mutex is dropped: wake-ups and notices, never run under it (peer bug 22). So with
//! wakers that are only dropped: that too may run code of the caller's.
//!
//! They run when this is dropped, so that a panic in between hangs nobody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use super::ended::End;
use super::slot::Watcher;
use crate::clock::Moment;

pub(crate) struct Effects {
    /// Most transitions wake nobody, most of the others one task: neither costs more than this field.
    wake: Option<Waker>,
    more: Option<Box<More>>,
    /// The earliest deadline that somebody now waits for.
    earliest: Moment,
}

#[derive(Default)]
struct More {
    wakes: Vec<Waker>,
    notices: Vec<(Arc<dyn Watcher>, End)>,
    /// Wakers that nobody will wake. Dropping one may drop a task, and with it a lock of this very shard.
    spent: Vec<Waker>,
}

impl More {
    #[cold]
    fn run(self) {
        for (watcher, end) in self.notices {
            // A watcher is ours and does not panic; its own wakers may.
            let _ = catch_unwind(AssertUnwindSafe(|| watcher.ended(end)));
        }
        for waker in self.wakes {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        for waker in self.spent {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
        }
    }
}

impl Effects {
    pub(crate) const fn new() -> Self {
        Self { wake: None, more: None, earliest: Moment::FAR }
    }

    /// Somebody waits for this deadline: the actor must not sleep past it.
    pub(crate) fn due(&mut self, deadline: Moment) {
        self.earliest = self.earliest.min(deadline);
    }

    pub(crate) fn earliest(&self) -> Moment {
        self.earliest
    }

    pub(crate) fn wake(&mut self, waker: Waker) {
        match self.wake {
            None => self.wake = Some(waker),
            Some(_) => self.more.get_or_insert_default().wakes.push(waker),
        }
    }

    /// Drops wakers after the mutex.
    pub(crate) fn discard(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        for waker in wakers {
            self.more.get_or_insert_default().spent.push(waker);
        }
    }

    pub(crate) fn notice(&mut self, watcher: Arc<dyn Watcher>, end: End) {
        self.more.get_or_insert_default().notices.push((watcher, end));
    }
}

/// Tells and wakes. One waker that panics keeps no other from being woken.
impl Drop for Effects {
    #[inline]
    fn drop(&mut self) {
        if let Some(more) = self.more.take() {
            more.run();
        }
        if let Some(waker) = self.wake.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}
