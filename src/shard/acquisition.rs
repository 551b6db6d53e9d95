//! How a key is taken in the store for a request of this process.
//!
//! It tries; then it sleeps until it is this process's turn, or the holder's end, and tries again. Where the store
//! cannot say whose turn it is: it watches the key, tries again, and sleeps until a hint, the holder's end or the poll
//! cap (R15).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::driver::{EndedClaim, RETRY, StoreDriver};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::{FencingToken, Key};
use crate::mode::{Mode, ModeConflict};
use crate::store::{AcquireRequest, Acquired, Denial, OnHeld, Store, Watch};
use crate::supervise::supervise;
use crate::table::{AtFirst, Attempts, ClaimOutcome, ClaimRequest, ClaimSource, Grant, LocalWaiters, StoreGrant};

/// A waiter tries at least this often, whatever hints come.
const POLL_CAP: Duration = Duration::from_secs(1);
/// The pause after a split vote doubles so often at most.
const MOST_DOUBLINGS: u32 = 6;

/// What one try came to.
#[derive(Clone, Copy)]
enum Tried {
    /// The request has its key, or does not want it any more.
    Over,
    /// The store has not answered, and the manager is set to go on without it.
    Away,
    /// The key was not granted. The pause until it is worth another try, if that is known.
    Again(Option<Duration>),
}

/// What a request waits for between two tries.
enum Waiting {
    Not,
    /// The store says when it is this process's turn.
    ForTurn(Watch),
    /// The store says what happens to the key.
    ForHint(Watch),
}

/// How long to pause between the tries for one request.
struct Pauses {
    /// Split votes in a row.
    splits: u32,
    /// After answers that are unknown.
    retry: Backoff,
}

impl StoreDriver {
    /// Begins to take a key for a request. `ended` is let go at the same time.
    pub(super) fn acquire(self: Arc<Self>, grant: Grant, key: Key, ask: ClaimRequest, ended: Option<EndedClaim>) {
        let (cancel, cancelled) = oneshot::channel();
        self.under_way.begin_acquiring(grant.fence, cancel);
        let driver = Arc::clone(&self);
        self.client().spawn(async move {
            // Commands run after the mutex, each in its caller's thread: the one that cancels this may have run before
            // it, and found nothing to cancel.
            let is_wanted = driver.shard().is_some_and(|shard| shard.is_claimed_for(&grant));
            if let Some(own) = ask.after {
                // Never cancelled. Were the key asked for at the same time, this process itself would be in the way.
                let _ = driver.client().release(key.clone(), own).await;
            }
            if !is_wanted && driver.under_way.end_acquiring(grant.fence).is_some() {
                if let Some(ended) = ended {
                    Box::pin(driver.release_ended(ended, &key)).await;
                }
                return;
            }
            let note = driver.note_of(&grant);
            // Never cancelled: the release has to be answered.
            let first = match ended {
                Some(ended) => Some(Box::pin(driver.exchange(ended, &grant, request(&key, ask, &note))).await),
                None => None,
            };
            tokio::select! {
                queue = cancelled => {
                    // After the try under way was dropped: it would take a new place.
                    if queue == Ok(LocalWaiters::None) {
                        driver.client().store.leave(&key);
                    }
                }
                () = driver.take(grant, &key, (ask, &note), first), if is_wanted => {
                    driver.under_way.end_acquiring(grant.fence);
                }
            }
        });
    }

    /// Cancel safe: the store undoes a grant whose answer nobody received (S5).
    async fn take(self: &Arc<Self>, grant: Grant, key: &Key, (ask, note): (ClaimRequest, &[u8]), first: Option<Tried>) {
        let first = match first {
            None if ask.not_before <= self.client().clock.now() => {
                let (request, mut pauses) = (request(key, ask, note), Pauses::new());
                // After a panic it is tried again below.
                let trying = AssertUnwindSafe(self.try_once(&grant, request, &mut pauses));
                trying.catch_unwind().await.ok()
            }
            first => first,
        };
        if !matches!(first, Some(Tried::Over)) {
            // In a box: most requests are granted at the first try, and what waits is large.
            Box::pin(supervise("acquiring a key", || self.try_until_granted(grant, key, (ask, note), first))).await;
        }
    }

