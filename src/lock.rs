//! What a grant looks like to its holder: [`Lock`], a guard that releases when dropped; [`Held`], a view of it that
//! may be passed around; and [`Ticket`], the same grant as a value to write down.
//!
//! All of them ask the table: they cache nothing of the lock but its names, so a lock that was lost is lost at once to
//! all of them.

mod ticket;
mod upgrade;

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::clock::Moment;
use crate::error::{LockError, Loss};
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::shard::Shard;
use crate::shard::loss::LossSignal;
use crate::store::ValueToLeave;
use crate::table::{self, AutoRefreshId, AutoRefreshStart, End, Grant, GrantState, Mode, Release};
use crate::telemetry::trace::Hold;
pub use ticket::Ticket;
pub use upgrade::{Upgrade, UpgradeFuture};

/// A held lock. Dropping it releases it, in every build, without blocking. Over a store the release is sent by the
/// manager's thread: see [`LockManager`](crate::LockManager) for a process that ends at once.
///
/// The lock is exclusive until its local deadline, as long as clocks run at a bounded rate; after that the
/// [fencing token](Held::fencing_token) lets the resource refuse a stale holder. No lock service can promise more.
///
/// What can be asked of a lock, and how it is refreshed, is on [`Held`], to which it dereferences.
#[must_use = "a lock is released as soon as its guard is dropped"]
pub struct Lock {
    held: Held,
    hold: Hold,
}

impl Lock {
    /// `kept`: the token, if that is not the table's to tell.
    pub(crate) fn new(shard: Arc<Shard>, key: Key, grant: Grant, kept: Option<Token>) -> Self {
        Self { held: Held { shard, key, grant, kept: kept.map(Box::new) }, hold: Hold::NONE }
    }

    /// Its span begins.
    pub(crate) fn trace(&mut self, mode: Mode) {
        self.hold = Hold::begin(&self.held.key, mode, self.held.grant.proof);
    }

    /// The same where nobody will ask how the lock has ended, or that is remembered already.
    pub(crate) fn view(&self) -> Held {
        let Held { shard, key, grant, kept } = &self.held;
        Held { shard: Arc::clone(shard), key: key.clone(), grant: *grant, kept: kept.clone() }
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.hold
    }

    fn ended(&mut self, found: Release) -> Release {
        self.hold.end(match found {
            Release::Released => "released",
            Release::AlreadyGone => "already_gone",
            Release::Unknown => "unknown",
        });
        found
    }

    /// A view of the lock for code that may use it but not end it. It outlives the guard.
    #[must_use]
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Releases the lock and says whether it was still held. Dropping the guard does the same, silently.
    ///
    /// Over a store that is the store's answer, which takes up to its operation timeout; without one it is
    /// [`Release::Unknown`].
    ///
    /// # Cancel safety
    /// Dropped at any point, the lock is released.
    pub async fn unlock(self) -> Release {
        self.unlock_leaving(None).await
    }

    async fn unlock_leaving(mut self, value: Option<ValueToLeave>) -> Release {
        let grant = self.held.grant.take();
        let found = self.held.shard.release_anywhere(&grant, End::Released, value).await;
        self.ended(found)
    }

    /// The same from synchronous code. It waits for nothing: over a store, `Released` says only that the lock was held
    /// as far as this process knew.
    pub fn unlock_now(mut self) -> Release {
        let grant = self.held.grant.take();
        let found = self.shard.release(&grant, End::Released);
        self.ended(found)
    }

    /// Releases at once where this process knows all there is to know; else the store is asked by the first poll.
    /// `value`: what the release leaves there.
    pub(crate) fn start_unlock(self, value: Option<ValueToLeave>) -> Unlocking {
        if self.held.shard.has_store() {
            Unlocking::Asking(self.unlock_leaving(value).boxed())
        } else {
            Unlocking::Done(self.unlock_now())
        }
    }

    /// Makes an exclusive lock a share: those who wait for a share get theirs, in their order, in other processes too. The
    /// grant stays what it is, with its token, fencing token and deadline. A share is left as it is.
    ///
    /// # Errors
    /// [`LockError::Lost`] if the lock has ended, [`LockError::WrongMode`] for permits, and over a store that keeps
    /// exclusive locks alone. [`LockError::StoreUnavailable`] if the store has not answered within its operation timeout:
    /// the lock is held as before, but others may share it there already. Ask again.
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll. Over a store that begins it, and it is carried out also when the future
    /// is dropped.
    pub async fn downgrade(&self) -> Result<(), LockError> {
        self.shard.downgrade_anywhere(&self.grant).await
    }

