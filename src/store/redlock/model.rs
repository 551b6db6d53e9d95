//! Every bounded history of a few askers and nodes: no two hold at once (L1 to L4), and proved fences rise (L5).
//!
//! Time goes in ticks. In each state the search takes every step that the world could take: an asker proposes by the
//! slowest or the fastest clock, a node runs a request that was sent at any time before, the reply arrives or is lost,
//! an asker acts on what arrived so far, releases, gives up; a late release reaches one node and not another; a node
//! loses everything. A request that is never run and one that is denied are the same to the asker, and are not told
//! apart. Nodes are alike, so states that differ by the nodes' order are one.
//!
//! There is no last tick: states are told apart by what is left of each span, so idle time changes nothing.
//! Left out, because they can only raise a node's counter or keep a key blocked: requests that run after their asker
//! has given up (R5), what askers remember of earlier fences, crashes of nodes that remember nothing. Extend and repair
//! are left out too. The askers' part in fences is the code of [`super::fence`] itself.

mod memory;

use std::collections::HashMap;

use self::memory::{Holding, Memory};
use super::fence::{FenceRound, Judgement, RoundNumber, Verdict, propose};
use super::quorum::Quorum;

/// Fences per tick: more than a chain of proposals can climb in one.
const SCALE: u64 = 64;
/// What the slowest clock reads in every state: fences are kept as distances from it.
const NOW: u64 = 1 << 20;
const MOST_NODES: usize = 5;
const MOST_ASKERS: usize = 3;

/// Whether a node that lost its memory has a floor for fences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Floor {
    EndOfQuarantine,
    None,
}

