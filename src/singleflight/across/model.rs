//! Walks through what processes do that share calls, over a store of which nothing is kept but its contract: they ask,
//! wait, call, lose their locks and die, their releases come late or twice, and their clocks run apart.
//!
//! Nobody may be told a value that was there before he asked, nor one of a call that had lost its lock. The rule by which
//! a value is taken is the real one.

use std::time::Duration;

use super::last_to_ask;
use crate::clock::Moment;
use crate::singleflight::flight::Source;

const PROCESSES: usize = 3;
const STEPS: usize = 400;
/// In real microseconds; so short that calls lose it.
const TTL: u64 = 20_000;

/// A clock that runs by this share of a percent fast or slow, from this moment on.
#[derive(Clone, Copy)]
struct Drift {
    rate: f64,
    from: u64,
}

impl Drift {
    fn any(random: &mut fastrand::Rng) -> Self {
        // Two of them run apart by 1% at most.
        Self { rate: 1.0 + (random.f64() - 0.5) * 0.0098, from: random.u64(1_000_000..2_000_000) }
    }

    fn at(self, real: u64) -> u64 {
        self.from + (real as f64 * self.rate) as u64
    }

    fn moment(self, real: u64) -> Moment {
        Moment::from_nanos(self.at(real) * 1000)
    }
}

/// A caller, and when it asked.
type Caller = u64;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Lead {
    None,
    /// Whether it was denied once.
    Waiting(bool),
    /// Asks for a value, since then.
    Asking(u64),
    Calling,
}

struct Process {
    clock: Drift,
    callers: Vec<Caller>,
    lead: Lead,
    token: u64,
}

/// A release on its way, and whether it leaves a value.
#[derive(Clone, Copy)]
struct Sent {
    token: u64,
    leaves: bool,
}

/// What the store has of a value: its stamp there, and when it was left.
#[derive(Clone, Copy)]
struct Left {
    stamp: u64,
    real: u64,
}

#[derive(Default, Debug)]
struct Seen {
    taken: usize,
    too_old: usize,
    joined_late: usize,
    lost: usize,
}

struct World {
    random: fastrand::Rng,
    real: u64,
    store: Drift,
    processes: Vec<Process>,
    holder: Option<(u64, u64)>,
    left: Option<Left>,
    sent: Vec<Sent>,
    last_token: u64,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let store = Drift::any(&mut random);
        let process = |_| Process { clock: Drift::any(&mut random), callers: Vec::new(), lead: Lead::None, token: 0 };
        let processes = (0..PROCESSES).map(process).collect();
        let (holder, left, sent) = (None, None, Vec::new());
        Self { random, real: 0, store, processes, holder, left, sent, last_token: 0, seen: Seen::default() }
    }

    fn step(&mut self) {
        self.real += self.random.u64(1..2_000);
        if self.holder.is_some_and(|(_, until)| until <= self.real) {
            self.holder = None;
        }
        let at = self.random.usize(..PROCESSES);
        match self.random.u8(..16) {
            0..4 if self.processes[at].callers.len() < 5 => self.processes[at].callers.push(self.real),
            4 => self.deliver(),
            5 if self.random.u8(..8) == 0 => {
                // It dies. What it has sent may still come.
                let process = &mut self.processes[at];
                process.callers.clear();
                process.lead = Lead::None;
            }
            6 if self.holder.is_none() => {
                // Somebody else holds the key for a while.
                self.last_token += 1;
                self.holder = Some((self.last_token, self.real + 3_000));
            }
            _ => self.lead(at),
        }
    }

    fn deliver(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let at = self.random.usize(..self.sent.len());
        let sent = self.sent[at];
        match self.random.u8(..4) {
            // It is not answered, and is repeated, whether it was carried out or not.
            0 => self.sent[at].leaves = false,
            1 => {
                self.sent[at].leaves = false;
                self.release(sent);
            }
            _ => {
                self.sent.remove(at);
                self.release(sent);
            }
        }
    }

    /// S19: in one step, by what still holds the key.
    fn release(&mut self, sent: Sent) {
        if self.holder.is_none_or(|(token, _)| token != sent.token) {
            self.seen.lost += usize::from(sent.leaves);
            return;
        }
        self.holder = None;
        if sent.leaves {
            self.left = Some(Left { stamp: self.store.at(self.real), real: self.real });
        }
    }

    fn lead(&mut self, at: usize) {
        let process = &mut self.processes[at];
        match process.lead {
            Lead::None if process.callers.is_empty() => {}
            Lead::None => process.lead = Lead::Waiting(false),
            Lead::Waiting(_) if self.holder.is_some() => process.lead = Lead::Waiting(true),
            Lead::Waiting(was_behind) => {
                self.last_token += 1;
                process.token = self.last_token;
                self.holder = Some((process.token, self.real + TTL));
                process.lead = if was_behind { Lead::Asking(self.real) } else { Lead::Calling };
            }
            Lead::Asking(asked) => self.take(at, asked),
            Lead::Calling => self.end_call(at),
        }
    }

    /// The answer to who asks for a value: now, or as if it had come sooner.
    fn take(&mut self, at: usize, asked: u64) {
        let answered = self.random.u64(asked..=self.real);
        let process = &mut self.processes[at];
        process.lead = Lead::Calling;
        let Some(left) = self.left else { return };
        let age = Duration::from_micros(self.store.at(answered).saturating_sub(left.stamp));
        let asked_by = last_to_ask(process.clock.moment(asked), age);
        let Some(source) = asked_by.map(Source::Elsewhere) else { return };
        let clock = process.clock;
        if !source.is_for(clock.moment(process.callers[0])) {
            self.seen.too_old += 1;
            return;
        }
        let (told, late) =
            process.callers.drain(..).partition::<Vec<_>, _>(|since| source.is_for(clock.moment(*since)));
        for since in &told {
            assert!(*since <= left.real, "it was there {} us before he asked", since - left.real);
        }
        self.seen.taken += told.len();
        self.seen.joined_late += late.len();
        (process.callers, process.lead) = (late, Lead::None);
        self.sent.push(Sent { token: process.token, leaves: false });
    }

    /// A call ends, and all who asked for it are told. One that has lost its lock tells nobody else.
    fn end_call(&mut self, at: usize) {
        let process = &mut self.processes[at];
        let is_held = self.holder.is_some_and(|(token, _)| token == process.token);
        process.callers.drain(..if is_held { process.callers.len() } else { 1 });
        process.lead = Lead::None;
        self.sent.push(Sent { token: process.token, leaves: true });
    }
}

#[test]
fn nobody_is_told_a_value_that_is_older_than_his_question() {
    let mut all = Seen::default();
    for seed in 0..500 {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        all.taken += world.seen.taken;
        all.too_old += world.seen.too_old;
        all.joined_late += world.seen.joined_late;
        all.lost += world.seen.lost;
    }
    let counts = [all.taken, all.too_old, all.joined_late, all.lost];
    assert!(counts.iter().all(|count| *count > 100), "walks that show nothing: {all:?}");
}