    async fn try_until_granted(
        self: &Arc<Self>,
        grant: Grant,
        key: &Key,
        (ask, note): (ClaimRequest, &[u8]),
        first: Option<Tried>,
    ) {
        let ClaimRequest { token, ttl, tries, not_before, .. } = ask;
        let store = &*self.client().store;
        let pause = not_before.saturating_since(self.client().clock.now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let request = request(key, ask, note);
        let (mut waiting, mut pauses, mut first) = (Waiting::Not, Pauses::new(), first);
        loop {
            waiting.clear();
            let tried = match first.take() {
                Some(tried) => tried,
                None => self.try_once(&grant, request, &mut pauses).await,
            };
            let pause = match tried {
                Tried::Over => return,
                Tried::Away => {
                    drop(waiting);
                    return self.grant_locally(grant, key, (token, ttl));
                }
                Tried::Again(_) if tries == Attempts::One => return,
                Tried::Again(pause) => pause,
            };
            if let Waiting::Not = waiting {
                waiting = Waiting::begin(store, key).await;
                if let Waiting::ForHint(_) = waiting {
                    // What happened before the watch was in force is seen by trying again.
                    continue;
                }
            }
            let cap = waiting.longest();
            let pause = pause.unwrap_or(cap).min(cap);
            let pause = pause.saturating_add(pause.min(POLL_CAP).mul_f64(fastrand::f64() * 0.1));
            if pauses.splits > 0 {
                // What others give back after the same vote would only be split again.
                tokio::time::sleep(pause).await;
            } else {
                waiting.sleep(pause).await;
            }
        }
    }

    async fn try_once(self: &Arc<Self>, grant: &Grant, request: AcquireRequest<'_>, pauses: &mut Pauses) -> Tried {
        let asked = self.client().clock.now();
        let answer = match self.degraded.known_away(asked) {
            Some(error) => Acquired::Unknown(error),
            None => self.client().store.acquire(request).await,
        };
        self.conclude(grant, request, (asked, answer), pauses).await
    }

    /// Lets go what this process holds of the key, and tries once to take it for a request.
    async fn exchange(self: &Arc<Self>, ended: EndedClaim, grant: &Grant, request: AcquireRequest<'_>) -> Tried {
        // R6: an extend of it may be under way.
        self.client().wait_turn(ended.token).await;
        let asked = self.client().clock.now();
        let (released, answer) = self.client().store.exchange(ended.token, request).await;
        ended.answer.give(released);
        self.conclude(grant, request, (asked, answer), &mut Pauses::new()).await
    }

    /// What the store is to keep beside the lock, if it keeps anything.
    fn note_of(&self, grant: &Grant) -> Vec<u8> {
        let keeps = self.client().store.capabilities().keeps_notes;
        self.shard().filter(|_| keeps).map_or_else(Vec::new, |shard| shard.note_of(grant))
    }

    /// Lets go what this process holds of a key that the next request does not want any more.
    async fn release_ended(&self, ended: EndedClaim, key: &Key) {
        self.client().wait_turn(ended.token).await;
        ended.answer.give(self.client().store.release(key, ended.token).await);
    }

    /// What becomes of the store's answer to a try that began at `asked`.
    async fn conclude(
        self: &Arc<Self>,
        grant: &Grant,
        request: AcquireRequest<'_>,
        (asked, answer): (Moment, Acquired),
        pauses: &mut Pauses,
    ) -> Tried {
        let store = &self.client().store;
        let Some(shard) = self.shard() else { return Tried::Over };
        match answer {
            Acquired::Granted { fence, valid_for, clock } => {
                let source = ClaimSource::OfStore(StoreGrant { fence: fence.map(FencingToken::at_least_one), clock });
                match shard.claimed(grant, source, asked.saturating_add(valid_for)) {
                    ClaimOutcome::Taken => Tried::Over,
                    ClaimOutcome::Unwanted => {
                        drop(self.client().release(request.key.clone(), request.token.into()));
                        Tried::Over
                    }
                    ClaimOutcome::TooLate => {
                        // Before the next try: it is under the same token.
                        let _ = store.release(request.key, request.token).await;
                        shard.denied(grant, LockError::StoreUnavailable);
                        Tried::Again(Some(pauses.retry.next()))
                    }
                }
            }
            Acquired::Denied { retry_in, why } => {
                shard.denied(grant, denied(why, request.mode));
                Tried::Again(pauses.after_denial(retry_in, why))
            }
            // What others share is not granted without the store: they would not be counted.
            Acquired::Unknown(_) if self.degraded.is_allowed() && request.mode == Mode::Exclusive => Tried::Away,
            Acquired::Unknown(_) => {
                shard.denied(grant, LockError::StoreUnavailable);
                Tried::Again(Some(pauses.retry.next()))
            }
        }
    }
}

fn request<'a>(key: &'a Key, ask: ClaimRequest, note: &'a [u8]) -> AcquireRequest<'a> {
    let on_held = match (ask.tries, ask.at_first) {
        (Attempts::One, _) => OnHeld::Fail,
        (Attempts::Many, AtFirst::Whole) => OnHeld::Queue,
        (Attempts::Many, AtFirst::Short) => OnHeld::QueueForHandOver,
    };
    AcquireRequest { key, token: ask.token, ttl: ask.ttl, on_held, mode: ask.mode, note }
}

impl Waiting {
    async fn begin(store: &dyn Store, key: &Key) -> Self {
        match store.turn(key) {
            Some(turn) => Self::ForTurn(turn),
            None => store.watch(key).await.map_or(Self::Not, Self::ForHint),
        }
    }