#[derive(Clone, Copy, Debug)]
struct World {
    nodes: usize,
    askers: usize,
    /// How often each asker asks.
    attempts: u8,
    crashes: u8,
    ttl: u8,
    quarantine: u8,
    /// How far the fastest clock is ahead of the slowest.
    skew: u8,
    floor: Floor,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Holder {
    Nobody,
    Asker(u8),
    /// An attempt that is over.
    Leftover,
}

/// Where one asker's request to one node stands: for the key, and for a fence with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Proposal {
    Sent,
    Accepted,
    Refused(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Node {
    holder: Holder,
    /// The ticks that its holder has left.
    ends_in: u8,
    memory: Memory,
    /// The ticks of quarantine that it has left.
    silent_for: u8,
    clock_ahead: u8,
    requests: [Proposal; MOST_ASKERS],
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Phase {
    Idle,
    /// Valid for so many ticks more.
    Asking {
        valid_for: u8,
        fence: u64,
        turn: RoundNumber,
    },
    Holding {
        valid_for: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct State {
    nodes: [Node; MOST_NODES],
    askers: [(Phase, u8); MOST_ASKERS],
    crashes: u8,
    /// The highest fence of the grants so far.
    last_fence: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    TwoHolders,
    FenceNotAbove,
}

/// What a search found.
#[derive(Debug)]
struct Found {
    states: usize,
    grants: usize,
    proofs: [usize; 2],
    fault: Option<(Fault, Vec<String>)>,
}

impl World {
    fn quorum(&self) -> Quorum {
        Quorum::of(self.nodes).unwrap()
    }

    fn beginning(&self, fast_nodes: usize) -> State {
        let node = Node {
            holder: Holder::Nobody,
            ends_in: 0,
            memory: Memory::default(),
            silent_for: 0,
            clock_ahead: 0,
            requests: [Proposal::Sent; MOST_ASKERS],
        };
        let mut nodes = [node; MOST_NODES];
        nodes[..fast_nodes].iter_mut().for_each(|node| node.clock_ahead = self.skew);
        let mut askers = [(Phase::Idle, 0); MOST_ASKERS];
        askers[..self.askers].iter_mut().for_each(|asker| asker.1 = self.attempts);
        State { nodes, askers, crashes: 0, last_fence: 0 }
    }

    /// Walks every history, the shortest first, until a fault is found.
    fn search(&self) -> Found {
        let mut found = Found { states: 0, grants: 0, proofs: [0; 2], fault: None };
        let mut index = HashMap::<State, usize, foldhash::fast::RandomState>::default();
        let mut trail: Vec<(State, usize, Step)> = Vec::new();
        for fast_nodes in 0..=if self.skew > 0 { self.nodes } else { 0 } {
            let state = self.tidy(self.beginning(fast_nodes));
            index.insert(state, trail.len());
            trail.push((state, usize::MAX, Step::Begin { fast_nodes }));
        }
        let mut at = 0;
        while at < trail.len() {
            let state = trail[at].0;
            let mut next = Vec::new();
            self.steps(&state, &mut |step, state, fault| next.push((step, self.tidy(state), fault)));
            for (step, state, fault) in next {
                if let Step::Grant { proof, .. } = step {
                    found.grants += 1;
                    match proof {
                        RoundNumber::First => found.proofs[0] += 1,
                        RoundNumber::Second => found.proofs[1] += 1,
                    }
                }
                if let Some(fault) = fault {
                    let mut history = vec![format!("{step:?}")];
                    let mut back = at;
                    while back != usize::MAX {
                        history.push(format!("{:?}", trail[back].2));
                        back = trail[back].1;
                    }
                    history.reverse();
                    found.states = trail.len();
                    found.fault = Some((fault, history));
                    return found;
                }
                if let std::collections::hash_map::Entry::Vacant(vacant) = index.entry(state) {
                    vacant.insert(trail.len());
                    trail.push((state, at, step));
                }
            }
            at += 1;
        }
        found.states = trail.len();
        found
    }

    /// Forgets what no later step can tell apart, and puts the nodes in order.
    fn tidy(&self, mut state: State) -> State {
        for (asker, (phase, _)) in state.askers.iter().enumerate() {
            let unasked = !matches!(phase, Phase::Asking { .. });
            for node in &mut state.nodes {
                if unasked {
                    node.requests[asker] = Proposal::Sent;
                }
                if *phase == Phase::Idle && node.holder == Holder::Asker(asker as u8) {
                    node.holder = Holder::Leftover;
                }
            }
        }
        // No proposal that is under way or still to come lies below this.
        let asked = state.askers.iter().filter_map(|(phase, _)| match phase {
            Phase::Asking { fence, .. } => Some(*fence),
            Phase::Idle | Phase::Holding { .. } => None,
        });
        let lowest = asked.fold(propose(0, NOW), u64::min);
        let forget = |fence: u64| if fence < lowest { 0 } else { fence };
        state.last_fence = forget(state.last_fence);
        for node in &mut state.nodes {
            if node.holder == Holder::Nobody || node.ends_in == 0 {
                (node.holder, node.ends_in) = (Holder::Nobody, 0);
            }
            // Only the higher of the two can matter; which one it is stays, so that `judge` must heed both.
            let Memory { accepted, floor } = node.memory;
            node.memory = match accepted > floor {
                true => Memory { accepted: forget(accepted), floor: 0 },
                false => Memory { accepted: 0, floor: forget(floor) },
            };
        }
        self.sort_askers(&mut state);
        state.nodes[..self.nodes].sort_unstable();
        state
    }

    /// Askers are alike too; those that are equal but for their requests keep their places.
    fn sort_askers(&self, state: &mut State) {
        let mut order = [0, 1, 2];
        order[..self.askers].sort_by_key(|&asker: &usize| state.askers[asker]);
        let before = *state;
        for (place, &asker) in order.iter().enumerate() {
            state.askers[place] = before.askers[asker];
            for (node, old) in state.nodes.iter_mut().zip(&before.nodes) {
                node.requests[place] = old.requests[asker];
                if old.holder == Holder::Asker(asker as u8) {
                    node.holder = Holder::Asker(place as u8);
                }
            }
        }
    }

    fn tick(&self, mut state: State) -> State {
        let age = |fence: &mut u64| *fence = fence.saturating_sub(SCALE);
        for (phase, _) in &mut state.askers {
            match phase {
                Phase::Asking { valid_for: 1, .. } | Phase::Holding { valid_for: 1 } => *phase = Phase::Idle,
                Phase::Asking { valid_for, fence, .. } => {
                    *valid_for -= 1;
                    age(fence);
                }
                Phase::Holding { valid_for } => *valid_for -= 1,
                Phase::Idle => {}
            }
        }
        for node in &mut state.nodes {
            node.ends_in = node.ends_in.saturating_sub(1);
            node.silent_for = node.silent_for.saturating_sub(1);
            age(&mut node.memory.accepted);
            age(&mut node.memory.floor);
            for proposal in &mut node.requests {
                if let Proposal::Refused(seen) = proposal {
                    age(seen);
                }
            }
        }
        age(&mut state.last_fence);
        state
    }

    fn steps(&self, state: &State, take: &mut impl FnMut(Step, State, Option<Fault>)) {
        take(Step::Tick, self.tick(*state), None);
        for asker in 0..self.askers {
            self.asker_steps(state, asker, take);
        }
        let mut before = None;
        for (at, node) in state.nodes[..self.nodes].iter().enumerate() {
            // The nodes are in order: a twin of the node before has the same steps.
            if before != Some(node) {
                self.node_steps(state, at, take);
            }
            before = Some(node);
        }
    }

    fn asker_steps(&self, state: &State, asker: usize, take: &mut impl FnMut(Step, State, Option<Fault>)) {
        let (phase, left) = state.askers[asker];
        let with = |phase, left| {
            let mut next = *state;
            next.askers[asker] = (phase, left);
            next
        };
        match phase {
            Phase::Idle if left > 0 => {
                for ahead in if self.skew > 0 { vec![0, self.skew] } else { vec![0] } {
                    let fence = propose(0, NOW + u64::from(ahead) * SCALE);
                    let asking = Phase::Asking { valid_for: self.ttl, fence, turn: RoundNumber::First };
                    take(Step::AcquireRequest { asker, fence }, with(asking, left - 1), None);
                }
            }
            Phase::Idle => {}
            Phase::Holding { .. } => take(Step::Release { asker }, with(Phase::Idle, left), None),
            Phase::Asking { valid_for, fence, turn } => {
                take(Step::GiveUp { asker }, with(Phase::Idle, left), None);
                let double = state.askers.iter().any(|(phase, _)| matches!(phase, Phase::Holding { .. }));
                let mut taken = Vec::new();
                for arrived in 0..1_u32 << self.nodes {
                    let verdict = self.verdict(state, asker, (fence, turn), arrived);
                    if taken.contains(&verdict) {
                        continue;
                    }
                    taken.push(verdict);
                    match verdict {
                        Verdict::Proved(proved) => {
                            let falls = (proved.get() <= state.last_fence).then_some(Fault::FenceNotAbove);
                            let fault = double.then_some(Fault::TwoHolders).or(falls);
                            let mut next = with(Phase::Holding { valid_for }, left);
                            next.last_fence = proved.get().max(state.last_fence);
                            take(Step::Grant { asker, proof: turn, fence }, next, fault);
                        }
                        Verdict::AskAgain(fence) => {
                            let mut again = with(Phase::Asking { valid_for, fence, turn: RoundNumber::Second }, left);
                            again.nodes.iter_mut().for_each(|node| node.requests[asker] = Proposal::Sent);
                            take(Step::AskAgain { asker, fence }, again, None);
                        }
                        Verdict::Unproved => {}
                    }
                }
            }
        }
    }

    /// What the asker makes of those judgements that arrived.
    fn verdict(&self, state: &State, asker: usize, (fence, turn): (u64, RoundNumber), arrived: u32) -> Verdict {
        let mut round = FenceRound::new(self.quorum(), turn, fence);
        for (at, node) in state.nodes[..self.nodes].iter().enumerate() {
            match node.requests[asker] {
                _ if arrived & 1 << at == 0 => continue,
                Proposal::Accepted => round.count(Some(Judgement::Accepted)),
                Proposal::Refused(seen) => round.count(Some(Judgement::Refused { seen })),
                Proposal::Sent => continue,
            }
        }
        round.close()
    }

    fn node_steps(&self, state: &State, at: usize, take: &mut impl FnMut(Step, State, Option<Fault>)) {
        let node = state.nodes[at];
        let with = |node| {
            let mut next = *state;
            next.nodes[at] = node;
            next
        };
        let remembers = node.holder != Holder::Nobody || node.memory != Memory::default();
        if state.crashes < self.crashes && remembers {
            let end = NOW + u64::from(self.quarantine + node.clock_ahead) * SCALE;
            let floor = if self.floor == Floor::EndOfQuarantine { end } else { 0 };
            let memory = Memory { accepted: 0, floor };
            // Replies that are on their way still arrive.
            let silent_for = self.quarantine;
            let mut next = with(Node { holder: Holder::Nobody, ends_in: 0, memory, silent_for, ..node });
            next.crashes += 1;
            take(Step::Crash { node: at }, next, None);
        }
        if node.holder == Holder::Leftover {
            take(Step::LateRelease { node: at }, with(Node { holder: Holder::Nobody, ..node }), None);
        }
        if node.silent_for > 0 {
            return;
        }
        for asker in 0..self.askers {
            let Phase::Asking { fence, turn, .. } = state.askers[asker].0 else { continue };
            let proposal = node.requests[asker];
            let mine = Holder::Asker(asker as u8);
            let mut ran = node;
            let is_free = node.holder == Holder::Nobody;
            if proposal != Proposal::Sent || !(is_free || (turn == RoundNumber::Second && node.holder == mine)) {
                continue;
            }
            // One script does both: the key is taken if, and only if, the fence is accepted.
            let judged = match ran.memory.judge(fence, Holding::Asker) {
                Judgement::Accepted => Proposal::Accepted,
                Judgement::Refused { seen } => Proposal::Refused(seen),
                Judgement::NotHeld => unreachable!("the node would hold the asker's token"),
            };
            if is_free && judged == Proposal::Accepted {
                (ran.holder, ran.ends_in) = (mine, self.ttl);
            }
            ran.requests[asker] = judged;
            take(Step::Run { node: at, asker, judged }, with(ran), None);
        }
    }
}

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "printed as a history")]
enum Step {
    Begin { fast_nodes: usize },
    Tick,
    AcquireRequest { asker: usize, fence: u64 },
    AskAgain { asker: usize, fence: u64 },
    Grant { asker: usize, proof: RoundNumber, fence: u64 },
    Release { asker: usize },
    GiveUp { asker: usize },
    Run { node: usize, asker: usize, judged: Proposal },
    LateRelease { node: usize },
    Crash { node: usize },
}

const SMALL: World = World {
    nodes: 3,
    askers: 2,
    attempts: 1,
    crashes: 1,
    ttl: 2,
    quarantine: 2,
    skew: 1,
    floor: Floor::EndOfQuarantine,
};

#[track_caller]
fn holds(world: World) {
    let began = std::time::Instant::now();
    let found = world.search();
    eprintln!(
        "{world:?}: {} states, {} grants, {:?} proofs, {:?}",
        found.states,
        found.grants,
        found.proofs,
        began.elapsed()
    );
    if let Some((fault, history)) = found.fault {
        panic!("{fault:?} in {world:?}:\n{}", history.join("\n"));
    }
    assert!(found.proofs.iter().all(|&proofs| proofs > 0), "the search must reach proofs in both rounds: {found:?}");
}

#[track_caller]
fn breaks(world: World, expected: Fault) {
    let found = world.search();
    let (fault, history) = found.fault.expect("the search finds a fault");
    eprintln!("{world:?}: {} states\n{}", found.states, history.join("\n"));
    assert_eq!(fault, expected, "{}", history.join("\n"));
}

#[test]
fn three_nodes_and_two_askers_hold() {
    holds(SMALL);
}

#[test]
fn five_nodes_of_which_two_crash_hold() {
    holds(World { nodes: 5, crashes: 2, ttl: 1, quarantine: 2, ..SMALL });
}

#[test]
fn more_crashes_and_other_clocks_hold() {
    holds(World { crashes: 3, ..SMALL });
    holds(World { crashes: 2, quarantine: 3, skew: 2, ..SMALL });
    holds(World { crashes: 2, quarantine: 3, skew: 0, ttl: 3, ..SMALL });
}

#[test]
fn five_nodes_with_longer_locks_hold() {
    holds(World { nodes: 5, crashes: 1, ..SMALL });
}

#[test]
fn three_askers_hold() {
    holds(World { askers: 3, ..SMALL });
}

#[test]
fn askers_who_try_again_hold() {
    holds(World { ttl: 1, crashes: 2, attempts: 2, ..SMALL });
}

#[test]
fn without_a_quarantine_two_hold_at_once() {
    breaks(World { quarantine: 0, skew: 0, ..SMALL }, Fault::TwoHolders);
}

#[test]
fn without_a_floor_a_fence_falls_back_though_clocks_differ_by_less_than_the_quarantine() {
    breaks(World { floor: Floor::None, crashes: 2, ..SMALL }, Fault::FenceNotAbove);
}

#[test]
fn clocks_that_differ_by_the_quarantine_break_the_fence() {
    breaks(World { skew: 2, crashes: 2, ..SMALL }, Fault::FenceNotAbove);
}
