//! Ending what a token holds, guarded (R4): the store tries again until the release is answered (R5).

use std::sync::Arc;

use super::release_script;
use crate::key::{Key, Token};
use crate::store::redis::call::Confirm;
use crate::store::redis::cleanup::Guard;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::pending::PendingCleanup;
use crate::store::{Released, StoreError};

/// A release that is carried out from its creation on, whatever becomes of the future (S7).
pub(in crate::store) struct GuardedRelease {
    names: KeyNames,
    token: Token,
    guard: Guard,
}

impl GuardedRelease {
    pub(in crate::store) fn new(inner: &Arc<Inner>, key: &Key, token: Token) -> Result<Self, StoreError> {
        let names = inner.names(key)?;
        // How long the key was taken for is not known here; no key is taken for longer.
        let pending = PendingCleanup::new(inner.now().saturating_add(inner.config.longest_life));
        let guard = Guard::new(inner, &names, token, pending, Confirm::No);
        Ok(Self { names, token, guard })
    }

    pub(in crate::store) async fn run(mut self, inner: &Arc<Inner>) -> Released {
        match release_script::release(inner, &self.names, self.token, &mut self.guard).await {
            Ok((released, _)) => {
                self.guard.disarm();
                released
            }
            Err(error) => Released::Unknown(error),
        }
    }
}
