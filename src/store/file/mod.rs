//! Locks that outlive the process that keeps them: [`FileStore`], a directory of its own.
//!
//! For a lock server, or any service of one process, that must not forget at a restart: every lock, share and permit, its
//! token, its fencing token and its end survive a kill, a restart and a power cut. What it is not: a way to lock across
//! processes. One process has the directory open, and decides in its own memory; the file is there for the next one.
//!
//! ```
//! # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::env::temp_dir().join(format!("leasehold-example-{}", std::process::id()));
//! use leasehold::store::file::FileStore;
//! use leasehold::{LockError, LockManager};
//! use std::time::Duration;
//!
//! let store = FileStore::builder(&dir).build()?;
//! let locks = LockManager::builder().store(store).build_and_connect().await?;
//! let ticket = locks.lock("order:42").await?.detach();
//! locks.shutdown(Duration::ZERO).await;
//!
//! // The next process: the lock is still there, and is its holder's.
//! let store = FileStore::builder(&dir).build()?;
//! let locks = LockManager::builder().store(store).build_and_connect().await?;
//! assert_eq!(locks.try_lock("order:42").await.unwrap_err(), LockError::Held);
//! let lock = locks.lock("order:42").token(ticket.token()).await?;
//! assert_eq!(lock.fencing_token(), ticket.fencing_token());
//! # lock.unlock().await;
//! # locks.shutdown(Duration::ZERO).await;
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok(()) }
//! ```
//!
//! # Rules
//!
//! | rule | what holds of locks in a directory |
//! |---|---|
//! | D1 | The truth is in memory, under one mutex: an operation decides there, and marks what it has changed. One commit takes all that has changed, each row as it is then, and is synced; meanwhile the next gathers. |
//! | D2 | Nothing is promised before it is on the disk: not that a lock is granted, extended or released, and not that it is gone, lost or free, where that is a change which is not on the disk yet. A denial promises nothing, and waits for nothing. |
//! | D3 | A commit that fails is tried again, with what has changed since, until it is made; memory goes back on nothing. Meanwhile acquires and extends are refused, releases are noted, and who waits is told that it is unknown when the operation timeout is over. After a sync that failed the file is not trusted any further, as the system may have dropped what it was to write: it is made anew from memory, beside the old one, and takes its place. |
//! | D4 | A grant is known to somebody once a call has answered it. Until then the last call that gives it up takes it back, in memory, and at once. |
//! | D5 | Ends are points of a line of time that goes on while the store is closed and never goes back. On the same boot of the machine exactly what passed has passed, whatever was done to the wall clock. After another boot the wall clock says how long that was; if it was set back meanwhile, locks last longer. |
//! | D6 | A fence is above the last one of the directory, and not below the wall clock in microseconds. The last one is in each commit. So fences rise also where the directory was lost, unless the clock was set back. |
//! | D7 | Relaxed, answers come before the commit. So the file says ahead of time until when such locks may last, and up to which fence; what goes beyond waits for a commit that says more. After a crash nothing new is granted until then, and fences begin above. |
//! | D8 | One process has a directory open at a time. |
//! | D9 | A file that cannot be read is left as it is, and the store does not start. |
//!
//! Where there is no boot to tell from another (other systems than Linux) the wall clock counts across every restart. A
//! wall clock that is set **forward** while the machine is down cannot be told from time that has passed: locks end early
//! by as much, and fences protect then, as they do over Redis.
//!
//! # What it costs
//!
//! An acquire and a release are a sync each; those who ask at the same time share one. A denial costs none. The
//! directory is as safe as its file system's `fsync`: not over every network file system, and not in a container's own
//! layer. Clones of a store are handles of the same directory, as two processes have them of one Redis; they keep no queue
//! between them: in one process the manager does.

mod builder;
mod disk;
mod keeper;
mod ledger;
mod line;
mod listeners;
mod row;
mod shared;
mod state;
mod store;
mod take_back;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use self::builder::{Durability, FileBuilder};
use self::shared::{Shared, Step};
use self::state::Phase;
use super::StoreError;

