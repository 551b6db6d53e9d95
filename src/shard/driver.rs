//! Who asks the store for a shard: takes keys, keeps them, lets them go.
//!
//! Every call runs in a task of the manager's own runtime, so that none depends on a caller's future: what a request
//! began is finished, or taken back, when the request has gone. Calls for one token come one after the other (R6).
//!
//! | errand | what is done | it ends |
//! |---|---|---|
//! | take | try; then sleep until it is this process's turn, or the holder's end, and try again. Where the store cannot say whose turn it is: watch, try again, sleep until a hint, the holder's end or the poll cap (R15) | with the store's yes, a no to a single try, or when it is called off |
//! | extend | ask, and ask again while the answer is unknown (R10); warn the holder when little is left (R9) | with an answer, or with the lock |
//! | confirm | ask once for how long the key is kept | with an answer |
//! | release | ask once; the store goes on by itself (S7) | with an answer |

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Shard;
use super::client::StoreClient;
use super::degraded::Degraded;
use super::loss::LossSignal;
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::{FencingToken, Key, Ttl};
use crate::store::{AcquireRequest, Acquired, Denial, Extended, OnExpiry, OnHeld, Released, Watch};
use crate::supervise::supervise;
use crate::table::{
    Attempts, ClaimOutcome, ClaimSource, End, Grant, LocalWaiters, Refreshed, StoreCommand, StoreCommands,
};

/// A waiter tries at least this often, whatever hints come.
const POLL_CAP: Duration = Duration::from_secs(1);
/// The pause after a split vote doubles so often at most.
const MOST_DOUBLINGS: u32 = 6;
/// How long after an unknown answer it is tried again, at first and at most.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The clerk of one shard.
pub(crate) struct StoreDriver {
    client: Arc<StoreClient>,
    shard: OnceLock<Weak<Shard>>,
    /// What is being taken, by the grant that it is taken for.
    takes: Mutex<HashMap<FencingToken, oneshot::Sender<LocalWaiters>>>,
    /// The grants that are just being extended: one that is not answered is asked for again by one task, however often
    /// it comes due.
    keeps: Mutex<HashSet<FencingToken>>,
    pub(super) degraded: Degraded,
}

