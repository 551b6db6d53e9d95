//! The rules, held to on a disk that loses power, fills up, breaks and hangs, and on clocks that are set.

mod damage;
mod faults;
mod power;
mod relaxed;
mod simulated;
mod times;

use std::time::Duration;

use futures::executor::block_on;

use super::FileStore;
use super::builder::FileBuilder;
use crate::key::{Key, Token, Ttl};
use crate::mode::Mode;
use crate::store::{AcquireRequest, Acquired, Extended, Holder, KeyState, OnHeld, Released, Store};

/// Longer than any test takes.
const LONG: Duration = Duration::from_hours(1);

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// A directory's name, for a test; gone after it.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("leasehold-file-{}", Token::random())))
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.join("locks.redb")
    }

    fn builder(&self) -> FileBuilder {
        FileStore::builder(&self.0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning; a failing test shall show its own failure.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn started(builder: FileBuilder) -> FileStore {
    let store = builder.build().unwrap();
    assert_eq!(block_on(store.start()), Ok(()));
    store
}

fn acquire_for(store: &FileStore, name: &str, token: Token, lasting: Duration) -> Acquired {
    let (key, ttl) = (key(name), Ttl::new(lasting).unwrap());
    let request = AcquireRequest { key: &key, token, ttl, on_held: OnHeld::Fail, mode: Mode::Exclusive, note: &[] };
    block_on(store.acquire(request))
}

fn acquire(store: &FileStore, name: &str, token: Token) -> Acquired {
    acquire_for(store, name, token, LONG)
}

#[track_caller]
fn take(store: &FileStore, name: &str, token: Token) -> u64 {
    match acquire(store, name, token) {
        Acquired::Granted { fence: Some(fence), .. } => fence,
        answer => panic!("{name}: {answer:?}"),
    }
}

fn release(store: &FileStore, name: &str, token: Token) -> Released {
    block_on(store.release(&key(name), token))
}

fn extend(store: &FileStore, name: &str, token: Token, ttl: Duration) -> Extended {
    block_on(store.extend(&key(name), token, Ttl::new(ttl).unwrap()))
}

/// How long a token still holds a key; `None` if it does not.
#[track_caller]
fn left(store: &FileStore, name: &str, token: Token) -> Option<Duration> {
    match block_on(store.look(&key(name), Some(token))) {
        Ok(KeyState::Held { by: Holder::Ours, ends_in, .. }) => ends_in,
        Ok(_) => None,
        Err(why) => panic!("{name}: {why}"),
    }
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came: {what}");
}
