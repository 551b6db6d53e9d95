//! A request that needs more than a look at its key: one with rarer options, of an owner, over a store, in a span, or
//! that polls. The rest never comes here: see `future`.
//!
//! | stage      | the request is                          | next                                    |
//! |------------|-----------------------------------------|-----------------------------------------|
//! | `New`      | not yet polled                          | any, or answered                        |
//! | `Queued`   | in the key's queue                      | answered                                |
//! | `Sleeping` | between two tries of a poller           | `Sleeping`, or answered                 |
//! | `Answered` | over                                    |                                         |

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Style;
use super::future::HeldBy;
use super::options::{LockOptions, Rare, WaitLimit};
use super::prepared::Prepared;
use crate::clock::Moment;
use crate::current_owner;
use crate::deadlock::{OwnedRequest, RegisteredWait};
use crate::engine::LockManager;
use crate::error::{AttemptOutcome, LockError};
use crate::key::{Key, Token, Ttl};
use crate::retry::Delays;
use crate::shard::{Locked, Shard};
use crate::table::{
    AcquireOutcome, AcquireRequest, Grant, GrantState, Mode, Terms, TokenOrigin, WaitPolicy, WaiterId, WaiterPoll,
};
use crate::telemetry::trace::{self, Attempt};

/// The request under way, in all its states.
pub(super) struct Underway<'a> {
    manager: &'a LockManager,
    key: Key,
    /// Who will answer for the grant of a token that comes from there.
    keeper: fn(TokenOrigin) -> GrantState,
    /// The key's shard, and its hash there; set by the first poll.
    shard: u32,
    hash: u32,
    /// The token that is kept with the grant, if there is one; set by the first poll.
    kept: Option<Token>,
    stage: Stage<'a>,
    /// Its spans, if somebody listens to them.
    attempt: Option<Attempt>,
}

enum Stage<'a> {
    New { options: LockOptions, style: Style },
    Queued { prepared: Prepared, id: WaiterId, _watch: Option<RegisteredWait<'a>>, poller: Option<Box<Poller<'a>>> },
    Sleeping { prepared: Prepared, poller: Box<Poller<'a>>, timer: u32 },
    Answered,
}

/// A request that polls, and until when.
struct Poller<'a> {
    delays: Delays,
    started: Moment,
    deadline: Moment,
    watch: Option<RegisteredWait<'a>>,
}

impl<'a> Underway<'a> {
    pub(super) fn new(
        manager: &'a LockManager,
        key: Key,
        options: LockOptions,
        style: Style,
        keeper: fn(TokenOrigin) -> GrantState,
    ) -> Self {
        Self {
            manager,
            key,
            keeper,
            shard: 0,
            hash: 0,
            kept: None,
            stage: Stage::New { options, style },
            attempt: None,
        }
    }

    /// Polls it, in the spans that are listened to.
    pub(super) fn poll_as<T: HeldBy>(&mut self, cx: &Context<'_>) -> Poll<Result<T, LockError>> {
        let begun = self.attempt.take().or_else(|| match &self.stage {
            Stage::New { options, .. } if trace::is_on() => {
                // The key as everything else shows it.
                let key = self.manager.config().canonical(self.key.clone());
                Attempt::begin(key.as_ref().unwrap_or(&self.key), options.the_mode())
            }
            _ => None,
        });
        let Some(mut attempt) = begun else { return self.poll(cx).map_ok(|grant| self.give(grant)) };
        match attempt.within(|| self.poll(cx)).map_ok(|grant| self.give::<T>(grant)) {
            Poll::Ready(mut answer) => {
                let mode = attempt.end(answer.as_ref().map(drop));
                answer.iter_mut().for_each(|given| given.trace(mode));
                Poll::Ready(answer)
            }
            Poll::Pending => {
                attempt.waits(&self.key);
                self.attempt = Some(attempt);
                Poll::Pending
            }
        }
    }

