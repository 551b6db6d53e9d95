//! All posts together: which of this process's waits are part of a cycle, and which of them give way.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::post::Post;
use super::{Hold, Lacks, Reach, Since, Told, Wait, WaitName};
use crate::deadlock::graph::{self, Blocked, Dead, World, dead_part_of};
use crate::error::WaitEdge;
use crate::key::Key;
use crate::mode::{Kind, Mode};
use crate::table::OwnerId;

/// So many moments are tried for one cycle.
const MOMENTS: usize = 8;

/// Who waits for what in all processes, as their posts have it. Owners and waits are named by position.
pub(crate) struct Picture<'a> {
    owners: Vec<Owner<'a>>,
    waits: Vec<(usize, &'a Wait)>,
    by_name: HashMap<(u64, u64), usize>,
    holds: HashMap<Place<'a>, Vec<(usize, &'a Hold)>>,
    /// Those of whom somebody may want something.
    wanted: HashSet<usize>,
}

/// A key, and of which process if it is of one alone.
type Place<'a> = (Option<u64>, &'a Key);

struct Owner<'a> {
    process: u64,
    seen: u64,
    told: &'a Told,
    waits: std::ops::Range<usize>,
}

/// What a process makes of a picture.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Its own waits that give way.
    pub(crate) victims: Vec<Victim>,
    /// Its own waits that are part of a cycle which it does not break by now: not yet believed, or another's to break.
    pub(crate) suspects: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) wait: u64,
    /// Begins with that wait.
    pub(crate) cycle: Arc<[WaitEdge]>,
}

impl<'a> Picture<'a> {
    pub(crate) fn of(posts: &'a [(u64, Post)]) -> Self {
        let (owners, waits, by_name) = (Vec::new(), Vec::new(), HashMap::new());
        let mut picture = Self { owners, waits, by_name, holds: HashMap::new(), wanted: HashSet::new() };
        for (process, post) in posts {
            for told in &post.owners {
                picture.add(*process, post.seen, told);
            }
        }
        let grants = picture.waits.iter().filter_map(|(at, wait)| picture.holder_of(*at, wait));
        picture.wanted = grants.chain(picture.holds.values().flatten().map(|(owner, _)| *owner)).collect();
        picture
    }

    fn add(&mut self, process: u64, seen: u64, told: &'a Told) {
        let (at, first) = (self.owners.len(), self.waits.len());
        self.waits.extend(told.waits.iter().map(|wait| (at, wait)));
        for hold in &told.holds {
            self.holds.entry((place(process, hold.reach), &hold.key)).or_default().push((at, hold));
        }
        self.by_name.insert((process, told.owner), at);
        self.owners.push(Owner { process, seen, told, waits: first..self.waits.len() });
    }

    /// The owner that a wait of `owner` wants a grant of.
    fn holder_of(&self, owner: usize, wait: &Wait) -> Option<usize> {
        let Lacks::Grant { owner: holder, .. } = wait.lacks else { return None };
        self.by_name.get(&(self.owners[owner].process, holder)).copied()
    }

    fn name(&self, at: usize) -> WaitName {
        let (owner, wait) = self.waits[at];
        WaitName { since: wait.since, process: self.owners[owner].process, id: wait.id }
    }

    /// What a process has to do about its own waits.
    pub(crate) fn judge(&self, process: u64) -> Judged {
        let (mut judged, mut refused) = (Judged::default(), HashSet::new());
        let is_own = |at: &usize| {
            let owner = self.waits[*at].0;
            self.owners[owner].process == process && self.wanted.contains(&owner)
        };
        let mut own: Vec<usize> = (0..self.waits.len()).filter(is_own).collect();
        own.sort_unstable_by_key(|at| std::cmp::Reverse(self.name(*at)));
        for wait in own {
            let cycle = match self.cycle_through(wait, &refused) {
                Cycle::None => continue,
                Cycle::NotYetBelieved => None,
                Cycle::Believed(steps) => Some(steps),
            };
            let gives_way = |steps: &Vec<usize>| steps.iter().all(|step| self.name(*step) <= self.name(wait));
            match cycle.filter(gives_way) {
                Some(steps) => {
                    refused.insert(wait);
                    judged.victims.push(Victim { wait: self.waits[wait].1.id, cycle: self.edges(&steps) });
                }
                None => judged.suspects.push(self.waits[wait].1.id),
            }
        }
        judged
    }

