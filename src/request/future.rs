//! A request under way: the state machine behind the request futures.
//!
//! It queues when it is first polled, and can be dropped at any point (T3): a queued request leaves the queue, a grant
//! that it has not yet seen goes to the next waiter.
//!
//! | stage      | the request is                          | next                                    |
//! |------------|-----------------------------------------|-----------------------------------------|
//! | `New`      | not yet polled                          | any, or answered                        |
//! | `Queued`   | a seat in the key's queue               | answered                                |
//! | `Sleeping` | between two tries of a poller           | `Sleeping`, or answered                 |
//! | `Answered` | over                                    |                                         |

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::options::{LockOptions, Rare, Wait};
use super::prepared::Prepared;
use super::{LockRequest, Style, WaitPlace};
use crate::clock::Moment;
use crate::current_owner;
use crate::deadlock::{Detector, OwnedRequest, WaitId};
use crate::engine::LockManager;
use crate::error::{AttemptOutcome, LockError};
use crate::key::{Key, Token, Ttl};
use crate::retry::Delays;
use crate::shard::{Locked, Shard};
use crate::table::{
    AcquireOutcome, AcquireRequest, Grant, GrantState, Mode, QueuePosition, Terms, TokenOrigin, WaitPolicy, WaiterId,
    WaiterPoll,
};
use crate::telemetry::trace::{self, Attempt};

#[derive(Clone, Copy, Debug)]
pub(super) enum KeeperKind {
    Guard,
    Ticket,
}

/// The request under way; what the two request futures share.
///
/// It is moved and looked at on every acquisition, so what only some requests need comes last or is boxed.
pub(super) struct AcquireFuture<'a> {
    manager: &'a LockManager,
    key: Key,
    kind: KeeperKind,
    /// Where the key belongs; set by the first poll.
    shard: u32,
    hash: u32,
    stage: Stage<'a>,
    /// Where the request is traced.
    attempt: Option<Attempt>,
}

/// What a request is answered with.
pub(super) trait Answer {
    /// Its hold is traced from now on.
    fn trace(&mut self, mode: Mode);
}

enum Stage<'a> {
    New { options: LockOptions, style: Style, bad_key: Option<Box<LockError>> },
    Queued { asked: Prepared, id: WaiterId, watch: Option<WaitId>, poller: Option<Box<Poller<'a>>> },
    Sleeping { asked: Prepared, poller: Box<Poller<'a>>, timer: u32 },
    Answered,
}

/// A request that polls, and until when.
struct Poller<'a> {
    delays: Delays,
    started: Moment,
    deadline: Moment,
    watch: Option<Watch<'a>>,
}

/// A poller's wait in the register of the deadlock check, which forgets it with the poller: its pauses are the
/// caller's code, and may panic.
struct Watch<'a> {
    detector: &'a Detector,
    id: WaitId,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.detector.forget(self.id);
    }
}

impl fmt::Debug for AcquireFuture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::New { .. } => "new",
            Stage::Queued { .. } => "queued",
            Stage::Sleeping { .. } => "sleeping",
            Stage::Answered => "answered",
        };
        f.debug_struct("Acquiring").field("key", &self.key).field("stage", &stage).finish_non_exhaustive()
    }
}

impl<'a> AcquireFuture<'a> {
    #[inline]
    pub(super) fn new(request: LockRequest<'a>, kind: KeeperKind) -> Self {
        let LockRequest { manager, key, bad_key, options, style } = request;
        Self { manager, key, kind, shard: 0, hash: 0, stage: Stage::New { options, style, bad_key }, attempt: None }
    }

    /// Polls; `give` makes a lock or a ticket of the grant. It is called where the grant is made, since everything
    /// that a free lock passes through on its way out costs as much as finding it.
    #[inline]
    pub(super) fn poll_as<T: Answer>(
        &mut self,
        cx: &Context<'_>,
        give: impl FnOnce(&mut Self, Grant) -> T,
    ) -> Poll<Result<T, LockError>> {
        if trace::is_on() { self.poll_traced(cx, give) } else { self.poll_plain(cx, give) }
    }

