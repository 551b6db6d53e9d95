//! What is done with a hold: it is released, extended, made a shared one, exchanged for another, or ended by force.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::acquire::{Attempt, answered};
use super::call::{Failure, Reply, Sending, call};
use super::cleanup::Guard;
use super::fault::Fault;
use super::inner::{Inner, micros, valid_for};
use super::wires::Route;
use crate::clock::Moment;
use crate::key::{Key, Token, Ttl};
use crate::store::{AcquireRequest, Acquired, Extended, Forced, Noticed, Released, StoreError};

/// A release that is carried out from its creation on, whatever becomes of the future (S7).
pub(super) struct GuardedRelease<'a> {
    inner: &'a Arc<Inner>,
    key: &'a Key,
    token: Token,
    guard: Guard,
}

impl<'a> GuardedRelease<'a> {
    pub(super) fn new(inner: &'a Arc<Inner>, key: &'a Key, token: Token) -> Self {
        // How long the key was taken for is not known here; no key is taken for longer.
        let guard = Guard::new(inner, key, token, inner.now().saturating_add(Ttl::MAX));
        Self { inner, key, token, guard }
    }

    pub(super) async fn run(self) -> Released {
        let begun = self.inner.now();
        self.run_since(begun).await
    }

    async fn run_since(mut self, begun: Moment) -> Released {
        let (key, token) = (self.key.as_str(), self.token.as_uuid());
        let params: &[_] = &[(&key as _, Type::TEXT), (&token as _, Type::UUID)];
        let answer =
            call(self.inner, (begun, Route::of(key)), self.inner.statements.release(), params, &mut self.guard).await;
        self.conclude(answer.map(|reply| reply.code()).map_err(|failure| failure.error))
    }

    /// It was answered, or not: then it is repeated in the background.
    fn conclude(mut self, code: Result<i64, StoreError>) -> Released {
        match code {
            Ok(1) => {
                self.guard.disarm();
                Released::Released
            }
            Ok(0) => {
                self.guard.disarm();
                Released::AlreadyGone
            }
            Ok(3) => Released::Unknown(StoreError::Timeout),
            Ok(_) => Released::Unknown(Fault::nonsense().error),
            Err(error) => Released::Unknown(error),
        }
    }

    /// Releases, and tries to take the key for another request.
    pub(super) async fn exchange(mut self, next: AcquireRequest<'_>) -> (Released, Acquired) {
        let (inner, begun) = (self.inner, self.inner.now());
        let (mut attempt, columns) = match Attempt::begin(inner, next, begun).await {
            Ok(begun) => begun,
            Err(error) => return (self.run_since(begun).await, Acquired::Unknown(error)),
        };
        let (key, held) = (self.key.as_str(), self.token.as_uuid());
        let [key, others @ ..] = columns.params(&key);
        let params: Vec<_> = [key, (&held as _, Type::UUID)].into_iter().chain(others).collect();
        let mut both = Both(&mut self.guard, &mut attempt.guard);
        match call(inner, (begun, Route::of(self.key.as_str())), inner.statements.exchange(), &params, &mut both).await
        {
            Ok(reply) => {
                // What the release answers, a code and the clock, and behind that what the try does.
                let acquired = answered(attempt.conclude(reply.rest()));
                (self.conclude(Ok(reply.code())), acquired)
            }
            Err(failure) => {
                let acquired = answered(attempt.failed(failure.clone()));
                (self.conclude(Err(failure.error)), acquired)
            }
        }
    }
}

/// Both guards of an exchange.
struct Both<'a>(&'a mut Guard, &'a mut Guard);

impl Sending for Both<'_> {
    fn sending(&mut self, wire: u64, not_after_us: i64) {
        self.0.sending(wire, not_after_us);
        self.1.sending(wire, not_after_us);
    }
}

