//! A request under way: the state machine behind the request futures.
//!
//! It queues when it is first polled, and can be dropped at any point (T3): a queued request leaves the queue, a grant
//! that it has not yet seen goes to the next waiter.
//!
//! | stage      | the request is                               | next                          |
//! |------------|----------------------------------------------|-------------------------------|
//! | `New`      | not yet polled                               | any                           |
//! | `Queued`   | in the key's queue, and asks for no more     | `Answered`                    |
//! | `Underway` | in a state of its own: see `underway`        | `Answered`                    |
//! | `Answered` | over                                         |                               |
//!
//! Nearly all requests ask for an exclusive lock for nobody in particular, of a manager without a store, and most of
//! those find the key free. All that they pass through is here; whatever else there is to a request begins in
//! [`Underway`], and is made only for those who need it.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::options::ModeWord;
use super::underway::Underway;
use super::{LockRequest, Style, WaitPlace};
use crate::current_owner;
use crate::engine::LockManager;
use crate::error::LockError;
use crate::key::{Key, Token};
use crate::lock::{Lock, Ticket};
use crate::shard::{Locked, Shard};
use crate::table::{
    AcquireOutcome, AcquireRequest, Grant, GrantState, Mode, QueuePosition, Terms, TokenOrigin, WaitPolicy, WaiterId,
    WaiterPoll,
};
use crate::telemetry::trace;

/// The request under way; what the two request futures share. It is the request itself, so that one becomes the other
/// where it lies.
pub(super) struct AcquireFuture<'a>(LockRequest<'a>);

/// How far a request has come.
///
/// In whole words, as all that a request carries: it is moved a few times right after it was written, and a word that
/// was written in pieces is a detour through the cache.
pub(super) struct Progress<'a> {
    stage: Stage,
    /// In which shard, and as whom, it queues.
    shard: u64,
    waiter: WaiterId,
    underway: Option<Box<Underway<'a>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
enum Stage {
    New,
    Queued,
    Underway,
    Answered,
}

impl Progress<'_> {
    pub(super) const NEW: Self =
        Self { stage: Stage::New, shard: 0, waiter: WaiterId { index: 0, seat: 0, seq: 0 }, underway: None };
}

