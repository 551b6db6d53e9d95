//! Counts how often work under the mutex goes on to one more holder or waiter: tests hold it to a bound.

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[inline(always)]
pub(crate) fn count() {
    #[cfg(test)]
    TAKEN.set(TAKEN.get() + 1);
}

/// How many steps this takes in this thread.
#[cfg(test)]
pub(crate) fn of(work: impl FnOnce()) -> u64 {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}
