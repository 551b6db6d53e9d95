//! Is this still the process that built the manager? A fork has the table, but not the thread that ends waits in it.
//!
//! Whoever is about to wait has this asked. The answer costs a system call, so that it is asked at most once a
//! millisecond of the shard's time: a wait that a fork begins in the very millisecond in which its parent was about to
//! wait too may not be refused.

use super::{Shard, State};
use crate::clock::Moment;
use crate::error::LockError;
use crate::table::{AcquireOutcome, Mode};

const ASKED_EVERY_NANOS: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Origin {
    process: u32,
    /// When this was last found to be the process.
    asked: Moment,
}

impl Origin {
    pub(super) fn new() -> Self {
        Self { process: std::process::id(), asked: Moment::ZERO }
    }

    /// Whether this is a fork of the process that built the manager.
    fn is_elsewhere(&mut self, now: Moment) -> bool {
        if now.nanos_since(self.asked) < ASKED_EVERY_NANOS {
            return false;
        }
        self.asked = now;
        let elsewhere = std::process::id() != self.process;
        if elsewhere {
            // It is asked again at once.
            self.asked = Moment::ZERO;
        }
        elsewhere
    }
}

impl State {
    /// Refuses a request that would wait in a fork; nothing of it has been counted yet.
    #[inline]
    pub(super) fn refuse_fork(&mut self, mode: Mode, now: Moment) -> Result<(), AcquireOutcome> {
        if self.is_forked(now) { Err(self.refused(mode)) } else { Ok(()) }
    }

    pub(super) fn is_forked(&mut self, now: Moment) -> bool {
        self.origin.is_elsewhere(now)
    }

    #[cold]
    fn refused(&mut self, mode: Mode) -> AcquireOutcome {
        let counters = self.table.counters_mut();
        counters.attempts += 1;
        counters.rejected += 1;
        self.table.tally_mut().attempt(mode, LockError::Forked.outcome());
        AcquireOutcome::Refused(LockError::Forked)
    }
}

impl Shard {
    /// Whether this is a fork of the process that built the manager: nobody ends a sleep there.
    pub(crate) fn is_forked(&self) -> bool {
        let now = self.clock.now();
        self.state().is_forked(now)
    }
}
