//! What a shard counts for metrics alone, beside its [`Counters`](super::Counters): by mode, by outcome, by bucket.
//!
//! The lane adds nothing here on its way in: what it grants is exclusive, so those grants are all grants less the ones
//! counted here. On its way out it adds to one bucket. Without the feature `metrics` there is `untallied` in its place.

use super::queue_depth::RecentDepths;
use crate::clock::Moment;
use crate::error::AttemptOutcome;
use crate::mode::{Kind, Mode, ModeLabel};

/// The upper bounds of the hold times' buckets, in seconds. No two lie between the same powers of two of nanoseconds,
/// which [`Buckets::add`] relies on.
pub(crate) const HOLD_BUCKETS: [f64; 17] =
    [1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0];
/// The same of the waits'.
pub(crate) const WAIT_BUCKETS: [f64; 19] =
    [1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Both in nanoseconds.
const HOLD_BOUNDS: [u64; 17] = nanos(HOLD_BUCKETS);
const WAIT_BOUNDS: [u64; 19] = nanos(WAIT_BUCKETS);

const fn nanos<const N: usize>(seconds: [f64; N]) -> [u64; N] {
    let mut nanos = [0; N];
    let mut at = 0;
    while at < N {
        nanos[at] = (seconds[at] * 1e9).round() as u64;
        at += 1;
    }
    nanos
}

/// One hold in so many is kept as a sample, where samples are asked for.
const SAMPLED: u64 = 64;
/// The most samples of each kind that are kept until they are taken (T9).
const MOST_SAMPLES: usize = 1024;

impl From<Kind> for ModeLabel {
    /// Of those who hold a key together.
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::ReadWrite => Self::Shared,
            Kind::Semaphore { .. } => Self::Permits,
        }
    }
}

/// Times counted by how long they were. `N` is one more than there are bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buckets<const N: usize> {
    pub(crate) counts: [u64; N],
    /// Of holds it stays 0: the counters have their sum.
    pub(crate) nanos: u64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self { counts: [0; N], nanos: 0 }
    }
}

impl<const N: usize> Buckets<N> {
    /// `starts` is [`starts`] of the bounds. A time that is exactly a bound belongs below it, as Prometheus has it.
    #[inline]
    fn add(&mut self, nanos: u64, bounds: &[u64], starts: &[u8; 65]) {
        let start = starts[64 - nanos.leading_zeros() as usize] as usize;
        let at = start + usize::from(bounds.get(start).is_some_and(|bound| nanos > *bound));
        self.counts[at] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        add(&mut self.counts, &other.counts);
        self.nanos = self.nanos.saturating_add(other.nanos);
    }
}

/// For each number of significant bits the first bound that a number of so many bits may lie below.
const fn starts(bounds: &[u64]) -> [u8; 65] {
    let mut starts = [0; 65];
    let mut bits = 1;
    while bits <= 64 {
        let least = 1_u64 << (bits - 1);
        let mut at = 0;
        while at < bounds.len() && bounds[at] < least {
            at += 1;
        }
        starts[bits] = at as u8;
        bits += 1;
    }
    starts
}

const HOLD_STARTS: [u8; 65] = starts(&HOLD_BOUNDS);
const WAIT_STARTS: [u8; 65] = starts(&WAIT_BOUNDS);

/// Single times, for a recorder that wants to bucket them itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    /// So many holds are let pass before the next is kept.
    skip: u64,
    /// How many short holds have been reported, or were there before.
    short: u64,
    pub(crate) holds: Vec<u64>,
    pub(crate) waits: Vec<(AttemptOutcome, u64)>,
}

/// How many outcomes there are.
pub(crate) const OUTCOMES: usize = AttemptOutcome::ALL.len();

