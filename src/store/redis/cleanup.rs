//! What goes along with each acquire and release, and takes back what they leave if nobody receives that (R5): [`Guard`].
//!
//! While it is armed, dropping it (a dropped future, an unknown answer) starts a task of the store's ([`take_back`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::call::{Confirm, SendObserver};
use super::inner::Inner;
use super::keys::KeyNames;
use super::ops::release_script;
use crate::clock::Moment;
use crate::key::Token;
use crate::store::StoreError;
use crate::store::owed::{Debtor, take_back};
use crate::store::pending::{Cleaning, PendingCleanup, SendOrder};

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

impl Debtor for Inner {
    type Lock = KeyNames;

    fn cleaning(&self) -> &Cleaning<KeyNames> {
        &self.cleaning
    }

    fn runtime(&self) -> Option<Handle> {
        Self::runtime(self)
    }

    fn now(&self) -> Moment {
        Self::now(self)
    }

    fn operation_timeout(&self) -> Duration {
        self.config.operation_timeout
    }

    async fn reachable(&self) {
        if let Some(link) = self.link() {
            let _ = link.wire().await;
        }
    }

    async fn release_once(
        self: &Arc<Self>,
        names: &KeyNames,
        token: Token,
        pending: PendingCleanup,
        sent: &mut PendingCleanup,
    ) -> Result<(u64, i64), StoreError> {
        let (_, answer) = release_script::once(self, names, token, pending.scope, sent).await?;
        Ok((answer.wire.id, answer.reply.server_us()))
    }
}
