//! One request for a lock: what it asks for ([`LockOptions`]), who asks ([`LockRequest`]), and the future that brings
//! it about.
//!
//! The future queues when it is first polled, holds nothing of the caller's runtime, and can be dropped at any point
//! (T3): a queued request leaves the queue, a grant that it has not yet seen goes to the next waiter.
//!
//! | stage      | the request is                          | next                                    |
//! |------------|-----------------------------------------|-----------------------------------------|
//! | `New`      | not yet polled                          | any, or answered                        |
//! | `Queued`   | a seat in the key's queue               | answered                                |
//! | `Sleeping` | between two tries of a poller           | `Sleeping`, or answered                 |
//! | `Answered` | over                                    |                                         |

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::clock::Moment;
use crate::error::{KeyFault, LockError};
use crate::key::{Key, Token, Ttl};
use crate::lock::{Lock, Ticket};
use crate::manager::LockManager;
use crate::retry::{Delays, RetryStrategy};
use crate::shard::Shard;
use crate::table::{Ask, ExtraTerms, Grant, Keeper, Patience, Seen, Terms, TokenChoice, Verdict, WaiterId};

/// The longest name of an owner, in bytes.
pub(crate) const MAX_OWNER_BYTES: usize = 128;

/// What a request asks for beyond its key. Everything has a default, the manager's.
///
/// ```
/// use leasehold::LockOptions;
/// use std::time::Duration;
/// let options = LockOptions::new().ttl(Duration::from_secs(10)).owner("worker-7");
/// ```
#[derive(Default)]
#[must_use]
pub struct LockOptions {
    ttl: Option<Ttl>,
    wait: Wait,
    /// What most requests leave alone; one pointer keeps futures small.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Copy, Default)]
enum Wait {
    #[default]
    Default,
    AtMost(Duration),
    Forever,
}

impl Wait {
    fn within(self, default: Duration) -> Duration {
        match self {
            Self::Default => default,
            Self::AtMost(wait) => wait,
            Self::Forever => Duration::MAX,
        }
    }
}

#[derive(Default)]
struct Rare {
    /// The first option that made no sense; the request answers with it.
    fault: Option<LockError>,
    owner: Option<Arc<str>>,
    token: Option<Token>,
    max_hold: Option<Duration>,
    refresh_after: Option<f32>,
    delays: Option<Delays>,
}

impl LockOptions {
    /// All defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the lock lasts unless refreshed; the manager's default is 30 s.
    ///
    /// Out of bounds, the request answers [`LockError::InvalidTtl`].
    pub fn ttl(mut self, ttl: Duration) -> Self {
        match Ttl::new(ttl) {
            Ok(ttl) => self.ttl = Some(ttl),
            Err(fault) => self.fault(fault.into()),
        }
        self
    }

    /// The same in seconds, as configuration files and other languages give it.
    pub fn ttl_secs(mut self, secs: f64) -> Self {
        match Ttl::from_secs_f64(secs) {
            Ok(ttl) => self.ttl = Some(ttl),
            Err(fault) => self.fault(fault.into()),
        }
        self
    }

    /// How long the request waits before it answers [`LockError::Timeout`]; the manager's default is 5 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Wait::AtMost(wait);
        self
    }

    /// Waits without end.
    pub fn wait_forever(mut self) -> Self {
        self.wait = Wait::Forever;
        self
    }

    /// Who asks, for people who look: up to 128 bytes without control characters. It proves nothing.
    pub fn owner(mut self, owner: impl AsRef<str>) -> Self {
        match crate::key::check_key(owner.as_ref(), MAX_OWNER_BYTES) {
            Ok(()) => self.rare().owner = Some(owner.as_ref().into()),
            Err(KeyFault::Empty) => self.invalid("owner", "it is empty"),
            Err(KeyFault::TooLong { .. }) => self.invalid("owner", "it is longer than 128 bytes"),
            Err(_) => self.invalid("owner", "it has a control character"),
        }
        self
    }

    /// Chooses the token, so that the same request can be made again after its answer was lost.
    ///
    /// Asked again with the same key, TTL and terms: a queued request shares the first one's place (and the end of its
    /// wait), a held lock is answered again with the same fencing token and deadline, an ended one is
    /// [`LockError::Lost`]. With other terms it is [`LockError::TokenReused`]. A lock that a live [`Lock`] guards is
    /// answered again only as a [`Ticket`].
    pub fn token(mut self, token: impl Into<Token>) -> Self {
        self.rare().token = Some(token.into());
        self
    }

    /// Caps how long the lock may be held in all: no refresh moves the deadline further than this from the grant.
    pub fn max_hold(mut self, cap: Duration) -> Self {
        if cap < Ttl::MIN {
            self.invalid("max_hold", "it is shorter than a millisecond");
        } else {
            self.rare().max_hold = Some(cap);
        }
        self
    }