    /// Makes a share the only hold of its key, without letting go of it in between: at once if it is that already, else
    /// once the other shares have ended. It comes before all who queue, and nobody new is let in meanwhile. An exclusive
    /// lock is left as it is.
    ///
    /// The lock keeps its token and deadline, and gets a new [fencing token](Held::fencing_token), above those of all
    /// shares that there were beside it: the resource can tell what is written now from what was written under them.
    /// Views that were made before show the old one. [`downgrade`](Lock::downgrade) makes a share of it again.
    ///
    /// Refresh the lock while it waits, or have it refreshed: a share that ends meanwhile is lost. Where a session holds
    /// one share by several guards, all of them are upgraded.
    ///
    /// ```
    /// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let locks = leasehold::LockManager::builder().build()?;
    /// let mut lock = locks.read("config").await?;
    /// lock.upgrade().await?; // nobody reads any more, and nobody has written since
    /// assert!(locks.try_read("config").await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Awaiting the request answers [`Timeout`](LockError::Timeout) if the others do not end within the wait, and
    /// [`Deadlock`](LockError::Deadlock) at once if another share of the key waits for the same: one of the two must let
    /// go. The lock is the share that it was then; so it is after [`ShuttingDown`](LockError::ShuttingDown), and after
    /// [`QueueFull`](LockError::QueueFull), for more than 16 requests of one grant.
    /// [`Lost`](LockError::Lost) if it has ended, [`WrongMode`](LockError::WrongMode) for permits and for what a store
    /// keeps.
    ///
    /// # Cancel safety
    /// See [`UpgradeFuture`].
    pub fn upgrade(&mut self) -> Upgrade<'_> {
        Upgrade::new(self)
    }

    /// Turns the guard into a [`Ticket`]: the lock stays held until it is released by its token, or by time.
    ///
    /// Automatic refreshing stops: nobody would be there to notice that the work has died.
    #[must_use = "the ticket is the only way to the lock before its deadline"]
    pub fn detach(mut self) -> Ticket {
        let token = self.token();
        let grant = self.held.grant.take();
        self.shard.stop_auto_refresh(&grant);
        self.shard.set_keeper(&grant, GrantState::Ticket);
        self.hold.end("detached");
        Ticket::from_parts(self.key.clone(), token, grant.proof)
    }
}

/// A release under way.
pub(crate) enum Unlocking {
    Done(Release),
    Asking(BoxFuture<'static, Release>),
}

impl Deref for Lock {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.held.grant.is_taken() {
            // That it had ended already is no matter here: `unlock` answers that.
            let found = self.held.shard.release(&self.held.grant, End::Dropped);
            self.ended(found);
        }
    }
}

debug_of!(Lock, |it| held: it.held);

/// A view of a held lock: it can be asked, watched and refreshed, but not released. It outlives the lock.
///
/// `clone` on a [`Lock`] makes a view too, as [`Lock::held`] does: a guard cannot be cloned.
pub struct Held {
    shard: Arc<Shard>,
    key: Key,
    grant: Grant,
    /// The token, where a client chose it or a store was given it.
    kept: Option<Box<Token>>,
}

impl Clone for Held {
    fn clone(&self) -> Self {
        // Somebody else than the guard may ask now how the grant ended, so that is to be remembered.
        self.shard.remember_end(&self.grant);
        let (key, kept) = (self.key.clone(), self.kept.clone());
        Self { shard: Arc::clone(&self.shard), key, grant: self.grant, kept }
    }
}

impl Held {
    /// The key it locks.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The proof of holding. Give it only to those who may release the lock.
    ///
    /// In memory mode it is made the first time that it is asked for, unless the request chose one, and is the same from
    /// then on.
    #[must_use]
    pub fn token(&self) -> Token {
        self.kept.as_deref().copied().unwrap_or_else(|| self.shard.tell_token(&self.grant))
    }

    /// The number for the protected resource to compare: higher than that of every earlier grant of this key (T4).
    ///
    /// Also across restarts, as long as each shard grants fewer than 10^6 locks a second on average and the wall clock
    /// is not set back over a restart: fences start from its microseconds.
    ///
    /// `None` only where a store cannot promise one; in memory mode it is always there.
    #[must_use]
    pub fn fencing_token(&self) -> Option<FencingToken> {
        self.grant.proof
    }