#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Attempts by mode and outcome. Exclusive ones that acquired are not counted here, but by the rest of the grants.
    pub(crate) outcomes: [[u64; OUTCOMES]; 3],
    /// Of those above the first bound.
    holds: Buckets<18>,
    pub(crate) waits: [Buckets<20>; OUTCOMES],
    /// Now, of those who hold keys together: shares and permits.
    pub(crate) held: [u64; 3],
    /// Now, of those who queue for more than an exclusive lock.
    pub(crate) waiting: [u64; 3],
    /// Now: keys whose own slot nobody holds, beside those of their members.
    pub(crate) headless: [u64; 3],
    /// Now: grants that the store has given.
    pub(crate) claims: u64,
    /// Grants that the store has given to waiters of this process.
    pub(crate) claim_handoffs: u64,
    /// Grants under a claim that this process had already.
    pub(crate) claims_reused: u64,
    /// Claims that another process asked for.
    pub(crate) claims_wanted: u64,
    /// Now: claims under which nothing is granted.
    pub(crate) claims_idle: u64,
    /// Grants that the store did not keep.
    pub(crate) claims_revoked: u64,
    /// Holders that lost their locks to break a deadlock.
    pub(crate) deadlocks_by_revocation: u64,
    depths: RecentDepths,
    /// `None`: nobody takes any.
    samples: Option<Box<Samples>>,
}

impl Tally {
    /// Adds what another shard has tallied.
    pub(super) fn merge(&mut self, other: &Self) {
        self.outcomes.iter_mut().zip(&other.outcomes).for_each(|(mine, theirs)| add(mine, theirs));
        self.waits.iter_mut().zip(&other.waits).for_each(|(mine, theirs)| mine.merge(theirs));
        self.claims += other.claims;
        self.claim_handoffs += other.claim_handoffs;
        self.claims_reused += other.claims_reused;
        self.claims_wanted += other.claims_wanted;
        self.claims_idle += other.claims_idle;
        self.claims_revoked += other.claims_revoked;
        self.deadlocks_by_revocation += other.deadlocks_by_revocation;
    }

    /// An attempt ended so.
    pub(crate) fn attempt(&mut self, mode: Mode, outcome: AttemptOutcome) {
        self.outcomes[mode.label() as usize][outcome as usize] += 1;
    }

    /// An attempt was granted.
    #[inline]
    pub(super) fn acquired(&mut self, mode: Mode) {
        if mode != Mode::Exclusive {
            self.attempt(mode, AttemptOutcome::Acquired);
        }
    }

    /// A grant was held so long. The shortest holds are counted by nobody: they are what is left of all ends.
    #[inline]
    pub(super) fn held_for(&mut self, nanos: u64) {
        if nanos > HOLD_BOUNDS[0] {
            self.held_long(nanos);
        }
    }

    #[inline(never)]
    fn held_long(&mut self, nanos: u64) {
        self.holds.add(nanos, &HOLD_BOUNDS, &HOLD_STARTS);
        if let Some(samples) = &mut self.samples {
            sample_hold(samples, nanos);
        }
    }

    /// The times of all holds that ended.
    pub(super) fn all_holds(&self, ends: u64) -> Buckets<18> {
        let mut holds = self.holds;
        holds.counts[0] = ends - holds.counts.iter().sum::<u64>();
        holds
    }

    pub(super) fn waited_for(&mut self, outcome: AttemptOutcome, nanos: u64) {
        let waits = &mut self.waits[outcome as usize];
        waits.add(nanos, &WAIT_BOUNDS, &WAIT_STARTS);
        waits.nanos = waits.nanos.saturating_add(nanos);
        if let Some(samples) = self.samples.as_mut().filter(|samples| samples.waits.len() < MOST_SAMPLES) {
            samples.waits.push((outcome, nanos));
        }
    }

    pub(super) fn joined_group(&mut self, kind: Kind) {
        self.held[ModeLabel::from(kind) as usize] += 1;
    }

    pub(super) fn left_group(&mut self, kind: Kind) {
        self.held[ModeLabel::from(kind) as usize] -= 1;
    }

    pub(super) fn lost_its_head(&mut self, kind: Kind) {
        self.headless[ModeLabel::from(kind) as usize] += 1;
    }

    pub(super) fn has_a_head_or_none(&mut self, kind: Kind) {
        self.headless[ModeLabel::from(kind) as usize] -= 1;
    }

