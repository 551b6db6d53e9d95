//! All shards of a namespace, read and added up.

use crate::error::AttemptOutcome;
use crate::shard::Shard;
use crate::table::{Buckets, Counters, ModeLabel, OUTCOMES};
use std::sync::Arc;

/// What was counted so far, and what is so now.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) counters: Counters,
    pub(super) outcomes: [[u64; OUTCOMES]; 3],
    pub(super) holds: Buckets<18>,
    pub(super) waits: [Buckets<20>; OUTCOMES],
    pub(super) held: [u64; 3],
    pub(super) waiting: [u64; 3],
    pub(super) entries: [u64; 3],
    pub(super) claims: u64,
    pub(super) claim_handoffs: u64,
    pub(super) claims_revoked: u64,
    pub(super) claims_reused: u64,
    pub(super) claims_wanted: u64,
    pub(super) claims_idle: u64,
    pub(super) deadlocks: u64,
    pub(super) deepest: u32,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            counters: Counters::default(),
            outcomes: [[0; OUTCOMES]; 3],
            holds: Buckets::EMPTY,
            waits: [Buckets::EMPTY; OUTCOMES],
            held: [0; 3],
            waiting: [0; 3],
            entries: [0; 3],
            claims: 0,
            claim_handoffs: 0,
            claims_revoked: 0,
            claims_reused: 0,
            claims_wanted: 0,
            claims_idle: 0,
            deadlocks: 0,
            deepest: 0,
        }
    }
}

impl Totals {
    pub(super) fn of(shards: &[Arc<Shard>]) -> Self {
        let mut totals = Self::default();
        for shard in shards {
            // What is over but not yet noticed is not held (T1).
            shard.sweep();
            totals.add(shard);
        }
        let acquired = AttemptOutcome::Acquired as usize;
        let together = totals.outcomes.iter().skip(1).map(|mode| mode[acquired]).sum::<u64>();
        let all = totals.counters.grants + totals.counters.reentered;
        totals.outcomes[ModeLabel::Exclusive as usize][acquired] = all - together;
        totals.deadlocks += totals.outcomes.iter().map(|mode| mode[AttemptOutcome::Deadlock as usize]).sum::<u64>();
        totals
    }

    fn add(&mut self, shard: &Shard) {
        let reading = shard.reading();
        let tally = &reading.tally;
        self.counters.add(&reading.counters);
        for (mine, theirs) in self.outcomes.iter_mut().zip(&tally.outcomes) {
            add(mine, theirs);
        }
        self.holds.merge(&reading.holds);
        for (mine, theirs) in self.waits.iter_mut().zip(&tally.waits) {
            mine.merge(theirs);
        }
        add(&mut self.held, &reading.held);
        add(&mut self.waiting, &reading.waiting);
        add(&mut self.entries, &reading.entries);
        self.claims += tally.claims;
        self.claim_handoffs += tally.claim_handoffs;
        self.claims_revoked += tally.claims_revoked;
        self.claims_reused += tally.claims_reused;
        self.claims_wanted += tally.claims_wanted;
        self.claims_idle += tally.claims_idle;
        self.deadlocks += tally.deadlocks_by_revocation;
        self.deepest = self.deepest.max(reading.deepest);
    }

    /// The same totals once the manager is gone: nothing is held or waits.
    pub(super) fn end(&mut self) {
        (self.held, self.waiting, self.entries) = ([0; 3], [0; 3], [0; 3]);
        (self.claims, self.claims_idle, self.deepest) = (0, 0, 0);
    }
}

fn add<const N: usize>(mine: &mut [u64; N], theirs: &[u64; N]) {
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
}
