//! What a manager is asked for besides locks: how it is built, what is held, what happens, and its end.
//!
//! [`LockManager`] itself is in `engine`; here are the methods that concern no single request.

mod builder;
mod events;
mod force_release;
#[cfg(feature = "http")]
mod history;
mod info;
mod inspect;
mod list;
mod list_order;
mod readiness;
#[cfg(feature = "http")]
mod reclaim;
mod shutdown;
mod stats;
mod take_over;

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
pub use events::{EventStream, Events, Heard};
pub use force_release::ForceRelease;
#[cfg(feature = "http")]
pub use history::{History, HistoryStep};
pub use info::{EndedLock, Explanation, Location, LockInfo};
pub use list::{ListPage, ListQuery, StorePage};
pub use list_order::ListOrder;
pub use readiness::Readiness;
#[cfg(feature = "http")]
pub use reclaim::{ReclaimProof, Reclaimed};
pub use stats::{HotKey, Stats};
pub use take_over::TakenOver;

use crate::config::Builder;
use crate::engine::{LockManager, ShardActor};
use crate::error::{LockError, Loss};
use crate::key::{Key, Token, Ttl};
use crate::lock::{Lock, Refreshed, Ticket};
use crate::shard::Shard;
use crate::table::{GrantState, Release, TokenOrigin};

impl LockManager {
    /// Starts to describe a manager; see [`Builder`] for the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Gives a lock that was [detached](Lock::detach) a guard again.
    ///
    /// # Errors
    /// [`LockError::Lost`] or [`LockError::NotHeld`] if it has ended, [`LockError::TokenReused`] if it has a guard in
    /// this process already.
    pub fn restore(&self, ticket: &Ticket) -> Result<Lock, LockError> {
        let (shard, hash) = self.place(ticket.key());
        let shard = self.shard_at(shard);
        let grant = shard.adopt(ticket.key(), hash, ticket.token(), GrantState::Guard(TokenOrigin::ByClient))?;
        Ok(Lock::new(Arc::clone(shard), ticket.key().clone(), grant, Some(ticket.token())))
    }

    /// Releases a lock by its token. The answer is never [`Release::Unknown`].
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if another grant holds the key and the token is not remembered as one that ended;
    /// [`LockError::InvalidKey`]; [`LockError::StoreUnavailable`] if there is a store and it has not answered: the lock
    /// is let go here, and the store goes on releasing it until it is answered or the key has run out;
    /// [`LockError::ShuttingDown`] if there is a store, which keeps the lock beyond the manager's end.
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll.
    pub async fn release<K: TryInto<Key, Error: Into<LockError>>>(
        &self,
        key: K,
        token: Token,
    ) -> Result<Release, LockError> {
        let key = self.good_key(key)?;
        let (shard, hash) = self.place(&key);
        self.shard_at(shard).release_token(&key, hash, token).await
    }

    /// Refreshes a lock by its token: to now plus `ttl`, or plus the TTL it was granted with.
    ///
    /// Over a store the lock may be one that another process granted, or this one before it was started anew: of a token
    /// that is not known here the store is asked. It is refreshed there, by the manager's own TTL if none is given, and
    /// stays a lock of [elsewhere](crate::Location::Elsewhere) here; how often it was refreshed is not known.
    ///
    /// # Errors
    /// [`LockError::Lost`] if the grant has ended, [`LockError::NotHeld`] if another holds the key and the token is
    /// not remembered; [`LockError::InvalidKey`], [`LockError::InvalidTtl`]; [`LockError::StoreUnavailable`] if there is a
    /// store and it has not answered: the lock stands until the deadline that was known before.
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll. Over a store a refresh that was dropped may still be carried out.
    pub async fn refresh<K: TryInto<Key, Error: Into<LockError>>>(
        &self,
        key: K,
        token: Token,
        ttl: Option<Duration>,
    ) -> Result<Refreshed, LockError> {
        let key = self.good_key(key)?;
        let ttl = ttl.map(Ttl::new).transpose()?;
        self.config().check(&key, ttl)?;
        let (shard, hash) = self.place(&key);
        let shard = self.shard_at(shard);
        let done = match shard.refresh_token(&key, hash, token, Shard::refresh_ask(ttl)).await {
            Err(unknown @ (LockError::NotHeld | LockError::Lost(Loss::Unknown))) => {
                let ttl = ttl.unwrap_or(self.config().ttl);
                shard.extend_unknown(&key, token, ttl).await?.ok_or(unknown)?
            }
            done => done?,
        };
        Ok(Refreshed::new(done, shard.now()))
    }

    /// Ends every lock whose deadline has passed, and answers how many that were. Timers do the same by themselves,
    /// within a second where somebody waits and at every sweep elsewhere.
    #[must_use = "the count is the answer"]
    pub fn clean_expired_locks(&self) -> u64 {
        let mut cleaned = 0;
        for shard in self.shards() {
            let (before, ..) = shard.totals();
            shard.sweep();
            let (after, ..) = shard.totals();
            cleaned += after.expired - before.expired;
        }
        cleaned
    }

    /// The actor that owns this key's shard, for callers who are actors themselves. See [`messages`](crate::messages).
    #[must_use]
    pub fn shard(&self, key: &Key) -> Addr<ShardActor> {
        self.actor_at(self.place(key).0).clone()
    }
}