    /// Whether only this process knows of the lock, because the store did not answer when it was granted
    /// ([`FailMode::Local`](crate::FailMode::Local)). It stops being so when the lock has won its key in the store.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.shard.is_degraded(&self.grant)
    }

    /// When the lock ends unless refreshed, on the manager's clock; `None` if it has ended.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.shard.held_until(&self.grant)
    }

    /// The time until the deadline; zero if the lock has ended.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline().map_or(Duration::ZERO, |deadline| deadline.saturating_since(self.shard.now()))
    }

    /// Whether the lock is still held, by the exact clock.
    ///
    /// It may end right after the answer; what must not happen under a lost lock is for the fencing token to prevent.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.deadline().is_some()
    }

    /// The same as a `Result`, for `?`.
    ///
    /// # Errors
    /// [`LockError::Lost`] with the reason.
    pub fn ensure_held(&self) -> Result<(), LockError> {
        self.shard.check(&self.grant).map(drop)
    }

    /// Waits until the lock has ended. `Some` says how it was lost; `None`: it was unlocked or dropped.
    ///
    /// The future owns what it needs, fires once however late it is asked for, and may be asked for many times. How a
    /// lock ended is remembered for the last 1,024 ends of its shard; a view that asks later still gets
    /// [`Loss::Unknown`].
    ///
    /// # Cancel safety
    /// Dropping it loses nothing; a new one answers the same.
    pub fn lost(&self) -> impl Future<Output = Option<Loss>> + Send + use<> {
        self.shard.lost_signal(&self.grant).wait()
    }

    /// Whether the request had to wait for others, where the store gave the lock.
    pub(crate) fn was_behind(&self) -> bool {
        self.shard.was_behind(&self.grant)
    }

    pub(crate) fn lost_signal(&self) -> Arc<LossSignal> {
        self.shard.lost_signal(&self.grant)
    }

    /// Waits until an operator asks for the lock with [notice](crate::ForceRelease::notice), and answers when it will
    /// be taken. `None`: it has ended without notice.
    ///
    /// # Cancel safety
    /// As for [`Held::lost`].
    pub fn revocation_notice(&self) -> impl Future<Output = Option<Moment>> + Send + use<> {
        self.shard.notice_signal(&self.grant).wait_for_notice()
    }

    /// Waits until the lock is about to run out because the store does not answer its automatic refreshes, and answers
    /// its deadline: the moment to stop the work, or to bring it to a safe end. `None`: it has ended.
    ///
    /// The warning comes when a third of the TTL is left, or, where a refresh begins later than that, half of what was
    /// left then. It is over when a refresh is answered, and may come again. Refreshes by hand answer their caller, and
    /// give no warning; without a store there is none.
    ///
    /// # Cancel safety
    /// As for [`Held::lost`].
    pub fn at_risk(&self) -> impl Future<Output = Option<Moment>> + Send + use<> {
        self.shard.lost_signal(&self.grant).wait_for_risk()
    }

    /// Whether it is so now: see [`Held::at_risk`].
    #[must_use]
    pub fn is_at_risk(&self) -> bool {
        self.is_held() && self.shard.lost_signal(&self.grant).risk().is_some()
    }

    /// Moves the deadline to now plus the lock's TTL: never back, never past its `max_hold`, never to life again (T6).
    ///
    /// For a lock of a [session](crate::Session) it is a heartbeat of the session: all of its locks are refreshed.
    ///
    /// With [`refresh_after`](crate::LockOptions::refresh_after), a call before that share of the TTL has passed
    /// checks that the lock is held and leaves the deadline.
    ///
    /// # Errors
    /// [`LockError::Lost`] if the lock has ended.
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll; dropped before, it has not begun.
    pub async fn refresh(&self) -> Result<Refreshed, LockError> {
        let done = self.shard.refresh_anywhere(&self.grant, table::RefreshRequest::IfDue).await?;
        Ok(Refreshed::new(done, self.shard.now()))
    }

    /// Moves the deadline to now plus `ttl`, if that is later (T6).
    ///
    /// # Errors
    /// [`LockError::Lost`] if the lock has ended, [`LockError::InvalidTtl`].
    ///
    /// # Cancel safety
    /// As for [`Held::refresh`].
    pub async fn refresh_for(&self, ttl: Duration) -> Result<Refreshed, LockError> {
        let ttl = Ttl::new(ttl)?;
        self.shard.bounds().check(ttl)?;
        let done = self.shard.refresh_anywhere(&self.grant, table::RefreshRequest::To(ttl)).await?;
        Ok(Refreshed::new(done, self.shard.now()))
    }

    /// Has the manager refresh the lock every `every`, until it is unlocked, dropped, lost or capped by
    /// [`max_hold`](Held::max_hold). A forgotten guard (`std::mem::forget`) is refreshed for ever: cap it.
    ///
    /// A refresh that comes later than `timeout` after it was due (a stalled process) counts as late in
    /// [`Stats`](crate::Stats) and is done all the same while the lock is held. Calling again replaces the order.
    ///
    /// # Errors
    /// [`LockError::InvalidOption`] if either is below a millisecond, or if together they reach the time that the lock
    /// has left; [`LockError::Lost`] if it has ended.
    pub fn auto_refresh(&self, every: Duration, timeout: Duration) -> Result<AutoRefresh, LockError> {
        let invalid = |why| Err(LockError::InvalidOption { option: "auto_refresh", why });
        if every < Ttl::MIN || timeout < Ttl::MIN {
            return invalid("the interval and the timeout must be at least a millisecond");
        }
        self.ensure_held()?;
        if every.saturating_add(timeout) >= self.remaining() {
            return invalid("interval and timeout together must be shorter than what is left of the lock");
        }
        let signal = self.shard.lost_signal(&self.grant);
        let order = self.shard.auto_refresh(&self.grant, every, timeout)?;
        Ok(AutoRefresh { shard: Arc::clone(&self.shard), grant: self.grant, order, signal })
    }

    /// Has the manager refresh the lock every third of its TTL, unless it does so already.
    pub(crate) fn keep_refreshed(&self) -> Result<AutoRefreshStart, LockError> {
        self.shard.keep_refreshed(&self.grant)
    }

    /// Takes back a standing order to refresh.
    pub(crate) fn stop_order(&self, order: AutoRefreshId) {
        self.shard.stop_order(&self.grant, order);
    }

    /// Caps how long the lock may be held in all, counted from its grant. The deadline that it has already stands.
    ///
    /// # Errors
    /// [`LockError::Lost`] if it has ended, [`LockError::InvalidOption`] for less than a millisecond.
    pub fn max_hold(&self, cap: Duration) -> Result<(), LockError> {
        if cap < Ttl::MIN {
            return Err(LockError::InvalidOption { option: "max_hold", why: "it is shorter than a millisecond" });
        }
        self.shard.cap_hold(&self.grant, cap)
    }
}