impl StoreDriver {
    pub(crate) fn new(client: Arc<StoreClient>) -> Arc<Self> {
        let degraded = Degraded::new(client.fail_mode);
        Arc::new(Self { client, shard: OnceLock::new(), takes: Mutex::default(), keeps: Mutex::default(), degraded })
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

    fn take(self: Arc<Self>, grant: Grant, key: Key, ttl: Ttl, tries: Attempts) {
        let (call_off, called_off) = oneshot::channel();
        self.takes.lock().insert(grant.fence, call_off);
        let clerk = Arc::clone(&self);
        self.client.spawn(async move {
            // Errands run after the mutex, each in its thread: the one that calls this off may have come before it, and
            // found nothing to call off.
            let is_wanted = clerk.shard().is_some_and(|shard| shard.is_claimed_for(&grant));
            if !is_wanted && clerk.takes.lock().remove(&grant.fence).is_some() {
                return;
            }
            tokio::select! {
                queue = called_off => {
                    // After the try under way was dropped: it would take a new place.
                    if queue == Ok(LocalWaiters::None) {
                        clerk.client.store.leave(&key);
                    }
                }
                () = supervise("taking a key", || clerk.keep_taking(grant, &key, ttl, tries)), if is_wanted => {
                    clerk.takes.lock().remove(&grant.fence);
                }
            }
        });
    }

    /// Cancel safe: the store takes back what nobody heard of (S5).
    async fn keep_taking(self: &Arc<Self>, grant: Grant, key: &Key, ttl: Ttl, tries: Attempts) {
        let store = &self.client.store;
        let on_held = match tries {
            Attempts::One => OnHeld::Fail,
            Attempts::Many => OnHeld::Queue,
        };
        let (mut waiting, mut splits) = (Waiting::Not, 0_u32);
        let mut retry = Backoff::new(RETRY.0 * 2, RETRY.1);
        loop {
            if let Waiting::ForTurn(watch) | Waiting::ForHint(watch) = &mut waiting {
                // This try sees for itself.
                watch.clear();
            }
            let asked = self.client.clock.now();
            let answer = match self.degraded.known_away(asked) {
                Some(error) => Acquired::Unknown(error),
                None => store.acquire(AcquireRequest { key, token: grant.token, ttl, on_held }).await,
            };
            let Some(shard) = self.shard() else { return };
            let pause = match answer {
                Acquired::Granted { fence, valid_for } => {
                    let deadline = asked.saturating_add(valid_for);
                    let word = ClaimSource::OfStore(fence.map(FencingToken::at_least_one));
                    match shard.claimed(&grant, word, deadline) {
                        ClaimOutcome::Taken => return,
                        ClaimOutcome::Unwanted => return drop(self.client.release(key.clone(), grant.token)),
                        ClaimOutcome::TooLate => {
                            // Before the next try: it is under the same token.
                            let _ = store.release(key, grant.token).await;
                            shard.denied(&grant, LockError::StoreUnavailable);
                            Some(retry.next())
                        }
                    }
                }
                Acquired::Denied { retry_in, why } => {
                    shard.denied(&grant, denied(why));
                    retry.reset();
                    splits = if why == Denial::Split { splits + 1 } else { 0 };
                    // Each split in a row doubles the pause: rivals as many as they are come apart in the end.
                    let factor = 1 << splits.saturating_sub(1).min(MOST_DOUBLINGS);
                    retry_in.map(|pause| pause.saturating_mul(factor))
                }
                Acquired::Unknown(_) if self.degraded.is_allowed() => {
                    drop(waiting);
                    return self.grant_locally(&shard, grant, key, ttl);
                }
                Acquired::Unknown(_) => {
                    shard.denied(&grant, LockError::StoreUnavailable);
                    Some(retry.next())
                }
            };
            drop(shard);
            if tries == Attempts::One {
                return;
            }
            if let Waiting::Not = waiting {
                waiting = match store.turn(key) {
                    Some(turn) => Waiting::ForTurn(turn),
                    None => match store.watch(key).await {
                        Ok(watch) => Waiting::ForHint(watch),
                        Err(_) => Waiting::Not,
                    },
                };
                if let Waiting::ForHint(_) = waiting {
                    // What happened before the watch was in force is seen by trying again.
                    continue;
                }
            }
            let cap = match &waiting {
                // It comes, whenever that is.
                Waiting::ForTurn(_) => Duration::MAX,
                Waiting::ForHint(_) | Waiting::Not => POLL_CAP,
            };
            let pause = pause.unwrap_or(cap).min(cap);
            let pause = pause.saturating_add(pause.min(POLL_CAP).mul_f64(fastrand::f64() * 0.1));
            if splits > 0 {
                // What others give back after the same vote would only be split again.
                tokio::time::sleep(pause).await;
                continue;
            }
            let hint = async {
                match &mut waiting {
                    Waiting::ForTurn(watch) | Waiting::ForHint(watch) => watch.next().await,
                    Waiting::Not => std::future::pending().await,
                }
            };
            if let Ok(None) = tokio::time::timeout(pause, hint).await {
                waiting = Waiting::Not;
            }
        }
    }

    /// Keeps a key. Its holder is warned when the deadline comes near and the store has not answered (R9).
    async fn keep(&self, grant: Grant, key: Key, ttl: Ttl) {
        let mut keeping = std::pin::pin!(self.keep_asking(grant, key, ttl));
        let signal = tokio::select! {
            () = &mut keeping => return,
            Some(signal) = self.warn_before_the_end(&grant, ttl) => signal,
        };
        keeping.await;
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
    async fn keep_asking(&self, grant: Grant, key: Key, ttl: Ttl) {
        let mut pauses = Backoff::new(RETRY.0 * 2, RETRY.1);
        let _kept = Kept { clerk: self, fence: grant.fence };
        loop {
            let answer = self.extend_once(&grant, &key, ttl).await;
            let is_over = self.shard().is_none_or(|shard| shard.held_until(&grant).is_none());
            if is_over || answer != Err(LockError::StoreUnavailable) {
                return;
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Asks for how long a grant still stands, whose token other processes may know.
    async fn confirm(&self, grant: Grant, key: Key) {
        let asking = async {
            let asked = self.client.clock.now();
            if self.is_degraded(&grant) {
                return;
            }
            let answer = self.client.store.confirm(&key, grant.token).await;
            let Some(shard) = self.shard() else { return };
            match answer {
                Extended::Extended { valid_for } => shard.confirmed(&grant, asked.saturating_add(valid_for)),
                Extended::Lost => shard.claim_lost(&grant, End::Vanished),
                // The deadline that stands ends it.
                Extended::Unknown(_) => {}
            }
        };
        self.client.in_turn(grant.token, asking).await;
    }

    /// Keeps a key for a holder that waits for the answer.
    pub(crate) fn extend(self: &Arc<Self>, grant: Grant, key: Key, ttl: Ttl) -> oneshot::Receiver<Refresh> {
        let (tell, hear) = oneshot::channel();
        let clerk = Arc::clone(self);
        self.client.spawn(async move {
            // Nobody listens any more if the caller has gone.
            let _ = tell.send(clerk.extend_once(&grant, &key, ttl).await);
        });
        hear
    }

    /// Whether a key is released when what held it has ended so.
    fn lets_go(&self, end: End) -> bool {
        // R28: whoever outlives a shutdown still works; its lock runs out. R27: so do lapsed ones.
        !matches!(
            (end, self.client.store.capabilities().on_expiry),
            (End::ShutDown, _) | (End::Expired, OnExpiry::Leave)
        )
    }

    /// Asks the store to release what a grant held, if how it ended asks for that; answers what the store will find.
    pub(super) fn release(&self, grant: &Grant, key: Key, end: End) -> Option<oneshot::Receiver<Released>> {
        self.degraded.forget(grant);
        self.lets_go(end).then(|| self.client.release(key, grant.token))
    }

    /// One extension, in its turn. What only this process knows of is extended here.
    pub(super) async fn extend_once(&self, grant: &Grant, key: &Key, ttl: Ttl) -> Refresh {
        let extending = async {
            let asked = self.client.clock.now();
            let answer = if self.is_degraded(grant) {
                Extended::Extended { valid_for: ttl.as_duration() }
            } else {
                self.client.store.extend(key, grant.token, ttl).await
            };
            let shard = self.shard().ok_or(LockError::ShuttingDown)?;
            match answer {
                Extended::Extended { valid_for } => shard.extended(grant, asked.saturating_add(valid_for)),
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
        self.client.in_turn(grant.token, extending).await
    }
}

/// A grant that is being extended, until its task ends, however that is.
struct Kept<'a> {
    clerk: &'a StoreDriver,
    fence: FencingToken,
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.clerk.keeps.lock().remove(&self.fence);
    }
}

/// What a request waits for between two tries.
enum Waiting {
    Not,
    /// The store says when it is this process's turn.
    ForTurn(Watch),
    /// The store says what happens to the key.
    ForHint(Watch),
}

/// What a holder hears of its refresh.
pub(crate) type Refresh = Result<Refreshed, LockError>;

fn denied(why: Denial) -> LockError {
    match why {
        Denial::Held | Denial::OtherKind | Denial::Ahead | Denial::Split => LockError::Held,
        // It was not "no": the store cannot keep the key now.
        Denial::OutOfMemory | Denial::TooLate | Denial::Unreplicated => LockError::StoreUnavailable,
    }
}

impl StoreCommands for Arc<StoreDriver> {
    fn run(&self, errand: StoreCommand) {
        match errand {
            StoreCommand::Acquire { grant, key, ttl, tries } => Arc::clone(self).take(grant, key, ttl, tries),
            StoreCommand::Cancel { grant, key, queue } => {
                let call_off = self.takes.lock().remove(&grant.fence);
                // Its task may have ended by itself.
                let is_over = call_off.is_none_or(|call_off| call_off.send(queue).is_err());
                if is_over && queue == LocalWaiters::None {
                    self.client.store.leave(&key);
                }
            }
            StoreCommand::Extend { grant, key, ttl } => {
                let clerk = Arc::clone(self);
                if self.keeps.lock().insert(grant.fence) {
                    self.client.spawn(async move { clerk.keep(grant, key, ttl).await });
                }
            }
            StoreCommand::Confirm { grant, key } => {
                let clerk = Arc::clone(self);
                self.client.spawn(async move { clerk.confirm(grant, key).await });
            }
            // One that only this process knows of may have won its key just now.
            StoreCommand::RunOut { grant, key } => {
                if self.is_degraded(&grant) {
                    self.degraded.forget(&grant);
                    self.client.release(key, grant.token);
                }
            }
            StoreCommand::Release { grant, key, end } => drop(self.release(&grant, key, end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stub::{Refreshes, StubStore};
    use super::*;
    use crate::engine::LockManager;

    /// Longer than any test is patient.
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
