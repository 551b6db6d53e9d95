//! The request to have a shared key alone: [`Upgrade`], made by [`Lock::upgrade`], and the future that brings it about.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Lock;
use crate::error::LockError;
use crate::shard::upgrade::{UpgradeStart, Upgrading};

/// A request to make a share the only hold of its key: set how long it waits, then `await` it.
#[derive(Debug)]
#[must_use = "a request does nothing until it is awaited"]
pub struct Upgrade<'a> {
    lock: &'a mut Lock,
    wait: Option<Duration>,
}

impl<'a> Upgrade<'a> {
    pub(super) fn new(lock: &'a mut Lock) -> Self {
        Self { lock, wait: None }
    }

    /// How long to wait for the other shares to end; by default as long as requests of the manager do (5 s).
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Waits without end: until the other shares have ended, or this one has.
    pub fn wait_forever(self) -> Self {
        self.wait(Duration::MAX)
    }

    /// Answers at once, in any thread: the key is this lock's alone now, or the answer is [`LockError::Held`] and the
    /// lock is the share that it was.
    ///
    /// # Errors
    /// As for awaiting the request, but [`LockError::Held`] in place of `Timeout` and `Deadlock`.
    pub fn now(self) -> Result<(), LockError> {
        let lock = &mut self.lock.held;
        lock.grant.proof = lock.shard.upgrade_now(&lock.grant)?;
        Ok(())
    }
}

impl<'a> IntoFuture for Upgrade<'a> {
    type Output = Result<(), LockError>;
    type IntoFuture = UpgradeFuture<'a>;

    fn into_future(self) -> UpgradeFuture<'a> {
        UpgradeFuture { lock: self.lock, stage: Stage::New { wait: self.wait } }
    }
}

/// The future of an [`Upgrade`].
///
/// # Cancel safety
/// Dropping it before it has answered leaves the share as it was, and lets those in who were kept out by it.
#[must_use = "futures do nothing unless polled"]
pub struct UpgradeFuture<'a> {
    lock: &'a mut Lock,
    stage: Stage,
}

enum Stage {
    New { wait: Option<Duration> },
    Waits(Upgrading),
    Answered,
}

impl UpgradeFuture<'_> {
    /// Gives up what the wait has taken.
    fn end_wait(&mut self) {
        if let Stage::Waits(waiting) = std::mem::replace(&mut self.stage, Stage::Answered) {
            let held = &self.lock.held;
            held.shard.end_upgrade(&held.grant, &waiting);
        }
    }
}

impl Future for UpgradeFuture<'_> {
    type Output = Result<(), LockError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let held = &mut this.lock.held;
        if let Stage::New { wait } = this.stage {
            this.stage = Stage::Answered;
            match held.shard.start_upgrade(&held.key, &held.grant, wait, cx.waker())? {
                UpgradeStart::Waits(waiting) => this.stage = Stage::Waits(waiting),
                UpgradeStart::Alone(fence) => {
                    held.grant.proof = fence;
                    return Poll::Ready(Ok(()));
                }
            }
        }
        let Stage::Waits(waiting) = &mut this.stage else { panic!("an upgrade was polled after it was answered") };
        let Poll::Ready(answer) = held.shard.poll_upgrade(&held.grant, waiting, cx) else { return Poll::Pending };
        let answer = answer.map(|fence| held.grant.proof = fence);
        this.end_wait();
        Poll::Ready(answer)
    }
}

impl Drop for UpgradeFuture<'_> {
    fn drop(&mut self) {
        self.end_wait();
    }
}

debug_of!(UpgradeFuture [] ['_], |it| lock: it.lock);
