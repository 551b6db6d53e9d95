//! Waits for the value of a call that another owner makes
//! ([`LockManager::singleflight`](crate::LockManager::singleflight)).
//!
//! Such a wait stands in no queue. What it waits for is whoever makes the call, from when the turn is taken (which may
//! itself wait for the key's lock) until the turn ends; between two turns it waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;

use super::graph::{Blocked, Hold};
use crate::sync::Mutex;
use crate::table::Owner;

/// Whose turn it is to make a call, if it is anybody's.
#[derive(Debug, Default)]
pub(crate) struct Turn(Mutex<Option<(Arc<Owner>, u64)>>);

impl Turn {
    pub(crate) fn begin(&self, owner: &Arc<Owner>) {
        /// Turns stand among the grants of the graph. Their names have the highest bit set, which those of grants have
        /// not (see `name_of`), and are unique for as long as the process lives.
        static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
        // Others may wait for whoever has it, as for a holder.
        owner.add_grant();
        let before = self.0.lock().replace((Arc::clone(owner), NEXT.fetch_add(1, Ordering::Relaxed)));
        Self::over(before);
    }

    pub(crate) fn end(&self) {
        let turn = self.0.lock().take();
        Self::over(turn);
    }

    fn over(turn: Option<(Arc<Owner>, u64)>) {
        if let Some((owner, _)) = turn {
            owner.drop_grant();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end();
    }
}

/// One follower's wait.
#[derive(Debug)]
pub(crate) struct Following {
    turn: Arc<Turn>,
    waker: AtomicWaker,
}

impl Following {
    pub(crate) fn new(turn: Arc<Turn>) -> Self {
        Self { turn, waker: AtomicWaker::new() }
    }

    /// Whom to wake when the wait is refused.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(super) fn take_waker(&self) -> Option<Waker> {
        self.waker.take()
    }

    /// What keeps the follower from its value: the one who makes the call.
    pub(super) fn blocker(&self) -> Option<Blocked> {
        let turn = self.turn.0.lock();
        let (owner, name) = turn.as_ref()?;
        Some(Blocked { missing: 1, holders: vec![Hold { owner: owner.id, weight: 1, grant: *name }] })
    }
}
