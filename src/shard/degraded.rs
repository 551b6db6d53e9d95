//! Locks that only this process knows of, because the store did not answer and the manager was set to go on without it
//! (R20, [`FailMode::Local`]).
//!
//! | a degraded grant | what happens |
//! |---|---|
//! | is made when the store's answer is unknown, or was within the last second | this process's table alone keeps it, without a fence |
//! | is refreshed | here |
//! | is released, forced, or runs out | here; the store is asked to release it, in case that it had won its key just now |
//! | tries to win its key in the store, about every 100 ms | won: it is a lock like any other, but for the fence. Refused: it is lost at once |
//!
//! Asking, refreshing and releasing take turns (R6), so that a grant that has won never outlives its claim (R19).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::driver::{RETRY, StoreDriver};
use crate::clock::Moment;
use crate::key::{Key, Token, Ttl};
use crate::mode::Mode;
use crate::store::{AcquireRequest, Acquired, Denial, FailMode, OnHeld, StoreError, drift};
use crate::table::{ClaimOutcome, ClaimSource, End, Grant};

/// For how long after an unknown answer the store is not asked: else a queue would wait out a timeout at each
/// hand-over.
const AWAY: Duration = Duration::from_secs(1);

/// Whether a shard grants without the store.
pub(super) struct Degraded {
    mode: FailMode,
    /// Until when the store counts as away: set by an unknown answer, cleared by any other.
    away_until: Mutex<Option<Moment>>,
}

impl Degraded {
    pub(super) fn new(mode: FailMode) -> Self {
        Self { mode, away_until: Mutex::default() }
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.mode == FailMode::Local
    }

    /// Why the store need not be asked, if it need not.
    pub(super) fn known_away(&self, now: Moment) -> Option<StoreError> {
        let away = self.is_allowed() && self.away_until.lock().is_some_and(|until| now < until);
        away.then_some(StoreError::Timeout)
    }

    /// An unknown answer at `now`. Not put off by a request that did not ask the store: after a second the next one asks
    /// again.
    fn set_away(&self, now: Moment) {
        let mut away_until = self.away_until.lock();
        if away_until.is_none_or(|until| until <= now) {
            *away_until = Some(now.saturating_add(AWAY));
        }
    }

    /// The store has answered.
    fn set_back(&self) {
        *self.away_until.lock() = None;
    }
}

/// How an attempt to win a key ended.
enum Won {
    Yes,
    No,
    /// Nobody knows yet.
    Unknown,
    /// The grant has ended.
    Ended,
}

impl StoreDriver {
    pub(crate) fn is_degraded(&self, grant: &Grant) -> bool {
        self.degraded.is_allowed() && self.under_way.is_degraded(grant.fence)
    }

    /// The store has answered for a grant's key, or the grant has ended.
    pub(super) fn end_degraded(&self, grant: &Grant) {
        if self.degraded.is_allowed() {
            self.under_way.set_degraded(grant.fence, false);
        }
    }

    /// Grants a key without the store, which was asked for it under `token`.
    pub(super) fn grant_locally(self: &Arc<Self>, grant: Grant, key: &Key, (token, ttl): (Token, Ttl)) {
        let Some(shard) = self.shard() else { return };
        let now = self.client().clock.now();
        self.under_way.set_degraded(grant.fence, true);
        self.degraded.set_away(now);
        match shard.claimed(&grant, ClaimSource::Ours, now.saturating_add(ttl.as_duration())) {
            ClaimOutcome::Taken => {
                // The store knows of no grant that would end this process's place in its queue.
                self.client().store.leave(key);
                let (driver, key) = (Arc::clone(self), key.clone());
                self.client().spawn(async move { driver.win_back(grant, (key, token)).await });
            }
            // The table has not taken it.
            ClaimOutcome::Unwanted | ClaimOutcome::TooLate => self.end_degraded(&grant),
        }
    }

    /// Asks the store for the key of a degraded grant until the store grants or refuses it, or the grant ends.
    async fn win_back(&self, grant: Grant, claim: (Key, Token)) {
        loop {
            tokio::time::sleep(RETRY.0.mul_f64(1.0 + fastrand::f64() * 2.0)).await;
            match self.client().in_turn(claim.1, self.try_to_win(&grant, &claim)).await {
                Won::Yes | Won::Ended => return,
                Won::No => {
                    self.end_degraded(&grant);
                    if let Some(shard) = self.shard() {
                        shard.claim_lost(&grant, End::Vanished);
                    }
                    return;
                }
                Won::Unknown => {}
            }
        }
    }

    async fn try_to_win(&self, grant: &Grant, (key, token): &(Key, Token)) -> Won {
        let Some(until) = self.shard().and_then(|shard| shard.held_until(grant)) else {
            self.end_degraded(grant);
            return Won::Ended;
        };
        let store = &self.client().store;
        let asked = self.client().clock.now();
        let left = until.saturating_since(asked);
        // With what the store takes off for drift, it lasts as long as the holder was promised.
        let ttl = left.saturating_add(drift(left) * 2).max(store.capabilities().min_ttl).min(Ttl::MAX);
        let Ok(ttl) = Ttl::new(ttl) else { return Won::No };
        match store
            .acquire(AcquireRequest {
                key,
                token: *token,
                ttl,
                on_held: OnHeld::Fail,
                mode: Mode::Exclusive,
                note: &[],
            })
            .await
        {
            Acquired::Granted { valid_for, .. } => {
                self.degraded.set_back();
                if asked.saturating_add(valid_for) < until {
                    // The token had the key already, for less.
                    self.client().release(key.clone(), (*token).into());
                    return Won::No;
                }
                self.end_degraded(grant);
                Won::Yes
            }
            Acquired::Denied {
                why: Denial::Held | Denial::OtherKind | Denial::OtherMode | Denial::Ahead | Denial::Split,
                ..
            } => {
                self.degraded.set_back();
                Won::No
            }
            Acquired::Denied { .. } | Acquired::Unknown(_) => Won::Unknown,
        }
    }
}
