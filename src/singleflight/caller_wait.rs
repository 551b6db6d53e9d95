//! One caller's own wait for what it shares with others, on the clock of its key's shard.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Moment;
use crate::error::LockError;
use crate::shard::Shard;

/// How long one caller waits, counted from its first poll.
pub(super) struct Patience<'a> {
    shard: &'a Shard,
    asked: Moment,
    wait: Duration,
    alarm: Option<Alarm<'a>>,
}

impl<'a> Patience<'a> {
    /// Begins to wait; [`Duration::MAX`] waits without end.
    pub(super) fn begin(shard: &'a Shard, wait: Duration) -> Self {
        Self { shard, asked: shard.now(), wait, alarm: None }
    }

    /// What is left of the wait.
    pub(super) fn left(&self) -> Duration {
        self.wait.saturating_sub(self.waited())
    }

    fn waited(&self) -> Duration {
        self.shard.now().saturating_since(self.asked)
    }

    /// Answers when the wait is over: with `Timeout`, or `ShuttingDown` in a closed shard. Wakes the task for both.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<LockError> {
        if self.alarm.as_ref().is_some_and(|alarm| alarm.is_set(cx.waker())) {
            return Poll::Pending;
        }
        let waited = self.waited();
        if waited >= self.wait {
            return Poll::Ready(LockError::Timeout { waited });
        }
        self.alarm = Alarm::set(self.shard, self.asked.saturating_add(self.wait), cx.waker());
        if self.alarm.is_some() { Poll::Pending } else { Poll::Ready(LockError::ShuttingDown) }
    }
}

/// A sleep on the shard's clock; given up when dropped.
struct Alarm<'a> {
    shard: &'a Shard,
    timer: u32,
}

impl<'a> Alarm<'a> {
    /// `None` in a closed shard.
    fn set(shard: &'a Shard, due: Moment, waker: &Waker) -> Option<Self> {
        shard.sleep(due, waker).map(|timer| Self { shard, timer })
    }

    fn is_set(&self, waker: &Waker) -> bool {
        self.shard.still_sleeps(self.timer, waker)
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.shard.stop_sleep(self.timer);
    }
}
