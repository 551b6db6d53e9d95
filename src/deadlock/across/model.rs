//! Processes that take, share, want and lose keys at random, freeze, and post late or in vain, over the real ledger, posts
//! and picture; and a judge who knows at each step who is truly part of a cycle.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::ledger::Ledger;
use super::picture::Picture;
use super::post::Post;
use super::{Hold, Lacks, Reach, Since, Told, Wait};
use crate::key::Key;
use crate::mode::{Kind, Mode};
use crate::store::Board;

const PROCESSES: u64 = 3;
/// How long a post is up, in steps.
const LIFE: usize = 400;

/// What may happen beside taking, waiting and letting go.
#[derive(Clone, Copy)]
struct Chances {
    /// Of a hundred steps, so many are an owner's; most others are the processes' talk with the board.
    acts: u32,
    /// Of a hundred steps, so many end a wait or a hold by its time.
    ends: u32,
    /// Of a hundred steps, so many freeze a process.
    freezes: u32,
    /// Of a hundred posts or answers, so many are lost.
    losses: u32,
    /// How many waits one owner has at most.
    waits: usize,
    modes: bool,
}

const CALM: Chances = Chances { acts: 10, ends: 0, freezes: 2, losses: 10, waits: 1, modes: false };
const WILD: Chances = Chances { acts: 50, ends: 10, freezes: 2, losses: 30, waits: 2, modes: true };

/// An owner, by its process and its number there.
type Who = (u64, u64);

#[derive(Clone, Debug)]
struct Want {
    who: Who,
    id: u64,
    key: usize,
    mode: Mode,
}

#[derive(Clone, Debug)]
struct Held {
    who: Who,
    grant: u64,
    key: usize,
    mode: Mode,
}

/// A call to the board that is under way.
enum Call {
    Asking { sent: usize, text: String },
    Answered { sent: usize, board: Option<Board> },
}

#[derive(Default)]
struct Process {
    ledger: Ledger,
    call: Option<Call>,
    frozen_until: usize,
}

struct World {
    random: fastrand::Rng,
    chances: Chances,
    step: usize,
    names: u64,
    keys: Vec<Key>,
    waits: Vec<Want>,
    holds: Vec<Held>,
    processes: BTreeMap<u64, Process>,
    /// The posts that are up, and until when.
    board: BTreeMap<u64, (usize, String)>,
    number: u64,
    /// When a wait was last part of a cycle.
    in_cycle: HashMap<u64, usize>,
    refused: Vec<u64>,
}

fn go_together(one: Mode, other: Mode) -> bool {
    matches!((one, other), (Mode::Shared, Mode::Shared))
}