debug_of!(Progress [] ['_], |it| stage: it.stage);

/// What a request is answered with: what the lock is held by from then on.
pub(super) trait HeldBy: Sized {
    /// Who will answer for the grant.
    fn grant_state(origin: TokenOrigin) -> GrantState;

    /// `kept`: the token, if that is not the table's to tell.
    fn new(shard: &Arc<Shard>, key: Key, grant: Grant, kept: Option<Token>) -> Self;

    /// Its hold is traced from now on.
    fn trace(&mut self, mode: Mode);
}

impl HeldBy for Lock {
    #[inline]
    fn grant_state(origin: TokenOrigin) -> GrantState {
        GrantState::Guard(origin)
    }

    #[inline]
    fn new(shard: &Arc<Shard>, key: Key, grant: Grant, kept: Option<Token>) -> Self {
        Self::new(Arc::clone(shard), key, grant, kept)
    }

    fn trace(&mut self, mode: Mode) {
        Self::trace(self, mode);
    }
}

impl HeldBy for Ticket {
    fn grant_state(_: TokenOrigin) -> GrantState {
        GrantState::Ticket
    }

    fn new(shard: &Arc<Shard>, key: Key, grant: Grant, kept: Option<Token>) -> Self {
        Self::from_parts(key, kept.unwrap_or_else(|| shard.tell_token(&grant)), grant.proof)
    }

    fn trace(&mut self, _: Mode) {}
}

impl<'a> AcquireFuture<'a> {
    #[inline(always)]
    pub(super) fn new(request: LockRequest<'a>) -> Self {
        Self(request)
    }

    #[inline]
    pub(super) fn poll_as<T: HeldBy>(&mut self, cx: &Context<'_>) -> Poll<Result<T, LockError>> {
        match self.0.progress.stage {
            Stage::New if self.is_plain() => match self.0.options.mode {
                ModeWord::EXCLUSIVE => self.poll_plain(cx),
                ModeWord::SHARED => self.poll_share(cx),
                _ => self.poll_underway(cx),
            },
            Stage::Queued => self.poll_queued(cx),
            _ => self.poll_underway(cx),
        }
    }

    /// Whether there is nothing to the request but key, TTL, wait and mode.
    #[inline]
    fn is_plain(&self) -> bool {
        self.has_plain_terms() && !current_owner::is_there()
    }

    #[inline]
    fn has_plain_terms(&self) -> bool {
        let no_store = self.0.manager.config().given.store.is_none();
        no_store && self.0.options.rare.is_none() && !trace::is_on()
    }

    /// See [`LockFuture::grant_kept`](super::LockFuture::grant_kept).
    #[inline]
    pub(super) fn grant_kept(&mut self, keeper: GrantState) -> Option<(Lock, u32, Grant)> {
        let is_new = self.0.progress.stage == Stage::New && self.0.options.mode == ModeWord::EXCLUSIVE;
        if !is_new || !self.has_plain_terms() {
            return None;
        }
        let request = &mut self.0;
        let (config, ttl) = (request.manager.config(), request.options.ttl.get());
        config.check(&request.key, ttl).ok()?;
        let (at, hash) = request.manager.place(&request.key);
        let shard = request.manager.shard_at(at);
        let grant = shard.grant_kept(&AcquireRequest {
            key: &request.key,
            hash,
            terms: &Terms { ttl: ttl.unwrap_or(config.ttl), extra: None },
            token: None,
            origin: TokenOrigin::Minted,
            grant_state: keeper,
        })?;
        request.progress.stage = Stage::Answered;
        Some((Lock::new(Arc::clone(shard), take_key(request), grant, None), at, grant))
    }

    /// The first poll of a plain request: the whole way to a free lock. The lock is made where its grant is, since
    /// everything that it passes through on its way out costs as much as finding it.
    #[inline]
    fn poll_plain<T: HeldBy>(&mut self, cx: &Context<'_>) -> Poll<Result<T, LockError>> {
        let request = &mut self.0;
        let (config, ttl) = (request.manager.config(), request.options.ttl.get());
        request.progress.stage = Stage::Answered;
        if let Err(why) = config.check(&request.key, ttl) {
            return self.refuse(why);
        }
        let (at, hash) = request.manager.place(&request.key);
        let shard = request.manager.shard_at(at);
        let asked = AcquireRequest {
            key: &request.key,
            hash,
            terms: &Terms { ttl: ttl.unwrap_or(config.ttl), extra: None },
            token: None,
            origin: TokenOrigin::Minted,
            grant_state: T::grant_state(TokenOrigin::Minted),
        };
        let outcome = match shard.grant_if_free(&asked) {
            Ok(grant) => return Poll::Ready(Ok(T::new(shard, take_key(request), grant, None))),
            Err(locked) => wait_behind(request, shard, locked, &asked, cx),
        };
        match outcome {
            AcquireOutcome::Granted(grant) => Poll::Ready(Ok(T::new(shard, take_key(request), grant, None))),
            AcquireOutcome::Refused(why) => Poll::Ready(Err(why)),
            AcquireOutcome::Queued(id) => {
                let progress = &mut request.progress;
                (progress.stage, progress.shard, progress.waiter) = (Stage::Queued, u64::from(at), id);
                Poll::Pending
            }
        }
    }

    /// The first poll of a plain request for a share. One that has to wait goes on as others do that need more.
    #[inline(never)]
    fn poll_share<T: HeldBy>(&mut self, cx: &Context<'_>) -> Poll<Result<T, LockError>> {
        let request = &mut self.0;
        let (config, ttl) = (request.manager.config(), request.options.ttl.get());
        if config.check(&request.key, ttl).is_ok() {
            let (at, hash) = request.manager.place(&request.key);
            let shard = request.manager.shard_at(at);
            let asked = AcquireRequest {
                key: &request.key,
                hash,
                terms: &Terms { ttl: ttl.unwrap_or(config.ttl), extra: None },
                token: None,
                origin: TokenOrigin::Minted,
                grant_state: T::grant_state(TokenOrigin::Minted),
            };
            if let Some(grant) = shard.grant_share(&asked) {
                request.progress.stage = Stage::Answered;
                return Poll::Ready(Ok(T::new(shard, take_key(request), grant, None)));
            }
        }
        self.poll_underway(cx)
    }

    /// Counts a request that does not come to its shard.
    #[cold]
    fn refuse<T>(&self, why: LockError) -> Poll<Result<T, LockError>> {
        self.0.manager.count_refused(&self.0.key, Mode::Exclusive, &why);
        Poll::Ready(Err(why))
    }

    /// A later poll of a plain request.
    #[inline(never)]
    fn poll_queued<T: HeldBy>(&mut self, cx: &Context<'_>) -> Poll<Result<T, LockError>> {
        let request = &mut self.0;
        let shard = queued_in(request);
        let ttl = request.options.ttl.get().unwrap_or(request.manager.config().ttl);
        let grant_state = T::grant_state(TokenOrigin::Minted);
        if grant_state == GrantState::Guard(TokenOrigin::Minted)
            && let Some(grant) = shard.take_offered(request.progress.waiter)
        {
            request.progress.stage = Stage::Answered;
            return Poll::Ready(Ok(T::new(shard, take_key(request), grant, None)));
        }
        let answer = match shard.see_waiter(request.progress.waiter, ttl, grant_state, cx.waker()) {
            WaiterPoll::Pending => return Poll::Pending,
            WaiterPoll::Granted(grant) => Ok(T::new(shard, take_key(request), grant, None)),
            WaiterPoll::Refused(why) => Err(why),
            // A minted token names one seat of one waiter.
            WaiterPoll::Taken => unreachable!("only this request sees its answer"),
        };
        request.progress.stage = Stage::Answered;
        Poll::Ready(answer)
    }

    /// A poll of a request that needs a state of its own; the first one makes that, and it is kept if the request is
    /// not answered at once.
    #[inline(never)]
    fn poll_underway<T: HeldBy>(&mut self, cx: &Context<'_>) -> Poll<Result<T, LockError>> {
        let request = &mut self.0;
        let stage = std::mem::replace(&mut request.progress.stage, Stage::Answered);
        match (stage, request.progress.underway.take()) {
            (Stage::New, _) => {
                let (key, options) = (take_key(request), std::mem::take(&mut request.options));
                let mut underway = Underway::new(request.manager, key, options, request.style, T::grant_state);
                let answer = underway.poll_as(cx);
                if answer.is_pending() {
                    self.go_on(Box::new(underway));
                }
                answer
            }
            (Stage::Underway, Some(mut underway)) => {
                let answer = underway.poll_as(cx);
                if answer.is_pending() {
                    self.go_on(underway);
                }
                answer
            }
            _ => panic!("a request was polled after it was answered"),
        }
    }

    fn go_on(&mut self, underway: Box<Underway<'a>>) {
        let progress = &mut self.0.progress;
        (progress.stage, progress.underway) = (Stage::Underway, Some(underway));
    }

    /// Where the request stands in its queue, if it waits in one.
    pub(super) fn place(&self) -> Option<WaitPlace> {
        let (shard, waiter) = match self.0.progress.stage {
            Stage::Queued => (queued_in(&self.0), self.0.progress.waiter),
            _ => self.0.progress.underway.as_ref()?.queued_as()?,
        };
        shard.position_of(waiter).map(|QueuePosition { position, estimate }| WaitPlace { position, estimate })
    }
}

/// The key was not free, and the shard is still locked.
#[inline(never)]
fn wait_behind(
    request: &LockRequest<'_>,
    shard: &Shard,
    locked: Locked<'_>,
    asked: &AcquireRequest<'_>,
    cx: &Context<'_>,
) -> AcquireOutcome {
    match request.style {
        Style::Try => {
            drop(locked);
            shard.acquire(asked, WaitPolicy::Now, request.manager.now())
        }
        Style::Wait => {
            let wait = request.options.wait.within(request.manager.config().given.wait);
            shard.queue(locked, asked, wait, cx.waker())
        }
    }
}

/// The shard in which a plain request queues.
fn queued_in<'a>(request: &LockRequest<'a>) -> &'a Arc<Shard> {
    let manager: &'a LockManager = request.manager;
    manager.shard_at(request.progress.shard as u32)
}

/// The key of a request that needs it no more, for its guard.
#[inline]
fn take_key(request: &mut LockRequest<'_>) -> Key {
    std::mem::replace(&mut request.key, Key::placeholder())
}

impl Drop for AcquireFuture<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.0.progress.stage == Stage::Queued {
            queued_in(&self.0).cancel(self.0.progress.waiter);
        }
    }
}

debug_of!(AcquireFuture [] ['_], |it| key: it.0.key, stage: it.0.progress.stage);
