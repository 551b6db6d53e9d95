//! Wakes that are given together: [`together`].
//!
//! A thread that is woken for one answer is often done with it before the next one is there, sleeps again, and has to be
//! woken again: two system calls for each answer. Who has many answers at hand wakes all who wait for them at the end.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

thread_local! {
    /// Whether this thread keeps its wakes for later.
    static IS_KEEPING: Cell<bool> = const { Cell::new(false) };
    static KEPT: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
}

/// Wakes now, or at the end of what this thread does [`together`].
pub(crate) fn wake(waker: Waker) {
    if IS_KEEPING.get() {
        KEPT.with_borrow_mut(|kept| kept.push(waker));
    } else {
        waker.wake();
    }
}

/// The same for code that must go on if the waker panics.
pub(crate) fn wake_safely(waker: Waker) {
    let _ = catch_unwind(AssertUnwindSafe(|| wake(waker)));
}

/// Does `work`, and then gives the wakes of it.
pub(crate) fn together(work: impl FnOnce()) {
    struct Keeping;
    impl Drop for Keeping {
        fn drop(&mut self) {
            IS_KEEPING.set(false);
            for waker in KEPT.take() {
                // One that panics keeps no other from being woken.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
        }
    }
    IS_KEEPING.set(true);
    let _keeping = Keeping;
    work();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            assert!(self.0.fetch_add(1, Ordering::SeqCst) != 1, "the second wake panics");
        }
    }

    #[test]
    fn what_is_woken_together_is_woken_at_the_end_whatever_panics() {
        let count = Arc::new(Count::default());
        let wake_one = || wake(Waker::from(Arc::clone(&count)));
        together(|| {
            (0..3).for_each(|_| wake_one());
            assert_eq!(count.0.load(Ordering::SeqCst), 0);
        });
        assert_eq!(count.0.load(Ordering::SeqCst), 3);
        wake_one();
        assert_eq!(count.0.load(Ordering::SeqCst), 4);
    }
}