    /// Makes [`Held::refresh`](crate::Held::refresh) write only once this share of the TTL has passed since the last write: 0.5 for "more
    /// than half". Earlier calls check ownership and leave the deadline.
    pub fn refresh_after(mut self, share: f32) -> Self {
        if share.is_finite() && (0.0..1.0).contains(&share) {
            self.rare().refresh_after = Some(share);
        } else {
            self.invalid("refresh_after", "it must be at least 0 and below 1");
        }
        self
    }

    /// Polls instead of queueing: tries, and tries again after each pause of `strategy`.
    ///
    /// When the pauses end, or the wait does if one was set, the request answers [`LockError::Timeout`]. A poller
    /// never passes a waiter, and may starve behind them.
    pub fn retry(mut self, strategy: impl RetryStrategy) -> Self {
        match strategy.delays() {
            Ok(delays) => self.rare().delays = Some(delays),
            Err(why) => self.fault(why),
        }
        self
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn invalid(&mut self, option: &'static str, why: &'static str) {
        self.fault(LockError::InvalidOption { option, why });
    }

    fn fault(&mut self, why: LockError) {
        self.rare().fault.get_or_insert(why);
    }
}

impl fmt::Debug for LockOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockOptions").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// Whether a request waits at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// Now, or `Held`.
    Try,
    /// In the queue (or by polling), until the wait ends.
    Wait,
}

/// A request for one lock: set its terms, then `await` it.
///
/// It borrows the manager; clone the manager into a task that must be `'static`.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct LockRequest<'a> {
    manager: &'a LockManager,
    key: Key,
    /// Why there is no key; `key` is then a placeholder.
    bad_key: Option<Box<LockError>>,
    options: LockOptions,
    style: Style,
}

macro_rules! option_setters {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*);)*) => {$(
        $(#[$doc])*
        pub fn $name(mut self, $($arg: $type),*) -> Self {
            self.options = self.options.$name($($arg),*);
            self
        }
    )*};
}

impl<'a> LockRequest<'a> {
    #[inline]
    pub(crate) fn new<E: Into<LockError>>(manager: &'a LockManager, key: Result<Key, E>, style: Style) -> Self {
        let (key, bad_key) = match key {
            Ok(key) => (key, None),
            Err(why) => (Key::placeholder(), Some(Box::new(why.into()))),
        };
        Self { manager, key, bad_key, options: LockOptions::new(), style }
    }

    /// Takes all options at once, in place of those set so far.
    pub fn options(mut self, options: LockOptions) -> Self {
        self.options = options;
        self
    }

    option_setters! {
        /// How long the lock lasts unless refreshed. See [`LockOptions::ttl`].
        ttl(ttl: Duration);
        /// The same in seconds. See [`LockOptions::ttl_secs`].
        ttl_secs(secs: f64);
        /// How long to wait. See [`LockOptions::wait`].
        wait(wait: Duration);
        /// Waits without end.
        wait_forever();
        /// Who asks. See [`LockOptions::owner`].
        owner(owner: impl AsRef<str>);
        /// Chooses the token, to make a retry safe. See [`LockOptions::token`].
        token(token: impl Into<Token>);
        /// Caps the hold. See [`LockOptions::max_hold`].
        max_hold(cap: Duration);
        /// When a refresh writes. See [`LockOptions::refresh_after`].
        refresh_after(share: f32);
        /// Polls instead of queueing. See [`LockOptions::retry`].
        retry(strategy: impl RetryStrategy);
    }

    /// Asks for a [`Ticket`] instead of a guard: the lock is then released by its token or by time, by nothing else.
    pub fn ticket(self) -> TicketRequest<'a> {
        TicketRequest(self)
    }

    /// Answers at once, in any thread, with or without a runtime. A request that would have to wait for its lock
    /// answers [`LockError::Held`].
    ///
    /// # Errors
    /// As for awaiting the request.
    pub fn now(mut self) -> Result<Lock, LockError> {
        self.style = Style::Try;
        if let Some(rare) = self.options.rare.as_mut() {
            rare.delays = None;
        }
        match self.into_future().poll_now() {
            Poll::Ready(answer) => answer,
            Poll::Pending => Err(LockError::Held),
        }
    }

    /// Waits in the calling thread. Not for async code: it would hold up every task of that thread.
    ///
    /// # Errors
    /// As for awaiting the request.
    pub fn block(self) -> Result<Lock, LockError> {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut request = self.into_future();
        loop {
            match Pin::new(&mut request).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl<'a> IntoFuture for LockRequest<'a> {
    type Output = Result<Lock, LockError>;
    type IntoFuture = LockFuture<'a>;

    fn into_future(self) -> LockFuture<'a> {
        LockFuture(Acquiring::new(self, KeeperKind::Guard))
    }
}

/// A request whose answer is a [`Ticket`]; made by [`LockRequest::ticket`].
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct TicketRequest<'a>(LockRequest<'a>);

