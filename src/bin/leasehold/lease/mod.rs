//! A lock for as long as a process wants it: from a server, or from a store by an engine of this process's own.
//!
//! A lease knows its deadline on a clock that counts through suspend.

mod engine;
pub(crate) mod leases;
pub(crate) mod progress;
pub(crate) mod rounds;
mod server;
mod terms;

use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use leasehold::{Clock, Moment};

use crate::client::Client;
use crate::exit::Failure;
pub(crate) use engine::OwnEngine;
use progress::{InTheWay, Progress};
use rounds::give_back;
pub(crate) use server::Granted;
pub(crate) use terms::{HolderArgs, LeaseKind, LeaseTerms};

/// How long a release may take before the process ends without an answer.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where locks come from.
pub(crate) enum LeaseSource {
    Server(Client),
    Store(OwnEngine),
}

/// A lock that was granted.
pub(crate) struct Lease {
    pub(crate) fencing_token: Option<u64>,
    pub(crate) deadline: Moment,
    clock: Clock,
    ttl: Duration,
    backing: Box<dyn Backing>,
}

/// What a lease does through its server or store.
trait Backing {
    /// One heartbeat, of its own: it may go on while the lease is looked at.
    fn beat(&self, within: Duration) -> LocalBoxFuture<'static, Beat>;

    /// Resolves when this process hears that the lock has ended.
    fn lost(&self) -> LocalBoxFuture<'static, String>;

    /// Releases the lock. What cannot be released ends with its TTL.
    ///
    /// # Errors
    /// `Lost` if it had ended before, `Unavailable` if that cannot be told.
    fn release(self: Box<Self>) -> LocalBoxFuture<'static, Result<(), Failure>>;

    /// Gives back what may be left of a lock under which nothing runs any more.
    fn give_up(self: Box<Self>) -> LocalBoxFuture<'static, ()>;
}

/// What became of a heartbeat.
#[derive(Debug)]
pub(crate) enum Beat {
    /// The lock lasts until then.
    Until(Moment),
    /// The lock has ended.
    Gone(String),
    /// Nobody can tell; the lock lasts as long as it would have.
    Unknown(String),
}

impl LeaseSource {
    /// Acquires a lock before `end`; the first try is made however late it is. What is answered lasts long enough to
    /// begin something under it: a lock whose turn came while this process did not run is given back.
    ///
    /// # Errors
    /// It was not granted, or whether it was is not known; [`LeaseSource::give_up`] then sees to what may have come of it.
    pub(crate) async fn acquire(
        &self,
        terms: &mut LeaseTerms,
        end: Moment,
        progress: &Progress,
    ) -> Result<Lease, Failure> {
        match self {
            Self::Server(client) => server::acquire(client, terms, end, progress).await,
            Self::Store(store) => store.acquire(terms, end, progress).await,
        }
    }

    /// Who is in the way of this wait.
    pub(crate) async fn look(&self, key: &str, owner: &str) -> Option<InTheWay> {
        match self {
            Self::Server(client) => server::look(client, key, owner).await,
            Self::Store(store) => store.look(key).await,
        }
    }

    /// Gives back what may have been granted under the token of these terms. Over a store what is not held any more was
    /// released when it was dropped.
    pub(crate) async fn give_back(&self, terms: &LeaseTerms) {
        if let Self::Server(client) = self {
            give_back(client, terms).await;
        }
    }

    /// Gives back what an acquire that was broken off may have been granted.
    pub(crate) async fn give_up(&self, all: &[LeaseTerms]) {
        join_all(all.iter().map(|terms| self.give_back(terms))).await;
        self.close().await;
    }

    /// Sees to it that what was released is released in the store, before the process ends.
    pub(crate) async fn close(&self) {
        if let Self::Store(store) = self {
            store.close().await;
        }
    }
}

impl Lease {
    fn new(ttl: Duration, fencing_token: Option<u64>, deadline: Moment, backing: impl Backing + 'static) -> Self {
        Self { fencing_token, deadline, clock: Clock::system(), ttl, backing: Box::new(backing) }
    }

    /// Whether more than half of its time is left, after a heartbeat if need be (R8). Time is lost when this process
    /// was stopped, or its machine asleep, while the lock was granted.
    async fn is_fresh(&mut self) -> bool {
        let enough = self.ttl / 2;
        let left = |lease: &Self| lease.deadline.saturating_since(lease.now());
        if left(self) <= enough
            && let Beat::Until(deadline) = self.backing.beat(enough).await
        {
            self.deadline = self.deadline.max(deadline);
        }
        left(self) > enough
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }
}

fn gone(key: &str) -> Failure {
    Failure::Lost(format!("{key}: the lock ended before it was released"))
}

pub(crate) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