    fn cycle_through(&self, wait: usize, refused: &HashSet<usize>) -> Cycle {
        let Some(dead) = self.dead(wait, None, refused) else { return Cycle::None };
        let moments: BTreeSet<u64> = dead.waits.iter().map(|at| self.owners[self.waits[*at].0].seen).collect();
        let mut tried = moments.into_iter().take(MOMENTS);
        match tried.find_map(|moment| self.dead(wait, Some(moment), refused)) {
            Some(Dead { cycle, .. }) => Cycle::Believed(cycle.iter().map(|step| step.wait).collect()),
            None => Cycle::NotYetBelieved,
        }
    }

    fn dead(&self, root: usize, moment: Option<u64>, refused: &HashSet<usize>) -> Option<Dead<usize>> {
        let view = View { picture: self, root, moment, refused };
        dead_part_of(&view, OwnerId(self.waits[root].0 as u64))
    }

    fn edges(&self, steps: &[usize]) -> Arc<[WaitEdge]> {
        let edge = |at: &usize| {
            let (owner, wait) = self.waits[*at];
            WaitEdge { owner: Arc::clone(&self.owners[owner].told.label), key: wait.key.clone() }
        };
        steps.iter().map(edge).collect()
    }
}

fn place(process: u64, reach: Reach) -> Option<u64> {
    (reach == Reach::Process).then_some(process)
}

enum Cycle {
    None,
    NotYetBelieved,
    /// The waits, from the one that was asked about on.
    Believed(Vec<usize>),
}

/// What was there at one moment; or, without one, all that the posts name.
struct View<'a> {
    picture: &'a Picture<'a>,
    /// Its owner waits for nothing else here: the cycle is to go through this wait. A wait that is never over does not
    /// become so by what else its owner waits for.
    root: usize,
    moment: Option<u64>,
    /// Waits that give way already.
    refused: &'a HashSet<usize>,
}

impl View<'_> {
    fn shows(&self, owner: usize, since: Since) -> bool {
        self.moment.is_none_or(|moment| since <= Since(moment) && moment <= self.picture.owners[owner].seen)
    }

    fn blocked(&self, owner: usize, reach: Reach, key: &Key, mode: Mode) -> Blocked {
        let place = place(self.picture.owners[owner].process, reach);
        let holds = self.picture.holds.get(&(place, key)).into_iter().flatten();
        let holders: Vec<_> = holds
            .filter(|(holder, hold)| self.shows(*holder, hold.since) && !go_together(hold.mode, mode))
            .map(|(holder, hold)| graph::Hold {
                owner: OwnerId(*holder as u64),
                weight: hold.mode.weight(),
                grant: hold.grant,
            })
            .collect();
        let held: u64 = holders.iter().map(|hold| u64::from(hold.weight)).sum();
        let missing = match mode.kind() {
            Kind::ReadWrite => held,
            Kind::Semaphore { limit } => (u64::from(mode.weight()) + held).saturating_sub(u64::from(limit)),
        };
        Blocked { missing: u32::try_from(missing).unwrap_or(u32::MAX), holders }
    }
}

/// Whether a hold is in no such request's way. Permits are counted, not compared.
fn go_together(hold: Mode, wanted: Mode) -> bool {
    match (hold, wanted) {
        (Mode::Shared, Mode::Shared) => true,
        (hold, wanted) => hold.kind() != wanted.kind(),
    }
}

