//! Wakes whoever tells other processes of waits.

use tokio::sync::Notify;

/// Two bells. One stroke of each is kept until somebody listens.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    begun: Notify,
    ended: Notify,
}

impl Signal {
    /// An owner that holds something has begun to wait, or one that waits was granted something.
    pub(super) fn wait_begun(&self) {
        self.begun.notify_one();
    }

    /// A wait has ended that others may take for a part of a cycle.
    pub(super) fn suspect_ended(&self) {
        self.ended.notify_one();
    }

    pub(crate) async fn until_one_begins(&self) {
        self.begun.notified().await;
    }

    pub(crate) async fn until_a_suspect_ends(&self) {
        self.ended.notified().await;
    }
}
