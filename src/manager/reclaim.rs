//! Locks that their holders take back after a restart: what a lock server does with heartbeats while it starts.

use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::engine::LockManager;
use crate::error::{LockError, Loss};
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::lock::Refreshed;
use crate::table::{AcquireRequest, ExtraTerms, GrantState, Mode, Terms, TokenOrigin};

/// A lock that an earlier process granted, as its holder describes it; see [`LockManager::reclaim`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReclaimProof {
    /// The token of the lock.
    pub token: Token,
    /// The fence of the lock: of two locks that cannot be held together, the one with the higher fence stays.
    pub fence: FencingToken,
    /// How it was held.
    pub mode: Mode,
    /// Its owner, for people who look.
    pub owner: Option<Arc<str>>,
    /// Whom the lock is charged to.
    pub account: Option<Account>,
    /// How long it lasts from now on; the manager's default if it is `None`.
    pub ttl: Option<Duration>,
}

impl ReclaimProof {
    /// That of an exclusive lock with the default TTL, without owner and account.
    #[must_use]
    pub fn new(token: Token, fence: FencingToken) -> Self {
        Self { token, fence, mode: Mode::Exclusive, owner: None, account: None, ttl: None }
    }
}

/// A lock that was taken back; see [`LockManager::reclaim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reclaimed {
    /// The lock as it is now.
    pub lock: Refreshed,
    /// How many locks of others, with lower fences, were ended for it.
    pub ended: usize,
}

impl LockManager {
    /// Grants a lock anew, with the token and the fence that an earlier process in this one's place had granted it with: a
    /// manager in memory forgets its locks when the process ends.
    ///
    /// For lock servers, which answer heartbeats with it while they start and grant nothing else. A proof that was made
    /// up cannot be told from a true one, so outside of that time it would end the locks of others.
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if another holds the key, or the fence is none that can have been given out before this
    /// process began; [`LockError::Lost`] if the lock has ended in this process, or there is a store, which forgets
    /// nothing; [`LockError::LockQuota`] if the account has as many locks as it may; [`LockError::InvalidKey`];
    /// [`LockError::InvalidTtl`].
    pub fn reclaim(&self, key: Key, proof: ReclaimProof) -> Result<Reclaimed, LockError> {
        let ReclaimProof { token, fence, mode, owner, account, ttl } = proof;
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
            token: Some(token),
            origin: TokenOrigin::ByClient,
            grant_state: GrantState::Ticket,
        };
        let (done, ended) = shard.reclaim(&request, fence)?;
        Ok(Reclaimed { lock: Refreshed::new(done, shard.now()), ended })
    }
}
