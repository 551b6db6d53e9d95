//! What a request asks for beyond its key.
//!
//! A value that makes no sense is remembered, and answered when the request is awaited: setters return no `Result`s.

use std::sync::Arc;
use std::time::Duration;

use crate::account::Account;
use crate::error::LockError;
use crate::key::{Token, Ttl};
use crate::retry::{Pace, RetryStrategy};
use crate::session::Session;
use crate::table::{Leaves, Mode, Reentry, Scope, check_owner};

/// What a request asks for beyond its key. Everything has a default, the manager's. Made once, it can be cloned for
/// many requests.
///
/// ```
/// use leasehold::LockOptions;
/// use std::time::Duration;
/// let options = LockOptions::new().ttl(Duration::from_secs(10)).owner("worker-7");
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct LockOptions {
    pub(super) ttl: TtlWord,
    pub(super) wait: WaitLimit,
    pub(super) mode: ModeWord,
    /// What most requests leave alone; one pointer keeps futures small.
    pub(super) rare: Option<Box<Rare>>,
}

/// A TTL or none, in one word: see [`Progress`](super::future::Progress).
#[derive(Clone, Copy, Default)]
pub(super) struct TtlWord(u64);

impl TtlWord {
    fn of(ttl: Ttl) -> Self {
        Self(ttl.as_word())
    }

    #[inline]
    pub(super) fn get(self) -> Option<Ttl> {
        Ttl::from_word(self.0)
    }
}

/// How long a request waits, in one word since every request carries it: nanoseconds and one. Nothing but 0 stands for
/// the manager's default; a wait of 0 is a wait.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WaitLimit(u64);

impl WaitLimit {
    const FOREVER: Self = Self(u64::MAX);

    /// 584 years are for ever.
    fn at_most(wait: Duration) -> Self {
        u64::try_from(wait.as_nanos()).map_or(Self::FOREVER, |nanos| Self(nanos.saturating_add(1)))
    }

    pub(super) fn within(self, default: Duration) -> Duration {
        match self {
            Self(0) => default,
            Self::FOREVER => Duration::MAX,
            Self(more) => Duration::from_nanos(more - 1),
        }
    }
}

/// How to hold the key, in one word.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ModeWord(u64);

impl ModeWord {
    pub(super) const EXCLUSIVE: Self = Self(0);
    pub(super) const SHARED: Self = Self(1);