impl World {
    fn new(seed: u64, chances: Chances) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            chances,
            step: 0,
            names: 0,
            keys: (0..5).map(|n| Key::new(format!("k{n}")).unwrap()).collect(),
            waits: Vec::new(),
            holds: Vec::new(),
            processes: (0..PROCESSES).map(|process| (process, Process::default())).collect(),
            board: BTreeMap::new(),
            number: 0,
            in_cycle: HashMap::new(),
            refused: Vec::new(),
        }
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn hit(&mut self, of_hundred: u32) -> bool {
        self.random.u32(..100) < of_hundred
    }

    /// Whether a request lacks something of what these hold.
    fn lacks(&self, want: &Want, held: impl Fn(&&Held) -> bool) -> bool {
        let held = self.holds.iter().filter(|hold| hold.key == want.key).filter(held);
        match want.mode.kind() {
            Kind::ReadWrite => held.into_iter().any(|hold| !go_together(hold.mode, want.mode)),
            Kind::Semaphore { limit } => want.mode.weight() + held.map(|hold| hold.mode.weight()).sum::<u32>() > limit,
        }
    }

    /// The waits that are part of a cycle, by trying who can end until nobody else can.
    fn truth(&self) -> BTreeSet<u64> {
        let mut dead: BTreeSet<Who> = self.waits.iter().map(|want| want.who).collect();
        loop {
            let is_dead = |want: &&Want| self.lacks(want, |hold| dead.contains(&hold.who));
            let still: BTreeSet<Who> = self.waits.iter().filter(is_dead).map(|want| want.who).collect();
            let still = still.intersection(&dead).copied().collect();
            if still == dead {
                break;
            }
            dead = still;
        }
        let is_dead = |want: &&Want| dead.contains(&want.who) && self.lacks(want, |hold| dead.contains(&hold.who));
        let waits: Vec<&Want> = self.waits.iter().filter(is_dead).collect();
        let next = |want: &Want| -> BTreeSet<Who> {
            let in_the_way =
                |hold: &&Held| hold.key == want.key && dead.contains(&hold.who) && !go_together(hold.mode, want.mode);
            self.holds.iter().filter(in_the_way).map(|hold| hold.who).collect()
        };
        let reaches_itself = |want: &&&Want| {
            let mut reached = next(want);
            loop {
                let more = waits.iter().filter(|other| reached.contains(&other.who)).flat_map(|other| next(other));
                let all: BTreeSet<Who> = reached.iter().copied().chain(more).collect();
                if all.len() == reached.len() {
                    return all.contains(&want.who);
                }
                reached = all;
            }
        };
        waits.iter().filter(reaches_itself).map(|want| want.id).collect()
    }

    /// What a process has to tell, as the register and the shards would say.
    fn telling(&self, process: u64) -> Vec<Told> {
        let mine: Vec<&Want> = self.waits.iter().filter(|want| want.who.0 == process).collect();
        let blocked: BTreeSet<u64> = mine.iter().map(|want| want.who.1).collect();
        let holds_something = |owner: &u64| self.holds.iter().any(|hold| hold.who == (process, *owner));
        let wanted: BTreeSet<&Key> = self.processes[&process].ledger.wanted().collect();
        let is_wanted = |key: usize| {
            let own = mine.iter().any(|want| want.key == key && holds_something(&want.who.1));
            own || wanted.contains(&self.keys[key])
        };
        let (since, reach) = (Since::UNKNOWN, Reach::Everywhere);
        let told = |owner: u64| {
            let waits = mine.iter().filter(|want| want.who.1 == owner).map(|want| Wait {
                id: want.id,
                since,
                lacks: Lacks::Key(reach, want.mode),
                key: self.keys[want.key].clone(),
            });
            let holds = self.holds.iter().filter(|hold| hold.who == (process, owner) && is_wanted(hold.key));
            let holds = holds.map(|hold| Hold {
                grant: hold.grant,
                since,
                reach,
                mode: hold.mode,
                key: self.keys[hold.key].clone(),
            });
            Told { owner, label: format!("{process}/{owner}").into(), waits: waits.collect(), holds: holds.collect() }
        };
        blocked.iter().copied().filter(holds_something).map(told).collect()
    }

    /// One step of a process's talk with the board.
    fn talk(&mut self, process: u64) {
        let (is_lost, sent) = (self.hit(self.chances.losses), self.step);
        match self.processes.get_mut(&process).unwrap().call.take() {
            None => {
                let told = self.telling(process);
                let talking = self.processes.get_mut(&process).unwrap();
                let text = talking.ledger.write(told).text;
                talking.call = Some(Call::Asking { sent, text });
            }
            Some(Call::Asking { sent, text }) => {
                // Lost on the way there, it changes nothing.
                let mut board = None;
                if !is_lost {
                    board = Some(self.put_up(process, text)).filter(|_| self.random.u8(..20) > 0);
                }
                self.processes.get_mut(&process).unwrap().call = Some(Call::Answered { sent, board });
            }
            Some(Call::Answered { board: None, .. }) => self.processes.get_mut(&process).unwrap().ledger.forget(),
            Some(Call::Answered { sent, board: Some(board) }) => {
                let posts = self.processes.get_mut(&process).unwrap().ledger.read(process, &board);
                if self.step - sent < LIFE {
                    self.judge(process, posts);
                }
            }
        }
    }

    fn put_up(&mut self, process: u64, text: String) -> Board {
        self.number += self.random.u64(1..3);
        let step = self.step;
        self.board.insert(process, (step + LIFE, text));
        self.board.retain(|_, (end, text)| *end > step && !text.is_empty());
        Board::new(self.number, self.board.iter().map(|(of, (_, text))| (*of, text.clone())).collect())
    }

    fn judge(&mut self, process: u64, mut posts: Vec<(u64, Post)>) {
        let now = self.telling(process);
        posts.iter_mut().filter(|(of, _)| *of == process).for_each(|(_, post)| post.keep(&now));
        for victim in Picture::of(&posts).judge(process).victims {
            let known = self.in_cycle.get(&victim.wait);
            assert!(known.is_some(), "step {}: {victim:?} was never part of a cycle", self.step);
            if self.chances.ends == 0 {
                // No two cycles have an owner in common, and nothing but a refusal ends one.
                assert!(self.truth().contains(&victim.wait), "step {}: {victim:?} is in no cycle now", self.step);
            }
            self.waits.retain(|want| want.id != victim.wait);
            self.refused.push(victim.wait);
        }
    }

    fn serve(&mut self) {
        let mut waits: VecDeque<Want> = std::mem::take(&mut self.waits).into();
        while let Some(want) = waits.pop_front() {
            let is_own = |hold: &Held| hold.who == want.who && hold.key == want.key;
            if self.lacks(&want, |_| true) || self.holds.iter().any(is_own) {
                self.waits.push(want);
            } else {
                let Want { who, key, mode, .. } = want;
                let grant = self.name();
                self.holds.push(Held { who, grant, key, mode });
            }
        }
    }

    /// A random owner lets go, if it runs, or asks for something.
    fn act(&mut self) {
        let who = (self.random.u64(..PROCESSES), self.random.u64(..2));
        let waits = self.waits.iter().filter(|want| want.who == who).count();
        let own: Vec<usize> = (0..self.holds.len()).filter(|at| self.holds[*at].who == who).collect();
        if waits == 0 && !own.is_empty() && self.random.u8(..3) == 0 {
            self.holds.swap_remove(own[self.random.usize(..own.len())]);
        } else if waits < self.chances.waits {
            let key = self.random.usize(..self.keys.len());
            let mode = match key {
                0 | 1 if self.chances.modes && self.random.bool() => Mode::Shared,
                2 if self.chances.modes => Mode::Permits { limit: 3, permits: self.random.u32(1..=2) },
                _ => Mode::Exclusive,
            };
            let taken = self.holds.iter().map(|hold| (hold.who, hold.key));
            if !taken.chain(self.waits.iter().map(|want| (want.who, want.key))).any(|other| other == (who, key)) {
                let id = self.name();
                self.waits.push(Want { who, id, key, mode });
            }
        }
        self.serve();
    }

    fn end_something(&mut self) {
        if self.random.bool() && !self.waits.is_empty() {
            self.waits.remove(self.random.usize(..self.waits.len()));
        } else if !self.holds.is_empty() {
            self.holds.remove(self.random.usize(..self.holds.len()));
        }
        self.serve();
    }

    fn step(&mut self, acts: bool) {
        self.step += 1;
        let process = self.random.u64(..PROCESSES);
        if acts && self.hit(self.chances.ends) {
            self.end_something();
        } else if acts && self.hit(self.chances.freezes) {
            let until = self.step + self.random.usize(..3 * LIFE);
            self.processes.get_mut(&process).unwrap().frozen_until = until;
        } else if acts && self.hit(self.chances.acts) {
            self.act();
        } else if self.processes[&process].frozen_until <= self.step {
            self.talk(process);
        }
        let step = self.step;
        self.in_cycle.extend(self.truth().into_iter().map(|wait| (wait, step)));
    }

    /// Nothing more happens but posts: whatever is dead is broken.
    fn settle(&mut self) {
        self.processes.values_mut().for_each(|process| process.frozen_until = 0);
        self.chances.losses = 0;
        for _ in 0..2 * LIFE {
            self.step(false);
            self.serve();
        }
        assert!(self.truth().is_empty(), "it stands still: {:?} {:?}", self.waits, self.holds);
    }
}