impl<'a> IntoFuture for TicketRequest<'a> {
    type Output = Result<Ticket, LockError>;
    type IntoFuture = TicketFuture<'a>;

    fn into_future(self) -> TicketFuture<'a> {
        TicketFuture(Acquiring::new(self.0, KeeperKind::Ticket))
    }
}

/// The future of a [`LockRequest`].
///
/// # Cancel safety
/// Dropping it leaves the queue; a lock that was already granted to it is released to the next waiter.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct LockFuture<'a>(Acquiring<'a>);

impl LockFuture<'_> {
    fn poll_now(mut self) -> Poll<Result<Lock, LockError>> {
        Pin::new(&mut self).poll(&mut Context::from_waker(Waker::noop()))
    }
}

impl Future for LockFuture<'_> {
    type Output = Result<Lock, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_as(cx, |asked, grant| Lock::new(Arc::clone(asked.shard()), asked.take_key(), grant))
    }
}

/// The future of a [`TicketRequest`].
///
/// # Cancel safety
/// As for [`LockFuture`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct TicketFuture<'a>(Acquiring<'a>);

impl Future for TicketFuture<'_> {
    type Output = Result<Ticket, LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_as(cx, |asked, grant| Ticket::new(asked.take_key(), grant.token, grant.fence))
    }
}

#[derive(Clone, Copy, Debug)]
enum KeeperKind {
    Guard,
    Ticket,
}

/// The request under way; what [`LockFuture`] and [`TicketFuture`] share.
///
/// It is moved and looked at on every acquisition, so what only some requests need comes last or is boxed.
struct Acquiring<'a> {
    manager: &'a LockManager,
    key: Key,
    kind: KeeperKind,
    /// Where the key belongs; set by the first poll.
    shard: u32,
    hash: u32,
    stage: Stage,
}

enum Stage {
    New { options: LockOptions, style: Style, bad_key: Option<Box<LockError>> },
    Queued { asked: Asked, id: WaiterId },
    Sleeping { asked: Asked, poller: Poller, timer: u32 },
    Answered,
}

/// What the request asks of the table, settled when it is first polled.
struct Asked {
    terms: Terms,
    token: Token,
    choice: TokenChoice,
}

/// A request that polls, and until when.
struct Poller {
    delays: Delays,
    started: Moment,
    deadline: Moment,
}

impl fmt::Debug for Acquiring<'_> {
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

impl<'a> Acquiring<'a> {
    #[inline]
    fn new(request: LockRequest<'a>, kind: KeeperKind) -> Self {
        let LockRequest { manager, key, bad_key, options, style } = request;
        Self { manager, key, kind, shard: 0, hash: 0, stage: Stage::New { options, style, bad_key } }
    }

