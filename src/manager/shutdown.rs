//! The orderly end of a manager: [`LockManager::shutdown`].

use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::Duration;

use crate::engine::LockManager;
use crate::shard::Shard;

impl LockManager {
    /// Ends the manager: refuses all who wait and all who come, gives the holders `grace` to release, then ends the
    /// locks that are left (their holders get [`Loss::ShutDown`](crate::Loss::ShutDown)) and stops the thread.
    ///
    /// Answers how many locks were left. Calling it again is harmless.
    ///
    /// # Cancel safety
    /// Dropped early, the manager stays closed to new requests; call again to finish.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        for shard in self.shards() {
            shard.close();
        }
        // All shards are closed before a waiter is refused: whoever is refused is granted nothing in another shard.
        for shard in self.shards() {
            shard.reject_waiters();
        }
        self.released_within(grace).await;
        let left = self.shards().iter().map(|shard| shard.end_grants()).sum();
        if let Some(client) = self.client() {
            client.settle().await;
        }
        self.hub().close();
        if let Some(runtime) = self.thread() {
            runtime.stop();
            runtime.ended().await;
        }
        left
    }

    /// Waits until nothing is held, at most for `grace`.
    fn released_within(&self, grace: Duration) -> impl Future<Output = ()> {
        struct Sleep<'a>(&'a Shard, Option<u32>);
        impl Drop for Sleep<'_> {
            fn drop(&mut self) {
                if let Some(timer) = self.1 {
                    self.0.stop_sleep(timer);
                }
            }
        }
        let due = self.now().saturating_add(grace);
        let mut sleep = Sleep(self.shard_at(0), None);
        poll_fn(move |cx| {
            if self.shards().iter().all(|shard| shard.is_empty(cx.waker())) {
                return Poll::Ready(());
            }
            if sleep.1.is_some_and(|timer| sleep.0.still_sleeps(timer, cx.waker())) {
                return Poll::Pending;
            }
            if let Some(timer) = sleep.1.take() {
                sleep.0.stop_sleep(timer);
            }
            if sleep.0.now() >= due {
                return Poll::Ready(());
            }
            // Another shutdown's `close` wakes all sleepers: sleep on.
            sleep.1 = Some(sleep.0.sleep_closed(due, cx.waker()));
            Poll::Pending
        })
    }
}