/// A [`Store`](super::Store) in a directory. The module's table holds its rules.
///
/// A clone is another handle of the same directory, to be started by itself.
pub struct FileStore {
    shared: Arc<Shared>,
    /// Which handle this is.
    number: u64,
    /// The opening in which it was started; 0 before that, and after it was stopped.
    generation: AtomicU64,
}

impl FileStore {
    /// Settings for a store in `dir`, which is made if it is not there, for nobody else to read. It holds nothing but what
    /// the store keeps in it.
    pub fn builder(dir: impl AsRef<Path>) -> FileBuilder {
        FileBuilder::new(dir.as_ref())
    }

    fn of(settings: FileBuilder) -> Self {
        Self::handle(Shared::new(settings))
    }

    fn handle(shared: Arc<Shared>) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Self { shared, number: NUMBERS.fetch_add(1, Ordering::Relaxed), generation: AtomicU64::new(0) }
    }

    fn step(&self) -> Result<Step<'_>, StoreError> {
        self.shared.step(self.generation.load(Ordering::Acquire))
    }

    /// Opens the directory, unless another handle has.
    async fn open(&self) -> Result<(), StoreError> {
        let mut attached = None;
        loop {
            let mut changed = pin!(self.shared.phase_changed.notified());
            changed.as_mut().enable();
            if attached.is_none() {
                attached = self.attach()?;
            }
            if let Some(attached) = &mut attached {
                let state = self.shared.state.lock();
                match &state.phase {
                    Phase::Open => {
                        attached.is_kept = true;
                        self.generation.store(state.generation, Ordering::Release);
                        return Ok(());
                    }
                    Phase::Closed(why) => return Err(why.clone().unwrap_or(StoreError::NotRunning)),
                    Phase::Opening | Phase::Closing => {}
                }
            }
            changed.await;
        }
    }

    /// Counts this handle among those that are started. `None` while the store is being closed.
    fn attach(&self) -> Result<Option<Attached<'_>>, StoreError> {
        let mut state = self.shared.state.lock();
        match state.phase {
            Phase::Closing => return Ok(None),
            Phase::Opening | Phase::Open => {}
            Phase::Closed(_) => {
                state.phase = Phase::Opening;
                state.generation += 1;
                let shared = Arc::clone(&self.shared);
                let writer = std::thread::Builder::new().name("leasehold-file".into());
                if let Err(why) = writer.spawn(move || writer::run(&shared)) {
                    let why = StoreError::Other(format!("no thread can be started: {why}").into());
                    state.close(Some(why.clone()));
                    return Err(why);
                }
            }
        }
        state.handles += 1;
        Ok(Some(Attached { shared: &self.shared, generation: state.generation, is_kept: false }))
    }

    /// Stops this handle; the last one closes the directory.
    fn detach(&self) {
        let generation = self.generation.swap(0, Ordering::AcqRel);
        self.shared.listeners.end(self.number);
        self.shared.detach(generation);
    }
}

/// A handle that counts among those that are started, until it is dropped without being kept.
struct Attached<'a> {
    shared: &'a Shared,
    generation: u64,
    is_kept: bool,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.shared.detach(self.generation);
        }
    }
}

impl Shared {
    fn detach(&self, generation: u64) {
        let mut state = self.state.lock();
        if state.generation != generation || matches!(state.phase, Phase::Closed(_) | Phase::Closing) {
            return;
        }
        state.handles -= 1;
        // While it is opened, the writer finds that nobody is left.
        if state.handles == 0 && state.phase == Phase::Open {
            state.phase = Phase::Closing;
            self.work.notify_one();
            self.earlier.notify_one();
        }
    }
}

impl Clone for FileStore {
    fn clone(&self) -> Self {
        Self::handle(Arc::clone(&self.shared))
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.detach();
    }
}

debug_of!(FileStore, |it| settings: it.shared.settings);