    /// Polls; `give` makes a lock or a ticket of the grant. It is called where the grant is made, since everything
    /// that a free lock passes through on its way out costs as much as finding it.
    #[inline]
    fn poll_as<T>(&mut self, cx: &Context<'_>, give: impl FnOnce(&mut Self, Grant) -> T) -> Poll<Result<T, LockError>> {
        let answer = match &mut self.stage {
            Stage::New { options, style, bad_key } => {
                let LockOptions { ttl, wait, rare } = std::mem::take(options);
                let (style, bad_key) = (*style, bad_key.take());
                self.stage = Stage::Answered;
                match self.settle(ttl, rare, bad_key) {
                    Ok((asked, delays)) => match self.shard().grant_if_free(&self.ask_of(&asked)) {
                        Some(grant) => return Poll::Ready(Ok(give(self, grant))),
                        None => self.contend(asked, style, wait, delays, cx),
                    },
                    Err(why) => {
                        self.manager.count_invalid();
                        return Poll::Ready(Err(why));
                    }
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
    ) -> Result<(Asked, Option<Delays>), LockError> {
        if let Some(why) = bad_key {
            return Err(*why);
        }
        let config = self.manager.config();
        config.check(&self.key, ttl)?;
        (self.shard, self.hash) = self.manager.place(&self.key);
        let mut asked = Asked {
            terms: Terms { ttl: ttl.unwrap_or(config.ttl), extra: None },
            token: Token::random(),
            choice: TokenChoice::Minted,
        };
        let delays = match rare {
            Some(rare) => asked.take_over(*rare)?,
            None => None,
        };
        Ok((asked, delays))
    }

    /// The key was not free a moment ago.
    #[inline(never)]
    fn contend(
        &mut self,
        asked: Asked,
        style: Style,
        wait: Wait,
        delays: Option<Delays>,
        cx: &Context<'_>,
    ) -> Poll<Result<Grant, LockError>> {
        let verdict = match (style, delays) {
            (_, Some(delays)) => {
                let started = self.manager.now();
                let deadline = started.saturating_add(wait.within(Duration::MAX));
                return self.try_again(asked, Poller { delays, started, deadline }, cx);
            }
            (Style::Try, None) => self.shard().acquire(&self.ask_of(&asked), Patience::Now, self.manager.now()),
            (Style::Wait, None) => {
                let wait = wait.within(self.manager.config().wait);
                self.shard().queue(&self.ask_of(&asked), wait, cx.waker())
            }
        };
        match verdict {
            Verdict::Granted(grant) => Poll::Ready(Ok(grant)),
            Verdict::Refused(why) => Poll::Ready(Err(why)),
            Verdict::Queued(id) => {
                self.stage = Stage::Queued { asked, id };
                Poll::Pending
            }
        }
    }

    /// A later poll of a request that queues.
    fn look(&mut self, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        let Stage::Queued { asked, id } = &self.stage else { unreachable!("only a queued request looks") };
        let answer = match self.shard().see_waiter(*id, asked.terms.ttl, self.keeper(asked), cx.waker()) {
            Seen::Pending => return Poll::Pending,
            Seen::Granted(grant) => Ok(grant),
            Seen::Refused(why) => Err(why),
            Seen::Taken => self.shard().answer_taken(&self.ask_of(asked)),
        };
        self.stage = Stage::Answered;
        Poll::Ready(answer)
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
    fn try_again(&mut self, asked: Asked, mut poller: Poller, cx: &Context<'_>) -> Poll<Result<Grant, LockError>> {
        let shard = self.shard();
        let now = shard.now();
        match shard.acquire(&self.ask_of(&asked), Patience::Poll, now) {
            Verdict::Granted(grant) => return Poll::Ready(Ok(grant)),
            Verdict::Refused(LockError::Held) => {}
            Verdict::Refused(why) => return Poll::Ready(Err(why)),
            Verdict::Queued(_) => unreachable!("only a patient request queues"),
        }
        match poller.delays.next() {
            Some(delay) if now < poller.deadline => {
                // The last try comes at the end of the wait, not before it.
                let due = now.saturating_add(delay).min(poller.deadline);
                let timer = shard.sleep(due, cx.waker());
                self.stage = Stage::Sleeping { asked, poller, timer };
                Poll::Pending
            }
            _ => {
                shard.count(|c| {
                    c.attempts += 1;
                    c.polls_exhausted += 1;
                });
                Poll::Ready(Err(LockError::Timeout { waited: now.saturating_since(poller.started) }))
            }
        }
    }

    fn shard(&self) -> &'a Arc<Shard> {
        self.manager.shard_at(self.shard)
    }

    fn ask_of<'b>(&'b self, asked: &'b Asked) -> Ask<'b> {
        let Asked { terms, token, choice } = asked;
        Ask { key: &self.key, hash: self.hash, terms, token: *token, choice: *choice, keeper: self.keeper(asked) }
    }

    fn keeper(&self, asked: &Asked) -> Keeper {
        match self.kind {
            KeeperKind::Guard => Keeper::Guard(asked.choice),
            KeeperKind::Ticket => Keeper::Ticket,
        }
    }

    /// The key of an answered request, for its guard.
    fn take_key(&mut self) -> Key {
        std::mem::replace(&mut self.key, Key::placeholder())
    }
}

impl Asked {
    /// Takes over what most requests leave alone; answers how to poll, if it is to poll.
    fn take_over(&mut self, rare: Rare) -> Result<Option<Delays>, LockError> {
        let Rare { fault, owner, token, max_hold, refresh_after, delays } = rare;
        if let Some(why) = fault {
            return Err(why);
        }
        if let Some(token) = token {
            (self.token, self.choice) = (token, TokenChoice::ByClient);
        }
        if owner.is_some() || max_hold.is_some() || refresh_after.is_some() {
            self.terms.extra = Some(Arc::new(ExtraTerms { owner, max_hold, refresh_after }));
        }
        Ok(delays)
    }
}

impl Drop for Acquiring<'_> {
    fn drop(&mut self) {
        match &self.stage {
            Stage::New { .. } | Stage::Answered => {}
            Stage::Queued { id, .. } => self.shard().cancel(*id),
            Stage::Sleeping { timer, .. } => {
                let shard = self.shard();
                shard.stop_sleep(*timer);
                shard.count(|c| {
                    c.attempts += 1;
                    c.cancelled_polls += 1;
                });
            }
        }
    }
}