    fn give<T: HeldBy>(&mut self, grant: Grant) -> T {
        let key = std::mem::replace(&mut self.key, Key::placeholder());
        // An owner that asks again is answered with the grant that it has, which has a token of its own.
        let kept = self.kept.map(|own| self.shard().kept_token(&grant).unwrap_or(own));
        T::new(self.shard(), key, grant, kept)
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        match &mut self.stage {
            Stage::New { options, style } => {
                let (options, style) = (std::mem::take(options), *style);
                self.stage = Stage::Answered;
                self.begin(options, style, cx)
            }
            Stage::Queued { .. } => self.poll_queued(cx),
            Stage::Sleeping { .. } => self.poll_sleeping(cx),
            Stage::Answered => unreachable!("nobody polls what is answered"),
        }
    }

    /// The first poll.
    fn begin(&mut self, options: LockOptions, style: Style, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        let LockOptions { ttl, wait, mode, rare } = options;
        let (prepared, delays) = self.prepare(ttl.get(), mode.get(), rare)?;
        match self.shard().grant_if_free(&self.acquire_request(&prepared)) {
            Ok(grant) => Poll::Ready(Ok(grant)),
            Err(locked) => self.enqueue(locked, prepared, style, wait, delays, cx),
        }
    }

    /// Checks the request against the bounds and finds the key's shard.
    fn prepare(
        &mut self,
        ttl: Option<Ttl>,
        mode: Mode,
        mut rare: Option<Box<Rare>>,
    ) -> Result<(Prepared, Option<Delays>), LockError> {
        if let Some(why) = rare.as_mut().and_then(|rare| rare.bad_key.take()) {
            return Err(self.refused(mode, why));
        }
        let config = self.manager.config();
        if let Err(why) = config.check(&self.key, ttl) {
            return Err(self.refused(mode, why));
        }
        if config.given.store.is_some() {
            match config.canonical(self.key.clone()) {
                Ok(key) => self.key = key,
                Err(why) => return Err(self.refused(mode, why)),
            }
        }
        (self.shard, self.hash) = self.manager.place(&self.key);
        let mut prepared = Prepared {
            terms: Terms { ttl: ttl.unwrap_or(config.ttl), extra: None },
            token: config.given.store.is_some().then(Token::random),
            origin: TokenOrigin::Minted,
        };
        let delays = if rare.is_some() || mode != Mode::Exclusive {
            let taken = prepared.set_rare(mode, rare.map_or_else(Rare::default, |rare| *rare), self.manager, ttl);
            taken.inspect_err(|why| self.manager.count_refused(&self.key, mode, why))?
        } else {
            None
        };
        if current_owner::is_there() {
            prepared.set_caller(self.manager);
        }
        self.kept = prepared.token;
        Ok((prepared, delays))
    }

    /// Counts a request that does not come to its shard.
    #[cold]
    fn refused(&self, mode: Mode, why: LockError) -> LockError {
        self.manager.count_refused(&self.key, mode, &why);
        why
    }

    /// The key was not free, and the shard is still locked.
    #[inline(never)]
    fn enqueue(
        &mut self,
        locked: Locked<'_>,
        prepared: Prepared,
        style: Style,
        wait: WaitLimit,
        delays: Option<Delays>,
        cx: &Context<'_>,
    ) -> Poll<Result<Grant, LockError>> {
        let outcome = match (style, delays) {
            (_, Some(delays)) => {
                drop(locked);
                let started = self.manager.now();
                let deadline = started.saturating_add(wait.within(Duration::MAX));
                let poller = Poller { delays, started, deadline, watch: None };
                return self.try_again(prepared, Box::new(poller), cx);
            }
            (Style::Try, None) => {
                drop(locked);
                self.shard().acquire(&self.acquire_request(&prepared), WaitPolicy::Now, self.manager.now())
            }
            (Style::Wait, None) if prepared.terms.owner().is_some() => {
                drop(locked);
                return self.queue_as_owner(prepared, wait.within(self.manager.config().given.wait), cx);
            }
            (Style::Wait, None) => {
                let wait = wait.within(self.manager.config().given.wait);
                self.shard().queue(locked, &self.acquire_request(&prepared), wait, cx.waker())
            }
        };
        match outcome {
            AcquireOutcome::Granted(grant) => Poll::Ready(Ok(grant)),
            AcquireOutcome::Refused(why) => Poll::Ready(Err(why)),
            AcquireOutcome::Queued(id) => {
                self.stage = Stage::Queued { prepared, id, _watch: None, poller: None };
                // A request that does not wait has given no waker yet, and the store's answer is to wake it.
                if style == Style::Try { self.poll_queued(cx) } else { Poll::Pending }
            }
        }
    }

