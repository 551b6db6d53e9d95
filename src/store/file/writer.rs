//! The thread that writes: opens the directory, makes one commit after the other while there is anything to write, and
//! closes it when the last handle has gone. While a commit is made, the next batch gathers.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::builder::Durability;
use super::disk::{Disk, Found};
use super::keeper;
use super::ledger::Ledger;
use super::line::Line;
use super::row::{Meta, RowKey, Rows};
use super::shared::Shared;
use super::state::{Phase, State, Waiter};
use crate::backoff::Backoff;
use crate::key::Key;
use crate::store::StoreError;

/// Between two tries, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Keys that are read under the mutex at a time while the file is made anew.
const PAGE: usize = 1_000;

/// The next commit.
struct Batch {
    rows: Arc<Rows>,
    meta: Meta,
    last: Last,
}

/// Whether the store is closed after it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Yes,
    No,
}

/// Opens the directory and serves it until its last handle has gone.
pub(super) fn run(shared: &Arc<Shared>) {
    let why = match open(shared) {
        Ok((mut disk, line)) => {
            let keeper = {
                let shared = Arc::clone(shared);
                std::thread::Builder::new().name("leasehold-file-time".into()).spawn(move || keeper::run(&shared))
            };
            match keeper {
                Ok(keeper) => {
                    Writer { shared, disk: &mut disk, line }.serve();
                    // It ends when the phase is over; its panic was reported where it happened.
                    let _ = keeper.join();
                    None
                }
                Err(why) => Some(StoreError::Other(format!("no thread can be started: {why}").into())),
            }
        }
        Err(why) => Some(why),
    };
    let waiters = shared.state.lock().close(why);
    answer(waiters, &Err(StoreError::NotRunning));
    shared.phase_changed.notify_waiters();
}

/// Reads what the directory has, and makes a first commit: it shows that it can be written.
fn open(shared: &Arc<Shared>) -> Result<(Disk, Arc<Line>), StoreError> {
    let settings = &shared.settings;
    let (mut disk, Found { rows, meta }) = Disk::open(&settings.dir, Arc::clone(&settings.opener))?;
    let line = Arc::new(Line::resume(settings.machine.clone(), meta.map(|meta| meta.point)));
    let now_ms = line.now_ms();
    let meta = meta.unwrap_or_default();
    {
        let mut state = shared.state.lock();
        state.ledger = Ledger::load(rows, meta.fence, now_ms);
        state.silent_until_ms = meta.silent_until_ms;
        state.line = Some(Arc::clone(&line));
    }
    let mut writer = Writer { shared, disk: &mut disk, line: Arc::clone(&line) };
    let batch = writer.take(&mut shared.state.lock(), Last::No);
    let began = Instant::now();
    writer
        .commit(&batch)
        .map_err(|why| StoreError::Config(format!("cannot write to {}: {why}", settings.dir.display()).into()))?;
    let mut state = shared.state.lock();
    // Nobody waits for it.
    drop(state.committed(began.elapsed()));
    state.phase = if state.handles == 0 { Phase::Closing } else { Phase::Open };
    drop(state);
    shared.phase_changed.notify_waiters();
    Ok((disk, line))
}

struct Writer<'a> {
    shared: &'a Arc<Shared>,
    disk: &'a mut Disk,
    line: Arc<Line>,
}

impl Writer<'_> {
    fn serve(&mut self) {
        let mut pauses = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            let batch = self.next();
            let began = Instant::now();
            match self.commit(&batch) {
                Ok(()) => {
                    pauses.reset();
                    let waiters = self.shared.state.lock().committed(began.elapsed());
                    answer(waiters, &Ok(()));
                }
                Err(why) => {
                    let mut state = self.shared.state.lock();
                    state.failed(StoreError::CannotSave(why.to_string().into()));
                    if batch.last == Last::No {
                        self.rest(state, pauses.next());
                    }
                }
            }
            if batch.last == Last::Yes {
                return;
            }
        }
    }

    /// Waits until there is something to write, or nobody is left.
    fn next(&self) -> Batch {
        let mut state = self.shared.state.lock();
        loop {
            if state.phase == Phase::Closing {
                return self.take(&mut state, Last::Yes);
            }
            let due = match self.shared.settings.durability {
                _ if state.is_awaited() || state.stalled.is_some() => return self.take(&mut state, Last::No),
                Durability::Synced if state.ledger.has_gathered() => return self.take(&mut state, Last::No),
                Durability::Relaxed { every } => state.gathering_since.map(|since| since + every),
                Durability::Synced => None,
            };
            match due {
                Some(due) if due <= Instant::now() => return self.take(&mut state, Last::No),
                Some(due) => drop(self.shared.work.wait_until(&mut state, due)),
                None => self.shared.work.wait(&mut state),
            }
        }
    }

    /// Rests after a failure, unless the store is to be closed.
    fn rest(&self, mut state: MutexGuard<'_, State>, pause: Duration) {
        let until = Instant::now() + pause;
        while state.phase != Phase::Closing && !self.shared.work.wait_until(&mut state, until).timed_out() {}
    }

    fn take(&self, state: &mut State, last: Last) -> Batch {
        let durability = self.shared.settings.durability;
        let meta = state.meta(durability, self.line.point(), self.line.wall_us(), last == Last::Yes);
        Batch { rows: state.take(meta), meta, last }
    }

    fn commit(&mut self, Batch { rows, meta, .. }: &Batch) -> std::io::Result<()> {
        if self.disk.is_to_be_made_anew() {
            // What is in memory is the batch, and what has come of it since.
            self.make_anew(meta)
        } else {
            self.disk.commit(rows, meta)
        }
    }

    /// Makes the file anew of what is in memory (D3). Who changes a key meanwhile has it in the next batch as well.
    fn make_anew(&mut self, meta: &Meta) -> std::io::Result<()> {
        let shared = self.shared;
        let mut after: Option<Key> = None;
        let pages = std::iter::from_fn(|| {
            let state = shared.state.lock();
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let (mut rows, mut last) = (Rows::new(), None);
            for (key, holds) in state.ledger.from(from).take(PAGE) {
                rows.extend(holds.iter().map(|hold| (RowKey::new(key, hold.token), Some(hold.row.clone()))));
                last = Some(key.clone());
            }
            drop(state);
            after = Some(last?);
            Some(rows)
        });
        self.disk.make_anew(pages, meta)
    }
}

fn answer(waiters: VecDeque<Waiter>, what: &Result<(), StoreError>) {
    for waiter in waiters {
        // Nobody listens any more if the caller has gone.
        let _ = waiter.answer.send(what.clone());
    }
}
