//! What a manager is built with: settings with their defaults, and the same, checked. How they are checked is in
//! `manager`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::deadlock::{DeadlockPolicy, DeadlockReach};
use crate::error::LockError;
use crate::key::{Key, KeyFault, Ttl, TtlBounds};
use crate::store::{FailMode, Store, StoreError};
use crate::table::Limits;

settings! {
    /// Describes a [`LockManager`](crate::LockManager); every setting has a default.
    ///
    /// | setting | default |
    /// |---|---|
    /// | `ttl` | 30 s |
    /// | `wait` | 5 s |
    /// | `min_ttl`, `max_ttl` | 1 ms, 24 h |
    /// | `sweep_every` | 60 s |
    /// | `shards` | 4 per core, a power of two, at least 64 |
    /// | `namespaces` | none |
    /// | `threads` | 1 |
    /// | `max_key_bytes` | 256 |
    /// | `max_keys` | 4,194,304 |
    /// | `max_holders` | 1,048,576 |
    /// | `max_waiters` | 1,048,576 |
    /// | `max_waiters_per_key` | 16,384 |
    /// | `max_locks_per_session` | 10,000 |
    /// | `max_sessions` | 65,536 |
    /// | `max_watchers` | 16,384 |
    /// | `event_buffer` | 1,024 |
    /// | `max_value_bytes` | 65,536 |
    /// | `value_life` | 10 s |
    /// | `on_deadlock` | refuse the request that closes the cycle |
    /// | `deadlock_reach` | as far as the locks reach, where the store can |
    ///
    /// `max_keys` is split evenly over the shards. Keys spread over them by hash, so it may be met a little early.
    #[derive(Clone, Debug)]
    #[must_use]
    pub struct Builder {
        /// How long a lock lasts when its request does not say.
        ttl: Duration = Duration::from_secs(30);
        /// How long a request queues when it does not say.
        wait: Duration = Duration::from_secs(5);
        /// The shortest TTL that a request may ask for; at least [`Ttl::MIN`].
        min_ttl: Duration = Ttl::MIN;
        /// The longest TTL that a request may ask for; at most [`Ttl::MAX`].
        max_ttl: Duration = Duration::from_hours(24);
        /// How often locks that nobody waits for are looked through for expired ones (expiry is also noticed on
        /// access).
        sweep_every: Duration = Duration::from_secs(60);
        /// How many shards share the keys (of a namespace): a power of two up to 1024. More shards, less contention,
        /// more bounds to split.
        shards: usize = default_shards();
        /// How many threads the shards' actors share, 1 to 64.
        threads: usize = 1;
        /// The longest key, at most [`Key::MAX_BYTES`].
        max_key_bytes: usize = 256;
        /// How many keys may be locked at once; beyond it, [`LockError::TooManyKeys`](crate::LockError::TooManyKeys).
        /// Each [shard](Self::shards) has an equal part of it, so that a small bound is reached early where keys are
        /// not spread evenly: at some 100 keys to a shard that is at about three quarters, at 10 perhaps at a third.
        max_keys: usize = 1 << 22;
        /// How many further holders shared keys and semaphores may have beside the first of each, all together; beyond
        /// it, [`LockError::TooManyHolders`](crate::LockError::TooManyHolders). Those who wait already are let in all
        /// the same. Shards keep a few places each at hand, so a large bound may be reached up to a sixteenth early.
        max_holders: usize = 1 << 20;
        /// How many requests may queue at once; beyond it, [`LockError::QueueFull`](crate::LockError::QueueFull).
        /// Shards keep a few places each at hand, so a large bound may be reached up to a sixteenth early.
        max_waiters: usize = 1 << 20;
        /// How many requests may queue for one key; beyond it, [`LockError::QueueFull`](crate::LockError::QueueFull).
        max_waiters_per_key: usize = 1 << 14;
        /// How many locks one session (or the callback of one `run`) may hold and wait for; beyond it,
        /// [`LockError::TooManyLocks`](crate::LockError::TooManyLocks).
        max_locks_per_session: u32 = 10_000;
        /// How many sessions may be [registered](crate::Session::register) at once; beyond it,
        /// [`LockError::TooManySessions`](crate::LockError::TooManySessions).
        max_sessions: usize = 1 << 16;
        /// How many streams of single keys ([`watch`](crate::LockManager::watch)) there may be at once; beyond it,
        /// [`LockError::TooManyWatchers`](crate::LockError::TooManyWatchers). Each has a buffer of its own.
        max_watchers: usize = 1 << 14;
        /// How many events are kept for a listener that has not come to them yet, 1 to 65,536.
        event_buffer: usize = 1024;
        /// The longest value that a call [shares with other processes](crate::SingleflightRequest::across_processes), up
        /// to 16 MiB; the store may keep less ([`max_value`](crate::store::Capabilities::max_value)).
        max_value_bytes: usize = 1 << 16;
        /// How long such a value lies in the store for those who waited for it, from 1 ms to an hour. They take it one after
        /// the other, each under the key's lock, so a moment is enough unless others queue for that lock among them.
        value_life: Duration = Duration::from_secs(10);
        /// What is done about a deadlock.
        on_deadlock: DeadlockPolicy = DeadlockPolicy::default();
        /// How far deadlocks are looked for.
        deadlock_reach: DeadlockReach = DeadlockReach::default();
        /// What becomes of requests while the store does not answer.
        fail_mode: FailMode = FailMode::default();
        /// Where time comes from.
        clock: Clock = Clock::system();
        ..
        namespaces: Vec<Box<str>> = Vec::new();
        store: Option<Arc<dyn Store>> = None;
    }
}

