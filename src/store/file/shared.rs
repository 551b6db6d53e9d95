//! What all handles of a directory share, with its two threads: [`Shared`]. Each operation is one [`Step`] under the
//! mutex, and then at most a wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use super::builder::{Durability, FileBuilder};
use super::ledger::{Ledger, Obstacle, Saved};
use super::line::Line;
use super::listeners::Listeners;
use super::row::Row;
use super::state::{Phase, State, Wait, millis};
use crate::key::{Key, Token, Ttl};
use crate::mode::Mode;
use crate::store::{AcquireRequest, Capabilities, Denial, Hint, StoreError};

/// The longest note (S20): far longer than any, and short enough for a row.
const MAX_NOTE: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: FileBuilder,
    pub(super) state: Mutex<State>,
    /// Wakes the writer.
    pub(super) work: Condvar,
    /// Wakes the keeper.
    pub(super) earlier: Condvar,
    pub(super) phase_changed: Notify,
    pub(super) listeners: Arc<Listeners>,
}

/// What became of a try, and of an end that was to move: the answer may be given when the wait is over.
#[derive(Debug)]
pub(super) enum Asked {
    Granted { fence: u64, valid_for: Duration, wait: Wait },
    Denied { why: Denial, retry_in: Option<Duration> },
}

/// For how long a token holds a key, if it does.
pub(super) type Left = Option<Duration>;

/// One step under the mutex. Its drop wakes whom it concerns.
pub(super) struct Step<'a> {
    shared: &'a Shared,
    state: MutexGuard<'a, State>,
    line: Arc<Line>,
    pub(super) now_ms: u64,
    now: Instant,
}

impl Shared {
    pub(super) fn new(settings: FileBuilder) -> Arc<Self> {
        Arc::new(Self {
            settings,
            state: Mutex::new(State::new()),
            work: Condvar::new(),
            earlier: Condvar::new(),
            phase_changed: Notify::new(),
            listeners: Arc::default(),
        })
    }

    /// The next step of a handle that was started in this opening.
    pub(super) fn step(&self, generation: u64) -> Result<Step<'_>, StoreError> {
        let state = self.state.lock();
        match &state.line {
            Some(line) if state.phase == Phase::Open && state.generation == generation => {
                let line = Arc::clone(line);
                let now_ms = line.now_ms();
                Ok(Step { shared: self, state, line, now_ms, now: Instant::now() })
            }
            _ => Err(StoreError::NotRunning),
        }
    }

    fn durability(&self) -> Durability {
        self.settings.durability
    }

    /// The keeper is awake by `at`.
    pub(super) fn wake_keeper(&self, state: &mut State, at: Instant) {
        if state.keeper_sleeps_until.is_none_or(|until| until > at) {
            state.keeper_sleeps_until = Some(at);
            self.earlier.notify_one();
        }
    }
}

