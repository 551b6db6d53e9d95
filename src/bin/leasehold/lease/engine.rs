//! Locks of a store, from an engine of this process's own.

use std::cell::OnceCell;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use leasehold::{Clock, Location, Lock, LockError, LockManager, Moment, Release};

use super::progress::{InTheWay, Progress};
use super::rounds::Pauses;
use super::{Backing, Beat, Lease, LeaseKind, LeaseTerms, RELEASE_TIMEOUT};
use crate::exit::Failure;
use crate::settings::store::{self, Choice, StoreArgs};

/// An engine of this process over a store, from the moment on at which the store answered.
pub(crate) struct OwnEngine {
    name: String,
    redlock_max_ttl: Duration,
    settings: StoreArgs,
    ttl: Duration,
    engine: OnceCell<LockManager>,
}

/// A lock that the store has granted.
struct StoreLock {
    lock: Lock,
    key: String,
    ttl: Duration,
}

impl OwnEngine {
    /// Over the store of this name, for locks of this TTL.
    ///
    /// # Errors
    /// `Usage` if it names none, or memory, which nobody else would know of.
    pub(crate) fn over(
        name: &str,
        redlock_max_ttl: Duration,
        settings: &StoreArgs,
        ttl: Duration,
    ) -> Result<Self, Failure> {
        let settings = settings.clone();
        let engine = Self { name: name.to_owned(), redlock_max_ttl, settings, ttl, engine: OnceCell::new() };
        engine.choice().map(|_| engine)
    }

    fn choice(&self) -> Result<Choice, Failure> {
        match store::choose(&self.name, self.redlock_max_ttl, &self.settings).map_err(Failure::Usage)? {
            Choice::Memory => Err(Failure::Usage("--store memory: no other process would know of it".to_owned())),
            choice => Ok(choice),
        }
    }

    async fn connect(&self) -> Result<LockManager, Failure> {
        let builder = self.choice()?.under(LockManager::builder().ttl(self.ttl));
        Ok(builder.build_and_connect().await?)
    }

    /// The engine. A store that does not answer is asked again until `end`.
    async fn started(
        &self,
        key: &str,
        end: Moment,
        clock: &Clock,
        progress: &Progress,
    ) -> Result<&LockManager, Failure> {
        let mut pauses = Pauses::default();
        while self.engine.get().is_none() {
            match self.connect().await {
                Ok(engine) => drop(self.engine.set(engine)),
                Err(why @ Failure::Unavailable(_)) => {
                    let left = end.saturating_since(clock.now());
                    if left.is_zero() {
                        return Err(why);
                    }
                    progress.failing(key, &why);
                    tokio::time::sleep(pauses.next().min(left)).await;
                }
                Err(why) => return Err(why),
            }
        }
        self.engine.get().ok_or_else(|| Failure::Os("the engine has not started".to_owned()))
    }

    /// See [`LeaseSource::acquire`](super::LeaseSource::acquire).
    pub(super) async fn acquire(&self, terms: &LeaseTerms, end: Moment, progress: &Progress) -> Result<Lease, Failure> {
        let clock = Clock::system();
        let locks = self.started(&terms.key, end, &clock, progress).await?;
        loop {
            let lock = request(locks, terms, end.saturating_since(clock.now())).await?;
            let deadline = lock.deadline().unwrap_or_else(|| clock.now());
            let fencing_token = lock.fencing_token().map(|fence| fence.get());
            let lock = StoreLock { lock, key: terms.key.clone(), ttl: terms.ttl };
            let mut lease = Lease::new(terms.ttl, fencing_token, deadline, lock);
            if lease.is_fresh().await {
                return Ok(lease);
            }
            // Dropped, it is released.
            if clock.now() >= end {
                let why = "its turn came and went while this process did not run";
                return Err(Failure::NotAcquired(why.to_owned()));
            }
        }
    }

    /// Who is in the way of this wait.
    pub(super) async fn look(&self, key: &str) -> Option<InTheWay> {
        let info = self.engine.get()?.inspect(key).await.ok()??;
        let age = (info.location == Location::Here).then_some(info.age);
        Some(InTheWay { owner: info.owner.map(|owner| owner.to_string()), age, before: None })
    }

    /// Sees to it that what was released is released in the store, before the process ends.
    pub(super) async fn close(&self) {
        if let Some(locks) = self.engine.get() {
            locks.shutdown(RELEASE_TIMEOUT).await;
        }
    }
}

async fn request(locks: &LockManager, terms: &LeaseTerms, wait: Duration) -> Result<Lock, LockError> {
    let (key, now) = (&terms.key, wait.is_zero());
    let request = match (terms.kind, now) {
        (LeaseKind::Exclusive, true) => locks.try_lock(key),
        (LeaseKind::Exclusive, false) => locks.lock(key),
        (LeaseKind::Shared, true) => locks.try_read(key),
        (LeaseKind::Shared, false) => locks.read(key),
        (LeaseKind::Permit { limit }, true) => locks.semaphore(key, limit).try_permits(1),
        (LeaseKind::Permit { limit }, false) => locks.semaphore(key, limit).permits(1),
    };
    let request = request.ttl(terms.ttl).owner(&terms.owner);
    if now { request.await } else { request.wait(wait).await }
}

impl Backing for StoreLock {
    fn beat(&self, _: Duration) -> LocalBoxFuture<'static, Beat> {
        let (held, ttl) = (self.lock.held(), self.ttl);
        Box::pin(async move {
            match held.refresh_for(ttl).await {
                Ok(refreshed) => Beat::Until(refreshed.deadline),
                Err(why @ (LockError::Lost(_) | LockError::NotHeld)) => Beat::Gone(why.to_string()),
                Err(why) => Beat::Unknown(why.to_string()),
            }
        })
    }

    fn lost(&self) -> LocalBoxFuture<'static, String> {
        let lost = self.lock.held().lost();
        Box::pin(async move {
            match lost.await {
                Some(why) => why.to_string(),
                None => std::future::pending().await,
            }
        })
    }

    fn release(self: Box<Self>) -> LocalBoxFuture<'static, Result<(), Failure>> {
        let Self { lock, key, .. } = *self;
        Box::pin(async move {
            match lock.unlock().await {
                Release::Released => Ok(()),
                Release::AlreadyGone => Err(super::gone(&key)),
                // S1: neither is known. It was held by the local deadline, which `run` has watched.
                _ => Err(Failure::Unavailable(format!(
                    "{key}: the store did not answer the release: the key is free when it has, or after its TTL"
                ))),
            }
        })
    }

    fn give_up(self: Box<Self>) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            let _ = self.lock.unlock().await;
        })
    }
}