    /// Queues with the deadlock check.
    fn queue_as_owner(
        &mut self,
        prepared: Prepared,
        wait: Duration,
        cx: &Context<'_>,
    ) -> Poll<Result<Grant, LockError>> {
        if let Some(grant) = self.shard().grant_now(&self.acquire_request(&prepared)) {
            return Poll::Ready(Ok(grant));
        }
        let Some(owned) = self.owned(&prepared) else { unreachable!("only an owner's requests come here") };
        match self.manager.detector().queue(self.manager.shards(), &owned, wait, cx.waker()) {
            (AcquireOutcome::Granted(grant), _) => Poll::Ready(Ok(grant)),
            (AcquireOutcome::Refused(why), _) => Poll::Ready(Err(why)),
            (AcquireOutcome::Queued(id), watch) => {
                self.stage = Stage::Queued { prepared, id, _watch: watch, poller: None };
                // It may have been refused already.
                self.poll_queued(cx)
            }
        }
    }

    /// The request as the deadlock check sees it, if it is an owner's.
    fn owned<'b>(&'b self, prepared: &'b Prepared) -> Option<OwnedRequest<'b>> {
        Some(OwnedRequest {
            request: self.acquire_request(prepared),
            owner: prepared.terms.owner()?,
            shard: self.shard,
        })
    }

    /// In which shard, and as whom, it queues, if it does.
    pub(super) fn queued_as(&self) -> Option<(&'a Arc<Shard>, WaiterId)> {
        let Stage::Queued { id, .. } = &self.stage else { return None };
        Some((self.shard(), *id))
    }

    /// A later poll of a request that queues.
    fn poll_queued(&mut self, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        let Stage::Queued { prepared, id, .. } = &self.stage else {
            unreachable!("only a queued request is polled so")
        };
        let answer = match self.shard().see_waiter(*id, prepared.terms.ttl, self.grant_state(prepared), cx.waker()) {
            WaiterPoll::Pending => return Poll::Pending,
            WaiterPoll::Granted(grant) => Ok(grant),
            WaiterPoll::Refused(why) => Err(why),
            WaiterPoll::Taken => self.shard().answer_taken(&self.acquire_request(prepared)),
        };
        match std::mem::replace(&mut self.stage, Stage::Answered) {
            Stage::Queued { prepared, poller: Some(poller), .. } if answer == Err(LockError::Held) => {
                self.pause(prepared, poller, cx)
            }
            _ => Poll::Ready(answer),
        }
    }

    /// A later poll of a poller.
    fn poll_sleeping(&mut self, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        if let Stage::Sleeping { timer, .. } = &self.stage {
            if self.shard().still_sleeps(*timer, cx.waker()) {
                return Poll::Pending;
            }
            self.shard().stop_sleep(*timer);
        }
        match std::mem::replace(&mut self.stage, Stage::Answered) {
            Stage::Sleeping { prepared, poller, .. } => self.try_again(prepared, poller, cx),
            _ => unreachable!("only a sleeping request is polled so"),
        }
    }

