//! What a request asks of the table, made of its options.

use std::sync::Arc;

use super::options::Rare;
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::{Token, Ttl};
use crate::retry::Delays;
use crate::table::{ExtraTerms, Mode, Reentry, Terms, TokenOrigin};

/// What the request asks of the table, made when it is first polled.
pub(super) struct Prepared {
    pub(super) terms: Terms,
    /// To be kept with the grant: chosen by the client, or made for the store.
    pub(super) token: Option<Token>,
    pub(super) origin: TokenOrigin,
}

impl Prepared {
    /// Takes in how the key is to be held, and the options that most requests leave alone; answers the pauses of a request that polls.
    pub(super) fn set_rare(
        &mut self,
        mode: Mode,
        rare: Rare,
        manager: &LockManager,
        ttl: Option<Ttl>,
    ) -> Result<Option<Delays>, LockError> {
        let Rare { fault, owner, token, max_hold, refresh_after, retry, .. } = rare;
        let Rare { session, mut reentry, scope, account, leaves, .. } = rare;
        if let Some(why) = fault {
            return Err(why);
        }
        let delays = retry.map(|retry| retry.pace()).transpose()?;
        let invalid = |option, why| Err(LockError::InvalidOption { option, why });
        if let Some(token) = token {
            if reentry == Reentry::Counted {
                return invalid("reentrant", "a chosen token names a grant of its own");
            }
            (self.token, self.origin) = (Some(token), TokenOrigin::ByClient);
        }
        let beside = ExtraTerms { mode, reentry, scope, account, leaves, ..ExtraTerms::default() };
        let mut extra = ExtraTerms { owner_label: owner, max_hold, refresh_after, ..beside };
        if let Some(session) = session {
            if ttl.is_some() {
                return invalid("ttl", "the locks of a session live as long as the session does");
            }
            let session = session.parts_for(manager)?;
            self.terms.ttl = session.lock_ttl;
            // A chosen token names a grant of its own, whatever its session says.
            if self.origin == TokenOrigin::Minted && session.reentry == Reentry::Counted {
                reentry = Reentry::Counted;
            }
            let owner_label = extra.owner_label.or_else(|| Some(session.owner.label()));
            extra = ExtraTerms { owner_label, owner: Some(session.owner), reentry, ..extra };
        }
        if extra != ExtraTerms::default() {
            self.terms.extra = Some(Arc::new(extra));
        }
        Ok(delays)
    }

    /// Makes it a request of the callback that it is made in, unless it is a session's.
    #[cold]
    pub(super) fn set_caller(&mut self, manager: &LockManager) {
        let Some(caller) = manager.caller() else { return };
        let extra = self.terms.extra.get_or_insert_default();
        let Some(extra) = Arc::get_mut(extra).filter(|extra| extra.owner.is_none()) else { return };
        if extra.owner_label.is_none() {
            extra.owner_label = caller.name().cloned();
        }
        if let Some(ttl) = caller.ttl() {
            self.terms.ttl = ttl;
        }
        extra.owner = Some(caller);
    }
}