    /// The same, in the spans that are listened to.
    #[cold]
    fn poll_traced<T: Answer>(
        &mut self,
        cx: &Context<'_>,
        give: impl FnOnce(&mut Self, Grant) -> T,
    ) -> Poll<Result<T, LockError>> {
        let begun = self.attempt.take().or_else(|| match &self.stage {
            Stage::New { options, .. } => {
                // As everything else tells of it.
                let key = self.manager.config().canonical(self.key.clone());
                Attempt::begin(key.as_ref().unwrap_or(&self.key), options.the_mode())
            }
            _ => None,
        });
        let Some(mut attempt) = begun else { return self.poll_plain(cx, give) };
        match attempt.within(|| self.poll_plain(cx, give)) {
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

    #[inline]
    fn poll_plain<T>(
        &mut self,
        cx: &Context<'_>,
        give: impl FnOnce(&mut Self, Grant) -> T,
    ) -> Poll<Result<T, LockError>> {
        let answer = match &mut self.stage {
            Stage::New { options, style, bad_key } => {
                let LockOptions { ttl, wait, rare } = std::mem::take(options);
                let (style, bad_key) = (*style, bad_key.take());
                // What owned anything was just taken out; looking for it again is a fair share of a free lock's cost.
                std::mem::forget(std::mem::replace(&mut self.stage, Stage::Answered));
                match self.settle(ttl, rare, bad_key) {
                    Ok((asked, delays)) => match self.shard().grant_if_free(&self.ask_of(&asked)) {
                        Ok(grant) => return Poll::Ready(Ok(give(self, grant))),
                        Err(locked) => self.enqueue(locked, asked, style, wait, delays, cx),
                    },
                    Err(why) => return Poll::Ready(Err(why)),
                }
            }
            Stage::Queued { .. } => self.look(cx),
            Stage::Sleeping { .. } => self.wake_up(cx),
            Stage::Answered => panic!("a request was polled after it was answered"),
        };
        match answer {
            Poll::Ready(Ok(grant)) => Poll::Ready(Ok(give(self, grant))),
            Poll::Ready(Err(why)) => Poll::Ready(Err(why)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The first poll: holds the request to the bounds and finds its place.
    #[inline]
    fn settle(
        &mut self,
        ttl: Option<Ttl>,
        rare: Option<Box<Rare>>,
        bad_key: Option<Box<LockError>>,
    ) -> Result<(Prepared, Option<Delays>), LockError> {
        if let Some(why) = bad_key {
            return Err(self.refused(rare.as_deref(), *why));
        }
        let config = self.manager.config();
        if let Err(why) = config.check(&self.key, ttl) {
            return Err(self.refused(rare.as_deref(), why));
        }
        if config.store.is_some() {
            match config.canonical(self.key.clone()) {
                Ok(key) => self.key = key,
                Err(why) => return Err(self.refused(rare.as_deref(), why)),
            }
        }
        (self.shard, self.hash) = self.manager.place(&self.key);
        let mut asked = Prepared {
            terms: Terms { ttl: ttl.unwrap_or(config.ttl), extra: None },
            token: Token::random(),
            origin: TokenOrigin::Minted,
        };
        let delays = match rare {
            Some(rare) => {
                let mode = rare.mode;
                let taken = asked.take_over(*rare, self.manager, ttl);
                taken.inspect_err(|why| self.manager.count_refused(&self.key, mode, why))?
            }
            None => None,
        };
        if current_owner::is_there() {
            asked.adopt(self.manager);
        }
        Ok((asked, delays))
    }

    /// Counts a request that does not come to its shard.
    #[cold]
    fn refused(&self, rare: Option<&Rare>, why: LockError) -> LockError {
        self.manager.count_refused(&self.key, rare.map_or(Mode::Exclusive, |rare| rare.mode), &why);
        why
    }

    /// The key was not free, and the shard is still locked.
    #[inline(never)]
    fn enqueue(
        &mut self,
        locked: Locked<'_>,
        asked: Prepared,
        style: Style,
        wait: Wait,
        delays: Option<Delays>,
        cx: &Context<'_>,
    ) -> Poll<Result<Grant, LockError>> {
        let verdict = match (style, delays) {
            (_, Some(delays)) => {
                drop(locked);
                let started = self.manager.now();
                let deadline = started.saturating_add(wait.within(Duration::MAX));
                let poller = Poller { delays, started, deadline, watch: None };
                return self.try_again(asked, Box::new(poller), cx);
            }
            (Style::Try, None) => {
                drop(locked);
                self.shard().acquire(&self.ask_of(&asked), WaitPolicy::Now, self.manager.now())
            }
            (Style::Wait, None) if asked.terms.owner().is_some() => {
                drop(locked);
                return self.queue_as_owner(asked, wait.within(self.manager.config().wait), cx);
            }
            (Style::Wait, None) => {
                let wait = wait.within(self.manager.config().wait);
                self.shard().queue(locked, &self.ask_of(&asked), wait, cx.waker())
            }
        };
        match verdict {
            AcquireOutcome::Granted(grant) => Poll::Ready(Ok(grant)),
            AcquireOutcome::Refused(why) => Poll::Ready(Err(why)),
            AcquireOutcome::Queued(id) => {
                self.stage = Stage::Queued { asked, id, watch: None, poller: None };
                // A request that does not wait has not yet said whom to wake when the store has answered.
                if style == Style::Try { self.look(cx) } else { Poll::Pending }
            }
        }
    }

    /// Queues under the eyes of the deadlock check.
    fn queue_as_owner(&mut self, asked: Prepared, wait: Duration, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        if let Some(grant) = self.shard().grant_now(&self.ask_of(&asked)) {
            return Poll::Ready(Ok(grant));
        }
        let Some(owned) = self.owned(&asked) else { unreachable!("only an owner's requests come here") };
        match self.manager.detector().queue(self.manager.shards(), &owned, wait, cx.waker()) {
            (AcquireOutcome::Granted(grant), _) => Poll::Ready(Ok(grant)),
            (AcquireOutcome::Refused(why), _) => Poll::Ready(Err(why)),
            (AcquireOutcome::Queued(id), watch) => {
                self.stage = Stage::Queued { asked, id, watch, poller: None };
                // It may have been refused already.
                self.look(cx)
            }
        }
    }

    /// The request as the deadlock check sees it, if it is an owner's.
    fn owned<'b>(&'b self, asked: &'b Prepared) -> Option<OwnedRequest<'b>> {
        Some(OwnedRequest { request: self.ask_of(asked), owner: asked.terms.owner()?, shard: self.shard })
    }

    fn forget(&self, watch: Option<WaitId>) {
        if let Some(watch) = watch {
            self.manager.detector().forget(watch);
        }
    }

    /// Where the request stands in its queue, if it waits in one.
    pub(super) fn place(&self) -> Option<WaitPlace> {
        let Stage::Queued { id, .. } = &self.stage else { return None };
        self.shard().position_of(*id).map(|QueuePosition { position, estimate }| WaitPlace { position, estimate })
    }

    /// A later poll of a request that queues.
    fn look(&mut self, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        let Stage::Queued { asked, id, watch, .. } = &self.stage else { unreachable!("only a queued request looks") };
        let answer = match self.shard().see_waiter(*id, asked.terms.ttl, self.grant_state(asked), cx.waker()) {
            WaiterPoll::Pending => return Poll::Pending,
            WaiterPoll::Granted(grant) => Ok(grant),
            WaiterPoll::Refused(why) => Err(why),
            WaiterPoll::Taken => self.shard().answer_taken(&self.ask_of(asked)),
        };
        self.forget(*watch);
        match std::mem::replace(&mut self.stage, Stage::Answered) {
            Stage::Queued { asked, poller: Some(poller), .. } if answer == Err(LockError::Held) => {
                self.pause(asked, poller, cx)
            }
            _ => Poll::Ready(answer),
        }
    }

    /// A later poll of a poller.
    fn wake_up(&mut self, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        if let Stage::Sleeping { timer, .. } = &self.stage {
            if self.shard().still_sleeps(*timer, cx.waker()) {
                return Poll::Pending;
            }
            self.shard().stop_sleep(*timer);
        }
        match std::mem::replace(&mut self.stage, Stage::Answered) {
            Stage::Sleeping { asked, poller, .. } => self.try_again(asked, poller, cx),
            _ => unreachable!("only a sleeping request wakes up"),
        }
    }

    /// One try of a poller, then sleep until the next, or give up.
    fn try_again(
        &mut self,
        asked: Prepared,
        poller: Box<Poller<'a>>,
        cx: &Context<'_>,
    ) -> Poll<Result<Grant, LockError>> {
        let shard = self.shard();
        let now = shard.now();
        let answer = match shard.acquire(&self.ask_of(&asked), WaitPolicy::Poll, now) {
            AcquireOutcome::Refused(LockError::Held) => return self.pause(asked, poller, cx),
            AcquireOutcome::Granted(grant) => Ok(grant),
            AcquireOutcome::Refused(why) => Err(why),
            AcquireOutcome::Queued(id) => {
                // The store is being asked, once.
                self.stage = Stage::Queued { asked, id, watch: None, poller: Some(poller) };
                return self.look(cx);
            }
        };
        Poll::Ready(answer)
    }

    /// Sleeps until the next try, or gives up.
    fn pause(
        &mut self,
        asked: Prepared,
        mut poller: Box<Poller<'a>>,
        cx: &Context<'_>,
    ) -> Poll<Result<Grant, LockError>> {
        let shard = self.shard();
        let can_sleep = if shard.is_forked() { Err(LockError::Forked) } else { Ok(()) };
        if let Err(why) = can_sleep.and_then(|()| self.watch_poller(&asked, &mut poller)) {
            shard.count_attempt(asked.terms.mode(), why.outcome(), |c| c.rejected += 1);
            if let LockError::Deadlock { cycle } = &why {
                shard.tell_deadlock(&self.key, self.hash, asked.terms.owner_label(), cycle);
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
                        self.stage = Stage::Sleeping { asked, poller, timer };
                        Poll::Pending
                    }
                    // Closed since the try: the next one says so.
                    None => self.try_again(asked, poller, cx),
                }
            }
            _ => {
                shard.count_attempt(asked.terms.mode(), AttemptOutcome::Timeout, |c| c.polls_exhausted += 1);
                Poll::Ready(Err(LockError::Timeout { waited: now.saturating_since(poller.started) }))
            }
        }
    }

    /// Has the deadlock check know of an owner that polls: a cycle is a cycle, however one waits in it.
    fn watch_poller(&self, asked: &Prepared, poller: &mut Poller<'a>) -> Result<(), LockError> {
        let Some(owned) = self.owned(asked) else { return Ok(()) };
        let detector = self.manager.detector();
        match &poller.watch {
            Some(watch) => detector.may_poll(watch.id)?,
            None => poller.watch = Some(Watch { detector, id: detector.poll(self.manager.shards(), &owned)? }),
        }
        Ok(())
    }

    pub(super) fn shard(&self) -> &'a Arc<Shard> {
        self.manager.shard_at(self.shard)
    }

    fn ask_of<'b>(&'b self, asked: &'b Prepared) -> AcquireRequest<'b> {
        let Prepared { terms, token, origin } = asked;
        AcquireRequest {
            key: &self.key,
            hash: self.hash,
            terms,
            token: *token,
            origin: *origin,
            grant_state: self.grant_state(asked),
        }
    }

    fn grant_state(&self, asked: &Prepared) -> GrantState {
        match self.kind {
            KeeperKind::Guard => GrantState::Guard(asked.origin),
            KeeperKind::Ticket => GrantState::Ticket,
        }
    }

    /// The key of an answered request, for its guard.
    pub(super) fn take_key(&mut self) -> Key {
        std::mem::replace(&mut self.key, Key::placeholder())
    }
}

impl Drop for AcquireFuture<'_> {
    #[inline]
    fn drop(&mut self) {
        match &self.stage {
            Stage::New { .. } | Stage::Answered => {}
            Stage::Queued { id, watch, .. } => {
                self.shard().cancel(*id);
                self.forget(*watch);
            }
            Stage::Sleeping { asked, timer, .. } => {
                let shard = self.shard();
                shard.stop_sleep(*timer);
                let mode = asked.terms.mode();
                shard.count_attempt(mode, AttemptOutcome::Cancelled, |c| c.cancelled_polls += 1);
            }
        }
    }
}
