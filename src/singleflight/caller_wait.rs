//! One caller's own wait for what it shares with others, on the clock of its key's shard.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Moment;
use crate::error::LockError;
use crate::shard::Shard;

/// How long one caller waits, counted from its first poll.
pub(super) struct CallerWait<'a> {
    shard: &'a Shard,
    since: Moment,
    wait: Duration,
    timer: Option<Timer<'a>>,
}

impl<'a> CallerWait<'a> {
    /// Begins to wait; [`Duration::MAX`] waits without end. A long wait is dated by the coarse clock, and made longer by what
    /// that may lag (C2).
    pub(super) fn begin(shard: &'a Shard, wait: Duration) -> Self {
        match shard.begin_of_wait(wait) {
            Some((since, wait)) => Self { shard, since, wait, timer: None },
            None => Self::begin_exactly(shard, wait),
        }
    }

    /// The same for one who is asked when it began.
    pub(super) fn begin_exactly(shard: &'a Shard, wait: Duration) -> Self {
        Self { shard, since: shard.now(), wait, timer: None }
    }

    /// The shard of the key.
    pub(super) const fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// When it began; where that is not asked for exactly, up to a tick of the coarse clock before.
    pub(super) const fn since(&self) -> Moment {
        self.since
    }

    /// What is left of the wait.
    pub(super) fn left(&self) -> Duration {
        self.wait.saturating_sub(self.waited())
    }

    fn waited(&self) -> Duration {
        self.shard.now().saturating_since(self.since)
    }

    /// Answers when the wait is over: with `Timeout`, or `ShuttingDown` in a closed shard. Wakes the task for both.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<LockError> {
        if self.timer.as_ref().is_some_and(|timer| timer.is_set(cx.waker())) {
            return Poll::Pending;
        }
        let waited = self.waited();
        if waited >= self.wait {
            return Poll::Ready(LockError::Timeout { waited });
        }
        self.timer = Timer::set(self.shard, self.since.saturating_add(self.wait), cx.waker());
        if self.timer.is_some() { Poll::Pending } else { Poll::Ready(LockError::ShuttingDown) }
    }
}

/// A sleep on the shard's clock; it ends when this is dropped.
struct Timer<'a> {
    shard: &'a Shard,
    id: u32,
}

impl<'a> Timer<'a> {
    /// `None` in a closed shard.
    fn set(shard: &'a Shard, due: Moment, waker: &Waker) -> Option<Self> {
        shard.sleep(due, waker).map(|id| Self { shard, id })
    }

    fn is_set(&self, waker: &Waker) -> bool {
        self.shard.still_sleeps(self.id, waker)
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.shard.stop_sleep(self.id);
    }
}
