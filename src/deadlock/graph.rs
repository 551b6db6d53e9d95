//! Does this owner wait in a cycle? A pure decision: a picture of who waits for whom goes in, the cycle comes out.
//!
//! It is not the register of waits: that is the [`World`], which answers what it is asked, one wait at a time. It
//! knows no keys, modes or deadlines; a cycle that time would undo is a cycle.
//!
//! The one idea is reduction (Holt, 1972): an owner whose waits can all be satisfied will run, end, and free what it
//! holds; do that on paper until nobody else can run, and who is left is dead. It covers waits for everybody to let
//! go (exclusive and shared locks) as well as waits for enough to be let go (permits), by one number per wait.
//!
//! The world moves while it is asked, so a cycle is believed when two pictures in a row show the same dead part. Called
//! when an owner has begun to wait, and when one that waits has been granted something.

use std::fmt::Debug;
use std::ops::Range;

use hashbrown::HashMap;

use crate::table::OwnerId;

#[cfg(test)]
mod tests;

/// How many pictures are taken of a world that does not stand still.
const ROUNDS: usize = 64;

/// The owner that is asked about; every picture begins with it.
const ROOT: usize = 0;

/// What one owner holds of the thing that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hold {
    pub(crate) owner: OwnerId,
    /// How much it frees: 1, or that many permits.
    pub(crate) weight: u32,
    /// Which grant this is; unique over time, and of the same weight as long as it lasts.
    pub(crate) grant: u64,
}

/// What one wait waits for: holders that free `missing`, together.
///
/// For all of them to let go, give each the weight 1 and let `missing` be their number. For permits, the weights are
/// permits and `missing` is what the request lacks. What nobody owns is held by somebody who always runs: count it as
/// free already. `missing` may change only by what holders take and free, as it does where the capacity is fixed.
#[derive(Clone, Debug)]
pub(crate) struct Blocked {
    pub(crate) missing: u32,
    pub(crate) holders: Vec<Hold>,
}

/// Who waits for what, as it is when asked.
pub(crate) trait World {
    /// The name of one wait, unique over time.
    type Wait: Copy + Ord + Debug;

    /// What the owner waits for, in any order; nothing, if it runs.
    fn waits_of(&self, owner: OwnerId) -> Vec<Self::Wait>;

    /// What the wait lacks; `None` if it is over (granted, timed out, cancelled).
    fn look(&self, wait: Self::Wait) -> Option<Blocked>;
}

/// One edge of a cycle: `owner` waits for what `held_by` holds by `grant`. The next step is `held_by`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step<W> {
    pub(crate) owner: OwnerId,
    pub(crate) wait: W,
    pub(crate) held_by: OwnerId,
    pub(crate) grant: u64,
}

/// The shortest cycle through `owner`, if it cannot run any more and is itself part of what blocks it.
///
/// `None` for one who waits in vain for a cycle of others: breaking its wait would help nobody.
///
/// `Some` is exact: everything that keeps the cycle closed was there at one and the same time. Waits and grants have
/// names that are unique over time, so what two pictures show was there all the time between them; and what a dead
/// part lacks is fixed by them (see [`Blocked`]), whatever others take and free around it.
///
/// `None` needs no second picture. A cycle is closed by one change, the last of those that it needs: an owner that
/// begins to wait, or one that is granted something while it waits. The cycle goes through that owner, for whoever
/// does not depend on it was dead before. So whoever makes such a change asks for its owner once the change can be
/// seen, and finds everything else in place: nothing dead moves. For the same reason a world that still moves after
/// 64 pictures is not dead.
///
/// Asks once per wait and picture. The cost is that of the part of the world that `owner` waits for, directly or not
/// (its edges, and sorting them), however many owners there are besides.
pub(crate) fn cycle_through<W: World>(world: &W, owner: OwnerId) -> Option<Vec<Step<W::Wait>>> {
    let mut before = None;
    for _ in 0..ROUNDS {
        let mut picture = Picture::take(world, owner);
        picture.reduce();
        let (dead, cycle) = picture.dead_part();
        let cycle = cycle?;
        if before.as_ref() == Some(&dead) {
            return Some(cycle);
        }
        before = Some(dead);
    }
    None
}

/// What keeps an owner from running, as one picture of a world shows it.
pub(crate) struct Dead<W> {
    /// The waits that are never over, of everybody on whom it depends.
    pub(crate) waits: Vec<W>,
    /// A shortest cycle through the owner.
    pub(crate) cycle: Vec<Step<W>>,
}

/// The same as [`cycle_through`] for a world that stands still, with all that keeps the cycle closed.
pub(crate) fn dead_part_of<W: World>(world: &W, owner: OwnerId) -> Option<Dead<W::Wait>> {
    let mut picture = Picture::take(world, owner);
    picture.reduce();
    let (dead, cycle) = picture.dead_part();
    Some(Dead { waits: dead.into_iter().map(|dead| dead.wait).collect(), cycle: cycle? })
}

/// Everything that one owner waits for, directly or not. Owners, waits and edges refer to each other by position.
struct Picture<W> {
    owners: Vec<Owner>,
    waits: Vec<Wait<W>>,
    edges: Vec<Edge>,
}

