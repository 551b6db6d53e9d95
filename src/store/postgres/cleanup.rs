//! What goes along with each acquire and release, and takes back what they leave if nobody receives that: [`Guard`].
//!
//! While it is armed, dropping it (a dropped future, an unknown answer) starts a task of the store's ([`take_back`]). That
//! calls a function that waits for a statement which is about to be committed: a release that found nothing would not see
//! what that leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::types::Type;

use super::call::{Sending, call};
use super::inner::Inner;
use super::wires::Route;
use crate::clock::Moment;
use crate::key::{Key, Token};
use crate::store::StoreError;
use crate::store::owed::{Debtor, take_back};
use crate::store::pending::{Cleaning, PendingCleanup, SendOrder};

/// Takes back what a call may have left, if it does not end well.
pub(super) struct Guard {
    inner: Arc<Inner>,
    armed: Option<(Key, Token, PendingCleanup)>,
}

impl Guard {
    /// A guard that takes back what `token` may come to hold, and that runs out by `over`.
    pub(super) fn new(inner: &Arc<Inner>, key: &Key, token: Token, over: Moment) -> Self {
        Self { inner: Arc::clone(inner), armed: Some((key.clone(), token, PendingCleanup::new(over))) }
    }

    /// The call ended well.
    pub(super) fn disarm(&mut self) {
        self.armed = None;
    }
}

impl Sending for Guard {
    fn sending(&mut self, wire: u64, not_after_us: i64) {
        if let Some((_, _, pending)) = &mut self.armed {
            pending.add(SendOrder::Kept(wire), not_after_us);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some((key, token, pending)) = self.armed.take() {
            take_back(&self.inner, key, token, pending);
        }
    }
}

impl Sending for &mut PendingCleanup {
    fn sending(&mut self, wire: u64, not_after_us: i64) {
        self.add(SendOrder::Kept(wire), not_after_us);
    }
}

impl Debtor for Inner {
    type Lock = Key;

    fn cleaning(&self) -> &Cleaning<Key> {
        &self.cleaning
    }

    fn runtime(&self) -> Option<Handle> {
        Self::runtime(self)
    }

    fn now(&self) -> Moment {
        Self::now(self)
    }

    fn operation_timeout(&self) -> Duration {
        self.settings.operation_timeout
    }

    async fn reachable(&self) {
        self.wires.until_up_or(|| !self.is_running()).await;
    }

    async fn release_once(
        self: &Arc<Self>,
        key: &Key,
        token: Token,
        pending: PendingCleanup,
        mut sent: &mut PendingCleanup,
    ) -> Result<(u64, i64), StoreError> {
        // Best over the connection that carried what it is for.
        let route = Route::same(pending.only_wire(), key.as_str());
        let params = (key.as_str(), token.as_uuid());
        let function = self.statements.take_back();
        let params: &[_] = &[(&params.0 as _, Type::TEXT), (&params.1 as _, Type::UUID)];
        let answered = call(self, (self.now(), route), function, params, &mut sent).await;
        answered.map(|reply| (reply.wire, reply.server_us())).map_err(|failure| failure.error)
    }
}
