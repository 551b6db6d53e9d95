//! From a share to the key alone: [`Upgrading`], the wait for the others to let go.
//!
//! The table knows who waits, and wakes it; the end of the wait, and the end of the manager, are this room's. An owner's
//! wait stands in the register of the deadlock check meanwhile, which is reached through [`Host`]: a shard does not know
//! what it is a part of.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::Shard;
use crate::clock::Moment;
use crate::error::{LockError, WaitEdge};
use crate::key::{FencingToken, Key};
use crate::table::{Blocker, Effects, Grant, Owner, OwnerSet, Slice, UpgradeOutcome, UpgradeSeat};

/// A wait without end looks at the shard at least this often.
const LONGEST_NAP: Duration = Duration::from_secs(3_600);

/// What a shard asks of the manager that it is a part of.
pub(crate) trait Host: Send + Sync {
    /// Looks again for deadlocks through owners that were granted something while they wait.
    fn recheck(&self, owners: Vec<Arc<Owner>>);

    /// How long requests wait that do not say.
    fn default_wait(&self) -> Duration;

    /// Has an owner's upgrade of a grant begin under the register of the deadlock check; one that waits is in it for as
    /// long as what is answered is kept.
    fn upgrade(
        &self,
        key: &Key,
        grant: &Grant,
        owner: &Arc<Owner>,
        waker: &Waker,
    ) -> (UpgradeOutcome, Option<Box<dyn WaitOfOwner>>);
}

/// An owner's wait, in the register for as long as this is kept.
pub(crate) trait WaitOfOwner: Send + Sync {
    /// # Errors
    /// `Deadlock` if it was chosen to break a cycle.
    fn check(&self) -> Result<(), LockError>;
}

/// A request to upgrade that waits.
pub(crate) struct Upgrading {
    seat: UpgradeSeat,
    wait: Option<Box<dyn WaitOfOwner>>,
    started: Moment,
    deadline: Moment,
    timer: Option<u32>,
}

/// How a request to upgrade begins, if it is not refused.
pub(crate) enum UpgradeStart {
    /// The key is its holder's alone, under this fence.
    Alone(Option<FencingToken>),
    Waits(Upgrading),
}

impl Shard {
    /// Upgrades a grant at once, or has it wait. `wait`: at most so long.
    pub(crate) fn start_upgrade(
        &self,
        key: &Key,
        grant: &Grant,
        wait: Option<Duration>,
        waker: &Waker,
    ) -> Result<UpgradeStart, LockError> {
        let (outcome, registered) = match (self.owner_of(grant), self.host.get()) {
            (Some(owner), Some(host)) => host.upgrade(key, grant, &owner, waker),
            _ => {
                let mut fx = Effects::new();
                let outcome = self.upgrade(grant, Some(waker), &mut fx);
                self.run_effects(fx);
                (outcome, None)
            }
        };
        match outcome {
            UpgradeOutcome::Alone(fence) => Ok(UpgradeStart::Alone(fence)),
            UpgradeOutcome::Refused(why) => Err(why),
            UpgradeOutcome::CalledOff => unreachable!("what has just begun is called off by its register alone"),
            UpgradeOutcome::Waits(seat) => {
                let started = self.now();
                let wait = wait.or_else(|| self.host.get().map(|host| host.default_wait())).unwrap_or(Duration::ZERO);
                let deadline = started.saturating_add(wait);
                Ok(UpgradeStart::Waits(Upgrading { seat, wait: registered, started, deadline, timer: None }))
            }
        }
    }

    /// Upgrades a grant if no other share is held; else the answer is `Held`.
    pub(crate) fn upgrade_now(&self, grant: &Grant) -> Result<Option<FencingToken>, LockError> {
        let mut fx = Effects::new();
        let outcome = self.upgrade(grant, None, &mut fx);
        self.run_effects(fx);
        match outcome {
            UpgradeOutcome::Alone(fence) => Ok(fence),
            UpgradeOutcome::Refused(why) => Err(why),
            UpgradeOutcome::Waits(_) | UpgradeOutcome::CalledOff => unreachable!("nobody waits without a waker"),
        }
    }