debug_of!(Held, |it| key: it.key, fencing_token: it.grant.proof, held: it.is_held());

/// What a refresh did. Either way the lock was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshed {
    /// Whether the deadline was written.
    pub outcome: RefreshOutcome,
    /// The deadline that holds now, on the manager's clock.
    pub deadline: Moment,
    /// The time until then.
    pub remaining: Duration,
    /// How often this grant has been refreshed, by hand or automatically.
    pub count: u32,
}

/// Whether a refresh wrote anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// It counted from now. The deadline moved, unless it was already as late as it may be.
    Extended,
    /// Less than the share of `refresh_after` had passed; nothing was written.
    NotDue,
}

impl Refreshed {
    pub(crate) fn new(done: table::Refreshed, now: Moment) -> Self {
        Self {
            outcome: if done.written { RefreshOutcome::Extended } else { RefreshOutcome::NotDue },
            deadline: done.deadline,
            remaining: done.deadline.saturating_since(now),
            count: done.count,
        }
    }
}

/// A lock's standing order to be refreshed. Dropping this leaves the order in force.
pub struct AutoRefresh {
    shard: Arc<Shard>,
    grant: Grant,
    order: AutoRefreshId,
    signal: Arc<LossSignal>,
}

impl AutoRefresh {
    /// Waits until refreshing has failed for good, and says why: the lock is lost. `None`: it was unlocked or dropped.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing; a new one answers the same.
    pub fn failed(&self) -> impl Future<Output = Option<LockError>> + Send + use<> {
        let signal = Arc::clone(&self.signal);
        async move { signal.wait().await.map(LockError::Lost) }
    }

    /// Stops this order, if no later one has replaced it. The lock stays held until its deadline; the one of a
    /// [`run`](crate::LockManager::run) is refreshed as if there had been no order.
    pub fn stop(self) {
        self.shard.stop_order(&self.grant, self.order);
    }
}

debug_of!(AutoRefresh);
