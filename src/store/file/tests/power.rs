//! D2 at a power cut: what was answered is there, whatever the disk had of the rest.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::super::ledger::Ledger;
use super::simulated::{Disk, Mood};
use super::*;
use crate::store::StoreError;

const TASKS: usize = 8;
const KEYS: usize = 5;

/// What callers were told.
#[derive(Default)]
struct Told {
    /// By key, the tokens that were granted and of which no release was asked for.
    held: HashMap<(usize, Token), u64>,
    released: Vec<(usize, Token)>,
    highest: u64,
}

/// Takes keys and lets them go until the power is gone.
fn work(store: &FileStore, told: &Mutex<Told>, answers: &AtomicUsize, mut random: fastrand::Rng) {
    loop {
        let (at, token) = (random.usize(..KEYS), Token::random());
        match acquire(store, &at.to_string(), token) {
            Acquired::Granted { fence: Some(fence), .. } => {
                answers.fetch_add(1, Ordering::SeqCst);
                let mut told = told.lock();
                told.highest = told.highest.max(fence);
                told.held.insert((at, token), fence);
            }
            Acquired::Denied { .. } => continue,
            Acquired::Unknown(_) => return,
            answer => panic!("{answer:?}"),
        }
        if random.u8(..4) == 0 && !matches!(extend(store, &at.to_string(), token, 2 * LONG), Extended::Extended { .. })
        {
            return;
        }
        told.lock().held.remove(&(at, token));
        match release(store, &at.to_string(), token) {
            Released::Released => told.lock().released.push((at, token)),
            Released::Unknown(_) => return,
            answer => panic!("{answer:?}"),
        }
        answers.fetch_add(1, Ordering::SeqCst);
    }
}

fn a_power_cut(seed: u64) {
    let (dir, disk, mut random) = (Dir::new(), Disk::new(), fastrand::Rng::with_seed(seed));
    let mut builder = dir.builder().operation_timeout(Duration::from_millis(500));
    builder.opener = disk.opener();
    let (store, told, answers) = (started(builder), Arc::new(Mutex::new(Told::default())), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..TASKS {
            let random = random.fork();
            scope.spawn(|| work(&store, &told, &answers, random));
        }
        let enough = random.usize(1..150);
        until("answers", || answers.load(Ordering::SeqCst) >= enough);
        disk.set(Mood::Off);
    });
    block_on(store.stop());
    let remains = disk.remains(&dir.file(), &mut random);
    std::fs::write(dir.file(), remains).unwrap();

    let store = started(dir.builder());
    let told = told.lock();
    for ((at, token), fence) in &told.held {
        let seen = block_on(store.look(&key(&at.to_string()), Some(*token)));
        let is_held = matches!(seen, Ok(KeyState::Held { by: Holder::Ours, fence: Some(now), .. }) if now == *fence);
        assert!(is_held, "seed {seed}: it was granted, and is {seen:?}");
    }
    for (at, token) in &told.released {
        assert_eq!(left(&store, &at.to_string(), *token), None, "seed {seed}: a release was undone");
    }
    let next = take(&store, "next", Token::random());
    assert!(next > told.highest, "seed {seed}: D6: {next} after {}", told.highest);
    block_on(store.stop());
}

#[test]
fn what_was_answered_outlives_a_power_cut() {
    let seed = std::env::var("LEASEHOLD_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    for round in 0..20 {
        a_power_cut(seed.wrapping_add(round));
    }
}

/// The sync that a release and the next grant share is one, however many they are.
#[test]
fn those_who_ask_at_the_same_time_share_a_sync() {
    let (dir, disk) = (Dir::new(), Disk::new());
    let mut builder = dir.builder();
    builder.opener = disk.opener();
    let store = started(builder);
    disk.set(Mood::Hangs);
    std::thread::scope(|scope| {
        scope.spawn(|| take(&store, "first", Token::random()));
        until("the first sync", || disk.hanging() == 1);
        let before = disk.syncs();
        for n in 0..64 {
            let (store, name) = (&store, format!("k{n}"));
            scope.spawn(move || take(store, &name, Token::random()));
        }
        let count = || store.shared.step(1).map(|step| Ledger::len(step.ledger()));
        until("all of them", || count() == Ok(65));
        disk.set(Mood::Works);
        until("their answers", || store.shared.state.lock().next_deadline().is_none());
        assert_eq!(disk.syncs() - before, 2, "one for the first, and one for all others");
    });
    block_on(store.stop());
}

/// D2: what is denied or seen meanwhile is no promise; what is said to be gone is one.
#[test]
fn that_a_lock_is_gone_is_not_said_before_it_is_on_the_disk() {
    let (dir, disk, token) = (Dir::new(), Disk::new(), Token::random());
    let mut builder = dir.builder().operation_timeout(Duration::from_millis(50));
    builder.opener = disk.opener();
    let store = started(builder);
    take(&store, "k", token);
    take(&store, "other", token);
    disk.set(Mood::Hangs);
    assert_eq!(block_on(store.force_release(&key("k"))), crate::store::Forced::Unknown(StoreError::Timeout));
    let unknown = StoreError::Timeout;
    assert_eq!(extend(&store, "k", token, LONG), Extended::Unknown(unknown.clone()), "S6: it is not said to be lost");
    assert_eq!(release(&store, "k", token), Released::Unknown(unknown.clone()), "S7: nor to be gone");
    assert_eq!(block_on(store.look(&key("k"), None)), Err(unknown), "nor free");
    let denied = acquire(&store, "other", Token::random());
    assert!(matches!(denied, Acquired::Denied { .. }), "{denied:?}");
    disk.set(Mood::Works);
    until("the disk's answer", || block_on(store.look(&key("k"), None)) == Ok(KeyState::Free));
    assert_eq!(extend(&store, "k", token, LONG), Extended::Lost);
    block_on(store.stop());
}
