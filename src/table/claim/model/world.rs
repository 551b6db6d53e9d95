//! Time, and what happens in it: messages that arrive, actors that wake, processes that freeze, die and close.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::checks::Checks;
use super::driver::{Call, Op};
use super::store::{Answer, Ask, Push, Store};
use super::users::Request;
use super::{HASH, KEYS, MS, Plan, key_at};
use crate::clock::Moment;
use crate::key::Token;
use crate::mode::Modes;
use crate::table::claim::{Claim, StoreCommand, StoreCommands};
use crate::table::{Effects, Limits, Slice, Table};

const LIMITS: Limits = Limits { keys: 8, members: 8, waiters: 64, waiters_per_key: 32 };
/// Where the processes' clocks and the store's begin.
const START: u64 = 1 << 50;
/// An actor with something to do looks at the clock as often as this.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// A walk whose faults have ended is over after so many events.
const MOST_EVENTS: usize = 100_000;

/// Keeps a table's commands until it has finished its step.
#[derive(Default)]
struct Recorder(Mutex<Vec<StoreCommand>>);

impl StoreCommands for Recorder {
    fn run(&self, command: StoreCommand) {
        self.0.lock().unwrap().push(command);
    }
}

/// One process, with one shard.
pub(super) struct Process {
    /// `None`: it has died.
    pub(super) table: Option<Table>,
    pub(super) is_closed: bool,
    recorder: Arc<Recorder>,
    /// Its clock: how far ahead of real time it began, and by how many millionths it is fast.
    ahead: u64,
    fast: i128,
    pub(super) frozen_until: u64,
    /// The clock as the thread read it that goes on now.
    read: Option<Moment>,
    /// When its actor wakes.
    pub(super) armed: Moment,
    tag: u64,
    pub(super) ops: BTreeMap<u64, Op>,
    pub(super) calls: BTreeMap<u64, Call>,
    /// The grants that a task is extending.
    pub(super) extending: BTreeSet<u64>,
    pub(super) requests: BTreeMap<u64, Request>,
}

/// An event of a process.
#[derive(Debug)]
struct Scheduled {
    of: usize,
    event: Event,
    /// The clock as the process read it before it was frozen in the middle of this.
    read: Option<Moment>,
}

#[derive(Debug)]
pub(super) enum Event {
    AtStore {
        from: usize,
        call: u64,
        key: usize,
        ask: Ask,
    },
    Answer {
        call: u64,
        answer: Answer,
        clock: u64,
    },
    Timeout {
        call: u64,
    },
    Push {
        key: usize,
        push: Push,
    },
    Actor,
    /// The pause of an acquisition is over, if it is still this one.
    Wake {
        op: u64,
        pause: u64,
    },
    /// A call whose answer was unknown, or came to nothing, is made again.
    Again {
        call: u64,
    },
    /// A user does something.
    User,
    /// The waker of a request was woken.
    Poll {
        request: u64,
    },
    /// A user lets go, when faults have ended.
    LetGo {
        request: u64,
    },
    /// What somebody waits behind is looked at.
    Recheck,
    EndGrants,
    /// Something goes wrong.
    Fault,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: fastrand::Rng,
    /// Real time, in nanoseconds.
    pub(super) now: u64,
    /// No more faults: everything arrives, soon.
    pub(super) is_fair: bool,
    pub(super) fair_since: u64,
    pub(super) store: Store,
    pub(super) processes: Vec<Process>,
    pub(super) checks: Checks,
    events: BTreeMap<(u64, u64), Scheduled>,
    numbers: u64,
    /// By how much the store's clock was set back, in microseconds.
    pub(super) set_back_us: u64,
    pub(super) deaths: u32,
    prints: bool,
}

impl Process {
    fn new(plan: &Plan, number: usize, now: u64, random: &mut fastrand::Rng) -> Self {
        let recorder = Arc::new(Recorder::default());
        let tag = 0x00A0_0000_0000 + number as u64;
        let claim = Claim::Stored {
            commands: recorder.clone(),
            reuse: plan.reuse,
            tag,
            modes: Modes::Exclusive,
            why_exclusive: None,
        };
        let (ahead, fast) = (random.u64(0..START), i128::from(random.i64(-9_900..=9_900)));
        let mut process = Self {
            table: None,
            is_closed: false,
            recorder,
            ahead,
            fast,
            frozen_until: 0,
            read: None,
            armed: Moment::FAR,
            tag,
            ops: BTreeMap::new(),
            calls: BTreeMap::new(),
            extending: BTreeSet::new(),
            requests: BTreeMap::new(),
        };
        process.table = Some(Table::new(LIMITS, claim, 1, process.clock(now)));
        process
    }