    /// Upgrades a grant, or has it wait. Its effects are the caller's to run.
    pub(crate) fn upgrade(&self, grant: &Grant, waker: Option<&Waker>, fx: &mut Effects) -> UpgradeOutcome {
        let now = self.clock.now();
        while self.with_effects(fx, |state, fx| state.table.expire_beside(grant, now, fx)) == Slice::More {}
        self.with_effects(fx, |state, fx| state.table.upgrade(grant, waker, now, fx))
    }

    /// A further poll of a request that waits.
    pub(crate) fn poll_upgrade(
        &self,
        grant: &Grant,
        waiting: &mut Upgrading,
        cx: &Context<'_>,
    ) -> Poll<Result<Option<FencingToken>, LockError>> {
        let now = self.clock.now();
        match self.with(|state, fx| state.table.poll_upgrade(grant, waiting.seat, cx.waker(), now, fx)) {
            UpgradeOutcome::Alone(fence) => Poll::Ready(Ok(fence)),
            UpgradeOutcome::Refused(why) => Poll::Ready(Err(why)),
            UpgradeOutcome::CalledOff => {
                let why = waiting.wait.as_ref().map_or(Ok(()), |wait| wait.check()).err();
                Poll::Ready(Err(why.unwrap_or(LockError::Held)))
            }
            UpgradeOutcome::Waits(_) if waiting.deadline <= now => {
                Poll::Ready(Err(LockError::Timeout { waited: now.saturating_since(waiting.started) }))
            }
            UpgradeOutcome::Waits(_) => self.nap(waiting, now, cx.waker()),
        }
    }

    /// Has the request looked at when its wait ends, or its manager.
    fn nap<T>(&self, waiting: &mut Upgrading, now: Moment, waker: &Waker) -> Poll<Result<T, LockError>> {
        if let Some(timer) = waiting.timer {
            if self.still_sleeps(timer, waker) {
                return Poll::Pending;
            }
            self.stop_sleep(timer);
            waiting.timer = None;
        }
        if self.is_forked() {
            return Poll::Ready(Err(LockError::Forked));
        }
        waiting.timer = self.sleep(waiting.deadline.min(now.saturating_add(LONGEST_NAP)), waker);
        if waiting.timer.is_some() { Poll::Pending } else { Poll::Ready(Err(LockError::ShuttingDown)) }
    }

    /// Ends a wait, whatever has become of it: a share that is not upgraded yet stays as it is.
    pub(crate) fn end_upgrade(&self, grant: &Grant, waiting: &Upgrading) {
        let now = self.clock.now();
        self.with(|state, fx| state.table.cancel_upgrade(grant, waiting.seat, now, fx));
        if let Some(timer) = waiting.timer {
            self.stop_sleep(timer);
        }
    }

    fn owner_of(&self, grant: &Grant) -> Option<Arc<Owner>> {
        self.state().table.owner_of(grant)
    }

    /// What keeps a grant that is to be upgraded from its key; `None` if it does not wait for that any more.
    pub(crate) fn blocker_of_upgrade(&self, wait: (&Grant, UpgradeSeat), blocked: &OwnerSet) -> Option<Blocker> {
        let now = self.clock.now();
        self.state().table.blocker_of_upgrade(wait, blocked, now)
    }

    /// Ends a wait to break a deadlock. Its effects are the caller's to run.
    pub(crate) fn call_off_upgrade(&self, wait: (&Grant, UpgradeSeat), cycle: &Arc<[WaitEdge]>, fx: &mut Effects) {
        let now = self.clock.now();
        self.with_effects(fx, |state, fx| state.table.call_off_upgrade(wait, cycle, now, fx));
    }
}
