//! The highest fence that this process has seen, by slot: [`Highest`].
//!
//! A fence is above the one that Redis has stored, and above all that this process has seen, so that it rises even
//! across a server that has forgotten (R12). Counted by slot, a fence from a server whose clock was once set far ahead
//! lifts no others than those of its neighbours.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::keys::{KeyNames, SLOTS};

/// One number for each slot of a Cluster; the slots are the same where there is none.
#[derive(Default)]
pub(super) struct Highest(OnceLock<Box<[AtomicU64]>>);

impl Highest {
    fn slot(&self, names: &KeyNames) -> &AtomicU64 {
        let all = self.0.get_or_init(|| (0..SLOTS).map(|_| AtomicU64::new(0)).collect());
        &all[usize::from(names.slot())]
    }

    /// The highest fence seen in the lock's slot, or 0.
    pub(super) fn of(&self, names: &KeyNames) -> u64 {
        self.slot(names).load(Ordering::Relaxed)
    }

    pub(super) fn saw(&self, names: &KeyNames, fence: u64) {
        self.slot(names).fetch_max(fence, Ordering::Relaxed);
    }
}
