//! Random walks over the tables of two or three processes and a simulated store, in simulated time: messages come late,
//! in any order or not at all; processes freeze for longer than their locks live, die, close and are started; keys are
//! forced, and connections lost.
//!
//! After each step: one process holds a key at most, by its own clock, and the store keeps it for that one to the end of
//! its time; no lock outlives its claim; fences rise over all processes; and the rules K1 to K6 hold. When the faults have
//! ended, everybody who waits is served, and nothing is left.
//!
//! The clocks of processes run up to a hundredth fast or slow, measured by the store's. That one never goes back but in a
//! walk of its own, in which nothing is promised of fences after a claim that ran out, and no key is forced.
//!
//! A walk is found again by its seed. There are as many as `PROPTEST_CASES` says. A long run takes about ten minutes:
//! `PROPTEST_CASES=100000 cargo test --all-features --lib claim::model`.

mod checks;
mod driver;
mod faults;
mod store;
mod users;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::claim_reuse::ClaimReuse;
use crate::key::Key;
use checks::Reached;
use driver::Gives;
use world::World;

const KEYS: usize = 2;
/// Of all keys: what is idle is found by the key itself.
const HASH: u32 = 7;
const MS: u64 = 1_000_000;

/// What differs from walk to walk.
#[derive(Debug)]
struct Plan {
    reuse: ClaimReuse,
    processes: usize,
    keys: usize,
    gives: Gives,
    /// How many requests each process has open at most.
    requests: usize,
    longest_ms: u64,
    lost_percent: u32,
    slowest_ms: u64,
    timeout_ms: u64,
    fault_every_ms: u64,
    /// How long the users of a process do nothing at most.
    idle_ms: u64,
    forces: bool,
    steps_back: bool,
}

impl Plan {
    fn new(random: &mut fastrand::Rng, steps_back: bool) -> Self {
        let max_time = Duration::from_millis(random.u64(5..600));
        let reuse = match random.u32(0..12) {
            0 => ClaimReuse::Off,
            1..5 => ClaimReuse::HandOff { max_count: random.u32(1..40), max_time },
            5 => ClaimReuse::hand_off(),
            6 => ClaimReuse::linger(),
            _ => ClaimReuse::Linger { idle: Duration::from_millis(random.u64(1..200)), max_time },
        };
        Self {
            reuse,
            processes: random.usize(2..=3),
            keys: random.usize(1..=KEYS),
            gives: match random.u32(0..16) {
                0 => Gives::Nothing,
                1 => Gives::Fences,
                _ => Gives::FencesAndClock,
            },
            requests: random.usize(1..=6),
            longest_ms: 1 << random.u32(8..13),
            lost_percent: [0, 2, 20][random.usize(0..3)],
            slowest_ms: 1 << random.u32(3..13),
            timeout_ms: random.u64(10..400),
            fault_every_ms: 1 << random.u32(6..12),
            idle_ms: 1 << random.u32(1..8),
            forces: random.bool() && !steps_back,
            steps_back,
        }
    }

    fn has_fences(&self) -> bool {
        !matches!(self.gives, Gives::Nothing)
    }
}

fn key_at(at: usize) -> Key {
    Key::new(format!("key-{at}")).unwrap()
}

/// Walks from one seed; a walk that fails is repeated, and says what happened.
fn walk(seed: u64, steps_back: bool) -> Reached {
    let mut world = World::new(seed, steps_back, false);
    match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(()) => world.checks.reached,
        Err(failure) => {
            eprintln!("seed {seed}, steps back: {steps_back}");
            World::new(seed, steps_back, true).run();
            resume_unwind(failure)
        }
    }
}

fn walk_all(steps_back: bool) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|walks| walks.parse().ok()).unwrap_or(256);
    let walks = if steps_back { cases / 2 } else { cases };
    let mut all = Reached::default();
    (0..walks).for_each(|seed| all.add(walk(seed, steps_back)));
    eprintln!("{walks} walks: {all:?}");
    assert!(walks < 100 || all.is_everything(steps_back), "the walks come to all that is worth checking: {all:?}");
}

#[test]
fn one_process_holds_a_key_and_fences_rise_whatever_is_late_lost_or_frozen() {
    walk_all(false);
}

#[test]
fn one_process_holds_a_key_also_if_the_clock_of_the_store_goes_back() {
    walk_all(true);
}
