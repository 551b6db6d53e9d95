//! Ending what a token holds, guarded (R4): the store tries again until the release is answered (R5).

use std::sync::Arc;

use super::release_script;
use crate::key::{Key, Token};
use crate::store::pending::{PendingCleanup, ReleaseScope};
use crate::store::redis::call::Confirm;
use crate::store::redis::cleanup::Guard;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::shares::HoldKind;
use crate::store::{Released, StoreError, ValueToLeave};

/// A release that is carried out from its creation on, whatever becomes of the future (S7).
pub(in crate::store) struct GuardedRelease {
    names: KeyNames,
    token: Token,
    scope: ReleaseScope,
    guard: Guard,
}

impl GuardedRelease {
    pub(in crate::store) fn new(inner: &Arc<Inner>, key: &Key, token: Token) -> Result<Self, StoreError> {
        let scope = match inner.shares.kind(token) {
            HoldKind::Exclusive => ReleaseScope::Any,
            HoldKind::Share => ReleaseScope::Share,
        };
        Self::of(inner, key, token, scope)
    }

    /// The same for a token under which this process has given out fences up to `last_fence`.
    pub(in crate::store) fn of_claim(
        inner: &Arc<Inner>,
        key: &Key,
        token: Token,
        last_fence: u64,
    ) -> Result<Self, StoreError> {
        Self::of(inner, key, token, ReleaseScope::Claim(last_fence))
    }

    fn of(inner: &Arc<Inner>, key: &Key, token: Token, scope: ReleaseScope) -> Result<Self, StoreError> {
        let names = inner.names(key)?;
        // How long the key was taken for is not known here; no key is taken for longer.
        let pending = PendingCleanup::of(scope, inner.now().saturating_add(inner.config.longest_life));
        let guard = Guard::new(inner, &names, token, pending, Confirm::No);
        Ok(Self { names, token, scope, guard })
    }

    pub(super) fn names(&self) -> &KeyNames {
        &self.names
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(super) fn guard(&mut self) -> &mut Guard {
        &mut self.guard
    }

    pub(in crate::store) async fn run(mut self, inner: &Arc<Inner>) -> Released {
        let released = release_script::once(inner, &self.names, self.token, self.scope, &mut self.guard).await;
        self.conclude(released.map(|(released, _)| released))
    }

    /// The same, and leaves a value. What is repeated in the background leaves none (S19).
    pub(in crate::store) async fn run_leaving(mut self, inner: &Arc<Inner>, value: ValueToLeave) -> Released {
        let released = release_script::leaving(inner, &self.names, self.token, &value, &mut self.guard).await;
        self.conclude(released.map(|(released, _)| released))
    }

    /// It was answered, or not: then it is repeated in the background.
    pub(super) fn conclude(mut self, answered: Result<Released, StoreError>) -> Released {
        match answered {
            Ok(released) => {
                self.guard.disarm();
                released
            }
            Err(error) => Released::Unknown(error),
        }
    }
}
