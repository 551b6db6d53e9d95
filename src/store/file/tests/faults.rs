//! D3: a disk that is full, broken or hung costs time, and no promise.

use std::sync::Arc;

use super::simulated::{Disk, Mood};
use super::*;
use crate::store::StoreError;

fn over(disk: &Arc<Disk>, dir: &Dir) -> FileStore {
    let mut builder = dir.builder().operation_timeout(Duration::from_millis(100));
    builder.opener = disk.opener();
    started(builder)
}

fn is_unknown(answer: &Acquired) -> bool {
    matches!(answer, Acquired::Unknown(_))
}

fn answers(store: &FileStore) -> bool {
    block_on(store.health()).answer.is_ok()
}

/// What comes of locks, through the failure and a restart after it.
fn a_failure_is_lived_through(mood: Mood) -> (Dir, Arc<Disk>) {
    let (dir, disk) = (Dir::new(), Disk::new());
    let [kept, released, refused] = [(); 3].map(|()| Token::random());
    let store = over(&disk, &dir);
    let fence = take(&store, "kept", kept);
    take(&store, "released", released);
    disk.set(mood);
    assert!(is_unknown(&acquire(&store, "refused", refused)));
    assert!(matches!(release(&store, "released", released), Released::Unknown(_)));
    until("the failure to be seen", || !answers(&store));
    let again = acquire(&store, "refused", refused);
    assert!(is_unknown(&again), "{again:?}");
    assert!(matches!(extend(&store, "kept", kept, 2 * LONG), Extended::Unknown(_)));
    assert!(matches!(acquire(&store, "kept", refused), Acquired::Denied { .. }), "a denial promises nothing");
    disk.set(Mood::Works);
    until("the disk's return", || answers(&store));
    assert_eq!(left(&store, "refused", refused), None, "S5: nobody received it");
    assert_eq!(left(&store, "released", released), None, "S7: it was asked for");
    assert!(left(&store, "kept", kept) <= Some(LONG), "the extend was refused");
    let later = take(&store, "later", Token::random());
    block_on(store.stop());

    let store = started(dir.builder());
    assert!(left(&store, "kept", kept).is_some());
    assert_eq!((left(&store, "refused", refused), left(&store, "released", released)), (None, None));
    assert!(later > fence && take(&store, "last", Token::random()) > later, "D6");
    block_on(store.stop());
    (dir, disk)
}

#[test]
fn a_full_disk_refuses_what_is_new_and_forgets_nothing() {
    a_failure_is_lived_through(Mood::Full);
}

#[test]
fn a_disk_that_hangs_refuses_what_is_new_and_forgets_nothing() {
    a_failure_is_lived_through(Mood::Hangs);
}

/// What the system was given before a sync that failed may be lost, and no later sync says so.
#[test]
fn after_a_sync_that_failed_the_file_is_made_anew() {
    let (_dir, disk) = a_failure_is_lived_through(Mood::FailsToSync);
    assert_eq!(disk.written_after_failure(), 0, "it went on with a file that may have lost something");
}

#[test]
fn a_file_that_is_made_anew_has_the_locks_of_all_pages() {
    let (dir, disk, token) = (Dir::new(), Disk::new(), Token::random());
    let store = over(&disk, &dir);
    let names: Vec<String> = (0..2_500).map(|n| format!("k{n}")).collect();
    std::thread::scope(|scope| {
        for names in names.chunks(100) {
            scope.spawn(|| names.iter().for_each(|name| drop(acquire(&store, name, token))));
        }
    });
    let held: Vec<&String> = names.iter().filter(|name| left(&store, name, token).is_some()).collect();
    assert!(held.len() > 2_000, "{}", held.len());
    disk.set(Mood::FailsToSync);
    assert!(is_unknown(&acquire(&store, "unknown", token)));
    until("the failure to be seen", || !answers(&store));
    disk.set(Mood::Works);
    until("the disk's return", || answers(&store));
    block_on(store.stop());
    let store = started(dir.builder());
    assert!(held.iter().all(|name| left(&store, name, token).is_some()));
    block_on(store.stop());
}

/// S12, D4: dropped or timed out, a grant that nobody received is gone as soon as the disk answers.
#[test]
fn a_grant_that_nobody_received_is_taken_back() {
    let (dir, disk) = (Dir::new(), Disk::new());
    let store = over(&disk, &dir);
    disk.set(Mood::Hangs);
    let [dropped, timed_out] = [(); 2].map(|()| Token::random());
    {
        let (k, ttl) = (key("dropped"), Ttl::new(LONG).unwrap());
        let request =
            AcquireRequest { key: &k, token: dropped, ttl, on_held: OnHeld::Fail, mode: Mode::Exclusive, note: &[] };
        let mut future = store.acquire(request);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(acquire(&store, "timed_out", timed_out), Acquired::Unknown(StoreError::Timeout));
    disk.set(Mood::Works);
    until("the disk's return", || answers(&store));
    for (name, token) in [("dropped", dropped), ("timed_out", timed_out)] {
        assert_eq!(left(&store, name, token), None);
        take(&store, name, Token::random());
    }
    block_on(store.stop());
}

/// An exchange releases with the call; what it would have taken is taken back if nobody waits for it.
#[test]
fn an_exchange_that_is_dropped_releases_and_takes_nothing() {
    let (dir, disk) = (Dir::new(), Disk::new());
    let store = over(&disk, &dir);
    let [held, next] = [(); 2].map(|()| Token::random());
    take(&store, "k", held);
    let (k, ttl) = (key("k"), Ttl::new(LONG).unwrap());
    drop(store.exchange(
        held,
        AcquireRequest { key: &k, token: next, ttl, on_held: OnHeld::Fail, mode: Mode::Exclusive, note: &[] },
    ));
    assert_eq!((left(&store, "k", held), left(&store, "k", next)), (None, None));
    take(&store, "k", Token::random());
    block_on(store.stop());
}

/// A store whose last handle is dropped is closed: the directory can be opened again.
#[test]
fn a_store_that_is_dropped_without_being_stopped_lets_its_directory_go() {
    let (dir, token) = (Dir::new(), Token::random());
    let store = started(dir.builder());
    take(&store, "k", token);
    drop(store);
    let store = dir.builder().build().unwrap();
    until("the directory", || block_on(store.start()).is_ok());
    assert!(left(&store, "k", token).is_some());
    block_on(store.stop());
}
