//! What is asked of a shard without changing it.

use std::sync::Arc;
use std::time::Duration;

use super::{SLICE, Shard};
use crate::error::LockError;
use crate::key::{Key, Token};
use crate::table::{Awaiting, Candidate, Counters, EndRecord, Grant, HolderInfo, QueuePosition, Row, WaiterId};
#[cfg(feature = "metrics")]
use crate::table::{Oldest, Reading, Samples};

impl Shard {
    /// The lock on a key, with so many of its holders and waiters.
    pub(crate) fn look(&self, key: &Key, hash: u32, shown: usize) -> Option<Row> {
        let now = self.clock.now();
        self.state().table.look(key, hash, now, shown)
    }

    /// The token under which the store keeps a key that is held here.
    pub(crate) fn token_at(&self, key: &Key, hash: u32) -> Option<Token> {
        self.state().table.token_at(key, hash)
    }

    /// The token under which the store keeps a key for this process that nobody holds.
    pub(crate) fn idle_token(&self, key: &Key, hash: u32) -> Option<Token> {
        self.state().table.idle_token(key, hash)
    }

    /// Who waits here for a key that is held elsewhere, so many of them by name.
    pub(crate) fn awaiting(&self, key: &Key, hash: u32, shown: usize) -> Awaiting {
        let now = self.clock.now();
        self.state().table.awaiting(key, hash, now, shown)
    }

    /// The lock that a token holds on a key, and nothing of its queue but the length.
    pub(crate) fn look_ticket(&self, key: &Key, hash: u32, token: Token) -> Result<Row, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| {
            let grant = state.table.grant_of(key, hash, token, now, fx)?;
            let row = state.table.look(key, hash, now, 0);
            let first = state.table.holding(&grant, now);
            let row = row.zip(first).map(|(row, first)| Row { holders: vec![first], ..row });
            row.ok_or_else(|| LockError::Lost(state.table.loss_of(grant.fence)))
        })
    }

    /// What is known of the grant that a token holds on a key, and nothing of the others or of its queue.
    pub(crate) fn look_holder(&self, key: &Key, hash: u32, token: Token) -> Result<HolderInfo, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| {
            let grant = state.table.grant_of(key, hash, token, now, fx)?;
            let holding = state.table.holding(&grant, now);
            holding.ok_or_else(|| LockError::Lost(state.table.loss_of(grant.fence)))
        })
    }

    /// Whether it grants nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().table.is_closed()
    }

    /// How the last locks on a key ended, the last one first.
    pub(crate) fn trail(&self, hash: u32, limit: usize) -> Vec<(EndRecord, Option<Arc<str>>)> {
        self.state().table.end_log(hash, limit)
    }

    /// For how long a grant has held its key, if it does.
    pub(crate) fn age_of(&self, grant: &Grant) -> Option<Duration> {
        let now = self.clock.now();
        self.state().table.holding(grant, now).map(|holding| holding.age)
    }

    /// Where a waiter stands in its queue, if it still does.
    pub(crate) fn position_of(&self, id: WaiterId) -> Option<QueuePosition> {
        self.state().table.position_of(id)
    }

    /// Every held key that is `wanted`, in slices: a key that moves meanwhile may be missed, none is seen twice.
    /// `wanted` runs under the mutex, so it must be quick.
    pub(crate) fn scan<T>(
        &self,
        state: &mut T,
        wanted: impl Fn(&T, &Candidate<'_>) -> bool,
        found: impl Fn(&mut T, Row),
    ) {
        let mut cursor = Some(0);
        let mut rows = Vec::new();
        while let Some(from) = cursor {
            let now = self.clock.now();
            let seen = |candidate: &Candidate<'_>| wanted(state, candidate);
            cursor = self.state().table.scan(from, SLICE as u32, now, seen, |row| rows.push(row));
            rows.drain(..).for_each(|row| found(state, row));
        }
    }

    /// The totals, and how many keys are in the table and requests in queues now.
    pub(crate) fn totals(&self) -> (Counters, usize, usize) {
        let state = self.state();
        (*state.table.counters(), state.table.held(), state.table.waiting())
    }

    /// What the metrics' reporter reads; what is over is ended first, and counted as such (T1).
    #[cfg(feature = "metrics")]
    pub(crate) fn reading(&self) -> Reading {
        self.sweep();
        let now = self.clock.now();
        self.state().table.reading(now)
    }

    /// Looks through the whole table, in slices.
    #[cfg(feature = "metrics")]
    pub(crate) fn look_for_oldest(&self, oldest: &mut Oldest) {
        let (now, mut cursor) = (self.now(), Some(0));
        while let Some(from) = cursor {
            cursor = self.state().table.look_for_oldest(from, SLICE as u32, now, oldest);
        }
    }

    /// The samples since the last call; from the first call on they are kept.
    #[cfg(feature = "metrics")]
    pub(crate) fn take_samples(&self) -> Samples {
        self.state().table.take_samples()
    }

    /// The most contended keys and how often each was, in no order.
    pub(crate) fn hot_keys(&self) -> Vec<(Key, u64)> {
        let now = self.clock.now();
        self.state().table.hot_keys(now).to_vec()
    }
}
