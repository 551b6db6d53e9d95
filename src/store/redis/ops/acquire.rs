//! One try to take a lock: `acquire.lua` and what its answer means (R1, R2, R8, R12).

use std::sync::Arc;
use std::time::Duration;

use super::moving::acquire::{self as moving, Try};
use super::shared::acquire::{self as shared, Share};
use crate::clock::Moment;
use crate::key::Token;
use crate::store::pending::{PendingCleanup, ReleaseScope};
use crate::store::redis::call::{Answer, Confirm, Failure, call};
use crate::store::redis::cleanup::Guard;
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::redis::hand_over;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::replicas::Confirmed;
use crate::store::redis::script::{ACQUIRE, Reply, ScriptArgs, millis};
use crate::store::redis::shares::HoldKind;
use crate::store::redis::tickets::{Begun, TicketedTry};
use crate::store::{AcquireRequest, Acquired, Denial, StoreError};

/// The last number of the script's answer where the token held the lock before.
const HELD_ALREADY: i64 = 1;

pub(in crate::store) async fn acquire(inner: &Arc<Inner>, ask: AcquireRequest<'_>) -> Acquired {
    let begun = inner.now();
    answered(attempt(inner, ask, begun).await)
}

pub(super) fn answered(attempt: Result<Acquired, StoreError>) -> Acquired {
    match attempt {
        Ok(answer) => answer,
        Err(StoreError::OutOfMemory) => Acquired::Denied { retry_in: None, why: Denial::OutOfMemory },
        Err(error) => Acquired::Unknown(error),
    }
}

async fn attempt(inner: &Arc<Inner>, ask: AcquireRequest<'_>, begun: Moment) -> Result<Acquired, StoreError> {
    let names = inner.names(ask.key)?;
    let ttl = inner.checked_ttl(ask.ttl)?;
    let share = Share::of(ask.mode)?;
    inner.recent_releases.forget(&names, ask.token);
    let ticketed = match begin_try(inner, &names, ask, begun) {
        Ok(ticketed) => ticketed,
        Err(granted) => return Ok(granted),
    };
    // From now on no repetition of a release begins under the token.
    if !inner.cleaning.is_idle() {
        Box::pin(clean(inner, &names, ask.token, begun)).await?;
        // What was taken back just now was released once more.
        inner.recent_releases.forget(&names, ask.token);
    }
    let mut attempt = Attempt::begin(inner, ask, (ttl, begun), share, ticketed);
    let answered = attempt.send().await;
    attempt.conclude(answered)
}

/// Begins a try; the error is its answer where the key was handed over for it. Before it is asked what is being taken back
/// of its token: what is handed over to that from now on, nobody refuses.
pub(super) fn begin_try<'a>(
    inner: &'a Arc<Inner>,
    names: &'a KeyNames,
    ask: AcquireRequest<'_>,
    begun: Moment,
) -> Result<TicketedTry<'a>, Acquired> {
    let may_be_offered = hand_over::may_be_offered(&ask, inner.config.replicas, inner.config.lock_delay);
    let offer = may_be_offered.then_some((ask.token, begun));
    match inner.tickets.begin_try(names, ask.on_held, HoldKind::of(ask.mode), offer) {
        Begun::Granted(granted) => {
            if let Acquired::Granted { fence: Some(fence), .. } = granted {
                inner.highest.saw(names, fence);
            }
            Err(granted)
        }
        Begun::Try(ticketed, refused) => {
            if let Some(token) = refused {
                hand_over::refuse(inner, names.clone(), token);
            }
            Ok(ticketed)
        }
    }
}

/// A try under way. Dropped before it is concluded, it is taken back (S5).
pub(super) struct Attempt<'a> {
    inner: &'a Arc<Inner>,
    pub(super) one: Try<'a>,
    ttl: Duration,
    /// `None`: the lock for itself.
    share: Option<Share>,
    ticketed: TicketedTry<'a>,
    pub(super) guard: Guard,
}

impl<'a> Attempt<'a> {
    pub(super) fn begin(
        inner: &'a Arc<Inner>,
        ask: AcquireRequest<'_>,
        (ttl, begun): (Duration, Moment),
        share: Option<Share>,
        ticketed: TicketedTry<'a>,
    ) -> Self {
        let names = ticketed.names();
        let life = ttl.saturating_add(inner.config.lock_delay);
        // The last moment at which a lost grant could begin, and its life; the second is for the difference of clocks.
        let over = begun.saturating_add(inner.config.operation_timeout * 2).saturating_add(life);
        let scope = if share.is_some() { ReleaseScope::Share } else { ReleaseScope::Any };
        let guard = Guard::new(inner, names, ask.token, PendingCleanup::of(scope, over), Confirm::Yes);
        let one = Try { names, token: ask.token, begun, life };
        Self { inner, one, ttl, share, ticketed, guard }
    }