    /// What its clock shows.
    pub(super) fn clock(&self, now: u64) -> Moment {
        let nanos = i128::from(now) + i128::from(now) * self.fast / 1_000_000;
        Moment::from_nanos(self.ahead + u64::try_from(nanos).unwrap())
    }

    /// When its clock will show this.
    pub(super) fn real(&self, moment: Moment) -> u64 {
        let nanos = i128::from(moment.as_nanos().saturating_sub(self.ahead));
        u64::try_from(nanos * 1_000_000 / (1_000_000 + self.fast)).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Whether the token is of a claim of this process.
    pub(super) fn is_of(&self, token: Token) -> bool {
        token.as_uuid().as_bytes()[..6] == self.tag.to_be_bytes()[2..]
    }

    pub(super) fn table(&self) -> &Table {
        self.table.as_ref().expect("only a process that lives has events")
    }
}

impl World {
    pub(super) fn new(seed: u64, steps_back: bool, prints: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let plan = Plan::new(&mut random, steps_back);
        let mut world = Self {
            random,
            now: START,
            is_fair: false,
            fair_since: 0,
            store: Store::default(),
            processes: Vec::new(),
            checks: Checks::new(&plan),
            events: BTreeMap::new(),
            numbers: 0,
            set_back_us: 0,
            deaths: 0,
            prints,
            plan,
        };
        world.log(|world| format!("{:?}", world.plan));
        for _ in 0..world.plan.processes {
            world.start_process();
        }
        world.after(0, 5 * MS, Event::Fault);
        world
    }

    pub(super) fn start_process(&mut self) {
        let number = self.processes.len();
        let process = Process::new(&self.plan, number, self.now, &mut self.random);
        self.processes.push(process);
        self.after(number, 0, Event::User);
        self.after(number, 1_000 * MS, Event::Recheck);
    }

    /// A walk: some time with faults, then until nothing more happens.
    pub(super) fn run(&mut self) {
        let end = self.now + self.random.u64(1..=self.plan.longest_ms) * MS;
        while self.events.first_key_value().is_some_and(|((at, _), _)| *at < end) {
            self.step();
        }
        self.be_fair();
        for _ in 0..MOST_EVENTS {
            if self.events.is_empty() {
                return self.check_end();
            }
            self.step();
        }
        panic!("it comes to no end: {:?}", self.events.values().take(20).collect::<Vec<_>>());
    }

    fn step(&mut self) {
        let Some(((at, _), mut next)) = self.events.pop_first() else { return };
        self.now = self.now.max(at);
        let of = next.of;
        if !matches!(next.event, Event::AtStore { .. } | Event::Fault) {
            if self.processes[of].table.is_none() {
                return;
            }
            if self.processes[of].frozen_until <= self.now && !self.is_fair && self.random.u32(0..3_000) == 0 {
                next.read = Some(self.processes[of].clock(self.now));
                self.freeze(of);
            }
            if self.processes[of].frozen_until > self.now {
                let thaws_in = self.processes[of].frozen_until - self.now;
                let jitter = self.random.u64(0..MS);
                return self.schedule(thaws_in + jitter, next);
            }
            self.processes[of].read = next.read;
        }
        self.log(|_| format!("{of} {:?}", next.event));
        self.happen(of, next.event);
        self.check();
    }

    fn happen(&mut self, of: usize, event: Event) {
        match event {
            Event::AtStore { from, call, key, ask } => self.at_store(from, call, key, ask),
            Event::Answer { call, answer, clock } => self.answered(of, call, answer, clock),
            Event::Timeout { call } => self.timed_out(of, call),
            Event::Push { key, push } => self.pushed(of, key, push),
            Event::Actor => self.take_turn(of),
            Event::Wake { op, pause } => self.pause_is_over(of, op, pause),
            Event::Again { call } => self.again(of, call),
            Event::User | Event::Poll { .. } | Event::LetGo { .. } => self.happen_to_users(of, event),
            Event::Recheck => self.recheck(of),
            Event::EndGrants => {
                self.act(of, |table, _, fx| table.end_grants(0, u32::MAX, fx));
            }
            Event::Fault => self.fail(),
        }
    }

    fn happen_to_users(&mut self, of: usize, event: Event) {
        let process = &mut self.processes[of];
        if self.random.u32(0..4) == 0 {
            // They may read the coarse clock.
            let now = process.clock(self.now).as_nanos();
            process.read = process.read.or(Some(Moment::from_nanos(now - self.random.u64(0..4 * MS))));
        }
        match event {
            Event::Poll { request } => self.poll(of, request),
            Event::LetGo { request } => self.let_go(of, request),
            _ => self.use_it(of),
        }
    }

    // ---- time ----

    pub(super) fn after(&mut self, of: usize, nanos: u64, event: Event) {
        self.schedule(nanos, Scheduled { of, event, read: None });
    }

