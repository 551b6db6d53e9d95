//! Locks of a server.
//!
//! The deadline counts from the moment at which the request was sent, less a clock's drift, so that it never lies behind
//! the server's.

use std::time::Duration;

use futures_util::future::{LocalBoxFuture, pending};
use leasehold::{Clock, Moment};
use serde::Deserialize;
use serde_json::{Value, json};

use super::progress::{InTheWay, Progress};
use super::rounds::{AcquireReply, Rounds, TokenFrom};
use super::{Backing, Beat, Lease, LeaseTerms, RELEASE_TIMEOUT, whole_ms};
use crate::client::replies::{Detail, HeartbeatReply, ReleaseReply};
use crate::client::{CallError, Client};
use crate::exit::Failure;

/// The smallest drift between two clocks that is reckoned with, and its share of the TTL.
const DRIFT: Duration = Duration::from_millis(2);
const DRIFT_SHARE: u32 = 100;

/// What a server answers to an acquire.
#[derive(Deserialize)]
pub(crate) struct Granted {
    pub(crate) token: String,
    pub(crate) fencing_token: Option<u64>,
    pub(crate) remaining_ms: u64,
    waited_ms: u64,
}

impl Granted {
    /// The end of the lock, for a client that sent its request then.
    pub(crate) fn deadline(&self, sent: Moment, ttl: Duration) -> Moment {
        let lasts = Duration::from_millis(self.waited_ms.saturating_add(self.remaining_ms));
        sent.saturating_add(without_drift(lasts, ttl))
    }
}

fn without_drift(span: Duration, ttl: Duration) -> Duration {
    span.saturating_sub(DRIFT + ttl / DRIFT_SHARE)
}

/// A lock that a server has granted.
struct ServerLock {
    client: Client,
    key: String,
    ttl: Duration,
    /// The bodies of a release and of a heartbeat.
    release: Value,
    heartbeat: Value,
}

/// See [`LeaseSource::acquire`](super::LeaseSource::acquire).
pub(super) async fn acquire(
    client: &Client,
    terms: &mut LeaseTerms,
    end: Moment,
    progress: &Progress,
) -> Result<Lease, Failure> {
    let clock = Clock::system();
    let mut rounds = Rounds::until(end, TokenFrom::Us, client, &clock, progress);
    loop {
        let AcquireReply { text, sent } = rounds.ask(terms).await?;
        let granted: Granted = client.read(&text)?;
        let deadline = granted.deadline(sent, terms.ttl);
        let lock = ServerLock::new(client, terms, &granted);
        let mut lease = Lease::new(terms.ttl, granted.fencing_token, deadline, lock);
        if lease.is_fresh().await {
            return Ok(lease);
        }
        rounds.give_back(terms).await?;
    }
}

/// Who is in the way of this wait.
pub(super) async fn look(client: &Client, key: &str, owner: &str) -> Option<InTheWay> {
    let text = client.get("/locks", &[("key", key), ("missing", "empty")]).await.ok()?;
    let Detail { row, queue, .. } = client.read(&text).ok()?;
    let me = queue.iter().find(|waiter| waiter.owner.as_deref() == Some(owner));
    let before = me.map(|waiter| waiter.position.saturating_sub(1));
    let age = row.holder.age_ms.map(Duration::from_millis);
    Some(InTheWay { owner: row.holder.owner, age, before })
}

impl ServerLock {
    fn new(client: &Client, terms: &LeaseTerms, granted: &Granted) -> Self {
        let mut release = json!({ "key": terms.key, "token": granted.token });
        let mut heartbeat = json!({ "ttl_ms": whole_ms(terms.ttl) });
        if let Some(fence) = granted.fencing_token {
            // A server that has just started, and knows of no locks, believes the fencing token and these.
            add(&mut release, terms.mode());
            release["fencing_token"] = fence.into();
            heartbeat["owner"] = terms.owner.as_str().into();
        }
        add(&mut heartbeat, release.clone());
        Self { client: client.clone(), key: terms.key.clone(), ttl: terms.ttl, release, heartbeat }
    }
}

fn add(body: &mut Value, mut more: Value) {
    for (name, value) in more.as_object_mut().into_iter().flatten() {
        body[name.as_str()] = value.take();
    }
}

impl Backing for ServerLock {
    fn beat(&self, within: Duration) -> LocalBoxFuture<'static, Beat> {
        let (client, body, ttl, clock) = (self.client.clone(), self.heartbeat.clone(), self.ttl, Clock::system());
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

    /// A server tells it with heartbeats only.
    fn lost(&self) -> LocalBoxFuture<'static, String> {
        Box::pin(pending())
    }

    fn release(self: Box<Self>) -> LocalBoxFuture<'static, Result<(), Failure>> {
        Box::pin(async move {
            let Self { client, release, .. } = &*self;
            let text = match client.post("/release", release, RELEASE_TIMEOUT).await {
                Err(CallError::Unknown(_)) => {
                    client.post("/release", release, RELEASE_TIMEOUT).await?;
                    // If it is gone already, the first order may have done it.
                    return Ok(());
                }
                answer => answer?,
            };
            let ReleaseReply { outcome } = client.read(&text)?;
            if outcome == "released" { Ok(()) } else { Err(super::gone(&self.key)) }
        })
    }

    fn give_up(self: Box<Self>) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            // Whoever does not answer keeps the lock for its TTL at most.
            let _ = self.client.post("/release", &self.release, RELEASE_TIMEOUT).await;
        })
    }
}
