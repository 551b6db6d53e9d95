//! A directory for a test, which is gone after it; and a store in it, from its start to its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::executor::block_on;
use leasehold::store::file::FileStore;
use leasehold::store::{AcquireRequest, OnHeld, Store};
use leasehold::{Key, Mode, Token, Ttl};

/// Longer than any test takes.
pub(crate) const LONG: Duration = Duration::from_hours(1);

pub(crate) struct Dir(PathBuf);

impl Dir {
    /// The name of one that is not there yet.
    pub(crate) fn new() -> Self {
        Self(std::env::temp_dir().join(format!("leasehold-durable-{}", Token::random())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn store(&self) -> FileStore {
        FileStore::builder(&self.0).build().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What cannot be removed is left to the system's own cleaning; a failing test shall show its own failure.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// What one process does with a directory, as far as the store can tell.
pub(crate) struct Process {
    pub(crate) store: FileStore,
}

impl Process {
    pub(crate) fn start(store: FileStore) -> Self {
        assert_eq!(block_on(store.start()), Ok(()));
        Self { store }
    }

    /// Ends it properly.
    pub(crate) fn end(self) {
        block_on(self.store.stop());
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// A single try.
pub(crate) fn ask(key: &Key, token: Token, lasting: Duration, mode: Mode) -> AcquireRequest<'_> {
    AcquireRequest { key, token, ttl: Ttl::new(lasting).unwrap(), on_held: OnHeld::Fail, mode, note: &[] }
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came: {what}");
}
