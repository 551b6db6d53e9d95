//! How many of something there may be at once, and how many there are: [`Quota`].

use crate::sync::atomic::{AtomicU32, Ordering};

/// A bound, and how much of it is taken.
#[derive(Debug)]
pub(crate) struct Quota {
    taken: AtomicU32,
    max: AtomicU32,
}

impl Quota {
    pub(crate) fn of(max: u32) -> Self {
        Self { taken: AtomicU32::new(0), max: AtomicU32::new(max) }
    }

    /// Takes one, if the bound allows it; whether it did.
    pub(crate) fn take(&self) -> bool {
        let max = self.max();
        let more = |taken: u32| (taken < max).then(|| taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Whether one more could be taken now.
    pub(crate) fn has_room(&self) -> bool {
        self.taken() < self.max()
    }

    pub(crate) fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// The bound from now on. What is taken beyond it stays taken.
    pub(crate) fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }
}
