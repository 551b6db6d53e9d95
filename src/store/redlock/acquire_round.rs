//! What the nodes' answers to one try mean (L2, L5): [`AcquireRound`].
//!
//! A try usually takes one round. A second one follows where a majority would give the key, and not under the fence
//! that was proposed. Nothing is sent from here, neither a request nor a release.

use std::time::Duration;

use super::fanout::undecided;
use super::fence::{FenceRound, Judgement, RoundNumber, Verdict};
use super::inner::Inner;
use super::queue::RENEWAL;
use super::quorum::{Ballot, BallotState, Quorum, Vote, left_by_quorum};
use super::reply::LockReply;
use crate::clock::Moment;
use crate::store::redis::call::Failure;
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::{Acquired, Denial, StoreError, drift};

/// How long a rival waits after a split vote, at random: the shard adds more after each further one.
const RETRY_MS: std::ops::Range<u64> = 1..8;

/// How one node answers one try.
#[derive(Clone, Debug)]
pub(super) enum NodeReply {
    Granted {
        left: Duration,
    },
    Already {
        fence: u64,
        left: Duration,
    },
    Refused {
        seen: u64,
    },
    /// `fence` is the holder's, or 0 where the node knows none.
    Denied {
        why: Denial,
        left: Option<Duration>,
        fence: u64,
    },
    Quarantined {
        left: Duration,
    },
    Unknown {
        error: StoreError,
        ran: Ran,
    },
}

/// What a node may keep of a try. It is to be taken back if it is not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaves {
    Nothing,
    /// It holds the token.
    Token,
    /// It may hold the token now or later.
    Doubt,
}

impl NodeReply {
    pub(super) fn of(inner: &Inner, reply: Result<LockReply, Failure>, ttl: Duration) -> Self {
        let unclear = |error| Failure { error, ran: Ran::Maybe };
        match reply.and_then(|reply| read(inner, reply, ttl).map_err(unclear)) {
            Ok(reply) => reply,
            Err(Failure { error: StoreError::OutOfMemory, .. }) => {
                Self::Denied { why: Denial::OutOfMemory, left: None, fence: 0 }
            }
            Err(Failure { error, ran }) => Self::Unknown { error, ran },
        }
    }

    pub(super) fn vote(&self) -> Vote {
        match self {
            Self::Granted { .. } => Vote::Granted,
            Self::Already { .. } | Self::Refused { .. } => Vote::Refused,
            Self::Denied { .. } => Vote::Denied,
            Self::Quarantined { .. } => Vote::Abstained,
            Self::Unknown { .. } => Vote::Unknown,
        }
    }

    fn judgement(&self) -> Option<Judgement> {
        match *self {
            Self::Granted { .. } => Some(Judgement::Accepted),
            Self::Already { fence: seen, .. } | Self::Refused { seen } => Some(Judgement::Refused { seen }),
            Self::Denied { .. } => Some(Judgement::NotHeld),
            Self::Quarantined { .. } | Self::Unknown { .. } => None,
        }
    }

    pub(super) fn leaves(&self, number: RoundNumber) -> Leaves {
        match self {
            Self::Granted { .. } | Self::Already { .. } => Leaves::Token,
            // It may have given the token in the first round.
            Self::Refused { .. } if number == RoundNumber::Second => Leaves::Token,
            Self::Unknown { ran: Ran::Maybe, .. } => Leaves::Doubt,
            _ => Leaves::Nothing,
        }
    }

    fn left(&self) -> Option<Duration> {
        match self {
            Self::Granted { left } => Some(*left),
            _ => None,
        }
    }

    /// Why the node did not vote; `None` if it did.
    fn error(&self) -> Option<StoreError> {
        match self {
            Self::Unknown { error, .. } => Some(error.clone()),
            Self::Quarantined { left } => Some(StoreError::Quarantined { left: *left }),
            _ => None,
        }
    }
}

fn read(inner: &Inner, reply: LockReply, ttl: Duration) -> Result<NodeReply, StoreError> {
    let span = |ms: i64| u64::try_from(ms).ok().map(Duration::from_millis);
    // A key without an end: another client removed it. It lasts at least for the TTL that was asked.
    let left = |ms: i64| span(ms).unwrap_or(Duration::MAX);
    let fence = |fence: i64| u64::try_from(fence).map_err(|_| protocol_error("a fence below zero"));
    Ok(match reply.parts() {
        (1, &[]) => NodeReply::Granted { left: ttl },
        (1, &[left_ms]) => NodeReply::Granted { left: left(left_ms) },
        (2, &[why, left_ms, holder]) => {
            let why = match why {
                1 => Denial::OtherKind,
                2 => Denial::Ahead,
                _ => Denial::Held,
            };
            NodeReply::Denied { why, left: span(left_ms), fence: fence(holder)? }
        }
        (3, _) => return Err(StoreError::Timeout),
        (4, &[seen]) => NodeReply::Refused { seen: fence(seen)? },
        (5, &[left_ms]) => NodeReply::Quarantined { left: span(left_ms).unwrap_or_default() },
        (6, &[held, left_ms]) => NodeReply::Already { fence: fence(held)?, left: left(left_ms) },
        (7, &[other_ms]) => return Err(inner.config.other_max_ttl(other_ms)),
        _ => return Err(protocol_error("neither granted nor denied")),
    })
}

/// The answers to one round of one try.
pub(super) struct AcquireRound {
    ballot: Ballot,
    fence: FenceRound,
    replies: Vec<Option<NodeReply>>,
}

/// What follows from the answers.
pub(super) enum Decision {
    /// The caller's answer.
    Answer(Acquired),
    /// A second round, with this fence.
    Again(u64),
}

