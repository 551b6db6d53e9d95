//! A disk that can lose what was not synced, refuse, break and hang: [`Disk`]. The files are real ones; what a power cut
//! leaves of them is computed.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;

use super::super::disk::{Opener, open_file};

/// What the disk does from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Mood {
    #[default]
    Works,
    /// It takes no more bytes.
    Full,
    /// It takes bytes, and fails to sync them.
    FailsToSync,
    /// A sync does not return.
    Hangs,
    /// There is no power.
    Off,
}

#[derive(Default)]
pub(super) struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    mood: Mood,
    files: HashMap<PathBuf, FileState>,
    syncs: u32,
    hanging: u32,
    /// Bytes that went to a file after a sync of it had failed.
    written_after_failure: usize,
}

#[derive(Default)]
struct FileState {
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    /// What it may leave, in any choice.
    writes: Vec<Change>,
    has_failed: bool,
}

enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                if image.len() < at + bytes.len() {
                    image.resize(at + bytes.len(), 0);
                }
                image[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(length) => image.resize(*length, 0),
        }
    }
}

impl Disk {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn opener(self: &Arc<Self>) -> Opener {
        let disk = Arc::clone(self);
        Arc::new(move |path| {
            let file = open_file(path)?;
            let synced = std::fs::read(path)?;
            let state = FileState { synced, ..FileState::default() };
            disk.state.lock().files.insert(path.into(), state);
            Ok(Box::new(Simulated { disk: Arc::clone(&disk), path: path.into(), file }))
        })
    }

    pub(super) fn set(&self, mood: Mood) {
        self.state.lock().mood = mood;
        self.changed.notify_all();
    }

    pub(super) fn syncs(&self) -> u32 {
        self.state.lock().syncs
    }

    pub(super) fn hanging(&self) -> u32 {
        self.state.lock().hanging
    }

    pub(super) fn written_after_failure(&self) -> usize {
        self.state.lock().written_after_failure
    }

    /// What is in a file once the power is back: all that was synced, and of the rest what chance leaves. The power is to
    /// be off.
    pub(super) fn remains(&self, path: &Path, random: &mut fastrand::Rng) -> Vec<u8> {
        let state = self.state.lock();
        assert_eq!(state.mood, Mood::Off);
        let file = &state.files[path];
        let mut image = file.synced.clone();
        let mut kept: Vec<&Change> = file.writes.iter().filter(|_| random.bool()).collect();
        // Nor in their order.
        random.shuffle(&mut kept);
        kept.iter().for_each(|change| change.apply(&mut image));
        image
    }
}

struct Simulated {
    disk: Arc<Disk>,
    path: PathBuf,
    file: Box<dyn StorageBackend>,
}

debug_of!(Simulated, |it| path: it.path);

impl Simulated {
    fn change(&self, change: Change, carry_out: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        match state.mood {
            Mood::Full => return Err(io::ErrorKind::StorageFull.into()),
            Mood::Off => return Err(io::Error::other("no power")),
            Mood::Works | Mood::FailsToSync | Mood::Hangs => {}
        }
        carry_out()?;
        let file = state.files.get_mut(&self.path).expect("it was opened");
        let is_after_failure = file.has_failed;
        let length = if let Change::Write(_, bytes) = &change { bytes.len() } else { 0 };
        file.writes.push(change);
        if is_after_failure {
            state.written_after_failure += length;
        }
        Ok(())
    }
}

impl StorageBackend for Simulated {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(len).unwrap()), || self.file.set_len(len))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let change = Change::Write(usize::try_from(offset).unwrap(), data.to_vec());
        self.change(change, || self.file.write(offset, data))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        while state.mood == Mood::Hangs {
            state.hanging += 1;
            self.disk.changed.wait(&mut state);
            state.hanging -= 1;
        }
        let mood = state.mood;
        let file = state.files.get_mut(&self.path).expect("it was opened");
        match mood {
            Mood::Off => return Err(io::Error::other("no power")),
            Mood::FailsToSync => {
                file.has_failed = true;
                return Err(io::Error::other("the disk is broken"));
            }
            Mood::Works | Mood::Full | Mood::Hangs => {}
        }
        let FileState { synced, writes, .. } = file;
        writes.drain(..).for_each(|change| change.apply(synced));
        state.syncs += 1;
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