    fn schedule(&mut self, nanos: u64, scheduled: Scheduled) {
        self.numbers += 1;
        self.events.insert((self.now + nanos, self.numbers), scheduled);
    }

    /// At this moment by the process's clock, or a moment later.
    pub(super) fn at(&mut self, of: usize, moment: Moment, event: Event) {
        let late = if self.is_fair { 0 } else { self.delay() };
        let wait = self.processes[of].real(moment).saturating_sub(self.now);
        self.after(of, wait + late, event);
    }

    /// How long a message takes, or an actor to wake.
    pub(super) fn delay(&mut self) -> u64 {
        match self.random.u32(0..100) {
            _ if self.is_fair => self.random.u64(50_000..MS),
            0..70 => self.random.u64(10_000..MS),
            70..97 => self.random.u64(0..20 * MS),
            _ => self.random.u64(0..self.plan.slowest_ms * MS),
        }
    }

    /// Whether all actors have had their turns in time for so long that nothing is late.
    pub(super) fn is_punctual(&self) -> bool {
        self.is_fair && self.now - self.fair_since > 50 * MS
    }

    /// Whether a message is lost.
    pub(super) fn is_lost(&mut self) -> bool {
        !self.is_fair && self.random.u32(0..100) < self.plan.lost_percent
    }

    pub(super) fn store_clock(&self) -> u64 {
        self.now / 1_000 - self.set_back_us
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn log(&self, line: impl FnOnce(&Self) -> String) {
        if self.prints {
            eprintln!("{:>12.3} {}", (self.now - START) as f64 / MS as f64, line(self));
        }
    }

    // ---- the table ----

    /// Runs a transition of a process's table, then what follows from it.
    pub(super) fn act<R>(&mut self, of: usize, does: impl FnOnce(&mut Table, Moment, &mut Effects) -> R) -> R {
        let mut fx = Effects::new();
        let process = &mut self.processes[of];
        let now = process.read.take().unwrap_or(process.clock(self.now));
        let table = process.table.as_mut().expect("only a process that lives has events");
        let answer = does(table, now, &mut fx);
        let earliest = fx.earliest();
        drop(fx);
        self.arm(of, earliest);
        self.observe(of);
        let commands = std::mem::take(&mut *self.processes[of].recorder.0.lock().unwrap());
        for command in commands {
            self.log(|_| format!("{of}   {command:?}"));
            self.command(of, command);
        }
        self.poll_the_woken(of);
        answer
    }

    /// Has the actor wake by then.
    pub(super) fn arm(&mut self, of: usize, due: Moment) {
        if due < self.processes[of].armed {
            self.processes[of].armed = due;
            self.at(of, due, Event::Actor);
        }
    }

    fn take_turn(&mut self, of: usize) {
        if self.processes[of].clock(self.now) < self.processes[of].armed {
            // It was armed for later since.
            return;
        }
        let budget = self.random.usize(1..32);
        let slice = self.act(of, |table, now, fx| table.tick(now, budget, fx));
        let longest = self.processes[of].clock(self.now).saturating_add(LONGEST_SLEEP);
        let due = self.processes[of].table().next_due().map(|due| due.min(longest));
        self.processes[of].armed = Moment::FAR;
        self.arm(of, if slice == Slice::More { Moment::ZERO } else { due.unwrap_or(Moment::FAR) });
    }

    // ---- the store ----

    fn at_store(&mut self, from: usize, call: u64, key: usize, ask: Ask) {
        let clock = self.store_clock();
        let before = self.store.keys[key].mints.len();
        let (answer, wanted, turn) = self.store.run(from, key, ask, clock);
        self.log(|_| format!("      {answer:?} by {clock}"));
        if self.store.keys[key].mints.len() > before {
            self.check_mint(key);
        }
        if let Some((token, push)) = wanted
            && let Some(owner) = self.owner_of(token)
        {
            self.push(owner, key, push);
        }
        if let Some(first) = turn {
            self.push(first, key, Push::Turn);
        }
        if !self.is_lost() {
            let delay = self.delay();
            self.after(from, delay, Event::Answer { call, answer, clock });
        }
    }

    pub(super) fn push(&mut self, to: usize, key: usize, push: Push) {
        // A force is told again at each reconnect: it comes in the end.
        if push == Push::Forced || !self.is_lost() {
            let delay = self.delay();
            self.after(to, delay, Event::Push { key, push });
        }
    }

    /// The process that the token of a claim names.
    fn owner_of(&self, token: Token) -> Option<usize> {
        self.processes.iter().position(|process| process.is_of(token))
    }
}

/// The number of a key.
pub(super) fn number_of(key: &crate::key::Key) -> usize {
    (0..KEYS).find(|at| key_at(*at) == *key).expect("nobody asks for another key")
}

/// All keys share a hash.
pub(super) const fn hash() -> u32 {
    HASH
}