fn walk(seeds: std::ops::Range<u64>, chances: Chances) -> (usize, usize) {
    let (mut refused, mut ended) = (0, 0);
    for seed in seeds {
        let mut world = World::new(seed, chances);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..4 {
                (0..600).for_each(|_| world.step(true));
                world.settle();
            }
        }));
        assert!(outcome.is_ok(), "seed {seed}");
        refused += world.refused.len();
        ended += world.in_cycle.keys().filter(|wait| !world.refused.contains(wait)).count();
    }
    (refused, ended)
}

#[test]
fn where_cycles_end_by_refusals_alone_each_is_broken_at_one_wait() {
    let (refused, _) = walk(0..40, CALM);
    assert!(refused > 60, "{refused} cycles are too few");
}

#[test]
fn nobody_is_refused_who_was_in_no_cycle_and_none_that_stays_is_left_standing() {
    let (refused, ended) = walk(0..40, WILD);
    assert!(refused > 60 && ended > 60, "{refused} refused, {ended} waits in cycles that were not");
}

#[test]
fn a_ring_of_any_length_is_broken_once_and_everybody_else_gets_through() {
    for seed in 0..80 {
        let mut world = World::new(seed, CALM);
        let length = world.random.usize(2..=5);
        for at in 0..length {
            let (who, grant) = ((at as u64 % PROCESSES, at as u64), world.name());
            world.holds.push(Held { who, grant, key: at, mode: Mode::Exclusive });
        }
        let mut begin: Vec<usize> = (0..length).collect();
        world.random.shuffle(&mut begin);
        for at in begin {
            (0..world.random.usize(..60)).for_each(|_| world.step(false));
            let (who, id) = ((at as u64 % PROCESSES, at as u64), world.name());
            world.waits.push(Want { who, id, key: (at + 1) % length, mode: Mode::Exclusive });
        }
        world.settle();
        assert_eq!(world.refused.len(), 1, "seed {seed}: {:?}", world.refused);
        // Whoever runs lets go.
        for _ in 0..length {
            let blocked: BTreeSet<Who> = world.waits.iter().map(|want| want.who).collect();
            world.holds.retain(|hold| blocked.contains(&hold.who));
            world.serve();
        }
        assert!(world.waits.is_empty(), "seed {seed}");
    }
}
