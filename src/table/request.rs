//! What the table is asked when a key is wanted, and what it answers.

use std::task::Waker;

use super::acquire::Grant;
use super::holder::GrantState;
use super::queue::WaiterId;
use super::slot::Terms;
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::{Key, Token};

/// One request, as the table sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcquireRequest<'a> {
    pub(crate) key: &'a Key,
    pub(crate) hash: u32,
    pub(crate) terms: &'a Terms,
    pub(crate) token: Token,
    pub(crate) origin: TokenOrigin,
    /// Who will answer for the grant: a guard or a ticket.
    pub(crate) grant_state: GrantState,
}

/// Where a request's token comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenOrigin {
    /// Freshly minted; nobody can have asked with it before.
    Minted,
    /// Named by the client, maybe for the second time (T11).
    ByClient,
}

/// What a request does when the key is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WaitPolicy<'a> {
    /// Nothing, and that ends it.
    Now,
    /// Nothing, and it will come again: not counted as an attempt.
    Poll,
    /// It queues until the deadline.
    Until(Moment, Option<&'a Waker>),
}

#[derive(Debug, PartialEq)]
pub(crate) enum AcquireOutcome {
    Granted(Grant),
    Queued(WaiterId),
    Refused(LockError),
}

/// What a waiter finds when it looks.
#[derive(Debug, PartialEq)]
pub(crate) enum WaiterPoll {
    Pending,
    Granted(Grant),
    Refused(LockError),
    /// Another seat of the same waiter has already taken the answer.
    Taken,
}
