//! Fear: the search loops, sees a ghost, accuses an onlooker, or lets a deadlock stand (peer bug 28).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A world that stands still. A wait's name is its position.
#[derive(Clone, Debug, Default)]
struct Still {
    waits: Vec<(u64, Option<Blocked>)>,
    asked: RefCell<Vec<usize>>,
}

impl Still {
    /// `owner` lacks `missing` of what `(owner, weight)` hold; a grant is named by its holder.
    fn wait(mut self, owner: u64, missing: u32, holders: &[(u64, u32)]) -> Self {
        let holders =
            holders.iter().map(|&(owner, weight)| Hold { owner: OwnerId(owner), weight, grant: 100 + owner }).collect();
        self.waits.push((owner, Some(Blocked { missing, holders })));
        self
    }

    /// `owner` waits for all of `holders` to let go.
    fn all(self, owner: u64, holders: &[u64]) -> Self {
        let holds: Vec<_> = holders.iter().map(|&holder| (holder, 1)).collect();
        self.wait(owner, holders.len() as u32, &holds)
    }

    /// A wait that was still listed when it was already over.
    fn gone(mut self, owner: u64) -> Self {
        self.waits.push((owner, None));
        self
    }

    /// Makes a wait lack something else, of `(owner, weight, grant)`.
    fn set(&mut self, wait: usize, missing: u32, holds: &[(u64, u32, u64)]) {
        let hold = |&(owner, weight, grant): &_| Hold { owner: OwnerId(owner), weight, grant };
        self.waits[wait].1 = Some(Blocked { missing, holders: holds.iter().map(hold).collect() });
    }

    /// Who is on the cycle through `owner`, in its order.
    fn cycle(&self, owner: u64) -> Option<Vec<u64>> {
        let steps = cycle_through(self, OwnerId(owner))?;
        for (at, step) in steps.iter().enumerate() {
            let (waiter, blocked) = &self.waits[step.wait];
            let hold = |hold: &Hold| (hold.owner, hold.grant) == (step.held_by, step.grant);
            assert_eq!(step.owner, OwnerId(*waiter), "its own wait");
            assert!(blocked.as_ref().unwrap().holders.iter().any(hold), "a hold that the wait waits for");
            assert_eq!(step.held_by, steps[(at + 1) % steps.len()].owner, "the next step is the holder's");
        }
        assert_eq!(steps[0].owner, OwnerId(owner));
        Some(steps.iter().map(|step| step.owner.0).collect())
    }
}

impl World for Still {
    type Wait = usize;

    fn waits_of(&self, owner: OwnerId) -> Vec<usize> {
        (0..self.waits.len()).filter(|&at| self.waits[at].0 == owner.0).collect()
    }

    fn look(&self, wait: usize) -> Option<Blocked> {
        self.asked.borrow_mut().push(wait);
        self.waits[wait].1.clone()
    }
}

#[test]
fn owners_that_wait_for_each_other_are_a_cycle_in_the_order_of_their_waits() {
    assert_eq!(Still::default().all(1, &[1]).cycle(1), Some(vec![1]), "a wait for oneself");
    assert_eq!(Still::default().all(1, &[2]).all(2, &[1]).cycle(1), Some(vec![1, 2]));
    let three = Still::default().all(1, &[2]).all(2, &[3]).all(3, &[1]);
    assert_eq!((three.cycle(1), three.cycle(3)), (Some(vec![1, 2, 3]), Some(vec![3, 1, 2])));
}

#[test]
fn the_shortest_of_several_cycles_is_told() {
    let world = Still::default().all(1, &[2, 3]).all(2, &[4]).all(4, &[1]).all(3, &[1]);
    assert_eq!(world.cycle(1), Some(vec![1, 3]));
}

#[test]
fn who_runs_or_waits_for_one_who_runs_is_in_no_cycle() {
    assert_eq!(Still::default().cycle(1), None);
    let line = Still::default().all(1, &[2, 3]).all(2, &[3]);
    assert_eq!((line.cycle(1), line.cycle(2), line.cycle(3)), (None, None, None));
}

