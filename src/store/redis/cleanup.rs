//! Taking back what nobody received (R5): [`Guard`], [`take_back`].
//!
//! A guard goes along with each acquire and release. While it is armed, dropping it (a dropped future, an unknown
//! answer) starts a task of the store's that releases by comparison until no late command can undo that any more:
//! until a release was answered on the wire that carried all unanswered commands, whose order the server keeps, or
//! was answered after the last not-after of them. The task also ends when the key must have run out by itself.

use std::sync::Arc;
use std::time::Duration;

use super::call::{Confirm, SendObserver};
use super::inner::Inner;
use super::keys::KeyNames;
use super::ops::release_script;
use super::pending::{Entry, PendingCleanup, SendOrder};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::key::Token;
use crate::supervise::guarded;

/// Between two tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// The same while the server refuses us.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Goes along with a call, and takes back what it may have left if it does not end well.
pub(in crate::store) struct Guard {
    inner: Arc<Inner>,
    armed: Option<(KeyNames, Token, PendingCleanup)>,
    confirm: Confirm,
}

impl Guard {
    /// A guard that takes back what `token` may come to hold.
    pub(in crate::store) fn new(
        inner: &Arc<Inner>,
        names: &KeyNames,
        token: Token,
        pending: PendingCleanup,
        confirm: Confirm,
    ) -> Self {
        Self { inner: Arc::clone(inner), armed: Some((names.clone(), token, pending)), confirm }
    }

    /// The call ended well.
    pub(in crate::store) fn disarm(&mut self) {
        self.armed = None;
    }
}

impl SendObserver for Guard {
    fn sending(&mut self, order: SendOrder, not_after_us: i64) {
        if let Some((_, _, pending)) = &mut self.armed {
            pending.add(order, not_after_us);
        }
    }

    fn confirm(&self) -> Confirm {
        self.confirm
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((names, token, pending)) = self.armed.take() {
            take_back(&self.inner, names, token, pending);
        }
    }
}

/// Takes back what a token holds or may come to hold, in the background.
pub(in crate::store) fn take_back(inner: &Arc<Inner>, names: KeyNames, token: Token, pending: PendingCleanup) {
    let Some(runtime) = inner.runtime() else { return };
    if let Some(entry) = inner.cleaning.begin(&names, token, pending) {
        let cleanup = Cleanup { inner: Arc::clone(inner), names, token, entry };
        runtime.spawn(guarded("a clean-up", async move { cleanup.run().await }));
    }
}

/// The task that takes back what belongs to one lock and token.
struct Cleanup {
    inner: Arc<Inner>,
    names: KeyNames,
    token: Token,
    entry: Arc<Entry>,
}

impl Cleanup {
    async fn run(self) {
        let (mut unknown, mut refused) = (Backoff::new(PAUSE.0, PAUSE.1), Backoff::new(REFUSED.0, REFUSED.1));
        // What was sent has no effect after that.
        let late = self.inner.config.operation_timeout * 2;
        loop {
            self.until_reachable().await;
            if self.inner.runtime().is_none() {
                // The store was stopped: nothing is answered any more.
                return;
            }
            let now = self.inner.now();
            if self.finish(|pending| now > pending.over.saturating_add(late)) {
                return;
            }
            if now > self.pending().over {
                // The key has run out, and is not released any more: its token may be used again when this ends.
                tokio::time::sleep(PAUSE.1).await;
                continue;
            }
            let scope = self.pending().scope;
            let mut sent = PendingCleanup::of(scope, Moment::ZERO);
            let wait = match release_script::once(&self.inner, &self.names, self.token, scope, &mut sent).await {
                Ok((_, answer)) => {
                    let (wire, server_us) = (answer.wire.id, answer.reply.server_us());
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

    fn finish(&self, is_done: impl FnOnce(&PendingCleanup) -> bool) -> bool {
        self.inner.cleaning.finish(&self.names, self.token, &self.entry, is_done)
    }

    /// Rests while the server is away, for as long as anything is pending: there may be many clean-ups.
    async fn until_reachable(&self) {
        let Some(link) = self.inner.link() else { return };
        loop {
            let left = self.pending().over.saturating_since(self.inner.now());
            if left.is_zero() || tokio::time::timeout(left, link.wire()).await.is_ok() {
                return;
            }
        }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        self.inner.cleaning.end(&self.names, self.token, &self.entry);
    }
}
