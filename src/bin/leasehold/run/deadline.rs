//! A thread that ends the command before the deadline of its lock, whatever becomes of the rest of the program.
//!
//! The watch does so as a rule, and a little earlier. It cannot while it hangs in the system or has panicked.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leasehold::{Clock, Moment};

/// How long the thread sleeps at most: a timer does not see that the machine slept.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Ends the command at the deadline, unless it is dropped before.
pub(super) struct LastResort(Arc<Shared>);

struct Shared {
    state: Mutex<LastResortState>,
    changed: Condvar,
}

enum LastResortState {
    /// The command is ended when the time to this deadline is down to the margin.
    Armed { deadline: Moment },
    /// The deadline came; the command was ended.
    Struck,
    /// The command has ended, or somebody else sees to that.
    Off,
}

impl LastResort {
    /// Calls `strike` once, in a thread of its own, `margin` before `deadline`. A machine that has no thread to give
    /// leaves that to the watch.
    pub(super) fn arm(deadline: Moment, margin: Duration, strike: impl FnOnce() + Send + 'static) -> Self {
        let shared =
            Arc::new(Shared { state: Mutex::new(LastResortState::Armed { deadline }), changed: Condvar::new() });
        let waits = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("deadline".to_owned());
        let _ = thread.spawn(move || waits.wait(margin, strike));
        Self(shared)
    }

    /// The lock lasts until then.
    pub(super) fn put_off(&self, until: Moment) {
        if let LastResortState::Armed { deadline } = &mut *self.0.lock() {
            *deadline = until;
        }
    }

    /// Whether the deadline came.
    pub(super) fn has_struck(&self) -> bool {
        matches!(*self.0.lock(), LastResortState::Struck)
    }
}

impl Drop for LastResort {
    /// Not after a panic: then nobody else watches over the command.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let mut state = self.0.lock();
        if let LastResortState::Armed { .. } = *state {
            *state = LastResortState::Off;
        }
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, LastResortState> {
        // Nothing can be half done in it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, margin: Duration, strike: impl FnOnce()) {
        let clock = Clock::system();
        let mut state = self.lock();
        while let LastResortState::Armed { deadline } = *state {
            let left = deadline.saturating_since(clock.now()).saturating_sub(margin);
            if left.is_zero() {
                *state = LastResortState::Struck;
                drop(state);
                return strike();
            }
            let slept = self.changed.wait_timeout(state, left.min(LONGEST_SLEEP));
            state = slept.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_strikes_at_the_deadline_although_nobody_else_does_anything() {
        let (struck, heard) = channel();
        let soon = Clock::system().now().saturating_add(Duration::from_millis(30));
        let last_resort = LastResort::arm(soon, Duration::from_millis(10), move || struck.send(()).unwrap());
        heard.recv_timeout(LONG).unwrap();
        assert!(last_resort.has_struck());
    }

    #[test]
    fn a_deadline_that_was_put_off_or_a_command_that_has_ended_is_left_alone() {
        let (struck, heard) = channel();
        let other = struck.clone();
        let now = Clock::system().now();
        let soon = now.saturating_add(Duration::from_millis(200));
        let moved = LastResort::arm(soon, Duration::ZERO, move || struck.send(()).unwrap());
        moved.put_off(now.saturating_add(LONG));
        drop(LastResort::arm(soon, Duration::ZERO, move || other.send(()).unwrap()));
        assert!(heard.recv_timeout(Duration::from_millis(400)).is_err());
        assert!(!moved.has_struck());
    }
}
