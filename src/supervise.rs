//! Tasks of ours that must not end unseen: [`supervise`], [`guarded`], [`hook`].
//!
//! A panic in a task ends that task and nothing else: whoever depends on it waits for ever, and nobody is told. What is
//! called from our tasks may panic although we do not: a host's hook, its log, its metrics recorder.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;

use crate::backoff::Backoff;

/// Between a panic and the new beginning, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));

/// Runs what lasts as long as its owner: one that panics begins anew after a pause.
pub(crate) async fn supervise<F: Future<Output = ()>>(task: &'static str, mut begin: impl FnMut() -> F) {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    loop {
        let begun = std::time::Instant::now();
        if AssertUnwindSafe(async { begin().await }).catch_unwind().await.is_ok() {
            return;
        }
        hook(|| log_panic(task));
        if begun.elapsed() > PAUSE.1 {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Runs what is done once. A panic is told, and ends nothing else.
pub(crate) async fn guarded(task: &'static str, work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        hook(|| log_panic(task));
    }
}

/// A task of ours has panicked, and goes on.
fn log_panic(task: &'static str) {
    #[cfg(feature = "tracing")]
    tracing::error!(target: "leasehold", task, "a task has panicked; it goes on");
    #[cfg(not(feature = "tracing"))]
    let _ = task;
}

/// Calls what is not ours. Its panic stays its own.
pub(crate) fn hook(call: impl FnOnce()) {
    // The panic has been reported by the process's panic hook.
    let _ = catch_unwind(AssertUnwindSafe(call));
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_begins_anew_until_it_ends_by_itself() {
        let begun = Cell::new(0);
        supervise("a test", || async {
            begun.set(begun.get() + 1);
            assert!(begun.get() > 3, "it panics");
        })
        .await;
        assert_eq!(begun.get(), 4);
    }

    #[tokio::test]
    async fn what_is_done_once_is_not_begun_anew_and_hooks_panic_alone() {
        guarded("a test", async { panic!("it panics") }).await;
        hook(|| panic!("it panics"));
    }
}
