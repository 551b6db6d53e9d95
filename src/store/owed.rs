//! Taking back, in the background, what nobody received (R5): [`take_back`], for every store that is a [`Debtor`].
//!
//! A task of the store's releases by comparison until no late command can undo that any more: until a release was answered
//! on the wire that carried all unanswered commands, whose order the server keeps, or was answered after the last
//! not-after of them. The task also ends when the key must have run out by itself.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::StoreError;
use super::pending::{Cleaning, Entry, PendingCleanup, ReleaseScope};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::key::Token;
use crate::supervise::guarded;

/// Between two tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// The same while the server refuses us.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A store that owes releases.
pub(in crate::store) trait Debtor: Send + Sync + 'static {
    /// What its locks are known by.
    type Lock: Clone + Eq + Hash + Send + Sync + 'static;

    /// All that it owes.
    fn cleaning(&self) -> &Cleaning<Self::Lock>;

    /// The store's own runtime, while it runs.
    fn runtime(&self) -> Option<Handle>;

    fn now(&self) -> Moment;

    fn operation_timeout(&self) -> Duration;

    /// Waits until the server can be reached.
    fn reachable(&self) -> impl Future<Output = ()> + Send;

    /// Releases once, and adds to `sent` what it sends; answers the wire, and what the server's clock showed. `pending` is
    /// what it is for.
    fn release_once(
        self: &Arc<Self>,
        lock: &Self::Lock,
        token: Token,
        pending: PendingCleanup,
        sent: &mut PendingCleanup,
    ) -> impl Future<Output = Result<(u64, i64), StoreError>> + Send;
}

/// Takes back what a token holds or may come to hold, in the background.
pub(in crate::store) fn take_back<D: Debtor>(store: &Arc<D>, lock: D::Lock, token: Token, pending: PendingCleanup) {
    let Some(runtime) = store.runtime() else { return };
    if let Some(entry) = store.cleaning().begin(&lock, token, pending) {
        let cleanup = Cleanup { store: Arc::clone(store), lock, token, entry };
        runtime.spawn(guarded("a clean-up", async move { cleanup.run().await }));
    }
}

/// The task that takes back what belongs to one lock and token.
struct Cleanup<D: Debtor> {
    store: Arc<D>,
    lock: D::Lock,
    token: Token,
    entry: Arc<Entry>,
}

impl<D: Debtor> Cleanup<D> {
    async fn run(self) {
        let (mut unknown, mut refused) = (Backoff::new(PAUSE.0, PAUSE.1), Backoff::new(REFUSED.0, REFUSED.1));
        // What was sent has no effect after that.
        let late = self.store.operation_timeout() * 2;
        loop {
            self.until_reachable().await;
            if self.store.runtime().is_none() {
                // The store was stopped: nothing is answered any more.
                return;
            }
            let now = self.store.now();
            if self.finish(|pending| now > pending.over.saturating_add(late)) {
                return;
            }
            if now > self.pending().over {
                // The key has run out, and is not released any more: its token may be used again when this ends.
                tokio::time::sleep(PAUSE.1).await;
                continue;
            }
            let mut sent = PendingCleanup::of(self.scope(), Moment::ZERO);
            let wait = match self.store.release_once(&self.lock, self.token, self.pending(), &mut sent).await {
                Ok((wire, server_us)) => {
                    let pending = self.pending();
                    if pending.is_settled(wire, server_us) && self.finish(|now| now.is_settled(wire, server_us)) {
                        return;
                    }
                    let left_us = u64::try_from(pending.not_after_us.saturating_sub(server_us)).unwrap_or(0);
                    Duration::from_micros(left_us).saturating_add(Duration::from_millis(1)).min(PAUSE.1)
                }
                Err(why) => {
                    self.entry.pending.lock().join(sent);
                    if why.is_refusal() { refused.next() } else { unknown.next() }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    fn pending(&self) -> PendingCleanup {
        *self.entry.pending.lock()
    }

    fn scope(&self) -> ReleaseScope {
        self.pending().scope
    }

    fn finish(&self, is_done: impl FnOnce(&PendingCleanup) -> bool) -> bool {
        self.store.cleaning().finish(&self.lock, self.token, &self.entry, is_done)
    }

    /// Rests while the server is away, for as long as anything is pending: there may be many clean-ups.
    async fn until_reachable(&self) {
        loop {
            let left = self.pending().over.saturating_since(self.store.now());
            if left.is_zero() || tokio::time::timeout(left, self.store.reachable()).await.is_ok() {
                return;
            }
        }
    }
}

impl<D: Debtor> Drop for Cleanup<D> {
    fn drop(&mut self) {
        self.store.cleaning().end(&self.lock, self.token, &self.entry);
    }
}
