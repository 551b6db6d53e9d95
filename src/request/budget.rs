//! A fair share of the thread: requests that are answered at once, one after the other, must not keep the other tasks
//! of a thread from running. That is what the cooperative budget of `tokio` is for.
//!
//! A lock costs much less than what that budget was made for, so only one poll in so many takes of it. Outside of
//! `tokio` there is no budget, and this is no more than a counter.

use std::cell::Cell;
use std::task::{Context, Poll, ready};

use tokio::task::coop;

/// Polls that take one unit of the budget, which has 128.
const POLLS_PER_UNIT: u32 = 32;

thread_local! {
    static POLLS: Cell<u32> = const { Cell::new(0) };
}

/// Ready unless the task has had its share; it is woken again then.
#[inline]
pub(super) fn poll_proceed(cx: &mut Context<'_>) -> Poll<()> {
    let polls = POLLS.get().wrapping_add(1);
    POLLS.set(polls);
    if polls.is_multiple_of(POLLS_PER_UNIT) { take_unit(cx) } else { Poll::Ready(()) }
}

#[cold]
fn take_unit(cx: &mut Context<'_>) -> Poll<()> {
    ready!(coop::poll_proceed(cx)).made_progress();
    Poll::Ready(())
}