impl Step<'_> {
    /// Refuses a TTL that the store does not keep.
    fn ttl_ms(&self, ttl: Ttl) -> Result<u64, StoreError> {
        let ttl = ttl.as_duration();
        let least = Capabilities::new(self.shared.settings.operation_timeout).min_ttl;
        if ttl < least { Err(StoreError::InvalidTtl) } else { Ok(millis(ttl)) }
    }

    /// Nothing new is promised while the disk does not answer (D3).
    fn check_stall(&self) -> Result<(), StoreError> {
        self.state.stalled.clone().map_or(Ok(()), Err)
    }

    pub(super) fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// A wait for whatever has changed of the key (D2).
    pub(super) fn key_wait(&mut self, key: &Key) -> Wait {
        let deadline = self.deadline();
        self.state.key_wait(self.shared.durability(), key, deadline)
    }

    fn row_wait(&mut self, key: &Key, token: Token) -> Wait {
        let deadline = self.deadline();
        self.state.row_wait(self.shared.durability(), key, token, deadline)
    }

    fn deadline(&self) -> Instant {
        self.now + self.shared.settings.operation_timeout
    }

    fn left(&self, end_ms: u64) -> Duration {
        Duration::from_millis(end_ms.saturating_sub(self.now_ms))
    }

    pub(super) fn acquire(&mut self, ask: &AcquireRequest<'_>) -> Result<Asked, StoreError> {
        let ttl_ms = self.ttl_ms(ask.ttl)?;
        if let Mode::Permits { limit, permits } = ask.mode
            && !(1..=limit).contains(&permits)
        {
            return Err(StoreError::Config(format!("{permits} permits of {limit}").into()));
        }
        if ask.note.len() > MAX_NOTE {
            return Err(StoreError::Config(format!("a note of {} bytes", ask.note.len()).into()));
        }
        self.state.ledger.end_late(ask.key, self.now_ms);
        if let Some(row) = self.state.ledger.find(ask.key, ask.token, self.now_ms).cloned() {
            return Ok(self.acquire_again(ask, &row));
        }
        let obstacle = match self.state.silent_until_ms {
            until_ms if until_ms > self.now_ms => Some(Obstacle { why: Denial::Held, until_ms }),
            _ => self.state.ledger.obstacle(ask.key, ask.mode, self.now_ms),
        };
        if let Some(Obstacle { why, until_ms }) = obstacle {
            return Ok(Asked::Denied { why, retry_in: Some(self.left(until_ms)) });
        }
        self.check_stall()?;
        let fence = self.state.ledger.last_fence().saturating_add(1).max(self.line.wall_us());
        let end_ms = self.end_ms(ttl_ms);
        let saved = self.saved(end_ms, fence);
        let note = (!ask.note.is_empty()).then(|| ask.note.into());
        let row = Row { mode: ask.mode, fence, end_ms, note };
        self.state.ledger.grant(ask.key, ask.token, row, u32::from(saved == Saved::Gathered));
        let deadline = self.deadline();
        let wait = self.state.wait(saved, deadline);
        self.watch_end(end_ms);
        Ok(Asked::Granted { fence, valid_for: valid_for(ask.ttl.as_duration()), wait })
    }

    /// What its token holds already (S3).
    fn acquire_again(&mut self, ask: &AcquireRequest<'_>, row: &Row) -> Asked {
        let left = self.left(row.end_ms);
        if row.mode != ask.mode {
            return Asked::Denied { why: Denial::Held, retry_in: Some(left) };
        }
        let wait = if self.state.ledger.join_unheard(ask.key, ask.token) {
            let (saved, deadline) = (self.state.ledger.row_saved(ask.key, ask.token), self.deadline());
            self.state.wait(saved, deadline)
        } else {
            self.row_wait(ask.key, ask.token)
        };
        Asked::Granted { fence: row.fence, valid_for: valid_for(left.min(ask.ttl.as_duration())), wait }
    }

    /// The milliseconds of the line are cut; the drift allowance, which the holder does not count on, is more than that.
    fn end_ms(&self, ttl_ms: u64) -> u64 {
        self.now_ms.saturating_add(ttl_ms)
    }

    /// What a promise of this needs before it is answered: nothing if it is covered (D7).
    fn saved(&mut self, end_ms: u64, fence: u64) -> Saved {
        let needed = State::needed(self.shared.durability(), Saved::Gathered);
        let is_covered = needed == Saved::InFile && self.state.is_covered(self.now_ms, end_ms, fence);
        if is_covered { Saved::InFile } else { Saved::Gathered }
    }

    /// Has the keeper end it in time.
    fn watch_end(&mut self, end_ms: u64) {
        let at = self.now + self.left(end_ms);
        self.shared.wake_keeper(&mut self.state, at);
    }

    pub(super) fn extend(&mut self, key: &Key, token: Token, ttl: Ttl) -> Result<(Left, Wait), StoreError> {
        let ttl_ms = self.ttl_ms(ttl)?;
        let Some(row) = self.held(key, token) else { return Ok((None, self.key_wait(key))) };
        self.check_stall()?;
        let end_ms = self.end_ms(ttl_ms);
        if end_ms <= row.end_ms {
            return Ok((Some(valid_for(self.left(row.end_ms))), self.row_wait(key, token)));
        }
        let saved = self.saved(end_ms, row.fence);
        self.state.ledger.lengthen(key, token, end_ms);
        let deadline = self.deadline();
        Ok((Some(valid_for(ttl.as_duration())), self.state.wait(saved, deadline)))
    }

    pub(super) fn confirm(&mut self, key: &Key, token: Token) -> (Left, Wait) {
        match self.held(key, token) {
            Some(row) => (Some(valid_for(self.left(row.end_ms))), self.row_wait(key, token)),
            None => (None, self.key_wait(key)),
        }
    }

    /// What a token holds still. What has run out is ended: so that nothing else can be said of it later (D2).
    fn held(&mut self, key: &Key, token: Token) -> Option<Row> {
        self.state.ledger.end_late(key, self.now_ms);
        self.state.ledger.find(key, token, self.now_ms).cloned()
    }

    pub(super) fn downgrade(&mut self, key: &Key, token: Token) -> Result<(Left, Wait), StoreError> {
        match self.held(key, token).map(|row| row.mode) {
            Some(Mode::Exclusive) => {
                self.check_stall()?;
                self.state.ledger.share(key, token);
            }
            Some(Mode::Permits { .. }) => return Err(StoreError::Config("permits are not downgraded".into())),
            Some(Mode::Shared) | None => {}
        }
        Ok(self.confirm(key, token))
    }

    /// Ends what the token holds; answers whether it held anything.
    pub(super) fn release(&mut self, key: &Key, token: Token) -> (Ended, Wait) {
        self.end(key, |hold| hold.token == token)
    }

    /// Ends all who hold a key, or the one with this fence.
    pub(super) fn force(&mut self, key: &Key, fence: Option<u64>) -> (Ended, Wait) {
        self.end(key, |hold| fence.is_none_or(|fence| hold.row.fence == fence))
    }

    fn end(&mut self, key: &Key, whom: impl FnMut(&super::ledger::Hold) -> bool) -> (Ended, Wait) {
        self.state.ledger.end_late(key, self.now_ms);
        let ended = if self.state.ledger.remove(key, whom) > 0 { Ended::Some } else { Ended::None };
        (ended, self.key_wait(key))
    }

    /// The grant is answered; not if it has ended meanwhile.
    pub(super) fn hear(&mut self, key: &Key, token: Token, fence: u64) -> Option<()> {
        self.state.ledger.hear(key, token, fence)
    }

    /// The grant is not answered; it is taken back if nobody else waits for it.
    pub(super) fn give_up(&mut self, key: &Key, token: Token, fence: u64) -> Ended {
        match self.state.ledger.give_up(key, token, fence) {
            Some(()) => Ended::Some,
            None => Ended::None,
        }
    }

    /// A wait for a commit that is made now, if none was made in the last second: how long that one took.
    pub(super) fn probe(&mut self) -> Result<(Duration, Wait), StoreError> {
        self.check_stall()?;
        match self.state.last_commit {
            Some((at, took)) if self.now.saturating_duration_since(at) < Duration::from_secs(1) => Ok((took, None)),
            _ => {
                let deadline = self.deadline();
                Ok((Duration::ZERO, self.state.wait(Saved::Gathered, deadline)))
            }
        }
    }

    /// For how long nothing new is granted, after a relaxed store has crashed (D7).
    pub(super) fn silent_for(&self) -> Option<Duration> {
        Some(self.left(self.state.silent_until_ms)).filter(|left| !left.is_zero())
    }
}

/// Whether there was anything to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    Some,
    None,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let is_awaited = self.state.is_awaited();
        if is_awaited || self.state.ledger.has_gathered() {
            let is_first = self.state.gathering_since.is_none();
            if is_first {
                self.state.gathering_since = Some(self.now);
            }
            // A relaxed writer sleeps on meanwhile.
            if is_first || is_awaited {
                self.shared.work.notify_one();
            }
        }
        if let Some(deadline) = self.state.next_deadline() {
            self.shared.wake_keeper(&mut self.state, deadline);
        }
    }
}

/// S4: for how long from the start of the call, which is not later than now.
fn valid_for(span: Duration) -> Duration {
    span.saturating_sub(crate::store::drift(span))
}

impl Shared {
    /// Tells those who watch a key.
    pub(super) fn hint(&self, key: &Key, hint: Hint) {
        self.listeners.hint(key, hint);
    }
}
