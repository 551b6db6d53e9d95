//! What the table is asked for: a key, or more time with one; and what it answers.

use std::task::Waker;

use super::acquire::Grant;
use super::holder::{GrantState, TokenOrigin};
use super::queue::WaiterId;
use super::slot::Terms;
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::{Key, Token, Ttl};

/// One request, as the table sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AcquireRequest<'a> {
    pub(crate) key: &'a Key,
    pub(crate) hash: u32,
    pub(crate) terms: &'a Terms,
    /// To be kept with the grant: a client chose it, or a store is given it. `None`: it is made when somebody asks for it.
    pub(crate) token: Option<Token>,
    pub(crate) origin: TokenOrigin,
    /// Who will answer for the grant: a guard or a ticket.
    pub(crate) grant_state: GrantState,
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

/// What a refresh asks for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum RefreshRequest {
    /// The TTL of the grant, and only once its share of the TTL has passed (`refresh_after`).
    IfDue,
    /// This TTL, now.
    To(Ttl),
}

/// What a refresh did; both leave the lock held until the deadline given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refreshed {
    pub(crate) deadline: Moment,
    pub(crate) written: bool,
    pub(crate) count: u32,
}
