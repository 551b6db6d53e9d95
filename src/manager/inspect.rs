//! What can be asked about locks without holding one: is it locked, by whom, since when, and how often.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::info::{EndedLock, Explanation, Location, LockInfo};
use super::stats::{HotKey, Stats};
use crate::engine::LockManager;
use crate::error::{LockError, Loss};
use crate::key::Key;
use crate::lock::Ticket;
use crate::mode::Mode;
use crate::shard::Shard;
use crate::store::{Health, Holder, KeyState, StoreError};
use crate::table::{Counters, HolderInfo};

/// How many holders and how many waiters of a key are named.
pub(super) const SHOWN: usize = 100;
/// How many of a key's last locks are shown.
const ENDS_SHOWN: usize = 16;

impl LockManager {
    /// The key as this manager keeps it: two spellings that the store keeps as one are one lock.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`].
    pub fn canonical_key<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> Result<Key, LockError> {
        self.good_key(key)
    }

    /// What the keys that begin with `prefix` begin with as this manager keeps them: over a store whose names have more
    /// in front, without that.
    #[must_use]
    pub fn canonical_prefix<'a>(&self, prefix: &'a str) -> Cow<'a, str> {
        self.config().canonical_prefix(prefix)
    }

    /// Whether somebody holds the key now.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn is_locked<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> Result<bool, LockError> {
        let key = self.good_key(key)?;
        let (shard, hash) = self.place(&key);
        if self.shard_at(shard).look(&key, hash, 0).is_some() {
            return Ok(true);
        }
        match self.client() {
            None => Ok(false),
            Some(client) => match client.look(&key, self.shard_at(shard).idle_token(&key, hash)).await {
                // What this process only keeps is no lock (K4).
                Some(Ok(seen)) => Ok(!matches!(seen, KeyState::Free | KeyState::Held { by: Holder::Ours, .. })),
                Some(Err(_)) | None => Err(LockError::StoreUnavailable),
            },
        }
    }

    /// How the store is, asked now, and each of its servers: whether it answers, and of a quorum, what it has voted and
    /// why it does not vote. `None` if there is no store to ask.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn store_health(&self) -> Option<Health> {
        match self.client() {
            None => None,
            Some(client) => {
                let stopped = || Health::new(Err(StoreError::NotRunning), Vec::new());
                Some(client.health().await.unwrap_or_else(stopped))
            }
        }
    }

    /// Who holds the key and who waits for it (the first 100 of each); `None` if it is free. Where there is a store and
    /// nobody here holds it, the store is asked; if it has several nodes, each is asked for whom it stands.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`], [`LockError::StoreUnavailable`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn inspect<K: TryInto<Key, Error: Into<LockError>>>(
        &self,
        key: K,
    ) -> Result<Option<LockInfo>, LockError> {
        self.look_at_all(self.good_key(key)?).await
    }

    /// What [`inspect`](Self::inspect) answers, without the votes of a store's nodes: what is held here is shown at
    /// once.
    #[cfg(feature = "http")]
    pub(crate) async fn glance<K: TryInto<Key, Error: Into<LockError>>>(
        &self,
        key: K,
    ) -> Result<Option<LockInfo>, LockError> {
        self.look(self.good_key(key)?).await
    }

    async fn look_at_all(&self, key: Key) -> Result<Option<LockInfo>, LockError> {
        let mut found = self.look(key).await?;
        if let (Some(info), Some(client)) = (&mut found, self.client()) {
            let (shard, hash) = self.place(&info.key);
            // Read after the look: if the holder has changed since, the votes are newer.
            let token = self.shard_at(shard).token_at(&info.key, hash).filter(|_| info.location == Location::Here);
            info.votes = client.store.votes(&info.key, token).await;
        }
        Ok(found)
    }

    pub(super) async fn look(&self, key: Key) -> Result<Option<LockInfo>, LockError> {
        let (shard, hash) = self.place(&key);
        let shard = self.shard_at(shard);
        if let Some(row) = shard.look(&key, hash, SHOWN) {
            let info = LockInfo::from(row);
            // Other processes may share it.
            let is_shared = info.mode != Mode::Exclusive && shard.is_claimed_here(&key, hash);
            return Ok(Some(match self.client().filter(|_| is_shared) {
                Some(client) => info.shared_by(&client.holders(&key).await.and_then(Result::ok).unwrap_or_default()),
                None => info,
            }));
        }
        let Some(client) = self.client() else { return Ok(None) };
        match client.look(&key, shard.idle_token(&key, hash)).await {
            Some(Ok(KeyState::Free | KeyState::Held { by: Holder::Ours, .. })) => Ok(None),
            Some(Ok(KeyState::Held { by, ends_in, fence })) => {
                let holds = match by {
                    Holder::Sharing => client.holders(&key).await.and_then(Result::ok).unwrap_or_default(),
                    _ => Vec::new(),
                };
                let awaiting = shard.awaiting(&key, hash, SHOWN);
                Ok(Some(LockInfo::elsewhere((key, by), ends_in, fence, awaiting).shared_by(&holds)))
            }
            Some(Err(_)) | None => Err(LockError::StoreUnavailable),
        }
    }

    /// All that is known of a key, for whoever asks why it is locked, or why it no longer is: what
    /// [`inspect`](Self::inspect) answers, and how its last locks in this process ended.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`], [`LockError::StoreUnavailable`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn explain<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> Result<Explanation, LockError> {
        let key = self.good_key(key)?;
        let lock = self.look_at_all(key.clone()).await?;
        let (shard, hash) = self.place(&key);
        let traces = self.shard_at(shard).trail(hash, ENDS_SHOWN);
        let now = self.now();
        let ended = traces.into_iter().map(|(trace, owner)| EndedLock::new(trace, owner, now)).collect();
        Ok(Explanation { key, lock, ended })
    }

    /// What is known of the lock that a ticket stands for, and nothing of the queue but its length.
    ///
    /// # Errors
    /// [`LockError::Lost`] if that grant has ended, whoever holds the key now.
    pub fn inspect_ticket(&self, ticket: &Ticket) -> Result<LockInfo, LockError> {
        let (shard, hash) = self.place(ticket.key());
        let row = self.shard_at(shard).look_ticket(ticket.key(), hash, ticket.token());
        row.map(LockInfo::from).map_err(lost)
    }

    /// What is known of the one who holds by a ticket: less than [`inspect_ticket`](Self::inspect_ticket) tells, and
    /// sooner.
    ///
    /// # Errors
    /// [`LockError::Lost`] if that grant has ended, whoever holds the key now.
    pub fn inspect_holder(&self, ticket: &Ticket) -> Result<HolderInfo, LockError> {
        let (shard, hash) = self.place(ticket.key());
        self.shard_at(shard).look_holder(ticket.key(), hash, ticket.token()).map_err(lost)
    }

    /// The totals of all shards.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Self::sum(self.shards())
    }

    /// The totals of the keys that begin with one of these prefixes, of which none is to begin with another; `None`
    /// unless each of them is empty or one of the [namespaces](crate::Builder::namespaces), since others are not
    /// counted apart.
    #[must_use]
    pub fn stats_within<S: AsRef<str>>(&self, prefixes: &[S]) -> Option<Stats> {
        let of = |prefix: &S| self.shards_within(&self.canonical_prefix(prefix.as_ref()));
        let shards: Option<Vec<_>> = prefixes.iter().map(of).collect();
        Some(Self::sum(shards?.into_iter().flatten()))
    }

    fn sum<'a>(shards: impl IntoIterator<Item = &'a Arc<Shard>>) -> Stats {
        let mut counters = Counters::default();
        let (mut active, mut waiting) = (0, 0);
        for shard in shards {
            // What is over but not yet noticed is not active (T1).
            shard.sweep();
            let (of_shard, held, queued) = shard.totals();
            counters.add(&of_shard);
            active += held as u64;
            waiting += queued as u64;
        }
        Stats::new(&counters, active, waiting)
    }

    /// The most contended keys, the worst first, at most `limit` (and 16 per shard).
    ///
    /// Counted in bounded space (Space-Saving, 2005): a key that is among the worst is never missed, and a count may be
    /// too high by what the key inherited from one that it displaced, never too low. Counts halve every ten minutes.
    #[must_use]
    pub fn hot_keys(&self, limit: usize) -> Vec<HotKey> {
        let counted = self.shards().iter().flat_map(|shard| shard.hot_keys());
        let mut hot: Vec<HotKey> = counted.map(|(key, contentions)| HotKey { key, contentions }).collect();
        hot.sort_unstable_by(|a, b| b.contentions.cmp(&a.contentions).then_with(|| a.key.cmp(&b.key)));
        hot.truncate(limit);
        hot
    }

    /// The totals of one key, if it is held and was contended since it came into the table.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn key_stats<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> Result<Option<Stats>, LockError> {
        let key = self.good_key(key)?;
        let (shard, hash) = self.place(&key);
        Ok(self.shard_at(shard).look(&key, hash, 0).and_then(|row| LockInfo::from(row).stats))
    }
}

/// Short, and without anything that proves or names a holder: a manager stands in many a `Debug` of its host's.
impl fmt::Debug for LockManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut held, mut waiting) = (0, 0);
        for shard in self.shards() {
            let (_, of_shard, queued) = shard.totals();
            (held, waiting) = (held + of_shard, waiting + queued);
        }
        let store = self.config().given.store.as_ref().map_or("none", |store| store.name());
        let mut shown = f.debug_struct("LockManager");
        shown.field("shards", &self.shards().len()).field("store", &store);
        shown.field("held", &held).field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// A ticket was a grant's: one whose token the key does not know has ended.
fn lost(why: LockError) -> LockError {
    match why {
        LockError::NotHeld => LockError::Lost(Loss::Unknown),
        other => other,
    }
}