struct Owner {
    id: OwnerId,
    waits: Range<usize>,
    /// How many of its waits still lack something; it runs at 0.
    unmet: usize,
    /// The edges that lead to it: what others lack because of it.
    blocks: Vec<usize>,
}

struct Wait<W> {
    id: W,
    owner: usize,
    /// What it lacks still, when all who can run have let go.
    short: u32,
    edges: Range<usize>,
}

struct Edge {
    wait: usize,
    holder: usize,
    hold: Hold,
}

/// A wait that is never over, as two pictures are compared by it.
#[derive(PartialEq, Eq)]
struct DeadWait<W> {
    wait: W,
    short: u32,
    /// What the dead hold of it.
    holds: Vec<Hold>,
}

impl<W: Copy + Ord + Debug> Picture<W> {
    fn take(world: &impl World<Wait = W>, owner: OwnerId) -> Self {
        let mut picture = Self { owners: vec![Owner::new(owner)], waits: Vec::new(), edges: Vec::new() };
        let mut places = HashMap::with_hasher(foldhash::fast::RandomState::default());
        places.insert(owner, ROOT);
        let mut at = ROOT;
        while let Some(&Owner { id, .. }) = picture.owners.get(at) {
            let first = picture.waits.len();
            // Sorted, so that two pictures of the same thing are the same.
            let mut waits = world.waits_of(id);
            waits.sort_unstable();
            for wait in waits {
                let Some(Blocked { missing, mut holders }) = world.look(wait) else { continue };
                if missing > 0 {
                    holders.sort_unstable();
                    picture.add(at, wait, missing, &holders, &mut places);
                }
            }
            let waits = first..picture.waits.len();
            (picture.owners[at].unmet, picture.owners[at].waits) = (waits.len(), waits);
            at += 1;
        }
        picture
    }

    fn add(
        &mut self,
        owner: usize,
        id: W,
        short: u32,
        holders: &[Hold],
        places: &mut HashMap<OwnerId, usize, foldhash::fast::RandomState>,
    ) {
        let (wait, first) = (self.waits.len(), self.edges.len());
        for &hold in holders {
            let holder = *places.entry(hold.owner).or_insert_with(|| {
                self.owners.push(Owner::new(hold.owner));
                self.owners.len() - 1
            });
            self.owners[holder].blocks.push(self.edges.len());
            self.edges.push(Edge { wait, holder, hold });
        }
        self.waits.push(Wait { id, owner, short, edges: first..self.edges.len() });
    }

    /// Lets everybody run who can, until nobody else can.
    fn reduce(&mut self) {
        let mut running: Vec<usize> = (0..self.owners.len()).filter(|&at| self.owners[at].unmet == 0).collect();
        while let Some(at) = running.pop() {
            for edge in std::mem::take(&mut self.owners[at].blocks) {
                let Edge { wait, hold, .. } = self.edges[edge];
                let wait = &mut self.waits[wait];
                if wait.short == 0 {
                    continue;
                }
                wait.short = wait.short.saturating_sub(hold.weight);
                if wait.short == 0 {
                    let waiter = &mut self.owners[wait.owner];
                    waiter.unmet -= 1;
                    if waiter.unmet == 0 {
                        running.push(wait.owner);
                    }
                }
            }
        }
    }

    /// Why the root cannot run: the waits that are never over, from it on by who is dead; and the shortest way back to
    /// it. To be asked of a reduced picture.
    fn dead_part(&self) -> (Vec<DeadWait<W>>, Option<Vec<Step<W>>>) {
        let (mut part, mut closing) = (Vec::new(), None);
        // Breadth first: who is reached is reached by a shortest way, and the first edge back closes a shortest cycle.
        let mut reached_by = vec![None; self.owners.len()];
        let mut reached = vec![ROOT];
        let mut next = 0;
        while let Some(&at) = reached.get(next) {
            next += 1;
            for wait in self.waits[self.owners[at].waits.clone()].iter().filter(|wait| wait.short > 0) {
                let mut holds = Vec::new();
                for edge in wait.edges.clone() {
                    let Edge { holder, hold, .. } = self.edges[edge];
                    if self.owners[holder].unmet == 0 {
                        continue;
                    }
                    holds.push(hold);
                    if holder == ROOT {
                        closing.get_or_insert(edge);
                    } else if reached_by[holder].is_none() {
                        reached_by[holder] = Some(edge);
                        reached.push(holder);
                    }
                }
                part.push(DeadWait { wait: wait.id, short: wait.short, holds });
            }
        }
        (part, closing.map(|edge| self.way(edge, &reached_by)))
    }

    /// The way from the root to `last`, which leads back to it.
    fn way(&self, last: usize, reached_by: &[Option<usize>]) -> Vec<Step<W>> {
        let mut steps = Vec::new();
        let mut edge = Some(last);
        while let Some(at) = edge {
            let Edge { wait, hold, .. } = self.edges[at];
            let Wait { id, owner, .. } = self.waits[wait];
            steps.push(Step { owner: self.owners[owner].id, wait: id, held_by: hold.owner, grant: hold.grant });
            edge = reached_by[owner];
        }
        steps.reverse();
        steps
    }
}

impl Owner {
    fn new(id: OwnerId) -> Self {
        Self { id, waits: 0..0, unmet: 0, blocks: Vec::new() }
    }
}
