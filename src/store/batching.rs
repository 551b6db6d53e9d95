//! Calls that go out together: [`Batcher`], one for each kind of call, and [`BatchSender`], which sends them.
//!
//! A server spends more on reading a command than on one more lock in it. So a call that finds as many commands in
//! flight as the limit allows waits until one of them ends, and goes out with all calls that have waited by then, as
//! one command. A call that finds fewer goes out at once, with those that come until its command is written.
//!
//! | state of the batcher | what holds |
//! |---|---|
//! | fewer than `in_flight` commands | no call waits: each call got a [`Slot`] of its own |
//! | `in_flight` commands | calls wait; the slot that ends next takes up to `batch` of them along |

use std::collections::VecDeque;

use parking_lot::Mutex;

/// How many commands and calls go out at a time.
#[derive(Clone, Copy)]
pub(super) struct BatchLimits {
    /// Commands in flight before calls begin to wait.
    pub(super) in_flight: usize,
    /// Calls in one command, at most: a server does nothing else while it runs.
    pub(super) batch: usize,
}

/// The calls of one kind that wait, and how many commands of the kind are in flight.
pub(super) struct Batcher<C> {
    limits: BatchLimits,
    queue: Mutex<Queue<C>>,
}

struct Queue<C> {
    /// The slots that exist. Below the limit `waiting` is empty: else its calls would wait for a slot that never ends.
    in_flight: usize,
    /// Sorted by number.
    waiting: VecDeque<(u64, C)>,
    next_number: u64,
}

/// Sends the calls of one batcher. A clone sends those of the same batcher.
pub(super) trait BatchSender: Clone {
    /// One call, with what it needs to receive its answer.
    type Call;

    fn batcher(&self) -> &Batcher<Self::Call>;

    /// Sends these calls as one command, without blocking. Other calls may wait until the slot is dropped.
    fn send(slot: Slot<Self>, calls: Vec<Self::Call>);
}

/// The right to have one command in flight. When it is dropped, the calls that wait go out in the same slot.
pub(super) struct Slot<S: BatchSender>(S);

impl<C> Batcher<C> {
    pub(super) fn new(limits: BatchLimits) -> Self {
        let queue = Queue { in_flight: 0, waiting: VecDeque::new(), next_number: 0 };
        Self { limits, queue: Mutex::new(queue) }
    }

    /// Takes a call that waits out of the queue. Does nothing if it has gone out.
    pub(super) fn cancel(&self, number: u64) {
        let mut queue = self.queue.lock();
        if let Ok(at) = queue.waiting.binary_search_by_key(&number, |(number, _)| *number) {
            queue.waiting.remove(at);
        }
    }

    /// Lets a call wait under the number. The calls are to go out at once if fewer commands are in flight than may be.
    fn enqueue(&self, call: C) -> (u64, Option<Vec<C>>) {
        let mut queue = self.queue.lock();
        let number = queue.next_number;
        queue.next_number += 1;
        queue.waiting.push_back((number, call));
        let begins = queue.in_flight < self.limits.in_flight;
        queue.in_flight += usize::from(begins);
        (number, begins.then(|| queue.next(self.limits.batch)))
    }

    fn try_begin(&self) -> bool {
        let mut queue = self.queue.lock();
        let begins = queue.in_flight == 0;
        queue.in_flight += usize::from(begins);
        begins
    }

    /// Adds the calls that have come since to those that are about to go out.
    fn fill(&self, calls: &mut Vec<C>) {
        let more = self.limits.batch.saturating_sub(calls.len());
        let mut queue = self.queue.lock();
        let some = queue.waiting.len().min(more);
        calls.extend(queue.waiting.drain(..some).map(|(_, call)| call));
    }

    /// A command has ended: the calls that go out in its slot, unless the slot is not needed any more.
    fn end(&self) -> Option<Vec<C>> {
        let mut queue = self.queue.lock();
        if queue.waiting.is_empty() {
            queue.in_flight -= 1;
            return None;
        }
        Some(queue.next(self.limits.batch))
    }
}

impl<C> Queue<C> {
    fn next(&mut self, most: usize) -> Vec<C> {
        let some = self.waiting.len().min(most);
        self.waiting.drain(..some).map(|(_, call)| call).collect()
    }
}

impl<S: BatchSender> Slot<S> {
    /// A slot for a call that goes out by itself, if no command is in flight; else the sender again.
    pub(super) fn try_begin(sender: S) -> Result<Self, S> {
        if sender.batcher().try_begin() { Ok(Self(sender)) } else { Err(sender) }
    }

    /// Adds the calls that have come since to those that are about to go out.
    pub(super) fn fill(&self, calls: &mut Vec<S::Call>) {
        self.0.batcher().fill(calls);
    }

    /// Keeps the slot until `work` is done.
    pub(super) async fn during<T>(self, work: impl Future<Output = T>) -> T {
        let answer = work.await;
        drop(self);
        answer
    }

    pub(super) fn sender(&self) -> &S {
        &self.0
    }
}

impl<S: BatchSender> Drop for Slot<S> {
    fn drop(&mut self) {
        if let Some(calls) = self.0.batcher().end() {
            S::send(Self(self.0.clone()), calls);
        }
    }
}

/// Sends a call, at once or later with others. Answers the number by which it can be cancelled.
pub(super) fn submit<S: BatchSender>(sender: &S, call: S::Call) -> u64 {
    let (number, calls) = sender.batcher().enqueue(call);
    if let Some(calls) = calls {
        S::send(Slot(sender.clone()), calls);
    }
    number
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Keeps what was sent, with the slots.
    #[derive(Clone)]
    struct Kept(Arc<State>);

    struct State {
        batcher: Batcher<u32>,
        sent: Mutex<Vec<(Vec<u32>, Slot<Kept>)>>,
    }

    impl BatchSender for Kept {
        type Call = u32;

        fn batcher(&self) -> &Batcher<u32> {
            &self.0.batcher
        }

        fn send(slot: Slot<Self>, calls: Vec<u32>) {
            let state = Arc::clone(&slot.sender().0);
            state.sent.lock().push((calls, slot));
        }
    }

    impl Kept {
        fn new() -> Self {
            let limits = BatchLimits { in_flight: 2, batch: 3 };
            Self(Arc::new(State { batcher: Batcher::new(limits), sent: Mutex::default() }))
        }

        /// Ends the command that was sent first, and says which calls were in it.
        fn end_first(&self) -> Vec<u32> {
            let (calls, slot) = self.0.sent.lock().remove(0);
            drop(slot);
            calls
        }
    }

    #[test]
    fn calls_above_the_limit_wait_and_go_out_together_in_the_slot_that_ends() {
        let sender = Kept::new();
        let numbers: Vec<u64> = (0..7).map(|call| submit(&sender, call)).collect();
        assert!(Slot::try_begin(sender.clone()).is_err(), "both slots are in use");
        sender.batcher().cancel(numbers[3]);
        sender.batcher().cancel(numbers[0]);
        let ended: Vec<Vec<u32>> = (0..4).map(|_| sender.end_first()).collect();
        assert_eq!(ended, [vec![0], vec![1], vec![2, 4, 5], vec![6]]);
        assert!(sender.0.sent.lock().is_empty());
        let slots = [(); 3].map(|()| Slot::try_begin(sender.clone()).is_ok());
        assert_eq!(slots, [true; 3], "each ended before the next began");
    }
}
