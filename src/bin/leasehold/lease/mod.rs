//! A lock for as long as a process wants it: from a server, or from a store by an engine of this process's own.
//!
//! A lease knows its deadline on a clock that counts through suspend. Over HTTP the deadline counts from the moment at
//! which the request was sent, less a clock's drift, so that it never lies behind the server's.

pub(crate) mod leases;
pub(crate) mod progress;
pub(crate) mod rounds;
mod terms;

use std::cell::OnceCell;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::join_all;
use leasehold::{Clock, Held, Location, Lock, LockError, LockManager, Moment, Release};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::replies::{Detail, HeartbeatReply, ReleaseReply};
use crate::client::{CallError, Client};
use crate::exit::Failure;
use crate::settings::store::{self, Choice, StoreArgs};
use progress::{InTheWay, Progress};
use rounds::{AcquireReply, Pauses, Rounds, TokenFrom, give_back};
pub(crate) use terms::{HolderArgs, LeaseKind, LeaseTerms};

/// How long a release may take before the process ends without an answer.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// The smallest drift between two clocks that is reckoned with, and its share of the TTL.
const DRIFT: Duration = Duration::from_millis(2);
const DRIFT_SHARE: u32 = 100;

/// Where locks come from.
pub(crate) enum LeaseSource {
    Server(Client),
    Store(Box<OwnEngine>),
}

/// An engine of this process over a store, from the moment on at which the store answered.
pub(crate) struct OwnEngine {
    name: String,
    redlock_max_ttl: Duration,
    settings: StoreArgs,
    ttl: Duration,
    engine: OnceCell<LockManager>,
}

/// A lock that was granted.
pub(crate) struct Lease {
    pub(crate) fencing_token: Option<u64>,
    pub(crate) deadline: Moment,
    clock: Clock,
    key: String,
    ttl: Duration,
    /// See [`LeaseTerms::kind_and_owner`].
    kind_and_owner: Value,
    backing: Backing,
}

