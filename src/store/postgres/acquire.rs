//! One try to take a key, and what its answer means.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::call::{Failure, call};
use super::cleanup::Guard;
use super::fault::{Fault, Ran};
use super::inner::{Inner, columns_of, micros, valid_for};
use super::places::TicketedTry;
use super::wires::Route;
use crate::clock::Moment;
use crate::key::{Key, Token};
use crate::store::{AcquireRequest, Acquired, Denial, StoreError};

/// The last number of the answer where the token held the key before.
const HELD_ALREADY: i64 = 1;

pub(super) async fn acquire(inner: &Arc<Inner>, ask: AcquireRequest<'_>) -> Acquired {
    answered(attempt(inner, ask).await)
}

pub(super) fn answered(attempt: Result<Acquired, StoreError>) -> Acquired {
    match attempt {
        Ok(answer) => answer,
        Err(StoreError::OutOfMemory) => Acquired::Denied { retry_in: None, why: Denial::OutOfMemory },
        Err(error) => Acquired::Unknown(error),
    }
}

async fn attempt(inner: &Arc<Inner>, ask: AcquireRequest<'_>) -> Result<Acquired, StoreError> {
    let begun = inner.now();
    let (mut attempt, columns) = Attempt::begin(inner, ask, begun).await?;
    let key = ask.key.as_str();
    let answer =
        call(inner, (begun, Route::of(key)), inner.statements.acquire(), &columns.params(&key), &mut attempt.guard)
            .await;
    match answer {
        Ok(reply) => attempt.conclude(&[&[reply.code(), reply.server_us()], reply.rest()].concat()),
        Err(failure) => attempt.failed(failure),
    }
}

/// What a try is sent with.
pub(super) struct Columns {
    token: Uuid,
    ttl: i64,
    mode: i64,
    permits: i64,
    ticket: Option<Uuid>,
}

impl Columns {
    /// In the order of the function's parameters.
    pub(super) fn params<'a>(&'a self, key: &'a &'a str) -> [(&'a (dyn ToSql + Sync), Type); 6] {
        [
            (key, Type::TEXT),
            (&self.token, Type::UUID),
            (&self.ttl, Type::INT8),
            (&self.mode, Type::INT8),
            (&self.permits, Type::INT8),
            (&self.ticket, Type::UUID),
        ]
    }
}

/// A try under way. Dropped before it is concluded, it is taken back (S5).
pub(super) struct Attempt<'a> {
    inner: &'a Arc<Inner>,
    ttl: Duration,
    begun: Moment,
    ticketed: TicketedTry,
    pub(super) guard: Guard,
}

impl<'a> Attempt<'a> {
    /// Checks what is asked, and waits until nothing of the token is being taken back any more.
    pub(super) async fn begin(
        inner: &'a Arc<Inner>,
        ask: AcquireRequest<'_>,
        begun: Moment,
    ) -> Result<(Self, Columns), StoreError> {
        let ttl = inner.checked_ttl(ask.ttl)?;
        let (mode, permits) = columns_of(ask.mode)?;
        let ticketed = inner.places.begin_try(ask.key, ask.on_held);
        if !inner.cleaning.is_idle() {
            clean(inner, ask.key, ask.token, begun).await?;
        }
        let columns =
            Columns { token: ask.token.as_uuid(), ttl: micros(ttl), mode, permits, ticket: ticketed.ticket() };
        // The last moment at which a lost grant could begin, and its life; the second is for the difference of clocks.
        let over = begun.saturating_add(inner.settings.operation_timeout * 2).saturating_add(ttl);
        let guard = Guard::new(inner, ask.key, ask.token, over);
        Ok((Self { inner, ttl, begun, ticketed, guard }, columns))
    }

    /// What the answer means, and what is still to be taken back.
    pub(super) fn conclude(mut self, answer: &[i64]) -> Result<Acquired, StoreError> {
        let meant = self.meaning(answer)?;
        if let Acquired::Granted { valid_for, .. } = meant
            && self.inner.now().saturating_since(self.begun) >= valid_for
        {
            if answer.last() == Some(&HELD_ALREADY) {
                // By the same token: another process may have just extended it, and it runs out by itself.
                self.guard.disarm();
            }
            // Else the guard takes it back (S4).
            return Ok(Acquired::Denied { retry_in: None, why: Denial::TooLate });
        }
        self.ticketed.settle(&meant);
        self.guard.disarm();
        Ok(meant)
    }

    /// There was no answer. What did not run leaves nothing.
    pub(super) fn failed(mut self, failure: Failure) -> Result<Acquired, StoreError> {
        if failure.ran == Ran::No {
            self.guard.disarm();
        }
        Err(failure.error)
    }

    fn meaning(&self, answer: &[i64]) -> Result<Acquired, StoreError> {
        match *answer {
            [1, now, fence, left, _] => Ok(Acquired::Granted {
                fence: u64::try_from(fence).ok(),
                valid_for: valid_for(self.ttl, left),
                clock: u64::try_from(now).ok(),
            }),
            [2, _, why, retry] => {
                let why = match why {
                    0 => Denial::Held,
                    2 => Denial::Ahead,
                    3 => Denial::OtherMode,
                    4 => Denial::OutOfMemory,
                    _ => return Err(Fault::nonsense().error),
                };
                Ok(Acquired::Denied { retry_in: u64::try_from(retry).ok().map(Duration::from_micros), why })
            }
            [3, ..] => Err(StoreError::Timeout),
            _ => Err(Fault::nonsense().error),
        }
    }
}

/// An earlier try with this token must be out of the way first (S5).
async fn clean(inner: &Arc<Inner>, key: &Key, token: Token, begun: Moment) -> Result<(), StoreError> {
    let waiting = inner.cleaning.wait_for(key, token);
    inner.ticks.within(begun, inner.settings.operation_timeout, waiting).await.map_err(|error| match error {
        StoreError::Timeout => StoreError::CleaningUp,
        other => other,
    })
}
