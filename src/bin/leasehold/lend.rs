//! A lock for as long as a process wants it: from a server, or from a store by an engine of this process's own.
//!
//! A lease knows its deadline on a clock that counts through suspend. Over HTTP the deadline counts from the moment at
//! which the request was sent, less a clock's drift, so that it never lies behind the server's.

use std::pin::Pin;
use std::time::Duration;

use leasehold::{Clock, Held, Lock, LockError, LockManager, Moment, Release, Token};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{ANSWER_TIMEOUT, CallError, Client};
use crate::exit::Failure;
use crate::settings::store::Choice;

/// The longest wait that one request asks a server for, whose own bound this is unless it was set.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A server that takes no request to wait for so long is not asked for less.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// How long a release may take before the process ends without an answer.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// The smallest drift between two clocks that is reckoned with, and its share of the TTL.
const DRIFT: Duration = Duration::from_millis(2);
const DRIFT_SHARE: u32 = 100;

/// Who else may hold the lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nobody.
    Exclusive,
    /// All who ask for it so.
    Shared,
    /// As many as there are permits.
    Permit { limit: u32 },
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) key: String,
    pub(crate) kind: Kind,
    pub(crate) ttl: Duration,
    /// Zero: now or never.
    pub(crate) wait: Duration,
    pub(crate) owner: String,
    /// Chosen here, so that a lock whose answer was lost can be given back.
    pub(crate) token: Token,
}

/// Who lends locks.
pub(crate) enum Lender {
    Server(Client),
    Store(LockManager),
}

/// A lock that was granted.
pub(crate) struct Lease {
    pub(crate) fencing_token: Option<u64>,
    pub(crate) deadline: Moment,
    clock: Clock,
    key: String,
    ttl: Duration,
    hold: Hold,
}

enum Hold {
    Server { client: Client, token: String },
    Store { locks: LockManager, lock: Lock },
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

#[derive(Deserialize)]
struct Beaten {
    remaining_ms: u64,
}

#[derive(Deserialize)]
struct Released {
    outcome: String,
}

impl Terms {
    /// The body of `POST /acquire`, for a wait of this length.
    pub(crate) fn body(&self, wait: Duration) -> Value {
        let (mode, limit) = match self.kind {
            Kind::Exclusive => ("exclusive", None),
            Kind::Shared => ("shared", None),
            Kind::Permit { limit } => ("permit", Some(limit)),
        };
        let mut body = json!({
            "key": self.key, "ttl_ms": whole_ms(self.ttl), "wait_ms": whole_ms(wait), "owner": self.owner,
            "mode": mode, "token": self.token.to_string(),
        });
        if let (Some(limit), Some(fields)) = (limit, body.as_object_mut()) {
            fields.insert("limit".to_owned(), limit.into());
        }
        body
    }

    /// Asks a server, again and again where the wait is longer than one request may wait; each goes to the end of the
    /// queue. Answers the text of the grant, and when its request was sent: the grant's times count from then.
    ///
    /// # Errors
    /// The lock was not granted, or whether it was is not known.
    pub(crate) async fn ask(&self, client: &Client, clock: &Clock) -> Result<(String, Moment), CallError> {
        let began = clock.now();
        let mut longest = LONGEST_WAIT;
        loop {
            let sent = clock.now();
            let left = self.wait.saturating_sub(sent.saturating_since(began));
            let wait = left.min(longest);
            let answer = client.post("/acquire", &self.body(wait), wait.saturating_add(ANSWER_TIMEOUT)).await;
            match answer {
                Err(CallError::Refused(problem)) if problem.code == "timeout" && wait < left => {}
                // What its bound is cannot be asked for.
                Err(CallError::Refused(problem)) if problem.is_about("wait_ms") && wait > SHORTEST_WAIT => {
                    longest = wait / 2;
                }
                answer => return answer.map(|text| (text, sent)),
            }
        }
    }
}

impl Lender {
    /// An engine over this store, in this process, for locks of this TTL.
    ///
    /// # Errors
    /// `Usage` for memory, which nobody else would know of; `Unavailable` if the store does not answer.
    pub(crate) async fn over(choice: Choice, ttl: Duration) -> Result<Self, Failure> {
        let builder = LockManager::builder().ttl(ttl);
        let builder = match choice {
            Choice::Memory => {
                return Err(Failure::Usage("--store memory: no other process would know of it".to_owned()));
            }
            Choice::Redis(store) => builder.store(store),
            Choice::Redlock(store) => builder.store(store),
        };
        Ok(Self::Store(builder.build_and_connect().await?))
    }

