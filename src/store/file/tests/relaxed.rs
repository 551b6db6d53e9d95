//! D7: what a relaxed store has answered without the disk excludes others, also when a crash has made it forget it.

use std::sync::Arc;

use super::super::builder::Durability;
use super::simulated::{Disk, Mood};
use super::*;
use crate::clock::ManualClock;
use crate::store::Denial;

struct World {
    dir: Dir,
    disk: Arc<Disk>,
    clock: ManualClock,
    every: Duration,
}

impl World {
    fn new(every: Duration) -> Self {
        Self { dir: Dir::new(), disk: Disk::new(), clock: ManualClock::new(), every }
    }

    fn builder(&self) -> FileBuilder {
        let mut builder = self.dir.builder().durability(Durability::Relaxed { every: self.every });
        builder.machine.clock = self.clock.clock();
        builder.opener = self.disk.opener();
        builder
    }

    /// Cuts the power, and starts again.
    fn crash(&self, store: FileStore) -> FileStore {
        self.disk.set(Mood::Off);
        block_on(store.stop());
        let remains = self.disk.remains(&self.dir.file(), &mut fastrand::Rng::new());
        std::fs::write(self.dir.file(), remains).unwrap();
        self.disk.set(Mood::Works);
        started(self.builder())
    }
}

fn retry_in(answer: &Acquired) -> Duration {
    match answer {
        Acquired::Denied { retry_in: Some(left), why: Denial::Held } => *left,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn after_a_crash_nothing_is_granted_before_all_have_ended_that_may_be_forgotten() {
    let world = World::new(Duration::from_secs(60));
    let (store, [known, forgotten]) = (started(world.builder()), [(); 2].map(|()| Token::random()));
    // The first of its length waits for the disk, and those after it do not.
    let before = world.disk.syncs();
    let fence = take(&store, "known", known);
    assert!(world.disk.syncs() > before);
    let before = world.disk.syncs();
    let last_fence = take(&store, "forgotten", forgotten);
    let released = release(&store, "known", known);
    assert_eq!((world.disk.syncs(), released), (before, Released::Released), "answered without the disk");

    let store = world.crash(store);
    assert!(left(&store, "known", known).is_some(), "its release was not on the disk");
    assert_eq!(left(&store, "forgotten", forgotten), None);
    let denied = acquire_for(&store, "forgotten", Token::random(), Duration::from_secs(1));
    assert!(retry_in(&denied) >= LONG - Duration::from_secs(1), "{denied:?}");
    let health = block_on(store.health());
    assert!(health.answer.is_ok() && health.nodes.len() == 1, "{health:?}");
    // Who holds goes on.
    assert!(matches!(acquire(&store, "known", known), Acquired::Granted { fence: Some(same), .. } if same == fence));
    assert!(matches!(extend(&store, "known", known, 2 * LONG), Extended::Extended { .. }));
    assert_eq!(release(&store, "known", known), Released::Released);

    // A second crash shortens nothing.
    let store = world.crash(store);
    let silent = retry_in(&acquire(&store, "forgotten", Token::random()));
    world.clock.advance(silent);
    let next = take(&store, "forgotten", Token::random());
    assert!(next > last_fence, "D6: {next} after {last_fence}");
    assert!(block_on(store.health()).nodes.is_empty());
    block_on(store.stop());
}

#[test]
fn after_a_proper_end_it_grants_at_once() {
    let world = World::new(Duration::from_secs(60));
    let (store, [held, released]) = (started(world.builder()), [(); 2].map(|()| Token::random()));
    take(&store, "held", held);
    take(&store, "released", released);
    assert_eq!(release(&store, "released", released), Released::Released);
    block_on(store.stop());
    let store = started(world.builder());
    assert!(left(&store, "held", held).is_some());
    take(&store, "released", Token::random());
    block_on(store.stop());
}

/// What one long lock costs after a crash is over soon after it was asked for.
#[test]
fn a_long_lock_that_is_on_the_disk_keeps_nobody_waiting_after_a_crash() {
    let world = World::new(Duration::from_millis(1));
    let (store, token) = (started(world.builder()), Token::random());
    take(&store, "long", token);
    for n in 0..4 {
        let before = world.disk.syncs();
        let granted = acquire_for(&store, &format!("short{n}"), Token::random(), Duration::from_secs(1));
        assert!(matches!(granted, Acquired::Granted { .. }), "{granted:?}");
        until("the next commit", || world.disk.syncs() > before);
    }
    let store = world.crash(store);
    assert!(left(&store, "long", token).is_some());
    let silent = retry_in(&acquire(&store, "k", Token::random()));
    assert!(silent < LONG / 2, "{silent:?}");
    block_on(store.stop());
}

/// D2 holds of what the file must not contradict: an end that is later than it says.
#[test]
fn a_lock_that_is_longer_than_all_before_waits_for_the_disk() {
    let world = World::new(Duration::from_secs(60));
    let (store, token) = (started(world.builder()), Token::random());
    let lasting = Duration::from_secs(10);
    assert!(matches!(acquire_for(&store, "k", token, lasting), Acquired::Granted { .. }));
    let before = world.disk.syncs();
    assert!(matches!(extend(&store, "k", token, lasting), Extended::Extended { .. }));
    assert_eq!(world.disk.syncs(), before, "it is covered");
    assert!(matches!(extend(&store, "k", token, LONG), Extended::Extended { .. }));
    assert!(world.disk.syncs() > before);
    let store = world.crash(store);
    assert!(left(&store, "k", token) > Some(LONG / 2));
    block_on(store.stop());
}
