//! Whether a manager can grant locks just now: what a load balancer asks before it sends anybody.

use std::time::Duration;

use crate::engine::LockManager;
use crate::store::{Store, StoreError};

/// What [`LockManager::readiness`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// It grants locks. Where there is a store, it answered within this time.
    Ready {
        /// How long the store took.
        store: Option<Duration>,
    },
    /// It is shutting down: holders may still release, nobody is granted anything.
    Draining,
    /// Its store does not answer, or refuses locks: [`last_store_error`](LockManager::last_store_error) says why.
    StoreUnavailable,
}

impl LockManager {
    /// Asks the store, if there is one, and says whether locks can be granted. Over Redis a lock is taken and released
    /// to find out, once a second at most.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn readiness(&self) -> Readiness {
        if self.is_shutting_down() {
            return Readiness::Draining;
        }
        let Some(client) = self.client() else { return Readiness::Ready { store: None } };
        let answer = client.health().await.map(|health| health.answer);
        // It may have been closed while the store took its time.
        match answer {
            _ if self.is_shutting_down() => Readiness::Draining,
            Some(Ok(took)) => Readiness::Ready { store: Some(took) },
            Some(Err(_)) | None => Readiness::StoreUnavailable,
        }
    }

    /// Asks the store, if there is one: `Ok` if it answers.
    ///
    /// # Errors
    /// Why it does not. [`StoreError::Config`] does not pass by itself; after all others it is worth asking again.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn check_store(&self) -> Result<(), StoreError> {
        match self.client() {
            Some(client) => client.connected().await,
            None => Ok(()),
        }
    }

    /// What kept the store from its last answer, if it has not said yes or no to a request for a key since: the cause
    /// of a [`StoreUnavailable`](crate::LockError::StoreUnavailable), for logs. `None` without a store.
    #[must_use]
    pub fn last_store_error(&self) -> Option<StoreError> {
        self.client()?.observed().last_error()
    }

    /// What the store calls itself ([`Store::name`](crate::store::Store::name)); `None` without one.
    #[must_use]
    pub fn store_name(&self) -> Option<&'static str> {
        self.client().map(|client| client.observed().name())
    }

    /// How long ago the manager was built, on its own clock.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.age()
    }

    /// Whether it has begun to shut down: holders may still release, nobody is granted anything.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        // The first to be closed.
        self.shard_at(0).is_closed()
    }
}
