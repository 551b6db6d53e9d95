//! Locks that their holders take back after a restart: what a heartbeat does while a lock server starts.

use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::engine::LockManager;
use crate::error::{LockError, Loss};
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::lock::Refreshed;
use crate::table::{AcquireRequest, ExtraTerms, GrantState, Mode, Terms, TokenOrigin};

/// What a holder has of its lock, and how it held it.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) token: Token,
    pub(crate) fence: FencingToken,
    pub(crate) mode: Mode,
    pub(crate) owner: Option<Arc<str>>,
    /// Whom the lock is charged to.
    pub(crate) account: Option<Account>,
    /// The manager's default if it is left out.
    pub(crate) ttl: Option<Duration>,
}

impl LockManager {
    /// Grants a lock anew, to the token and with the fence that an earlier process in its place had granted it: a
    /// manager in memory forgets its locks when the process ends. Only while nothing else is granted is this a proof.
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if another holds the key, or the fence is none that can have been given out before this
    /// process began; [`LockError::Lost`] if the lock has ended in this process, or there is a store, which forgets
    /// nothing; [`LockError::LockQuota`] if the account has as many locks as it may.
    ///
    /// Answers also how many others, with lower fences, the key was taken from.
    pub(crate) fn reclaim(&self, key: Key, proof: Proof) -> Result<(Refreshed, usize), LockError> {
        let Proof { token, fence, mode, owner, account, ttl } = proof;
        if let Mode::Permits { limit, permits } = mode
            && !(1..=limit).contains(&permits)
        {
            return Err(LockError::NotHeld);
        }
        let key = self.good_key(key)?;
        let ttl = ttl.map(Ttl::new).transpose()?;
        self.config().check(&key, ttl)?;
        if self.client().is_some() {
            return Err(LockError::Lost(Loss::Unknown));
        }
        let extra = ExtraTerms { owner_label: owner, mode, account, ..ExtraTerms::default() };
        let extra = (extra != ExtraTerms::default()).then(|| Arc::new(extra));
        let terms = Terms { ttl: ttl.unwrap_or(self.config().ttl), extra };
        let (shard, hash) = self.place(&key);
        let shard = self.shard_at(shard);
        let request = AcquireRequest {
            key: &key,
            hash,
            terms: &terms,
            token,
            origin: TokenOrigin::ByClient,
            grant_state: GrantState::Ticket,
        };
        let (done, put_out) = shard.reclaim(&request, fence)?;
        Ok((Refreshed::new(done, shard.now()), put_out))
    }
}
