//! The store's side of one shard: acquires keys, extends them, releases them.
//!
//! Every call runs on the manager's own runtime, so that none depends on a caller's future: what a request began is
//! finished, or undone, when the request has gone. Calls for one token come one after the other (R6).
//!
//! | command | what is done | it ends |
//! |---|---|---|
//! | acquire | see [`acquisition`](super::acquisition) | with the store's grant, the refusal of a single try, or when it is cancelled |
//! | extend | ask, and ask again while the answer is unknown (R10); warn the holder when little is left (R9) | with an answer, or with the lock |
//! | confirm | ask once for how long the key is kept | with an answer |
//! | downgrade | ask once; the holder waits for the answer | with an answer |
//! | release | ask once; the store goes on by itself (S7). With the acquire of whoever waits next it is one call | with an answer |

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Shard;
use super::answer::{Answer, Answered, answer};
use super::client::StoreClient;
use super::degraded::Degraded;
use super::loss::LossSignal;
use super::under_way::UnderWay;
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::store::{Exchange, Extended, OnExpiry, Released, ValueToLeave};
use crate::table::{
    ClaimEnd, ClaimRequest, End, Grant, LocalWaiters, Refreshed, ReleaseCommand, StoreCommand, StoreCommands,
};

/// What this process holds of a key, to be let go right before the key is taken anew.
pub(super) struct EndedClaim {
    pub(super) token: Token,
    /// Where the store's answer goes to.
    pub(super) answer: Answer<Released>,
}

/// How long after an unknown answer it is tried again, at first and at most.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Carries out the commands of one shard's table to the store.
pub(crate) struct StoreDriver {
    client: Arc<StoreClient>,
    shard: OnceLock<Weak<Shard>>,
    pub(super) under_way: UnderWay,
    pub(super) degraded: Degraded,
}

impl StoreDriver {
    pub(crate) fn new(client: Arc<StoreClient>) -> Arc<Self> {
        let degraded = Degraded::new(client.fail_mode);
        Arc::new(Self { client, shard: OnceLock::new(), under_way: UnderWay::default(), degraded })
    }

    pub(crate) fn serve(&self, shard: &Arc<Shard>) {
        // Set once, by the manager that makes both.
        let _ = self.shard.set(Arc::downgrade(shard));
    }

    pub(super) fn shard(&self) -> Option<Arc<Shard>> {
        self.shard.get()?.upgrade()
    }

    pub(crate) fn client(&self) -> &Arc<StoreClient> {
        &self.client
    }

    /// Extends a key. Its holder is warned when the deadline comes near and the store has not answered (R9).
    async fn extend_and_warn(&self, grant: Grant, claim: (Key, Token), ttl: Ttl) {
        let mut extending = std::pin::pin!(self.extend_until_answered(grant, claim, ttl));
        let signal = tokio::select! {
            () = &mut extending => return,
            Some(signal) = self.warn_before_the_end(&grant, ttl) => signal,
        };
        extending.await;
        signal.set_risk(None);
    }

    /// Warns the holder of a grant when little is left of it; `None` if it has ended.
    async fn warn_before_the_end(&self, grant: &Grant, ttl: Ttl) -> Option<Arc<LossSignal>> {
        let left = |deadline: Moment| deadline.saturating_since(self.client.clock.now());
        let mut deadline = self.shard()?.held_until(grant)?;
        // A refresh that begins late has half of the time that it finds.
        let lead = (ttl.as_duration() / 3).min(left(deadline) / 2);
        while left(deadline) > lead {
            tokio::time::sleep(left(deadline).saturating_sub(lead)).await;
            // Somebody else's refresh may have moved it.
            deadline = self.shard()?.held_until(grant)?;
        }
        let signal = self.shard()?.lost_signal(grant);
        signal.set_risk(Some(deadline));
        Some(signal)
    }