    /// Acquires a lock.
    ///
    /// # Errors
    /// It was not granted, or whether it was is not known; [`Lender::give_up`] then sees to what may have come of it.
    pub(crate) async fn acquire(&self, terms: &Terms) -> Result<Lease, Failure> {
        let clock = Clock::system();
        let (key, ttl) = (terms.key.clone(), terms.ttl);
        match self {
            Self::Server(client) => {
                let (text, sent) = terms.ask(client, &clock).await?;
                let granted: Granted = client.read(&text)?;
                let lasts = Duration::from_millis(granted.waited_ms.saturating_add(granted.remaining_ms));
                let deadline = sent.saturating_add(without_drift(lasts, ttl));
                let hold = Hold::Server { client: client.clone(), token: granted.token };
                Ok(Lease { fencing_token: granted.fencing_token, deadline, clock, key, ttl, hold })
            }
            Self::Store(locks) => {
                let now = terms.wait.is_zero();
                let request = match (terms.kind, now) {
                    (Kind::Exclusive, true) => locks.try_lock(&key),
                    (Kind::Exclusive, false) => locks.lock(&key),
                    (Kind::Shared, true) => locks.try_read(&key),
                    (Kind::Shared, false) => locks.read(&key),
                    (Kind::Permit { limit }, true) => locks.semaphore(&key, limit).try_permits(1),
                    (Kind::Permit { limit }, false) => locks.semaphore(&key, limit).permits(1),
                };
                let request = request.ttl(ttl).owner(&terms.owner);
                let lock = if now { request.await? } else { request.wait(terms.wait).await? };
                let deadline = lock.deadline().ok_or_else(|| Failure::Lost(format!("{key}: the lock is lost")))?;
                let fencing_token = lock.fencing_token().map(|fence| fence.get());
                let hold = Hold::Store { locks: locks.clone(), lock };
                Ok(Lease { fencing_token, deadline, clock, key, ttl, hold })
            }
        }
    }

    /// Gives back what an acquire that was broken off may have been granted.
    pub(crate) async fn give_up(&self, terms: &Terms) {
        match self {
            Self::Server(client) => {
                let body = json!({ "key": terms.key, "token": terms.token.to_string() });
                // Whoever does not answer keeps the lock for its TTL at most.
                let _ = client.post("/release", &body, RELEASE_TIMEOUT).await;
            }
            Self::Store(locks) => {
                locks.shutdown(RELEASE_TIMEOUT).await;
            }
        }
    }
}

impl Lease {
    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// One heartbeat, of its own: it may go on while the lease is looked at.
    pub(crate) fn beat(&self, within: Duration) -> Pin<Box<dyn Future<Output = Beat>>> {
        let (ttl, clock) = (self.ttl, self.clock.clone());
        match &self.hold {
            Hold::Server { client, token } => {
                let body = json!({ "key": self.key, "token": token, "ttl_ms": whole_ms(ttl) });
                let client = client.clone();
                Box::pin(async move {
                    let sent = clock.now();
                    let answer = client.post("/heartbeat", &body, within).await;
                    match answer.and_then(|text| client.read::<Beaten>(&text)) {
                        Ok(Beaten { remaining_ms }) => {
                            Beat::Until(sent.saturating_add(without_drift(Duration::from_millis(remaining_ms), ttl)))
                        }
                        Err(CallError::Refused(problem)) => match Failure::from(problem) {
                            Failure::Lost(why) => Beat::Gone(why),
                            other => Beat::Unknown(other.to_string()),
                        },
                        Err(CallError::Unknown(why)) => Beat::Unknown(why),
                    }
                })
            }
            Hold::Store { lock, .. } => {
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
        match &self.hold {
            Hold::Server { .. } => Box::pin(std::future::pending()),
            Hold::Store { lock, .. } => {
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
        let gone = || Failure::Lost(format!("{}: the lock ended before it was released", self.key));
        match self.hold {
            Hold::Server { client, token } => {
                let body = json!({ "key": self.key, "token": token });
                let text = match client.post("/release", &body, RELEASE_TIMEOUT).await {
                    Err(CallError::Unknown(_)) => {
                        client.post("/release", &body, RELEASE_TIMEOUT).await?;
                        // If it is gone already, the first order may have done it.
                        return Ok(());
                    }
                    answer => answer?,
                };
                let Released { outcome } = client.read(&text)?;
                if outcome == "released" { Ok(()) } else { Err(gone()) }
            }
            Hold::Store { locks, lock } => {
                let released = lock.unlock().await;
                locks.shutdown(RELEASE_TIMEOUT).await;
                if released == Release::Released { Ok(()) } else { Err(gone()) }
            }
        }
    }

    /// Gives back what may be left of a lock under which nothing runs any more.
    pub(crate) async fn give_up(self) {
        match self.hold {
            Hold::Server { client, token } => {
                let body = json!({ "key": self.key, "token": token });
                // Whoever does not answer keeps the lock for its TTL at most.
                let _ = client.post("/release", &body, RELEASE_TIMEOUT).await;
            }
            Hold::Store { locks, lock } => {
                lock.unlock().await;
                locks.shutdown(RELEASE_TIMEOUT).await;
            }
        }
    }
}

/// Who asks, for people who look.
pub(crate) fn this_process() -> String {
    let process = std::process::id();
    #[cfg(unix)]
    if let Ok(host) = nix::unistd::gethostname() {
        // An owner has 128 bytes at most; no host name that is in use has that many.
        let host: String = host.to_string_lossy().chars().filter(char::is_ascii_graphic).take(100).collect();
        return format!("{host}:{process}");
    }
    format!("process {process}")
}

fn without_drift(span: Duration, ttl: Duration) -> Duration {
    span.saturating_sub(DRIFT + ttl / DRIFT_SHARE)
}

pub(crate) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