    /// Forgets the hints so far: the next try sees for itself.
    fn clear(&mut self) {
        if let Self::ForTurn(watch) | Self::ForHint(watch) = self {
            watch.clear();
        }
    }

    /// How long to wait at most.
    fn longest(&self) -> Duration {
        match self {
            // The turn comes, whenever that is.
            Self::ForTurn(_) => Duration::MAX,
            Self::ForHint(_) | Self::Not => POLL_CAP,
        }
    }

    /// Sleeps for `pause`, or until the store says something. A watch that has ended is not waited for again.
    async fn sleep(&mut self, pause: Duration) {
        let hint = async {
            match self {
                Self::ForTurn(watch) | Self::ForHint(watch) => watch.next().await,
                Self::Not => std::future::pending().await,
            }
        };
        if let Ok(None) = tokio::time::timeout(pause, hint).await {
            *self = Self::Not;
        }
    }
}

impl Pauses {
    fn new() -> Self {
        Self { splits: 0, retry: Backoff::new(RETRY.0 * 2, RETRY.1) }
    }

    /// The pause after a denial, if the store knows one. Each split in a row doubles it: rivals as many as they are
    /// come apart in the end.
    fn after_denial(&mut self, retry_in: Option<Duration>, why: Denial) -> Option<Duration> {
        self.retry.reset();
        self.splits = if why == Denial::Split { self.splits + 1 } else { 0 };
        let factor = 1 << self.splits.saturating_sub(1).min(MOST_DOUBLINGS);
        retry_in.map(|pause| pause.saturating_mul(factor))
    }
}

fn denied(why: Denial, asked: Mode) -> LockError {
    match why {
        Denial::Held | Denial::OtherKind | Denial::Ahead | Denial::Split => LockError::Held,
        Denial::OtherMode => ModeConflict::Elsewhere { asked }.into(),
        // It was not "no": the store cannot keep the key now.
        Denial::OutOfMemory | Denial::TooLate | Denial::Unreplicated => LockError::StoreUnavailable,
    }
}
