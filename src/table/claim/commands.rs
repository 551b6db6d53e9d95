//! What the table asks of the store, [`StoreCommand`], and what becomes of the answers.

use super::{ReleaseCommand, StoreGrant};
use crate::clock::Moment;
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::mode::Mode;
use crate::table::Grant;

/// Puts the table's commands to the store.
pub(crate) trait StoreCommands: Send + Sync {
    /// Called after the shard's mutex is dropped; must not wait.
    fn run(&self, command: StoreCommand);
}

/// What is to be asked of the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum StoreCommand {
    /// Take the key for a request.
    Acquire { grant: Grant, key: Key, ask: ClaimRequest },
    /// The request has gone: stop taking, and let go what was taken for it.
    Cancel { grant: Grant, key: Key, queue: LocalWaiters },
    /// Keep the key.
    Extend { grant: Grant, key: Key, token: Token, ttl: Ttl },
    /// Ask for how long the token still has the key: another process may have extended it.
    Confirm { grant: Grant, key: Key, token: Token },
    /// Let the key go.
    Release(ReleaseCommand),
    /// Let a key go that nobody holds.
    GiveUp { key: Key, claim: ClaimEnd },
    /// Leave the key to its own end: it is over here, but another process may have extended it.
    RunOut { grant: Grant, key: Key, token: Token },
}

/// How the store is asked for a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClaimRequest {
    /// What the store keeps the key under.
    pub(crate) token: Token,
    pub(crate) ttl: Ttl,
    pub(crate) tries: Attempts,
    /// To be let go before: this process's own last claim.
    pub(crate) after: Option<ClaimEnd>,
    /// Not asked before then.
    pub(crate) not_before: Moment,
    /// Whether it may be granted for less than the TTL at first, and extended then.
    pub(crate) at_first: AtFirst,
    pub(crate) mode: Mode,
}

/// What a request takes a grant for at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtFirst {
    /// The whole TTL: a client is told the deadline at once, or others know the token.
    Whole,
    /// Less, where another process hands the key over; it is extended if the lock lasts for longer than a moment.
    Short,
}

/// A claim that ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClaimEnd {
    pub(crate) token: Token,
    /// The last fence that was given out under it, if the store did not make it.
    pub(crate) last_fence: Option<FencingToken>,
}

impl From<Token> for ClaimEnd {
    /// The claim of a grant with this token, which the store made the fence of.
    fn from(token: Token) -> Self {
        Self { token, last_fence: None }
    }
}

/// How often a request has the store asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attempts {
    /// Once: the answer is the request's.
    One,
    /// Until the store says yes, or the wait is over.
    Many,
}

/// Whether somebody else of this process waits for the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LocalWaiters {
    None,
    Some,
}

/// Which of the grants that the store has given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimFilter {
    All,
    /// Those that somebody of this process waits behind.
    InTheWay,
}

/// Who says that a request has its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimSource {
    OfStore(StoreGrant),
    /// This process alone: the store is away, and the manager was told to go on (R20).
    Ours,
}

/// What becomes of the store's yes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimOutcome {
    /// The request has it.
    Taken,
    /// The request has gone: it is to be let go.
    Unwanted,
    /// It came after its own end: it is to be let go, and asked for again.
    TooLate,
}
