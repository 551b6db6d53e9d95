//! The end of a shard: nothing is granted any more, those who wait are refused, and what is still held after the grace
//! ends. All of it in slices.

use std::task::Waker;

use super::{SLICE, Shard};

impl Shard {
    /// Grants nothing from now on.
    pub(crate) fn close(&self) {
        // What has run out is not waited for; and the actor comes by, to end what runs out meanwhile.
        self.sweep();
        self.with(|state, fx| {
            state.table.close();
            fx.due(self.clock.now());
        });
        self.give_up_idle_claims();
    }

    /// Refuses the waiters and pollers of a closed shard.
    pub(crate) fn reject_waiters(&self) {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = self.with(|state, fx| state.table.refuse_waiters(from, SLICE as u32, fx));
        }
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = self.with(|state, fx| state.timers.wake_some(from, SLICE as u32, fx));
        }
    }

    /// Whether nothing is held any more; if something is, `waker` is woken when nothing is.
    pub(crate) fn is_empty(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        if state.table.held() == 0 {
            return true;
        }
        if !state.when_empty.iter().any(|other| other.will_wake(waker)) {
            state.when_empty.push(waker.clone());
        }
        false
    }

    /// Ends the grants that are left; answers how many.
    pub(crate) fn end_grants(&self) -> usize {
        let before = self.state().table.held();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = self.with(|state, fx| state.table.end_grants(from, SLICE as u32, fx));
        }
        before
    }
}
