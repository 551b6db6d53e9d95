//! The signal that a grant has ended: given exactly once, heard however late one asks.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::error::Loss;
use crate::table::{End, Watcher};

/// One per watched grant, made when somebody first asks.
#[derive(Debug, Default)]
pub(crate) struct LostSignal {
    given: CancellationToken,
    /// `None` inside: the holder released it in good order.
    how: OnceLock<Option<Loss>>,
}

impl LostSignal {
    pub(crate) fn lose(&self, loss: Loss) {
        self.give(Some(loss));
    }

    fn give(&self, how: Option<Loss>) {
        // The first end is the end; the table gives no second one.
        let _ = self.how.set(how);
        self.given.cancel();
    }

    /// Waits for the end. Cancel safe: asking again finds the same answer.
    pub(crate) async fn wait(self: Arc<Self>) -> Option<Loss> {
        self.given.cancelled().await;
        self.how.get().copied().flatten()
    }
}

impl Watcher for LostSignal {
    fn ended(&self, end: End) {
        match end {
            End::Released | End::Dropped => self.give(None),
            End::ByToken | End::Expired | End::Forced | End::ShutDown => self.lose(end.as_loss()),
        }
    }
}