pub(super) async fn extend(inner: &Arc<Inner>, key: &Key, token: Token, ttl: Ttl) -> Extended {
    let (begun, span) = match inner.checked_ttl(ttl) {
        Ok(span) => (inner.now(), span),
        Err(error) => return Extended::Unknown(error),
    };
    let (key, token, ttl_us) = (key.as_str(), token.as_uuid(), micros(span));
    let params: &[_] = &[(&key as _, Type::TEXT), (&token as _, Type::UUID), (&ttl_us as _, Type::INT8)];
    let answer = call(inner, (begun, Route::of(key)), inner.statements.extend(), params, &mut ()).await;
    still_held(inner, begun, answer)
}

pub(super) async fn downgrade(inner: &Arc<Inner>, key: &Key, token: Token) -> Extended {
    let (begun, key, token) = (inner.now(), key.as_str(), token.as_uuid());
    let params: &[_] = &[(&key as _, Type::TEXT), (&token as _, Type::UUID)];
    let answer = call(inner, (begun, Route::of(key)), inner.statements.downgrade(), params, &mut ()).await;
    still_held(inner, begun, answer)
}

/// For how long a token still holds its key, counted from before the call.
pub(super) fn left(inner: &Inner, begun: Moment, left: Duration) -> Extended {
    let valid_for = valid_for(left, micros(left));
    if inner.now().saturating_since(begun) < valid_for {
        Extended::Extended { valid_for }
    } else {
        Extended::Unknown(StoreError::Timeout)
    }
}

fn still_held(inner: &Inner, begun: Moment, answer: Result<Reply, Failure>) -> Extended {
    match answer.map(|reply| (reply.code(), reply.rest().first().copied())) {
        Ok((1, Some(left_us))) => left(inner, begun, Duration::from_micros(u64::try_from(left_us).unwrap_or(0))),
        Ok((0, None)) => Extended::Lost,
        Ok((2, None)) => Extended::Unknown(StoreError::Config("it is held by permits".into())),
        Ok(_) => Extended::Unknown(Fault::nonsense().error),
        Err(failure) => Extended::Unknown(failure.error),
    }
}

/// Ends whatever holds a key, or the hold with this fence. Sent once: it might hit a later holder.
pub(super) async fn force(inner: &Arc<Inner>, key: &Key, fence: Option<u64>) -> Forced {
    let fence = match fence.map(i64::try_from).transpose() {
        Ok(fence) => fence,
        // None that was ever given.
        Err(_) => return Forced::WasFree,
    };
    let key = key.as_str();
    let params: &[_] = &[(&key as _, Type::TEXT), (&fence as _, Type::INT8)];
    match call(inner, (inner.now(), Route::of(key)), inner.statements.force(), params, &mut ())
        .await
        .map(|reply| reply.code())
    {
        Ok(1) => Forced::Released,
        Ok(0) => Forced::WasFree,
        Ok(3) => Forced::Unknown(StoreError::Timeout),
        Ok(_) => Forced::Unknown(Fault::nonsense().error),
        Err(failure) => Forced::Unknown(failure.error),
    }
}

/// Tells every process that whatever holds a key will be ended.
pub(super) async fn notice(inner: &Arc<Inner>, key: &Key, within: Duration) -> Result<Noticed, StoreError> {
    if !inner.settings.listens() {
        return Ok(Noticed::CannotTell);
    }
    let (key, within) = (key.as_str(), micros(within));
    let params: &[_] = &[(&key as _, Type::TEXT), (&within as _, Type::INT8)];
    let answer = call(inner, (inner.now(), Route::of(key)), inner.statements.notice(), params, &mut ()).await;
    match answer.map(|reply| (reply.code(), reply.rest().first().copied())) {
        Ok((1, Some(fence))) => Ok(Noticed::Told { fence: u64::try_from(fence).ok().filter(|fence| *fence > 0) }),
        Ok((0, None)) => Ok(Noticed::WasFree),
        Ok(_) => Err(Fault::nonsense().error),
        Err(failure) => Err(failure.error),
    }
}