    /// The numbers of its ticket and of its offer; 0: it has none.
    pub(super) fn place(&self) -> [u64; 2] {
        [self.ticketed.number(), self.ticketed.offer()]
    }

    async fn send(&mut self) -> Result<Answer, Failure> {
        let place = self.place();
        match self.share {
            None => send(self.inner, self.one, place, &mut self.guard).await,
            Some(share) => Box::pin(shared::send(self.inner, self.one, share, place[0], &mut self.guard)).await,
        }
    }

    /// Nothing was tried.
    pub(super) fn disarm(&mut self) {
        self.guard.disarm();
    }

    /// What the answer means, and what is still to be taken back.
    pub(super) fn conclude(mut self, answered: Result<Answer, Failure>) -> Result<Acquired, StoreError> {
        let (inner, Try { names, begun, .. }) = (self.inner, self.one);
        let answer = match answered {
            Ok(answer) => answer,
            Err(Failure { error, ran }) => {
                if ran != Ran::Maybe {
                    self.guard.disarm();
                }
                return Err(error);
            }
        };
        let meant = meaning(inner, &answer.reply, self.ttl, self.one.life)?;
        if let Acquired::Granted { fence, valid_for, .. } = meant {
            // Every later fence must be above it, even if this grant does not count (R12).
            inner.highest.saw(names, fence.unwrap_or(0));
            if let Some(why) = flaw(inner, &answer, begun, valid_for) {
                if why == Denial::TooLate && answer.reply.rest().last() == Some(&HELD_ALREADY) {
                    // By the same token: another process may have just extended it, and it runs out by itself.
                    self.guard.disarm();
                }
                // Else the guard takes it back (R8).
                return Ok(Acquired::Denied { retry_in: None, why });
            }
        }
        self.ticketed.settle(&meant);
        self.guard.disarm();
        Ok(meant)
    }
}

/// Sends the try as one script, or step by step where the lock's slot is moving.
async fn send(
    inner: &Arc<Inner>,
    one: Try<'_>,
    [ticket, offer]: [u64; 2],
    guard: &mut Guard,
) -> Result<Answer, Failure> {
    let Try { names, token, begun, life } = one;
    let answered = call(inner, names, &ACQUIRE, begun, &mut *guard, |not_after| {
        let seen = inner.highest.of(names);
        let args =
            ScriptArgs::of([names.lock(), names.queue(), names.fence(), names.tickets()]).limits(not_after, seen);
        let args = args.numbers([millis(inner.config.fence_retention)]).text(&inner.config.process).shared();
        let not_after = u64::try_from(not_after).unwrap_or(0);
        args.token(token).numbers([millis(life)]).numbers([not_after, seen, ticket, offer])
    })
    .await;
    match answered {
        Err(Failure { ran: Ran::Split, .. }) => Box::pin(moving::acquire(inner, one, guard)).await,
        answered => answered,
    }
}

/// Why a grant does not count: too few replicas have it (R24), or it came when its time was over (R8).
fn flaw(inner: &Inner, answer: &Answer, begun: Moment, valid_for: Duration) -> Option<Denial> {
    if answer.confirmed == Confirmed::TooFew {
        return Some(Denial::Unreplicated);
    }
    (inner.now().saturating_since(begun) >= valid_for).then_some(Denial::TooLate)
}

/// An earlier try with this token must be out of the way first (S5).
async fn clean(inner: &Arc<Inner>, names: &KeyNames, token: Token, begun: Moment) -> Result<(), StoreError> {
    let waiting = inner.cleaning.wait_for(names, token);
    inner.ticks.within(begun, inner.config.operation_timeout, waiting).await.map_err(|error| match error {
        StoreError::Timeout => StoreError::CleaningUp,
        other => other,
    })
}

fn meaning(inner: &Inner, reply: &Reply, ttl: Duration, life: Duration) -> Result<Acquired, StoreError> {
    let granted = |fence, left_ms| {
        let fence = u64::try_from(fence).map_err(|_| protocol_error("a fence below zero"))?;
        let clock = u64::try_from(reply.server_us()).ok();
        Ok(Acquired::Granted { fence: Some(fence), valid_for: inner.valid_for(ttl, left_ms), clock })
    };
    match (reply.code(), reply.rest()) {
        // For as long as was asked; its fence is the server's clock.
        (1, []) => granted(reply.server_us(), i64::try_from(millis(life)).unwrap_or(i64::MAX)),
        (1, &[fence, left_ms, _]) => granted(fence, left_ms),
        (2, &[why, left_ms]) => {
            let why = match why {
                0 => Denial::Held,
                1 => Denial::OtherKind,
                2 => Denial::Ahead,
                3 => Denial::OtherMode,
                _ => return Err(protocol_error("a denial without a cause")),
            };
            Ok(Acquired::Denied { retry_in: u64::try_from(left_ms).ok().map(Duration::from_millis), why })
        }
        (3, _) => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither granted nor denied")),
    }
}
