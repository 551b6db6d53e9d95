//! The signal that a grant has ended: given exactly once, and there for whoever asks later. Before it there may be the
//! notice that an operator takes the lock, and the warning that it is about to run out.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::error::Loss;
use crate::sync::Mutex;
use crate::table::{End, Watcher};

/// One per watched grant, made when somebody first asks.
#[derive(Debug, Default)]
pub(crate) struct LossSignal {
    /// Cancelled when the grant has ended, after `how` was set.
    given: CancellationToken,
    /// How the grant ended; `None` inside: its holder released it.
    how: OnceLock<Option<Loss>>,
    /// When the lock will be taken.
    revocation_notice: Mutex<Option<Moment>>,
    /// The deadline, while the lock is about to run out because its refreshes are not answered (R9).
    at_risk: Mutex<Option<Moment>>,
    /// Notified when any of the fields above changes.
    changed: Notify,
}

impl LossSignal {
    pub(crate) fn lose(&self, loss: Loss) {
        self.give(Some(loss));
    }

    fn give(&self, how: Option<Loss>) {
        // The first end is the end; the table gives no second one.
        let _ = self.how.set(how);
        self.given.cancel();
        self.changed.notify_waiters();
    }

    /// The lock will be taken at `deadline`. The shortest notice counts.
    pub(crate) fn give_notice(&self, deadline: Moment) {
        let mut revocation_notice = self.revocation_notice.lock();
        *revocation_notice = Some(revocation_notice.map_or(deadline, |earlier| earlier.min(deadline)));
        drop(revocation_notice);
        self.changed.notify_waiters();
    }

    /// Waits until an operator asks for the lock, and answers when it will be taken; `None`: it has ended without.
    /// Cancel safe, like `wait`.
    pub(crate) async fn wait_for_notice(self: Arc<Self>) -> Option<Moment> {
        loop {
            // Before the fields are read: a change from here on ends the wait.
            let changed = self.changed.notified();
            let revocation_notice = *self.revocation_notice.lock();
            if revocation_notice.is_some() {
                return revocation_notice;
            }
            if self.given.is_cancelled() {
                return None;
            }
            changed.await;
        }
    }

    /// The lock runs out at `deadline` unless a refresh is answered; `None`: one was.
    pub(crate) fn set_risk(&self, deadline: Option<Moment>) {
        *self.at_risk.lock() = deadline;
        self.changed.notify_waiters();
    }

    pub(crate) fn risk(&self) -> Option<Moment> {
        *self.at_risk.lock()
    }

    /// Waits until the lock is about to run out, and answers when; `None`: it has ended. Cancel safe, like `wait`.
    pub(crate) async fn wait_for_risk(self: Arc<Self>) -> Option<Moment> {
        loop {
            // Before the fields are read: a change from here on ends the wait.
            let changed = self.changed.notified();
            let risk = self.risk();
            if self.given.is_cancelled() || risk.is_some() {
                return risk.filter(|_| !self.given.is_cancelled());
            }
            changed.await;
        }
    }

    /// How it was lost, if it has been.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.how.get().copied().flatten()
    }

    /// Waits for the end. Cancel safe: asking again finds the same answer.
    pub(crate) async fn wait(self: Arc<Self>) -> Option<Loss> {
        self.given.cancelled().await;
        self.loss()
    }
}

impl Watcher for LossSignal {
    fn ended(&self, end: End) {
        match end {
            End::Released | End::Dropped => self.give(None),
            lost => self.lose(lost.as_loss()),
        }
    }

    fn revocation_notice(&self, deadline: Moment) {
        self.give_notice(deadline);
    }
}
