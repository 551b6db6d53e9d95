//! Calls that wait for each other and go out together, to all nodes at once: [`Lane`].
//!
//! A server spends more on reading a command than on one more lock in it, and with N nodes all that is paid N times. So
//! a call that finds a few flights under way waits until one of them is decided, and goes out with whoever has waited
//! too. Alone, a call goes at once and meets none of this.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Inner;

/// So many flights are under way before calls begin to wait for each other.
const AHEAD: usize = 1;
/// So many locks at most go into one command: a server does nothing else meanwhile.
const MOST: usize = 64;
/// A flight that is not decided for so long holds nobody up any more: the nodes are far away, or do not answer.
pub(super) const HOLD: Duration = Duration::from_millis(5);

/// The calls of one kind.
pub(super) struct Lane<J>(Mutex<Queue<J>>);

struct Queue<J> {
    under_way: usize,
    waiting: VecDeque<J>,
}

impl<J> Default for Lane<J> {
    fn default() -> Self {
        Self(Mutex::new(Queue { under_way: 0, waiting: VecDeque::new() }))
    }
}

/// A kind of calls, and what to do with those that go out together.
pub(super) trait Job: Send + Sized + 'static {
    fn lane(inner: &Inner) -> &Lane<Self>;

    /// Sends them on their way. While the slot is kept, others may wait.
    fn flush(inner: &Arc<Inner>, jobs: Vec<Self>, slot: Slot<Self>);
}

/// Lets a call go, alone or later with others.
pub(super) fn join<J: Job>(inner: &Arc<Inner>, job: J) {
    {
        let mut queue = J::lane(inner).0.lock();
        if queue.under_way >= AHEAD {
            queue.waiting.push_back(job);
            return;
        }
        queue.under_way += 1;
    }
    J::flush(inner, vec![job], Slot { inner: Arc::clone(inner), lane: J::lane });
}

/// One of the flights for whose decision others wait.
pub(super) struct Slot<J: Job> {
    inner: Arc<Inner>,
    lane: fn(&Inner) -> &Lane<J>,
}

impl<J: Job> Drop for Slot<J> {
    fn drop(&mut self) {
        let jobs: Vec<J> = {
            let mut queue = (self.lane)(&self.inner).0.lock();
            let some = queue.waiting.len().min(MOST);
            if some == 0 {
                queue.under_way -= 1;
                return;
            }
            queue.waiting.drain(..some).collect()
        };
        J::flush(&self.inner, jobs, Slot { inner: Arc::clone(&self.inner), lane: self.lane });
    }
}