    /// Asks, and asks again while nothing is known: the deadline that stands ends it.
    async fn extend_until_answered(&self, grant: Grant, claim: (Key, Token), ttl: Ttl) {
        let mut pauses = Backoff::new(RETRY.0 * 2, RETRY.1);
        let _extending = Extending { driver: self, fence: grant.fence };
        loop {
            let answer = self.extend_once(&grant, &claim, ttl).await;
            let is_over = self.shard().is_none_or(|shard| shard.held_until(&grant).is_none());
            if is_over || answer != Err(LockError::StoreUnavailable) {
                return;
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Asks for how long a grant still stands, whose token other processes may know.
    async fn confirm(&self, grant: Grant, key: Key, token: Token) {
        let asking = async {
            let asked = self.client.clock.now();
            if self.is_degraded(&grant) {
                return;
            }
            let answer = self.client.store.confirm(&key, token).await;
            let Some(shard) = self.shard() else { return };
            match answer {
                Extended::Extended { valid_for } => shard.confirmed(&grant, asked.saturating_add(valid_for)),
                Extended::Lost => shard.claim_lost(&grant, End::Vanished),
                // The deadline that stands ends it.
                Extended::Unknown(_) => {}
            }
        };
        self.client.in_turn(token, asking).await;
    }

    /// Extends a key for a holder that waits for the answer.
    pub(crate) fn extend(self: &Arc<Self>, grant: Grant, claim: (Key, Token), ttl: Ttl) -> oneshot::Receiver<Refresh> {
        let (sender, answer) = oneshot::channel();
        let driver = Arc::clone(self);
        self.client.spawn(async move {
            // Nobody listens any more if the caller has gone.
            let _ = sender.send(driver.extend_once(&grant, &claim, ttl).await);
        });
        answer
    }

    /// Has the store keep a key as a share, for a holder that waits for the answer.
    pub(crate) fn downgrade(
        self: &Arc<Self>,
        grant: Grant,
        key: Key,
        claim: ClaimEnd,
    ) -> oneshot::Receiver<Result<(), LockError>> {
        let (sender, answer) = oneshot::channel();
        let driver = Arc::clone(self);
        self.client.spawn(async move {
            let asking = driver.downgrade_once(&grant, &key, claim);
            // Nobody listens any more if the caller has gone.
            let _ = sender.send(driver.client.in_turn(claim.token, asking).await);
        });
        answer
    }

    async fn downgrade_once(&self, grant: &Grant, key: &Key, claim: ClaimEnd) -> Result<(), LockError> {
        if self.is_degraded(grant) {
            // The store does not keep it yet.
            return Err(LockError::StoreUnavailable);
        }
        let (asked, store) = (self.client.clock.now(), &self.client.store);
        let answer = match claim.last_fence {
            Some(last) => store.downgrade_claim(key, claim.token, last.get()).await,
            None => store.downgrade(key, claim.token).await,
        };
        let shard = self.shard().ok_or(LockError::ShuttingDown)?;
        match answer {
            Extended::Extended { valid_for } => shard.downgraded(grant, asked.saturating_add(valid_for)),
            Extended::Lost => {
                shard.claim_lost(grant, End::Vanished);
                shard.check(grant).map(|_| unreachable!("what has vanished is not held"))
            }
            Extended::Unknown(_) => Err(LockError::StoreUnavailable),
        }
    }

    /// Whether the store is asked to release a key whose grant has ended like this.
    fn releases_on(&self, end: End) -> bool {
        // R28: a holder that outlives a shutdown still works; its lock runs out. R27: so do expired ones.
        !matches!(
            (end, self.client.store.capabilities().on_expiry),
            (End::ShutDown, _) | (End::Expired, OnExpiry::Leave)
        )
    }

    /// Asks the store to release what a grant held, if how it ended asks for that; answers what the store will find.
    /// `value`: what the release is to leave.
    pub(super) fn release(
        self: &Arc<Self>,
        command: ReleaseCommand,
        value: Option<ValueToLeave>,
    ) -> Option<Answered<Released>> {
        let ReleaseCommand { grant, key, claim, end, next } = command;
        self.end_degraded(&grant);
        let is_released = self.releases_on(end);
        match next {
            Some((next, ask)) if is_released && value.is_none() && self.is_one_call(claim, ask) => {
                let (answer, found) = answer();
                Arc::clone(self).acquire(next, key, ask, Some(EndedClaim { token: claim.token, answer }));
                Some(found)
            }
            next => {
                let found = is_released.then(|| self.client.release_leaving(key.clone(), claim, value));
                if let Some((next, ask)) = next {
                    Arc::clone(self).acquire(next, key, ask, None);
                }
                found
            }
        }
    }

    /// Whether the store is asked at once to let a claim go and for the next one.
    fn is_one_call(&self, claim: ClaimEnd, ask: ClaimRequest) -> bool {
        self.client.store.capabilities().exchange == Exchange::OneCall
            && !self.degraded.is_allowed()
            && claim.last_fence.is_none()
            && ask.not_before <= self.client.clock.now()
    }

    /// One extension, in its turn. A grant that only this process knows of is extended here.
    pub(super) async fn extend_once(&self, grant: &Grant, (key, token): &(Key, Token), ttl: Ttl) -> Refresh {
        let extending = async {
            let asked = self.client.clock.now();
            let answer = if self.is_degraded(grant) {
                Extended::Extended { valid_for: ttl.as_duration() }
            } else {
                self.client.store.extend(key, *token, ttl).await
            };
            let shard = self.shard().ok_or(LockError::ShuttingDown)?;
            match answer {
                Extended::Extended { valid_for } => {
                    // What a grant shares its claim with may have had that extended for longer.
                    let is_own = shard.has_own_claim(grant);
                    let valid_for = if is_own { valid_for } else { valid_for.min(ttl.as_duration()) };
                    shard.extended(grant, asked.saturating_add(valid_for))
                }
                Extended::Lost => {
                    shard.claim_lost(grant, End::Vanished);
                    shard.check(grant).map(|_| unreachable!("what has vanished is not held"))
                }
                Extended::Unknown(_) => {
                    shard.count(|c| c.refresh_unknown += 1);
                    Err(LockError::StoreUnavailable)
                }
            }
        };
        self.client.in_turn(*token, extending).await
    }
}

/// A grant that is being extended, until its call ends, however that is.
struct Extending<'a> {
    driver: &'a StoreDriver,
    fence: FencingToken,
}

impl Drop for Extending<'_> {
    fn drop(&mut self) {
        self.driver.under_way.end_extending(self.fence);
    }
}

/// What a holder's refresh is answered with.
pub(crate) type Refresh = Result<Refreshed, LockError>;

impl StoreCommands for Arc<StoreDriver> {
    fn run(&self, command: StoreCommand) {
        match command {
            StoreCommand::Acquire { grant, key, ask } => Arc::clone(self).acquire(grant, key, ask, None),
            StoreCommand::Cancel { grant, key, queue } => {
                let cancel = self.under_way.end_acquiring(grant.fence);
                // Its task may have ended by itself.
                let is_over = cancel.is_none_or(|cancel| cancel.send(queue).is_err());
                if is_over && queue == LocalWaiters::None {
                    self.client.store.leave(&key);
                }
            }
            StoreCommand::Extend { grant, key, token, ttl } => {
                let driver = Arc::clone(self);
                if self.under_way.begin_extending(grant.fence) {
                    self.client.spawn(async move { driver.extend_and_warn(grant, (key, token), ttl).await });
                }
            }
            StoreCommand::Confirm { grant, key, token } => {
                let driver = Arc::clone(self);
                self.client.spawn(async move { driver.confirm(grant, key, token).await });
            }
            // A grant that only this process knows of may have won its key in the store just now.
            StoreCommand::RunOut { grant, key, token } => {
                if self.is_degraded(&grant) {
                    self.end_degraded(&grant);
                    self.client.release(key, token.into());
                }
            }
            StoreCommand::Release(release) => drop(self.release(release, None)),
            StoreCommand::GiveUp { key, claim } => drop(self.client.release(key, claim)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stub::{Refreshes, StubStore};
    use super::*;
    use crate::engine::LockManager;

    /// Longer than any test waits.
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_holder_is_warned_before_a_lock_runs_out_that_the_store_does_not_refresh() {
        let store = StubStore::new(LONG);
        let locks = LockManager::builder().store(store.clone()).build().unwrap();
        let lock = locks.lock("k").ttl(Duration::from_secs(6)).await.unwrap();
        let ms = Duration::from_millis;
        let _order = lock.auto_refresh(ms(100), ms(100)).unwrap();
        let warned = tokio::spawn(lock.at_risk());
        // As long as refreshes are answered there is no risk.
        let before = lock.deadline();
        while lock.deadline() == before {
            tokio::time::sleep(ms(5)).await;
        }
        assert!(!warned.is_finished() && !lock.is_at_risk());
        store.set_refreshes(Refreshes::Unanswered);
        let deadline = tokio::time::timeout(LONG, warned).await.expect("it comes").unwrap();
        assert!(deadline.is_some(), "it comes before the loss");
        assert!(lock.is_at_risk() && lock.deadline() == deadline);
        // One that is answered ends the risk.
        store.set_refreshes(Refreshes::Answered);
        while lock.is_at_risk() {
            tokio::time::sleep(ms(5)).await;
        }
        assert!(lock.is_held() && lock.deadline() > deadline);
        let next = tokio::spawn(lock.at_risk());
        lock.unlock().await;
        assert_eq!(next.await.unwrap(), None, "it ended otherwise");
    }

    #[tokio::test]
    async fn an_unlock_that_waits_for_a_call_under_way_is_unknown_when_one_call_would_be() {
        let store = StubStore::new(Duration::from_millis(10));
        let locks = LockManager::builder().store(store.clone()).build().unwrap();
        let lock = locks.lock("k").await.unwrap();
        let (client, token) = (Arc::clone(locks.client().expect("it has a store")), lock.token());
        let (begun, has_begun) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let call = tokio::spawn(async move {
            let calling = async {
                let _ = begun.send(());
                let _ = ended.await;
            };
            client.in_turn(token, calling).await;
        });
        has_begun.await.unwrap();
        let found = tokio::time::timeout(LONG, lock.unlock()).await.expect("it is told in time");
        assert_eq!(found, crate::Release::Unknown);
        assert!(locks.is_locked("k").await.unwrap(), "the store was not asked yet");
        end.send(()).unwrap();
        call.await.unwrap();
        while locks.is_locked("k").await.unwrap() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_unlock_whose_answer_can_never_come_is_unknown_once_the_thread_has_stopped() {
        let store = StubStore::new(LONG);
        let locks = LockManager::builder().store(store.clone()).build().unwrap();
        let lock = locks.lock("k").await.unwrap();
        store.never_release();
        let mut unlock = Box::pin(lock.unlock());
        assert!(futures_util::poll!(&mut unlock).is_pending(), "the store has not answered");
        locks.thread().expect("it has one").stop();
        let found = tokio::time::timeout(LONG, unlock).await.expect("its task has gone with the thread");
        assert_eq!(found, crate::Release::Unknown);
    }
}