enum Backing {
    Server { client: Client, token: String },
    Store { lock: Lock },
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

/// What a server answers to an acquire.
#[derive(Deserialize)]
pub(crate) struct Granted {
    pub(crate) token: String,
    pub(crate) fencing_token: Option<u64>,
    pub(crate) remaining_ms: u64,
    waited_ms: u64,
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
            Choice::Own(_) => {
                let why = "--store file: no other process could lock there meanwhile; start `leasehold serve --data DIR`, and \
                           name it by --server";
                Err(Failure::Usage(why.to_owned()))
            }
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
        let clock = Clock::system();
        match self {
            Self::Server(client) => {
                let mut rounds = Rounds::until(end, TokenFrom::Us, client, &clock, progress);
                loop {
                    let AcquireReply { text, sent } = rounds.ask(terms).await?;
                    let granted: Granted = client.read(&text)?;
                    let deadline = granted.deadline(sent, terms.ttl);
                    let backing = Backing::Server { client: client.clone(), token: granted.token };
                    let mut lease = Lease::new(terms, granted.fencing_token, deadline, backing);
                    if lease.is_fresh().await {
                        return Ok(lease);
                    }
                    rounds.give_back(terms).await?;
                }
            }
            Self::Store(store) => {
                let locks = store.started(&terms.key, end, &clock, progress).await?;
                loop {
                    let lock = request(locks, terms, end.saturating_since(clock.now())).await?;
                    let deadline = lock.deadline().unwrap_or_else(|| clock.now());
                    let fencing_token = lock.fencing_token().map(|fence| fence.get());
                    let backing = Backing::Store { lock };
                    let mut lease = Lease::new(terms, fencing_token, deadline, backing);
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
        }
    }

    /// Who is in the way of this wait.
    pub(crate) async fn look(&self, key: &str, owner: &str) -> Option<InTheWay> {
        match self {
            Self::Server(client) => {
                let text = client.get("/locks", &[("key", key), ("missing", "empty")]).await.ok()?;
                let Detail { row, queue, .. } = client.read(&text).ok()?;
                let me = queue.iter().find(|waiter| waiter.owner.as_deref() == Some(owner));
                let before = me.map(|waiter| waiter.position.saturating_sub(1));
                let age = row.holder.age_ms.map(Duration::from_millis);
                Some(InTheWay { owner: row.holder.owner, age, before })
            }
            Self::Store(store) => {
                let info = store.engine.get()?.inspect(key).await.ok()??;
                let is_here = info.location == Location::Here;
                let age = is_here.then_some(info.age);
                Some(InTheWay { owner: info.owner.map(|owner| owner.to_string()), age, before: None })
            }
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
        if let Self::Store(store) = self
            && let Some(locks) = store.engine.get()
        {
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
        (LeaseKind::Permit { limit, permits }, true) => locks.semaphore(key, limit).try_permits(permits),
        (LeaseKind::Permit { limit, permits }, false) => locks.semaphore(key, limit).permits(permits),
    };
    let request = request.ttl(terms.ttl).owner(&terms.owner);
    if now { request.await } else { request.wait(wait).await }
}

impl Granted {
    /// The end of the lock, for a client that sent its request then.
    pub(crate) fn deadline(&self, sent: Moment, ttl: Duration) -> Moment {
        let lasts = Duration::from_millis(self.waited_ms.saturating_add(self.remaining_ms));
        sent.saturating_add(without_drift(lasts, ttl))
    }
}

impl Lease {
    fn new(terms: &LeaseTerms, fencing_token: Option<u64>, deadline: Moment, backing: Backing) -> Self {
        let (clock, kind_and_owner) = (Clock::system(), terms.kind_and_owner());
        Self { fencing_token, deadline, clock, key: terms.key.clone(), ttl: terms.ttl, kind_and_owner, backing }
    }

    /// Whether more than half of its time is left, after a heartbeat if need be (R8). Time is lost when this process
    /// was stopped, or its machine asleep, while the lock was granted.
    async fn is_fresh(&mut self) -> bool {
        let enough = self.ttl / 2;
        let left = |lease: &Self| lease.deadline.saturating_since(lease.now());
        if left(self) <= enough
            && let Beat::Until(deadline) = self.beat(enough).await
        {
            self.deadline = self.deadline.max(deadline);
        }
        left(self) > enough
    }

    /// The body of a release. A server that has just started, and knows of no locks, believes the fencing token.
    fn release_body(&self) -> Value {
        let token = match &self.backing {
            Backing::Server { token, .. } => Some(token),
            Backing::Store { .. } => None,
        };
        let mut body = json!({ "key": self.key, "token": token });
        if let Some(fence) = self.fencing_token {
            body["fencing_token"] = fence.into();
            for name in ["mode", "limit", "permits"] {
                if let Some(value) = self.kind_and_owner.get(name) {
                    body[name] = value.clone();
                }
            }
        }
        body
    }

    /// The body of a heartbeat, with which such a server gives the lock back.
    fn heartbeat_body(&self) -> Value {
        let mut body = if self.fencing_token.is_some() { self.kind_and_owner.clone() } else { json!({}) };
        body["ttl_ms"] = whole_ms(self.ttl).into();
        for (name, value) in self.release_body().as_object_mut().into_iter().flatten() {
            body[name.as_str()] = value.take();
        }
        body
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// One heartbeat, of its own: it may go on while the lease is looked at.
    pub(crate) fn beat(&self, within: Duration) -> Pin<Box<dyn Future<Output = Beat>>> {
        let (ttl, clock) = (self.ttl, self.clock.clone());
        match &self.backing {
            Backing::Server { client, .. } => {
                let body = self.heartbeat_body();
                let client = client.clone();
                Box::pin(async move {
                    let sent = clock.now();
                    let answer = client.post("/heartbeat", &body, within).await;
                    match answer.and_then(|text| client.read::<HeartbeatReply>(&text)) {
                        Ok(HeartbeatReply { remaining_ms, .. }) => {
                            Beat::Until(sent.saturating_add(without_drift(Duration::from_millis(remaining_ms), ttl)))
                        }
                        Err(CallError::Refused(problem)) => match Failure::from(problem) {
                            Failure::Lost(why) => Beat::Gone(why),
                            other => Beat::Unknown(other.to_string()),
                        },
                        Err(CallError::Unknown(why) | CallError::Distrusted(why)) => Beat::Unknown(why),
                    }
                })
            }
            Backing::Store { lock } => {
                let held: Held = lock.held();
                Box::pin(async move {
                    match held.refresh_for(ttl).await {
                        Ok(refreshed) => Beat::Until(refreshed.deadline),
                        Err(why @ (LockError::Lost(_) | LockError::NotHeld)) => Beat::Gone(why.to_string()),
                        Err(why) => Beat::Unknown(why.to_string()),
                    }
                })
            }
        }
    }

    /// Resolves when the engine of this process hears that the lock has ended. A server tells it with heartbeats only.
    pub(crate) fn lost(&self) -> Pin<Box<dyn Future<Output = String>>> {
        match &self.backing {
            Backing::Server { .. } => Box::pin(std::future::pending()),
            Backing::Store { lock } => {
                let lost = lock.held().lost();
                Box::pin(async move {
                    match lost.await {
                        Some(why) => why.to_string(),
                        None => std::future::pending().await,
                    }
                })
            }
        }
    }

    /// Releases the lock. What cannot be released ends with its TTL.
    ///
    /// # Errors
    /// `Lost` if it had ended before, `Unavailable` if that cannot be told.
    pub(crate) async fn release(self) -> Result<(), Failure> {
        let body = self.release_body();
        let gone = Failure::Lost(format!("{}: the lock ended before it was released", self.key));
        match self.backing {
            Backing::Server { client, .. } => {
                let text = match client.post("/release", &body, RELEASE_TIMEOUT).await {
                    Err(CallError::Unknown(_)) => {
                        client.post("/release", &body, RELEASE_TIMEOUT).await?;
                        // If it is gone already, the first order may have done it.
                        return Ok(());
                    }
                    answer => answer?,
                };
                let ReleaseReply { outcome } = client.read(&text)?;
                if outcome == "released" { Ok(()) } else { Err(gone) }
            }
            Backing::Store { lock } => {
                match lock.unlock().await {
                    Release::Released => Ok(()),
                    Release::AlreadyGone => Err(gone),
                    // S1: neither is known. It was held by the local deadline, which `run` has watched.
                    _ => Err(Failure::Unavailable(format!(
                        "{}: the store did not answer the release: the key is free when it has, or after its TTL",
                        self.key
                    ))),
                }
            }
        }
    }

    /// Gives back what may be left of a lock under which nothing runs any more.
    pub(crate) async fn give_up(self) {
        let body = self.release_body();
        match self.backing {
            Backing::Server { client, .. } => {
                // Whoever does not answer keeps the lock for its TTL at most.
                let _ = client.post("/release", &body, RELEASE_TIMEOUT).await;
            }
            Backing::Store { lock } => drop(lock.unlock().await),
        }
    }
}

fn without_drift(span: Duration, ttl: Duration) -> Duration {
    span.saturating_sub(DRIFT + ttl / DRIFT_SHARE)
}

pub(crate) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