    pub(super) fn queued(&mut self, mode: Mode, depth: u32, now: Moment) {
        self.waiting[mode.label() as usize] += 1;
        self.depths.saw(depth, now);
    }

    pub(super) fn left_queue(&mut self, mode: Mode) {
        self.waiting[mode.label() as usize] -= 1;
    }

    pub(super) fn claimed(&mut self, by_handoff: bool) {
        self.claims += 1;
        self.claim_handoffs += u64::from(by_handoff);
    }

    pub(super) fn reused_claim(&mut self) {
        self.claims_reused += 1;
    }

    pub(super) fn wanted_claim(&mut self) {
        self.claims_wanted += 1;
    }

    pub(super) fn kept_claim(&mut self) {
        self.claims_idle += 1;
    }

    pub(super) fn took_idle_claim(&mut self) {
        self.claims_idle -= 1;
    }

    pub(super) fn unclaimed(&mut self) {
        self.claims -= 1;
    }

    pub(super) fn revoked_by_store(&mut self) {
        self.claims_revoked += 1;
    }

    pub(super) fn revoked_for_deadlock(&mut self) {
        self.deadlocks_by_revocation += 1;
    }

    /// A queue was found to be so deep.
    pub(super) fn saw_depth(&mut self, depth: u32, now: Moment) {
        self.depths.saw(depth, now);
    }

    /// The deepest queue of the last minute, of those that somebody joined or that were found so.
    pub(crate) fn deepest(&mut self, now: Moment) -> u32 {
        self.depths.deepest(now)
    }

    /// Keeps samples from now on, and answers those that were kept. The shortest holds are only counted: for each
    /// [`SAMPLED`] of them a sample of 0 is added here, so that they are as likely as others to be among the samples.
    pub(super) fn take_samples(&mut self, ends: u64) -> Samples {
        let short = self.all_holds(ends).counts[0];
        let samples = self.samples.get_or_insert_with(|| Box::new(Samples { short, ..Samples::default() }));
        let reported = (short - samples.short) / SAMPLED;
        let next =
            Box::new(Samples { skip: samples.skip, short: samples.short + reported * SAMPLED, ..Samples::default() });
        let mut taken = *std::mem::replace(samples, next);
        let room = MOST_SAMPLES - taken.holds.len();
        taken.holds.extend(std::iter::repeat_n(0, room.min(reported as usize)));
        taken
    }
}

fn sample_hold(samples: &mut Samples, nanos: u64) {
    if samples.skip > 0 {
        samples.skip -= 1;
        return;
    }
    samples.skip = SAMPLED - 1;
    if samples.holds.len() < MOST_SAMPLES {
        samples.holds.push(nanos);
    }
}

pub(super) fn add<const N: usize>(mine: &mut [u64; N], theirs: &[u64; N]) {
    mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| *mine += theirs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_counted_in_the_bucket_that_prometheus_would_count_it_in() {
        fn check<const N: usize>(bounds: &[u64], starts: &[u8; 65]) {
            let edges = bounds.iter().flat_map(|bound| [bound - 1, *bound, bound + 1]);
            let powers = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]);
            for nanos in edges.chain(powers).chain([0, u64::MAX]) {
                let mut buckets = Buckets::<N>::default();
                buckets.add(nanos, bounds, starts);
                let expected = bounds.iter().filter(|bound| **bound < nanos).count();
                assert_eq!(buckets.counts.iter().position(|count| *count == 1), Some(expected), "{nanos}");
            }
        }
        check::<18>(&HOLD_BOUNDS, &HOLD_STARTS);
        check::<20>(&WAIT_BOUNDS, &WAIT_STARTS);
    }

    #[test]
    fn shards_count_in_the_buckets_that_the_families_declare() {
        let seconds = |bounds: &[u64]| bounds.iter().map(|nanos| *nanos as f64 / 1e9).collect::<Vec<_>>();
        assert_eq!((seconds(&WAIT_BOUNDS), seconds(&HOLD_BOUNDS)), (WAIT_BUCKETS.into(), HOLD_BUCKETS.into()));
    }
}