fn default_shards() -> usize {
    let cores = std::thread::available_parallelism().map_or(4, usize::from);
    (cores * 4).next_power_of_two().clamp(64, 1024)
}

/// A manager's settings, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) ttl: Ttl,
    pub(crate) ttls: TtlBounds,
    /// As they were given, but that `shards` is the number for each namespace.
    pub(crate) given: Builder,
}

/// Why a manager could not be built.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An option of the builder is out of bounds.
    #[error("invalid option `{option}`: {why}")]
    InvalidOption {
        /// The name of the option.
        option: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The store cannot be used, or does not answer.
    #[error("the store does not serve: {0}")]
    Store(#[source] StoreError),
    /// The manager's own thread could not be started.
    #[error("cannot start the manager's thread: {0}")]
    Thread(#[source] Arc<std::io::Error>),
}

impl Config {
    /// Holds a request to this manager's bounds.
    pub(crate) fn check(&self, key: &Key, ttl: Option<Ttl>) -> Result<(), LockError> {
        let bytes = key.as_bytes().len();
        if bytes > self.given.max_key_bytes {
            return Err(KeyFault::TooLong { bytes, max: self.given.max_key_bytes }.into());
        }
        Ok(ttl.map_or(Ok(()), |ttl| self.ttls.check(ttl))?)
    }

    /// The one spelling of a key: with a store, the store's.
    pub(crate) fn canonical(&self, key: Key) -> Result<Key, LockError> {
        let Some(store) = &self.given.store else { return Ok(key) };
        store.canonical(&key).map_err(|fault| match fault {
            StoreError::InvalidKey { why, .. } => KeyFault::Store { why }.into(),
            _ => LockError::StoreUnavailable,
        })
    }

    /// What the keys that begin with `prefix` begin with as they are kept.
    pub(crate) fn canonical_prefix<'a>(&self, prefix: &'a str) -> Cow<'a, str> {
        if self.given.store.is_none() {
            return prefix.into();
        }
        // How a store spells a prefix shows in how it spells a key that begins so.
        let sample = format!("{prefix}x");
        let spelt = Key::new(&sample).ok().and_then(|sample| self.canonical(sample).ok());
        let Some(spelt) = spelt.as_ref().map(Key::as_str) else { return prefix.into() };
        match (spelt.find(&sample), sample.ends_with(spelt)) {
            (Some(at), _) => spelt[..at + prefix.len()].to_owned().into(),
            // It leaves out what every name begins with.
            (None, true) => spelt[..spelt.len() - 1].to_owned().into(),
            // No key begins so.
            (None, false) => prefix.into(),
        }
    }

    /// The bound on keys is split per shard: a shared counter would cost more than the lock (T9). Who queues or shares
    /// can afford one, so waiters and the members of shared keys are counted over all shards.
    pub(crate) fn limits_per_shard(&self) -> Limits {
        Limits {
            keys: self.given.max_keys.div_ceil(self.given.shards),
            members: self.given.max_holders,
            waiters: self.given.max_waiters,
            waiters_per_key: self.given.max_waiters_per_key,
        }
    }
}