impl World for View<'_> {
    type Wait = usize;

    fn waits_of(&self, owner: OwnerId) -> Vec<usize> {
        let owner = owner.0 as usize;
        if owner == self.picture.waits[self.root].0 {
            return vec![self.root];
        }
        self.picture.owners[owner].waits.clone().collect()
    }

    fn look(&self, at: usize) -> Option<Blocked> {
        let (owner, wait) = self.picture.waits[at];
        if self.refused.contains(&at) || !self.shows(owner, wait.since) {
            return None;
        }
        match wait.lacks {
            Lacks::Key(reach, mode) => Some(self.blocked(owner, reach, &wait.key, mode)),
            Lacks::Grant { grant, .. } => {
                let holder = self.picture.holder_of(owner, wait)?;
                let hold = graph::Hold { owner: OwnerId(holder as u64), weight: 1, grant };
                Some(Blocked { missing: 1, holders: vec![hold] })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 100;

    /// A process's owner: what it holds and waits for, all known since the 50th answer.
    fn told(owner: u64, holds: &[(&str, Mode)], waits: &[(&str, Mode)]) -> Told {
        let key = |name: &str| Key::new(name).unwrap();
        let (since, reach) = (Since(50), Reach::Everywhere);
        let hold = |(at, (name, mode)): (usize, &(&str, Mode))| Hold {
            grant: owner * 100 + at as u64,
            since,
            reach,
            mode: *mode,
            key: key(name),
        };
        let wait = |(at, (name, mode)): (usize, &(&str, Mode))| Wait {
            id: owner * 10 + at as u64,
            since,
            lacks: Lacks::Key(reach, *mode),
            key: key(name),
        };
        let (holds, waits) = (holds.iter().enumerate().map(hold), waits.iter().enumerate().map(wait));
        Told { owner, label: format!("owner {owner}").into(), waits: waits.collect(), holds: holds.collect() }
    }

    /// One owner in each process, named alike.
    fn posts(all: Vec<Told>) -> Vec<(u64, Post)> {
        all.into_iter().map(|told| (told.owner, Post { seen: NOW, owners: vec![told] })).collect()
    }

    fn victims(posts: &[(u64, Post)]) -> Vec<u64> {
        let picture = Picture::of(posts);
        posts.iter().flat_map(|(process, _)| picture.judge(*process).victims).map(|victim| victim.wait).collect()
    }

    const X: Mode = Mode::Exclusive;
    const S: Mode = Mode::Shared;

    fn permits(permits: u32) -> Mode {
        Mode::Permits { limit: 4, permits }
    }

    fn ring() -> Vec<(u64, Post)> {
        posts(vec![
            told(1, &[("a", X)], &[("b", X)]),
            told(2, &[("b", X)], &[("c", X)]),
            told(3, &[("c", X)], &[("a", X)]),
        ])
    }

    #[test]
    fn a_cycle_is_told_as_it_is_and_its_highest_wait_gives_way_alone() {
        let ring = ring();
        assert_eq!(victims(&ring), [30]);
        let victim = Picture::of(&ring).judge(3).victims.remove(0);
        let told: Vec<_> = victim.cycle.iter().map(|edge| format!("{} {}", edge.owner, edge.key)).collect();
        assert_eq!(told, ["owner 3 a", "owner 1 b", "owner 2 c"]);
        let mut later = ring;
        later[0].1.owners[0].waits[0].since = Since(60);
        assert_eq!(victims(&later), [10], "the last to be known");
    }

    #[test]
    fn a_cycle_is_believed_when_there_is_a_number_that_all_its_parts_have_seen() {
        let judge = |change: fn(&mut Vec<(u64, Post)>)| {
            let mut ring = ring();
            change(&mut ring);
            (
                victims(&ring).len(),
                ring.iter().any(|(process, _)| !Picture::of(&ring).judge(*process).suspects.is_empty()),
            )
        };
        assert_eq!(judge(|_| {}), (1, true));
        assert_eq!(judge(|ring| ring[1].1.seen = 50), (1, true), "the first moment at which all were there");
        assert_eq!(judge(|ring| ring[1].1.seen = 49), (0, true));
        assert_eq!(judge(|ring| ring[0].1.owners[0].holds[0].since = Since(101)), (0, true));
        assert_eq!(judge(|ring| ring[0].1.owners[0].waits[0].since = Since::UNKNOWN), (0, true));
        assert_eq!(judge(|ring| drop(ring.remove(1))), (0, false));
    }

    #[test]
    fn one_that_lags_behind_the_cycle_does_not_hide_it() {
        let mut posts = posts(vec![
            told(1, &[("a", X)], &[("b", X)]),
            told(2, &[("b", X)], &[("a", X), ("c", X)]),
            told(3, &[("c", X)], &[("a", X)]),
        ]);
        posts[2].1.seen = 10;
        assert_eq!(victims(&posts), [20]);
    }

    #[test]
    fn shares_are_in_the_way_of_one_who_wants_all_and_of_nobody_else() {
        let readers = |wanted| {
            victims(&posts(vec![
                told(1, &[("k", S)], &[("l", X)]),
                told(2, &[("k", S)], &[]),
                told(3, &[("l", X)], &[("k", wanted)]),
            ]))
        };
        assert_eq!((readers(X), readers(S)), (vec![30], vec![]));
    }

    #[test]
    fn permits_are_lacking_where_the_dead_hold_too_many_and_not_where_others_may_free_enough() {
        let pool = |wanted, held| {
            victims(&posts(vec![
                told(1, &[("k", permits(held))], &[("l", X)]),
                told(2, &[("l", X)], &[("k", permits(wanted))]),
            ]))
        };
        assert_eq!((pool(3, 2), pool(2, 2)), (vec![20], vec![]));
        let both = posts(vec![
            told(1, &[("k", permits(1))], &[("l", X)]),
            told(2, &[("k", permits(2))], &[("l", X)]),
            told(3, &[("l", X)], &[("k", permits(2))]),
        ]);
        assert_eq!(victims(&both), [30], "together they hold too many");
    }

    #[test]
    fn keys_and_grants_of_one_process_are_its_own() {
        let mut ring = ring();
        ring[0].1.owners[0].holds[0].reach = Reach::Process;
        assert_eq!(victims(&ring), [0; 0], "another process waits for another key");
        // In process 3, a fourth owner waits for the third's turn to end, and holds what the third waits for.
        let mut turns = posts(vec![told(3, &[("c", X)], &[("a", X)])]);
        let mut follower = told(4, &[("a", X)], &[("c", X)]);
        follower.waits[0].lacks = Lacks::Grant { owner: 3, grant: 9 };
        turns[0].1.owners.push(follower);
        assert_eq!(victims(&turns), [40]);
    }

    #[test]
    fn of_two_cycles_with_one_owner_in_common_its_own_process_breaks_both_at_once() {
        let eight = posts(vec![
            told(1, &[("a", X)], &[("hub", X)]),
            told(2, &[("b", X)], &[("hub", X)]),
            told(3, &[("hub", X)], &[("a", X), ("b", X)]),
        ]);
        assert_eq!(victims(&eight), [31, 30]);
    }

    #[test]
    fn whoever_is_asked_somebody_breaks_one_of_several_cycles_that_overlap() {
        for seed in 0..2_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let names = ["a", "b", "c", "d", "e"];
            let owners = (1..=5_u64).map(|owner| {
                let waits: Vec<_> = (0..random.usize(1..=2)).map(|_| (names[random.usize(..5)], X)).collect();
                told(owner, &[(names[owner as usize - 1], X)], &waits)
            });
            let posts = posts(owners.collect());
            let picture = Picture::of(&posts);
            let judged: Vec<_> = posts.iter().map(|(process, _)| picture.judge(*process)).collect();
            let is_seen = judged.iter().any(|judged| !judged.suspects.is_empty() || !judged.victims.is_empty());
            let is_broken = judged.iter().any(|judged| !judged.victims.is_empty());
            assert_eq!(is_seen, is_broken, "seed {seed}: {posts:?}");
        }
    }
}