impl AcquireRound {
    pub(super) fn new(inner: &Inner, number: RoundNumber, fence: u64, deadline: Moment) -> Self {
        Self {
            ballot: Ballot::new(inner.quorum, deadline),
            fence: FenceRound::new(inner.quorum, number, fence),
            replies: vec![None; inner.nodes.len()],
        }
    }

    /// Counts the reply of one node. Whether no other would change anything.
    pub(super) fn count(&mut self, inner: &Inner, node: usize, reply: NodeReply, now: Moment) -> bool {
        self.ballot.cast(node, reply.vote(), now);
        self.fence.count(reply.judgement());
        self.replies[node] = Some(reply);
        match self.ballot.state() {
            BallotState::Open => self.held_already(inner).is_some(),
            // The one that holds some of the nodes may hold those that have not answered, too: then it is no split vote.
            BallotState::Denied => self.denial(inner.quorum) != Denial::Split || self.silent().is_empty(),
            _ => true,
        }
    }

    /// Ends the wait for answers. The try was for a `ttl` from `begun` on.
    pub(super) fn decide(&mut self, inner: &Inner, ttl: Duration, begun: Moment) -> Decision {
        let state = self.ballot.settle(inner.now());
        match (state, self.held_already(inner), self.fence.close()) {
            (BallotState::Refused, None, Verdict::AskAgain(higher)) => Decision::Again(higher),
            (_, already, _) => Decision::Answer(self.answer(inner, already, ttl, begun)),
        }
    }

    pub(super) fn replies(&self) -> impl Iterator<Item = (usize, &NodeReply)> {
        self.replies.iter().enumerate().filter_map(|(node, reply)| Some((node, reply.as_ref()?)))
    }

    /// The nodes that have not answered.
    pub(super) fn silent(&self) -> Vec<usize> {
        (0..self.replies.len()).filter(|node| self.replies[*node].is_none()).collect()
    }

    /// The fence under which the token held a majority before it asked (R2, S3), and what is left there.
    fn held_already(&self, inner: &Inner) -> Option<(u64, Duration)> {
        let already = |(_, reply): (usize, &NodeReply)| match *reply {
            NodeReply::Already { fence, left } if fence > 0 => Some((fence, left)),
            _ => None,
        };
        let (fence, _) = self.replies().find_map(already)?;
        let mut lefts: Vec<Duration> =
            self.replies().filter_map(already).filter(|one| one.0 == fence).map(|one| one.1).collect();
        Some((fence, left_by_quorum(inner.quorum, &mut lefts)?))
    }

    fn answer(&self, inner: &Inner, already: Option<(u64, Duration)>, ttl: Duration, begun: Moment) -> Acquired {
        let granted = |fence, left: Duration| {
            let span = ttl.min(left);
            let valid_for = span.saturating_sub(drift(span));
            if inner.now().saturating_since(begun) >= valid_for {
                return Acquired::Denied { retry_in: Some(RENEWAL), why: Denial::TooLate };
            }
            Acquired::Granted { fence: Some(fence), valid_for, clock: None }
        };
        if let Some((fence, left)) = already {
            return granted(fence, left);
        }
        let random = || Some(Duration::from_millis(fastrand::u64(RETRY_MS)));
        match (self.ballot.state(), self.fence.close()) {
            (BallotState::Granted, Verdict::Proved(fence)) => {
                let mut lefts: Vec<Duration> = self.replies().filter_map(|(_, reply)| reply.left()).collect();
                left_by_quorum(inner.quorum, &mut lefts)
                    .map_or_else(|| self.unknown(inner), |left| granted(fence.get(), left))
            }
            (BallotState::TooLate, _) => Acquired::Denied { retry_in: Some(RENEWAL), why: Denial::TooLate },
            // Rivals propose higher fences.
            (BallotState::Refused, _) => Acquired::Denied { retry_in: random(), why: Denial::Split },
            (BallotState::Denied, _) => {
                let why = self.denial(inner.quorum);
                let retry_in = match why {
                    Denial::Split => random(),
                    // The next try keeps the place in the queue, too, and finds out whether the key has run out.
                    _ => Some(self.free_in(inner).unwrap_or(RENEWAL).min(RENEWAL)),
                };
                Acquired::Denied { retry_in, why }
            }
            (BallotState::Granted | BallotState::Unknown | BallotState::Open, _) => self.unknown(inner),
        }
    }

    /// Why a majority of the nodes denies. It is [`Split`](Denial::Split) where no majority gives the same reason: several
    /// rivals hold too few nodes each, and will all give them back and try again.
    fn denial(&self, quorum: Quorum) -> Denial {
        let denials = || {
            self.replies().filter_map(|(_, reply)| match *reply {
                NodeReply::Denied { why, fence, .. } => Some((why, fence)),
                _ => None,
            })
        };
        denials()
            .find(|one| denials().filter(|other| other == one).count() >= quorum.needed())
            .map_or(Denial::Split, |(why, _)| why)
    }

    /// When a majority will be free, if all holders run out.
    fn free_in(&self, inner: &Inner) -> Option<Duration> {
        let mut ends: Vec<Duration> = Vec::new();
        for (_, reply) in self.replies() {
            match *reply {
                NodeReply::Denied { left, .. } => ends.push(left.unwrap_or(Duration::MAX)),
                NodeReply::Refused { .. } => ends.push(Duration::ZERO),
                _ => {}
            }
        }
        ends.sort_unstable();
        ends.get(inner.quorum.needed() - 1).copied().filter(|end| *end < Duration::MAX)
    }

    fn unknown(&self, inner: &Inner) -> Acquired {
        let errors = self.replies().filter_map(|(node, reply)| Some((node, reply.error()?))).collect();
        Acquired::Unknown(undecided(inner, &self.ballot, errors))
    }
}