    /// One try of a poller, then sleep until the next, or give up.
    fn try_again(
        &mut self,
        prepared: Prepared,
        poller: Box<Poller<'a>>,
        cx: &Context<'_>,
    ) -> Poll<Result<Grant, LockError>> {
        let shard = self.shard();
        let now = shard.now();
        let answer = match shard.acquire(&self.acquire_request(&prepared), WaitPolicy::Poll, now) {
            AcquireOutcome::Refused(LockError::Held) => return self.pause(prepared, poller, cx),
            AcquireOutcome::Granted(grant) => Ok(grant),
            AcquireOutcome::Refused(why) => Err(why),
            AcquireOutcome::Queued(id) => {
                // The store is being asked, once.
                self.stage = Stage::Queued { prepared, id, _watch: None, poller: Some(poller) };
                return self.poll_queued(cx);
            }
        };
        Poll::Ready(answer)
    }

    /// Sleeps until the next try, or gives up.
    fn pause(
        &mut self,
        prepared: Prepared,
        mut poller: Box<Poller<'a>>,
        cx: &Context<'_>,
    ) -> Poll<Result<Grant, LockError>> {
        let shard = self.shard();
        let can_sleep = if shard.is_forked() { Err(LockError::Forked) } else { Ok(()) };
        if let Err(why) = can_sleep.and_then(|()| self.watch_poller(&prepared, &mut poller)) {
            shard.count_attempt(prepared.terms.mode(), why.outcome(), |c| c.rejected += 1);
            if let LockError::Deadlock { cycle } = &why {
                shard.publish_deadlock(&self.key, self.hash, prepared.terms.owner_label(), cycle);
            }
            return Poll::Ready(Err(why));
        }
        let now = shard.now();
        match poller.delays.next() {
            Some(delay) if now < poller.deadline => {
                // The last try comes at the end of the wait, not before it.
                let due = now.saturating_add(delay).min(poller.deadline);
                match shard.sleep(due, cx.waker()) {
                    Some(timer) => {
                        self.stage = Stage::Sleeping { prepared, poller, timer };
                        Poll::Pending
                    }
                    // Closed since the try: the next one says so.
                    None => self.try_again(prepared, poller, cx),
                }
            }
            _ => {
                shard.count_attempt(prepared.terms.mode(), AttemptOutcome::Timeout, |c| c.polls_exhausted += 1);
                Poll::Ready(Err(LockError::Timeout { waited: now.saturating_since(poller.started) }))
            }
        }
    }

    /// Registers an owner that polls with the deadlock check: its wait closes a cycle as a queued one does.
    fn watch_poller(&self, prepared: &Prepared, poller: &mut Poller<'a>) -> Result<(), LockError> {
        let Some(owned) = self.owned(prepared) else { return Ok(()) };
        match &poller.watch {
            Some(watch) => watch.check()?,
            None => poller.watch = Some(self.manager.detector().poll(self.manager.shards(), &owned)?),
        }
        Ok(())
    }

    fn shard(&self) -> &'a Arc<Shard> {
        self.manager.shard_at(self.shard)
    }

    fn acquire_request<'b>(&'b self, prepared: &'b Prepared) -> AcquireRequest<'b> {
        let Prepared { terms, token, origin } = prepared;
        AcquireRequest {
            key: &self.key,
            hash: self.hash,
            terms,
            token: *token,
            origin: *origin,
            grant_state: self.grant_state(prepared),
        }
    }

    fn grant_state(&self, prepared: &Prepared) -> GrantState {
        (self.keeper)(prepared.origin)
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        match &self.stage {
            Stage::New { .. } | Stage::Answered => {}
            Stage::Queued { id, .. } => self.shard().cancel(*id),
            Stage::Sleeping { prepared, timer, .. } => {
                let shard = self.shard();
                shard.stop_sleep(*timer);
                let mode = prepared.terms.mode();
                shard.count_attempt(mode, AttemptOutcome::Cancelled, |c| c.cancelled_polls += 1);
            }
        }
    }
}
