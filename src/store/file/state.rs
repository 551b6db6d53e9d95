//! What is under the one mutex: the [`Ledger`], who waits for which commit, and how far a relaxed store has covered
//! itself (D7).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::builder::Durability;
use super::ledger::{Ledger, Saved};
use super::line::{Line, Point};
use super::row::{Meta, Rows};
use crate::key::{Key, Token};
use crate::store::StoreError;

/// What a store is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nothing: it was not started, was stopped, or could not be opened.
    Closed(Option<StoreError>),
    Opening,
    Open,
    /// What is under way is finished.
    Closing,
}

/// The answer to an operation once it may be given.
pub(super) type Wait = Option<oneshot::Receiver<Result<(), StoreError>>>;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
}

/// What a relaxed store has said in the file about what it may have answered without it.
#[derive(Debug, Default)]
pub(super) struct Cover {
    /// No lock that the file does not know ends later.
    end_ms: u64,
    /// And none has a higher fence.
    fence: u64,
    /// The longest lives that were asked for, since the last batch was taken and in the one before.
    longest_ms: [u64; 2],
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// Which opening this is, for handles of an earlier one.
    pub(super) generation: u64,
    /// The handles that are started.
    pub(super) handles: usize,
    pub(super) ledger: Ledger,
    pub(super) line: Option<Arc<Line>>,
    /// Before this nothing new is granted (D7).
    pub(super) silent_until_ms: u64,
    /// For the commit that is gathered, and for the one that is made; each in the order of their deadlines.
    gathered: VecDeque<Waiter>,
    committing: VecDeque<Waiter>,
    /// Why nothing new is taken on: the last commit failed, or somebody has waited for too long (D3). The next commit that is
    /// made ends it; so there is one, whatever else there is to write.
    pub(super) stalled: Option<StoreError>,
    cover: Cover,
    next_cover: Meta,
    /// When the last commit was made, and how long that took.
    pub(super) last_commit: Option<(Instant, Duration)>,
    /// Until when the keeper sleeps.
    pub(super) keeper_sleeps_until: Option<Instant>,
    /// When the first change of the gathered batch was made, for a relaxed store.
    pub(super) gathering_since: Option<Instant>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Closed(None),
            generation: 0,
            handles: 0,
            ledger: Ledger::default(),
            line: None,
            silent_until_ms: 0,
            gathered: VecDeque::new(),
            committing: VecDeque::new(),
            stalled: None,
            cover: Cover::default(),
            next_cover: Meta::default(),
            last_commit: None,
            keeper_sleeps_until: None,
            gathering_since: None,
        }
    }

    /// Begins to wait for the next commit, or the one that is made.
    pub(super) fn wait(&mut self, saved: Saved, deadline: Instant) -> Wait {
        let waiters = match saved {
            Saved::InFile => return None,
            Saved::Committing => &mut self.committing,
            Saved::Gathered => &mut self.gathered,
        };
        let (answer, wait) = oneshot::channel();
        waiters.push_back(Waiter { deadline, answer });
        Some(wait)
    }

    /// Whether somebody waits for the batch that is gathered.
    pub(super) fn is_awaited(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Those who have waited for as long as an operation may take.
    pub(super) fn late(&mut self, now: Instant) -> Vec<Waiter> {
        let mut late = Vec::new();
        for waiters in [&mut self.committing, &mut self.gathered] {
            let count = waiters.iter().take_while(|waiter| waiter.deadline <= now).count();
            late.extend(waiters.drain(..count));
        }
        if !late.is_empty() && self.stalled.is_none() {
            self.stalled = Some(StoreError::Timeout);
        }
        late
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let first = |waiters: &VecDeque<Waiter>| waiters.front().map(|waiter| waiter.deadline);
        [first(&self.committing), first(&self.gathered)].into_iter().flatten().min()
    }

    /// Whether a relaxed store may answer a grant, or a later end, without a commit. It is remembered that it was asked.
    pub(super) fn is_covered(&mut self, now_ms: u64, end_ms: u64, fence: u64) -> bool {
        let longest = &mut self.cover.longest_ms[0];
        *longest = (*longest).max(end_ms.saturating_sub(now_ms));
        end_ms <= self.cover.end_ms && fence <= self.cover.fence
    }

    /// Where the wait for this row ends: relaxed, at once.
    pub(super) fn needed(durability: Durability, saved: Saved) -> Saved {
        match durability {
            Durability::Synced => saved,
            Durability::Relaxed { .. } => Saved::InFile,
        }
    }

    pub(super) fn key_wait(&mut self, durability: Durability, key: &Key, deadline: Instant) -> Wait {
        self.wait(Self::needed(durability, self.ledger.key_saved(key)), deadline)
    }

    pub(super) fn row_wait(&mut self, durability: Durability, key: &Key, token: Token, deadline: Instant) -> Wait {
        self.wait(Self::needed(durability, self.ledger.row_saved(key, token)), deadline)
    }

    /// What a commit says of the directory. `is_last`: nothing is answered any more without the file.
    pub(super) fn meta(&self, durability: Durability, point: Point, wall_us: u64, is_last: bool) -> Meta {
        let silent_ms = if self.silent_until_ms > point.line_ms { self.silent_until_ms } else { 0 };
        let last_fence = self.ledger.last_fence();
        match durability {
            Durability::Relaxed { every } if !is_last => {
                let slack_ms = millis(every) * 2 + 1_000;
                let [now, before] = self.cover.longest_ms;
                let end_ms = point.line_ms + now.max(before) + slack_ms;
                let fence = last_fence.max(wall_us) + slack_ms * 1_000;
                Meta { point, fence, silent_until_ms: end_ms.max(silent_ms) }
            }
            _ => Meta { point, fence: last_fence, silent_until_ms: silent_ms },
        }
    }

    /// The batch for the next commit, and what it says. From now on both the last cover and the new one bind.
    pub(super) fn take(&mut self, meta: Meta) -> Arc<Rows> {
        self.committing.append(&mut self.gathered);
        self.gathering_since = None;
        self.cover.end_ms = self.cover.end_ms.min(meta.silent_until_ms);
        self.cover.fence = self.cover.fence.min(meta.fence);
        self.cover.longest_ms = [0, self.cover.longest_ms[0]];
        self.next_cover = meta;
        self.ledger.take()
    }

    /// The commit was made: answers who waited for it.
    pub(super) fn committed(&mut self, took: Duration) -> VecDeque<Waiter> {
        self.ledger.committed();
        self.cover.end_ms = self.next_cover.silent_until_ms;
        self.cover.fence = self.next_cover.fence;
        self.stalled = None;
        self.last_commit = Some((Instant::now(), took));
        std::mem::take(&mut self.committing)
    }

    /// It failed: who waited waits for the next one.
    pub(super) fn failed(&mut self, why: StoreError) {
        self.ledger.failed();
        self.committing.append(&mut self.gathered);
        std::mem::swap(&mut self.committing, &mut self.gathered);
        self.stalled = Some(why);
    }

    /// Forgets everything; answers who waited in vain.
    pub(super) fn close(&mut self, why: Option<StoreError>) -> VecDeque<Waiter> {
        let generation = self.generation;
        let mut waiters = std::mem::take(&mut self.committing);
        waiters.append(&mut self.gathered);
        *self = Self { phase: Phase::Closed(why), generation, ..Self::new() };
        waiters
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