/// Peer bug 28: the detector loops in a rho-shaped graph.
#[test]
fn an_onlooker_of_a_cycle_is_not_accused_and_the_search_ends() {
    let rho = Still::default().all(0, &[1]).all(1, &[2]).all(2, &[3]).all(3, &[2]);
    assert_eq!((rho.cycle(0), rho.cycle(1)), (None, None));
    assert_eq!((rho.cycle(2), rho.cycle(3)), (Some(vec![2, 3]), Some(vec![3, 2])));
    let self_wait = Still::default().all(0, &[1]).all(1, &[1]);
    assert_eq!((self_wait.cycle(0), self_wait.cycle(1)), (None, Some(vec![1])));
}

#[test]
fn a_wait_for_permits_is_dead_only_if_those_who_run_free_too_few() {
    // 2 waits for 1; 3 and 4 run.
    let pool = |missing| Still::default().all(2, &[1]).wait(1, missing, &[(2, 2), (3, 1), (4, 1)]);
    assert_eq!(pool(0).cycle(1), None, "it lacks nothing any more");
    assert_eq!(pool(1).cycle(1), None, "either of them will do");
    assert_eq!(pool(2).cycle(1), None, "both together will do");
    assert_eq!(pool(3).cycle(1), Some(vec![1, 2]));
    assert_eq!(pool(5).cycle(1), Some(vec![1, 2]), "even all of them would not do");
}

#[test]
fn a_holder_that_is_freed_by_others_frees_what_it_holds() {
    // 2 waits for 3, which runs; 1 waits for either 2 or 4, and 4 for 1.
    let world = Still::default().wait(1, 1, &[(2, 1), (4, 1)]).all(2, &[3]).all(4, &[1]);
    assert_eq!((world.cycle(1), world.cycle(4)), (None, None));
    let dead = world.all(3, &[1]);
    assert_eq!(dead.cycle(1), Some(vec![1, 4]));
    assert_eq!(dead.cycle(3), Some(vec![3, 1, 2]));
}

#[test]
fn a_request_that_nobody_can_fill_is_no_cycle() {
    let hopeless = Still::default().wait(1, 3, &[(2, 1)]).wait(3, 1, &[]);
    assert_eq!((hopeless.cycle(1), hopeless.cycle(3)), (None, None));
}

#[test]
fn a_wait_that_is_over_closes_nothing() {
    let gone = Still::default().all(1, &[2]).gone(2);
    assert_eq!(gone.cycle(1), None);
    assert_eq!(gone.all(2, &[1]).cycle(1), Some(vec![1, 2]), "another of its waits does");
}

#[test]
fn an_owner_with_two_waits_is_held_by_either() {
    let world = Still::default().all(1, &[9]).all(1, &[2]).all(2, &[1]);
    assert_eq!((world.cycle(1), world.cycle(2)), (Some(vec![1, 2]), Some(vec![2, 1])));
    // Both ways lead back: the shorter one is told.
    let both = Still::default().all(1, &[2]).all(1, &[3]).all(2, &[4]).all(3, &[1]).all(4, &[1]);
    assert_eq!((both.cycle(1), both.cycle(2)), (Some(vec![1, 3]), Some(vec![2, 4, 1])));
}

#[test]
fn the_world_is_asked_once_per_wait_that_matters_and_picture() {
    let mut world = Still::default().all(1, &[2]).all(2, &[3]).all(2, &[4]).all(3, &[4]);
    for other in 10..1_000 {
        world = world.all(other, &[1, other + 1]);
    }
    assert_eq!(world.cycle(1), None);
    assert_eq!(*world.asked.borrow(), [0, 1, 2, 3], "and nobody is asked who waits for it only");
}

/// An endless row: each waits for the next. Asked without going through all waits, so that its length may be great.
struct Row {
    length: u64,
    ends: Option<u64>,
}

impl World for Row {
    type Wait = u64;

    fn waits_of(&self, owner: OwnerId) -> Vec<u64> {
        vec![owner.0]
    }

    fn look(&self, wait: u64) -> Option<Blocked> {
        let next = if wait + 1 < self.length { wait + 1 } else { self.ends? };
        Some(Blocked { missing: 1, holders: vec![Hold { owner: OwnerId(next), weight: 1, grant: next }] })
    }
}