    fn of(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::EXCLUSIVE,
            Mode::Shared => Self::SHARED,
            // Of a semaphore without permits there are none to be had, and the request says so.
            Mode::Permits { limit, permits } => Self(u64::from(limit.max(1)) << 32 | u64::from(permits)),
        }
    }

    pub(super) fn get(self) -> Mode {
        match self {
            Self::EXCLUSIVE => Mode::Exclusive,
            Self::SHARED => Mode::Shared,
            Self(both) => Mode::Permits { limit: (both >> 32) as u32, permits: both as u32 },
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Rare {
    /// Why there is no key; it comes before all other faults, and no options take its place.
    pub(super) bad_key: Option<LockError>,
    /// The first option that made no sense; the request answers with it.
    pub(super) fault: Option<LockError>,
    pub(super) owner: Option<Arc<str>>,
    pub(super) token: Option<Token>,
    pub(super) max_hold: Option<Duration>,
    pub(super) refresh_after: Option<f32>,
    pub(super) retry: Option<Arc<dyn Pace>>,
    pub(super) session: Option<Session>,
    pub(super) reentry: Reentry,
    pub(super) scope: Scope,
    pub(super) account: Option<Account>,
    pub(super) leaves: Leaves,
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
            Ok(ttl) => self.ttl = TtlWord::of(ttl),
            Err(fault) => self.fault(fault.into()),
        }
        self
    }

    /// The same in seconds, as configuration files and other languages give it.
    pub fn ttl_secs(mut self, secs: f64) -> Self {
        match Ttl::from_secs_f64(secs) {
            Ok(ttl) => self.ttl = TtlWord::of(ttl),
            Err(fault) => self.fault(fault.into()),
        }
        self
    }

    /// How long the request waits before it answers [`LockError::Timeout`]; the manager's default is 5 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = WaitLimit::at_most(wait);
        self
    }

    /// Waits without end.
    pub fn wait_forever(mut self) -> Self {
        self.wait = WaitLimit::FOREVER;
        self
    }

    /// Who asks, for people who look: up to 128 bytes without control characters. It proves nothing.
    pub fn owner(mut self, owner: impl AsRef<str>) -> Self {
        match check_owner(owner.as_ref()) {
            Ok(()) => self.rare().owner = Some(owner.as_ref().into()),
            Err(why) => self.fault(why),
        }
        self
    }

    /// Chooses the token, so that the same request can be made again after its answer was lost.
    ///
    /// Asked again with the same key, TTL and terms: a queued request shares the first one's place (and the end of its
    /// wait), a held lock is answered again with the same fencing token and deadline, an ended one is
    /// [`LockError::Lost`]. With other terms it is [`LockError::TokenReused`]. A lock that a live
    /// [`Lock`](crate::Lock) guards is answered again only as a [`Ticket`](crate::Ticket).
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

    /// Makes [`Held::refresh`](crate::Held::refresh) write only once this share of the TTL has passed since the last
    /// write: 0.5 for "more than half". Earlier calls check ownership and leave the deadline.
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
    /// When the pauses end, or the wait does if this request set one, it answers [`LockError::Timeout`]; with endless
    /// pauses and no wait of its own it polls for ever. A poller never passes a waiter, and may starve behind them.
    pub fn retry(mut self, strategy: impl RetryStrategy) -> Self {
        self.rare().retry = Some(Arc::new(strategy));
        self
    }

    /// Asks on behalf of a session: the lock lives as long as that does, and needs no TTL of its own.
    pub fn session(mut self, session: &Session) -> Self {
        self.rare().session = Some(session.clone());
        self
    }

    /// Grants a key again that the same session holds already (or, in the callback of a
    /// [`run`](crate::LockManager::run), that callback): see [`Session::reentrant`].
    pub fn reentrant(mut self) -> Self {
        self.rare().reentry = Reentry::Counted;
        self
    }

    /// Keeps the lock within this process, where the manager has a store: over one that keeps exclusive locks alone, shared
    /// locks and permits have no other way.
    /// It has nothing to do with a lock of the same key in the store. Without a store every lock is so.
    pub fn process_scope(mut self) -> Self {
        self.rare().scope = Scope::Process;
        self
    }

    /// Charges the lock, and the wait for it, to an account: beyond its bound the request answers
    /// [`LockError::LockQuota`].
    pub fn account(mut self, account: &Account) -> Self {
        self.rare().account = Some(account.clone());
        self
    }

    /// How to hold the key.
    #[inline]
    pub(super) fn set_mode(&mut self, mode: Mode) {
        if let Mode::Permits { limit, permits } = mode
            && !(1..=limit).contains(&permits)
        {
            self.invalid("permits", "it must be from 1 to the semaphore's limit");
        }
        self.mode = ModeWord::of(mode);
    }

    /// The lock's release may leave a value in the store.
    pub(super) fn leaving_value(mut self) -> Self {
        self.rare().leaves = Leaves::Value;
        self
    }

    pub(super) fn the_scope(&self) -> Scope {
        self.rare.as_ref().map_or(Scope::Everywhere, |rare| rare.scope)
    }

    pub(crate) fn the_mode(&self) -> Mode {
        self.mode.get()
    }

    pub(crate) fn the_wait(&self, default: Duration) -> Duration {
        self.wait.within(default)
    }

    pub(crate) fn has_token(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.token.is_some())
    }

    pub(crate) fn the_session(&self) -> Option<&Session> {
        self.rare.as_ref()?.session.as_ref()
    }

    /// These options in place of `before`; a session that was set before stays unless these name one, and a fault of the
    /// key stays.
    pub(crate) fn in_place_of(mut self, before: &Self) -> Self {
        if let Some(why) = before.bad_key() {
            self = self.without_key(why.clone());
        }
        match (before.the_session(), self.the_session()) {
            (Some(session), None) => self.session(session),
            _ => self,
        }
    }

    /// Of a request that has no key.
    pub(super) fn without_key(mut self, why: LockError) -> Self {
        self.rare().bad_key = Some(why);
        self
    }

    pub(super) fn bad_key(&self) -> Option<&LockError> {
        self.rare.as_ref()?.bad_key.as_ref()
    }

    /// What makes those who ask for a shared lock ask for the same one.
    pub(crate) fn sharing(&self) -> Result<(Option<Ttl>, Option<Duration>, Scope), LockError> {
        let Some(rare) = &self.rare else { return Ok((self.ttl.get(), None, Scope::Everywhere)) };
        rare.fault.clone().map_or(Ok((self.ttl.get(), rare.max_hold, rare.scope)), Err)
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

debug_of!(LockOptions, |it| ttl: it.ttl.get());
