//! The simulated store: keys with an end, a fence for each, and the processes that wait for each in order.

use std::collections::VecDeque;

use super::super::ClaimEnd;
use super::super::fences::LEAD;
use super::KEYS;
use crate::key::Token;

/// So long a process keeps its place in the queue of a key without asking again, in microseconds.
const TICKET_US: u64 = 3_000_000;

/// What a process asks. Times are the store's, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// `ended` is released before.
    Acquire {
        token: Token,
        ttl_us: u64,
        not_after: u64,
        queues: bool,
        ended: Option<Token>,
    },
    Extend {
        token: Token,
        ttl_us: u64,
    },
    Release {
        claim: ClaimEnd,
        not_after: u64,
    },
    /// Whether the token has the key, and for how long yet.
    Look(Token),
    Leave,
}

/// What it answers. Each answer carries the store's clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Granted {
        fence: u64,
        left_us: u64,
    },
    Denied,
    TooLate,
    /// The token has the key for so long.
    Kept {
        left_us: u64,
    },
    NotKept,
    Done,
}

/// What it sends to a process unasked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Push {
    /// It is the process's turn.
    Turn,
    /// Another process asks for a key that a claim of this one has.
    Wanted,
    /// The key was force-released.
    Forced,
}

/// One grant of the store's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mint {
    pub(super) token: Token,
    pub(super) fence: u64,
    pub(super) is_forced: bool,
}

/// How the last holder of a key ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum LastEnd {
    #[default]
    Released,
    RanOut,
}

#[derive(Debug, Default)]
pub(super) struct StoredKey {
    pub(super) holder: Option<(Token, u64)>,
    fence: u64,
    /// The processes that wait, and until when each keeps its place.
    queue: VecDeque<(usize, u64)>,
    /// All that were ever made, in order.
    pub(super) mints: Vec<Mint>,
    pub(super) last_end: LastEnd,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) keys: [StoredKey; KEYS],
}

impl StoredKey {
    fn run_out(&mut self, now: u64) {
        if self.holder.is_some_and(|(_, ends)| ends <= now) {
            (self.holder, self.last_end) = (None, LastEnd::RanOut);
        }
        self.queue.retain(|(_, until)| *until > now);
    }

    fn holds(&self, token: Token) -> Option<u64> {
        self.holder.filter(|(by, _)| *by == token).map(|(_, ends)| ends)
    }

    fn grant(&mut self, token: Token, ttl_us: u64, now: u64) -> Answer {
        self.fence = now.max(self.fence + 1);
        self.holder = Some((token, now + ttl_us));
        self.mints.push(Mint { token, fence: self.fence, is_forced: false });
        Answer::Granted { fence: self.fence, left_us: ttl_us }
    }

    fn join(&mut self, process: usize, now: u64) {
        match self.queue.iter_mut().find(|(other, _)| *other == process) {
            Some((_, until)) => *until = now + TICKET_US,
            None => self.queue.push_back((process, now + TICKET_US)),
        }
    }

    fn acquire(&mut self, process: usize, token: Token, (ttl_us, queues): (u64, bool), now: u64) -> Answer {
        let first = self.queue.front().map(|(first, _)| *first);
        match self.holds(token) {
            Some(ends) => Answer::Granted { fence: self.fence, left_us: ends - now },
            None if self.holder.is_none() && first.is_none_or(|first| first == process) => {
                self.queue.pop_front();
                self.grant(token, ttl_us, now)
            }
            None => {
                if queues {
                    self.join(process, now);
                }
                Answer::Denied
            }
        }
    }

    fn extend(&mut self, token: Token, ttl_us: u64, now: u64) -> Answer {
        match self.holder.as_mut().filter(|(by, _)| *by == token) {
            Some((_, ends)) => {
                *ends = (*ends).max(now + ttl_us);
                Answer::Kept { left_us: *ends - now }
            }
            None => Answer::NotKept,
        }
    }

    fn release(&mut self, claim: ClaimEnd) {
        if self.holds(claim.token).is_some() {
            (self.holder, self.last_end) = (None, LastEnd::Released);
            self.fence = self.fence.max(claim.last_fence.map_or(0, |last| last.get()));
        }
    }
}

impl Store {
    /// Does what a process asks; answers it, and the process that a message goes to.
    pub(super) fn run(
        &mut self,
        process: usize,
        at: usize,
        ask: Ask,
        now: u64,
    ) -> (Answer, Option<(Token, Push)>, Option<usize>) {
        let key = &mut self.keys[at];
        key.run_out(now);
        let (mut wanted, mut turn) = (None, None);
        let answer = match ask {
            Ask::Acquire { not_after, .. } | Ask::Release { not_after, .. } if now > not_after => Answer::TooLate,
            Ask::Acquire { token, ttl_us, queues, ended, .. } => {
                ended.into_iter().for_each(|ended| key.release(ended.into()));
                let answer = key.acquire(process, token, (ttl_us, queues), now);
                if matches!(answer, Answer::Denied) {
                    wanted = key.holder.map(|(by, _)| (by, Push::Wanted));
                    turn = key.queue.front().map(|(first, _)| *first);
                }
                answer
            }
            Ask::Extend { token, ttl_us } => key.extend(token, ttl_us, now),
            Ask::Look(token) => key.holds(token).map_or(Answer::NotKept, |ends| Answer::Kept { left_us: ends - now }),
            Ask::Release { claim, .. } => {
                key.release(claim);
                turn = key.queue.front().map(|(first, _)| *first);
                Answer::Done
            }
            Ask::Leave => {
                key.queue.retain(|(other, _)| *other != process);
                turn = key.queue.front().map(|(first, _)| *first);
                Answer::Done
            }
        };
        (answer, wanted, turn.filter(|_| key.holder.is_none()))
    }

    /// Ends whatever holds a key, and raises the fence by more than the lead (K2).
    pub(super) fn force(&mut self, at: usize, now: u64) {
        let key = &mut self.keys[at];
        key.run_out(now);
        key.fence = now.max(key.fence) + LEAD + 1;
        if let Some((token, _)) = key.holder.take() {
            key.last_end = LastEnd::Released;
            key.mints.iter_mut().filter(|mint| mint.token == token).for_each(|mint| mint.is_forced = true);
        }
    }

    /// What holds a key, and until when.
    pub(super) fn holder(&mut self, at: usize, now: u64) -> Option<(Token, u64)> {
        self.keys[at].run_out(now);
        self.keys[at].holder
    }
}