#[test]
fn a_chain_of_100_000_is_followed_to_its_end() {
    let length = 100_000;
    assert_eq!(cycle_through(&Row { length, ends: None }, OwnerId(0)), None);
    assert_eq!(cycle_through(&Row { length, ends: Some(50_000) }, OwnerId(0)), None, "an onlooker from afar");
    let ring = cycle_through(&Row { length, ends: Some(0) }, OwnerId(0)).unwrap();
    assert_eq!(ring.len() as u64, length);
    assert!(ring.iter().zip(0..).all(|(step, at)| step.owner == OwnerId(at)));
}

/// A world that `change` changes before every look, told how many there have been.
struct Moving<F> {
    looks: Cell<u32>,
    now: RefCell<Still>,
    change: F,
}

impl<F: Fn(u32, &mut Still)> Moving<F> {
    fn new(now: Still, change: F) -> Self {
        Self { looks: Cell::new(0), now: RefCell::new(now), change }
    }

    fn cycle(&self) -> Option<usize> {
        cycle_through(self, OwnerId(1)).map(|steps| steps.len())
    }
}

impl<F: Fn(u32, &mut Still)> World for Moving<F> {
    type Wait = usize;

    fn waits_of(&self, owner: OwnerId) -> Vec<usize> {
        self.now.borrow().waits_of(owner)
    }

    fn look(&self, wait: usize) -> Option<Blocked> {
        (self.change)(self.looks.get(), &mut self.now.borrow_mut());
        self.looks.set(self.looks.get() + 1);
        self.now.borrow().look(wait)
    }
}

#[test]
fn a_cycle_of_edges_that_were_never_there_together_is_not_told() {
    // The first wait is over when the second is looked at: no moment saw them both.
    let world = Moving::new(Still::default().all(1, &[2]).all(2, &[1]), |looks, now| {
        if looks > 0 {
            now.waits[0].1 = None;
        }
    });
    assert_eq!(world.cycle(), None);
}

#[test]
fn a_cycle_that_looks_the_same_but_is_of_other_grants_or_waits_is_not_told() {
    let ring = Still::default().all(2, &[1]).all(1, &[2]);
    let regranted = Moving::new(ring.clone(), |looks, now| now.set(1, 1, &[(2, 1, looks.into())]));
    assert_eq!(regranted.cycle(), None);
    assert_eq!(regranted.looks.get() as usize, 2 * ROUNDS, "and the search ends");
    let asked_anew = Moving::new(ring.clone(), |looks, now| {
        if looks % 2 == 1 {
            let anew = std::mem::replace(now.waits.last_mut().unwrap(), (9, None));
            now.waits.push(anew);
        }
    });
    assert_eq!(asked_anew.cycle(), None);
    assert_eq!(asked_anew.looks.get() as usize, 2 * ROUNDS, "each picture had a cycle");
    let more_or_less = Moving::new(ring, |looks, now| now.set(1, 1 + looks / 2 % 2, &[(2, 1, 77)]));
    assert_eq!(more_or_less.cycle(), None, "nor one of another size");
}

#[test]
fn a_cycle_that_closes_while_the_world_still_moves_is_told() {
    let ring = Still::default().all(1, &[2]).all(2, &[1]);
    let world = Moving::new(ring, |looks, now| {
        now.set(0, 1, &[(2, 1, looks.min(9).into())]);
    });
    assert_eq!(world.cycle(), Some(2));
}

#[test]
fn those_who_come_and_go_around_a_deadlock_do_not_hide_it() {
    // 1 asks for 4 of 5 permits; 2 holds 2 and waits for 1; the other 3 pass between those who run.
    let pool = Still::default().wait(1, 4, &[]).all(2, &[1]);
    let world = Moving::new(pool, |looks, now| {
        let (taken, grant) = (looks % 4, u64::from(looks));
        let others = [(2, 2, 77), (10 + grant, taken, grant)];
        now.set(0, 1 + taken, &others);
    });
    assert_eq!(world.cycle(), Some(2));
}

const OWNERS: usize = 6;

#[derive(Clone, Debug)]
struct SmallKey {
    permits: u32,
    /// Who holds how many of them; nobody in particular, where there is no such owner.
    holds: Vec<(usize, u32)>,
}

