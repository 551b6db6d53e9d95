//! The heartbeats that a manager sends by itself: [`Session::auto_heartbeat`](super::Session::auto_heartbeat).

use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::Handle;
use crate::clock::Moment;
use crate::error::LockError;
use crate::shard::Shard;
use crate::sync::Mutex;

/// The automatic heartbeats of a session: a timer of one shard, whose waker sends a heartbeat and sets the next timer.
pub(super) struct AutoHeartbeat {
    session: Weak<Handle>,
    shard: Weak<Shard>,
    every: Duration,
    timer: Mutex<Timer>,
}

/// | state     | means                     | next                          |
/// |-----------|---------------------------|-------------------------------|
/// | `Unset`   | it is about to be set, or has just fired | `Set`, `Cancelled` |
/// | `Set`     | a sleeper of the shard    | `Unset` (fired), `Cancelled` |
/// | `Cancelled` | there are no more heartbeats |                               |
enum Timer {
    Unset,
    Set(u32),
    Cancelled,
}

impl AutoHeartbeat {
    pub(super) fn new(session: &Arc<Handle>, shard: &Arc<Shard>, every: Duration) -> Self {
        let (session, shard) = (Arc::downgrade(session), Arc::downgrade(shard));
        Self { session, shard, every, timer: Mutex::new(Timer::Unset) }
    }

    pub(super) fn arm(self: &Arc<Self>, now: Moment) -> Result<(), LockError> {
        let shard = self.shard.upgrade().ok_or(LockError::ShuttingDown)?;
        // Locked for as long as the timer has no name: it may go off at once, in another thread.
        let mut timer = self.timer.lock();
        if matches!(*timer, Timer::Cancelled) {
            return Ok(());
        }
        let set = shard.sleep(now.saturating_add(self.every), &Waker::from(Arc::clone(self)));
        *timer = Timer::Set(set.ok_or(LockError::ShuttingDown)?);
        Ok(())
    }

    /// Ends the heartbeats, and their timer.
    pub(super) fn cancel(&self) {
        let timer = std::mem::replace(&mut *self.timer.lock(), Timer::Cancelled);
        self.stop(timer);
    }

    fn stop(&self, timer: Timer) {
        if let (Timer::Set(timer), Some(shard)) = (timer, self.shard.upgrade()) {
            shard.stop_sleep(timer);
        }
    }
}

impl Wake for AutoHeartbeat {
    /// Runs in the actor's thread, after the shard's mutex is dropped.
    fn wake(self: Arc<Self>) {
        let mut timer = self.timer.lock();
        if matches!(*timer, Timer::Cancelled) {
            return;
        }
        let fired = std::mem::replace(&mut *timer, Timer::Unset);
        drop(timer);
        self.stop(fired);
        let Some(session) = self.session.upgrade() else { return };
        let is_current = session.heartbeats.lock().as_ref().is_some_and(|current| Arc::ptr_eq(current, &self));
        let now = session.manager.now();
        if is_current && session.parts.owner.heartbeat(session.parts.ttl, now).is_ok() {
            // A shutdown leaves the session to its deadline.
            let _ = self.arm(now);
        }
    }
}
