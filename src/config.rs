//! What a manager was built with, checked: defaults, bounds, the store. Made by the `Builder`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::deadlock::DeadlockPolicy;
use crate::error::LockError;
use crate::key::{Key, KeyFault, Ttl, TtlBounds};
use crate::store::{FailMode, Store, StoreError};
use crate::table::Limits;

/// A manager's settings, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) ttl: Ttl,
    pub(crate) wait: Duration,
    pub(crate) ttls: TtlBounds,
    pub(crate) sweep_every: Duration,
    /// Of each namespace.
    pub(crate) shards: usize,
    pub(crate) namespaces: Vec<Box<str>>,
    pub(crate) threads: usize,
    pub(crate) max_key_bytes: usize,
    pub(crate) max_keys: usize,
    pub(crate) max_holders: usize,
    pub(crate) max_waiters: usize,
    pub(crate) max_waiters_per_key: usize,
    pub(crate) max_locks_per_session: u32,
    pub(crate) max_sessions: usize,
    pub(crate) max_watchers: usize,
    pub(crate) event_buffer: usize,
    pub(crate) on_deadlock: DeadlockPolicy,
    pub(crate) fail_mode: FailMode,
    pub(crate) store: Option<Arc<dyn Store>>,
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
        if bytes > self.max_key_bytes {
            return Err(KeyFault::TooLong { bytes, max: self.max_key_bytes }.into());
        }
        Ok(ttl.map_or(Ok(()), |ttl| self.ttls.check(ttl))?)
    }

    /// The one spelling of a key: with a store, the store's.
    pub(crate) fn canonical(&self, key: Key) -> Result<Key, LockError> {
        let Some(store) = &self.store else { return Ok(key) };
        store.canonical(&key).map_err(|fault| match fault {
            StoreError::InvalidKey { why, .. } => KeyFault::Store { why }.into(),
            _ => LockError::StoreUnavailable,
        })
    }

    /// What the keys that begin with `prefix` begin with as they are kept.
    pub(crate) fn canonical_prefix<'a>(&self, prefix: &'a str) -> Cow<'a, str> {
        if self.store.is_none() {
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
            keys: self.max_keys.div_ceil(self.shards),
            members: self.max_holders,
            waiters: self.max_waiters,
            waiters_per_key: self.max_waiters_per_key,
        }
    }
}