#[derive(Clone, Debug)]
struct SmallWait {
    owner: usize,
    key: usize,
    ask: SmallAsk,
}

#[derive(Clone, Debug)]
enum SmallAsk {
    /// Everybody is to let go.
    All,
    /// This many permits.
    Permits(u32),
}

fn small_worlds() -> impl Strategy<Value = Still> {
    let hold = (0..=OWNERS, 1..=3_u32);
    let key = (0..=3_u32, prop::collection::vec(hold, 0..=3))
        .prop_map(|(free, holds)| SmallKey { permits: free + holds.iter().map(|hold| hold.1).sum::<u32>(), holds });
    let ask = prop_oneof![Just(SmallAsk::All), (1..=9_u32).prop_map(SmallAsk::Permits)];
    let wait = (0..OWNERS, 0..5_usize, ask).prop_map(|(owner, key, ask)| SmallWait { owner, key, ask });
    (prop::collection::vec(key, 5), prop::collection::vec(wait, 0..=9)).prop_map(|(keys, waits)| {
        waits.iter().fold(Still::default(), |world, SmallWait { owner, key, ask }| {
            let SmallKey { permits, holds } = &keys[*key];
            let owned: Vec<_> = holds.iter().filter(|hold| hold.0 < OWNERS).map(|&(o, n)| (o as u64, n)).collect();
            let taken: u32 = owned.iter().map(|hold| hold.1).sum();
            match ask {
                SmallAsk::All => world.all(*owner as u64, &owned.iter().map(|hold| hold.0).collect::<Vec<_>>()),
                SmallAsk::Permits(n) => world.wait(*owner as u64, n.saturating_sub(permits - taken), &owned),
            }
        })
    })
}

/// What `blocked` lacks when the owners of the set have let go.
fn lacks(blocked: &Blocked, ended: u8) -> bool {
    let freed = blocked.holders.iter().filter(|hold| ended & (1 << hold.owner.0) != 0).map(|hold| hold.weight);
    freed.sum::<u32>() < blocked.missing
}

/// Who ends in some order of events: every order is tried.
fn who_can_end(world: &Still) -> u8 {
    let (mut seen, mut open) = (BTreeSet::from([0_u8]), vec![0_u8]);
    while let Some(ended) = open.pop() {
        for owner in 0..OWNERS {
            let blocked = |(waiter, blocked): &(u64, Option<Blocked>)| {
                *waiter == owner as u64 && lacks(blocked.as_ref().unwrap(), ended)
            };
            let then = ended | 1 << owner;
            if !world.waits.iter().any(blocked) && seen.insert(then) {
                open.push(then);
            }
        }
    }
    seen.into_iter().fold(0, |all, ended| all | ended)
}

/// How many waits lie between two of the dead, by trying every one in between (Floyd and Warshall, 1962).
fn distances(world: &Still, alive: u8) -> BTreeMap<(u64, u64), usize> {
    let dead = |owner: u64| alive & (1 << owner) == 0;
    let mut far = BTreeMap::new();
    for (owner, blocked) in &world.waits {
        let blocked = blocked.as_ref().unwrap();
        for hold in blocked.holders.iter().filter(|hold| dead(hold.owner.0) && lacks(blocked, alive)) {
            far.insert((*owner, hold.owner.0), 1);
        }
    }
    let all = 0..OWNERS as u64;
    for via in all.clone() {
        for (from, to) in all.clone().flat_map(|from| all.clone().map(move |to| (from, to))) {
            if let (Some(a), Some(b)) = (far.get(&(from, via)), far.get(&(via, to))) {
                let sum = a + b;
                far.entry((from, to)).and_modify(|known| *known = sum.min(*known)).or_insert(sum);
            }
        }
    }
    far
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Peer bug 28: random graphs against brute force.
    #[test]
    fn small_worlds_are_judged_as_trying_every_order_judges_them(world in small_worlds()) {
        let far = distances(&world, who_can_end(&world));
        for owner in 0..OWNERS as u64 {
            let cycle = world.cycle(owner).map(|cycle| cycle.len());
            prop_assert_eq!(cycle, far.get(&(owner, owner)).copied(), "owner {}", owner);
        }
    }
}
