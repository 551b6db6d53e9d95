//! The answer of a call to the store to who waits for it: [`answer`]. A channel for one value, whose wake is given with
//! those of other answers ([`wakes`]).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::wakes;

/// Who gives an answer, and who waits for it.
pub(crate) fn answer<T>() -> (Answer<T>, Answered<T>) {
    let state = Arc::new(Mutex::new(State::Open(None)));
    (Answer(Arc::clone(&state)), Answered(state))
}

enum State<T> {
    /// Nothing was said yet. Who waits.
    Open(Option<Waker>),
    Given(T),
    /// Dropped, or taken.
    Gone,
}

/// Dropped without an answer, it ends the wait.
#[must_use]
pub(crate) struct Answer<T>(Arc<Mutex<State<T>>>);

/// Waits for an answer; `None` if it can never come. Cancel safe.
pub(crate) struct Answered<T>(Arc<Mutex<State<T>>>);

impl<T> Answer<T> {
    pub(crate) fn give(self, value: T) {
        self.end(State::Given(value));
    }

    /// Ends the wait, unless it has ended.
    fn end(&self, next: State<T>) {
        let mut state = self.0.lock();
        let State::Open(waiting) = &mut *state else { return };
        let waiting = waiting.take();
        *state = next;
        drop(state);
        if let Some(waker) = waiting {
            wakes::wake(waker);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.end(State::Gone);
    }
}

impl<T> Future for Answered<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        match &mut *state {
            State::Open(waker) => {
                let before = waker.replace(cx.waker().clone());
                drop(state);
                drop(before);
                Poll::Pending
            }
            State::Given(_) | State::Gone => match std::mem::replace(&mut *state, State::Gone) {
                State::Given(value) => Poll::Ready(Some(value)),
                _ => Poll::Ready(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_received_once_and_one_that_never_comes_ends_the_wait() {
        let (sender, mut answered) = answer();
        assert_eq!((&mut answered).now_or_never(), None);
        let waiting = tokio::spawn(answered);
        tokio::task::yield_now().await;
        sender.give(7);
        assert_eq!(waiting.await.unwrap(), Some(7));
        let (sender, answered) = answer::<u32>();
        let waiting = tokio::spawn(answered);
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(waiting.await.unwrap(), None);
    }
}
