//! What the nodes' answers to one try come to (L2, L5): [`Poll`].
//!
//! The usual try is one round. A second one follows where a majority would give the key, and not under the fence that
//! was proposed. Pure but for the clock that is told: it neither asks nor takes back.

use std::time::Duration;

use super::Inner;
use super::fanout::{Enough, no_quorum};
use super::fence::{Judgement, Round, Turn, Verdict};
use super::node::other_max_ttl;
use super::queue::RENEWAL;
use super::quorum::{Ballot, Outcome, Quorum, Vote, left_by_quorum};
use super::round::Word;
use crate::clock::Moment;
use crate::store::redis::call::Failure;
use crate::store::redis::fault::{Ran, protocol_error};
use crate::store::{Acquired, Denial, StoreError, drift};

/// After a split vote: so long do the rivals wait, each another time, and longer after each further one.
const RETRY_MS: std::ops::Range<u64> = 1..8;

/// What one node said to one try.
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

/// Whether a node has something that is to be taken back if it is not wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaves {
    Nothing,
    /// It holds the token.
    Token,
    /// It may hold it, or may come to.
    Doubt,
}

impl NodeReply {
    pub(super) fn of(inner: &Inner, word: Result<Word, Failure>, ttl: Duration) -> Self {
        let said = word.and_then(|word| meaning(inner, word, ttl).map_err(|error| Failure { error, ran: Ran::Maybe }));
        match said {
            Ok(said) => said,
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

    pub(super) fn leaves(&self, turn: Turn) -> Leaves {
        match self {
            Self::Granted { .. } | Self::Already { .. } => Leaves::Token,
            // It may have given the token in the first round.
            Self::Refused { .. } if turn == Turn::Second => Leaves::Token,
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

    /// Why the node did not vote.
    fn error(&self) -> Option<StoreError> {
        match self {
            Self::Unknown { error, .. } => Some(error.clone()),
            Self::Quarantined { left } => Some(StoreError::Quarantined { left: *left }),
            _ => None,
        }
    }
}

fn meaning(inner: &Inner, word: Word, ttl: Duration) -> Result<NodeReply, StoreError> {
    let span = |ms: i64| u64::try_from(ms).ok().map(Duration::from_millis);
    // A key without an end: somebody took it away. It lasts at least as long as we asked.
    let left = |ms: i64| span(ms).unwrap_or(Duration::MAX);
    let fence = |fence: i64| u64::try_from(fence).map_err(|_| protocol_error("a fence below zero"));
    Ok(match word.parts() {
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
        (7, &[other_ms]) => return Err(other_max_ttl(inner, other_ms)),
        _ => return Err(protocol_error("neither granted nor denied")),
    })
}

/// The answers to one round of one try.
pub(super) struct Poll {
    ballot: Ballot,
    round: Round,
    said: Vec<Option<NodeReply>>,
}

/// What follows from the answers.
pub(super) enum Decision {
    /// The caller's answer.
    Answer(Acquired),
    /// A second round, with this fence.
    Again(u64),
}

impl Poll {
    pub(super) fn new(inner: &Inner, turn: Turn, fence: u64, deadline: Moment) -> Self {
        let round = match turn {
            Turn::First => Round::first,
            Turn::Second => Round::second,
        };
        Self {
            ballot: Ballot::new(inner.quorum, deadline),
            round: round(inner.quorum, fence),
            said: vec![None; inner.nodes.len()],
        }
    }

    /// Hears one node. Whether no other would change anything.
    pub(super) fn hear(&mut self, inner: &Inner, node: usize, said: NodeReply, now: Moment) -> Enough {
        let _ = self.ballot.cast(node, said.vote(), now);
        let _ = self.round.hear(said.judgement());
        self.said[node] = Some(said);
        let is_decided = match self.ballot.outcome() {
            Outcome::Open => self.held_already(inner).is_some(),
            // Those who have not answered may be held by the one who holds the others: then it is no split vote.
            Outcome::Denied => self.denial(inner.quorum) != Denial::Split || self.silent().is_empty(),
            _ => true,
        };
        if is_decided { Enough::Yes } else { Enough::No }
    }

    /// Ends the wait for answers. The try was for a `ttl` from `begun` on.
    pub(super) fn decide(&mut self, inner: &Inner, ttl: Duration, begun: Moment) -> Decision {
        let outcome = self.ballot.settle(inner.now());
        match (outcome, self.held_already(inner), self.round.close()) {
            (Outcome::Refused, None, Verdict::AskAgain(higher)) => Decision::Again(higher),
            (_, already, _) => Decision::Answer(self.meaning(inner, already, ttl, begun)),
        }
    }

    pub(super) fn heard(&self) -> impl Iterator<Item = (usize, &NodeReply)> {
        self.said.iter().enumerate().filter_map(|(node, said)| Some((node, said.as_ref()?)))
    }

    /// The nodes that have not answered.
    pub(super) fn silent(&self) -> Vec<usize> {
        (0..self.said.len()).filter(|node| self.said[*node].is_none()).collect()
    }

    /// The fence under which the token held a majority before it asked (R2, S3), and what is left there.
    fn held_already(&self, inner: &Inner) -> Option<(u64, Duration)> {
        let already = |(_, said): (usize, &NodeReply)| match *said {
            NodeReply::Already { fence, left } if fence > 0 => Some((fence, left)),
            _ => None,
        };
        let (fence, _) = self.heard().find_map(already)?;
        let mut lefts: Vec<Duration> =
            self.heard().filter_map(already).filter(|one| one.0 == fence).map(|one| one.1).collect();
        Some((fence, left_by_quorum(inner.quorum, &mut lefts)?))
    }

    fn meaning(&self, inner: &Inner, already: Option<(u64, Duration)>, ttl: Duration, begun: Moment) -> Acquired {
        let granted = |fence, left: Duration| {
            let span = ttl.min(left);
            let valid_for = span.saturating_sub(drift(span));
            if inner.now().saturating_since(begun) >= valid_for {
                return Acquired::Denied { retry_in: Some(RENEWAL), why: Denial::TooLate };
            }
            Acquired::Granted { fence: Some(fence), valid_for }
        };
        if let Some((fence, left)) = already {
            return granted(fence, left);
        }
        let random = || Some(Duration::from_millis(fastrand::u64(RETRY_MS)));
        match (self.ballot.outcome(), self.round.close()) {
            (Outcome::Granted, Verdict::Proved(fence)) => {
                let mut lefts: Vec<Duration> = self.heard().filter_map(|(_, said)| said.left()).collect();
                left_by_quorum(inner.quorum, &mut lefts)
                    .map_or_else(|| self.unknown(inner), |left| granted(fence.get(), left))
            }
            (Outcome::TooLate, _) => Acquired::Denied { retry_in: Some(RENEWAL), why: Denial::TooLate },
            // Others are faster.
            (Outcome::Refused, _) => Acquired::Denied { retry_in: random(), why: Denial::Split },
            (Outcome::Denied, _) => {
                let why = self.denial(inner.quorum);
                let retry_in = match why {
                    Denial::Split => random(),
                    // What keeps the place, too. Nobody else looks whether whatever is in the way has gone.
                    _ => Some(self.free_in(inner).unwrap_or(RENEWAL).min(RENEWAL)),
                };
                Acquired::Denied { retry_in, why }
            }
            (Outcome::Granted | Outcome::Unknown | Outcome::Open, _) => self.unknown(inner),
        }
    }

    /// What a majority of the nodes says no for. It is [`Split`](Denial::Split) where none agrees: the nodes are held by
    /// several, each by too few of them, who will all let go and try again.
    fn denial(&self, quorum: Quorum) -> Denial {
        let denials = || {
            self.heard().filter_map(|(_, said)| match *said {
                NodeReply::Denied { why, fence, .. } => Some((why, fence)),
                _ => None,
            })
        };
        denials()
            .find(|one| denials().filter(|other| other == one).count() >= quorum.needed())
            .map_or(Denial::Split, |(why, _)| why)
    }

    /// When a majority will be free, if all ends by time.
    fn free_in(&self, inner: &Inner) -> Option<Duration> {
        let mut ends: Vec<Duration> = Vec::new();
        for (_, said) in self.heard() {
            match *said {
                NodeReply::Denied { left, .. } => ends.push(left.unwrap_or(Duration::MAX)),
                NodeReply::Refused { .. } => ends.push(Duration::ZERO),
                _ => {}
            }
        }
        ends.sort_unstable();
        ends.get(inner.quorum.needed() - 1).copied().filter(|end| *end < Duration::MAX)
    }

    fn unknown(&self, inner: &Inner) -> Acquired {
        let answered = self.heard().filter(|(_, said)| said.error().is_none()).count();
        let mut errors: Vec<(usize, StoreError)> =
            self.heard().filter_map(|(node, said)| Some((node, said.error()?))).collect();
        errors.extend(self.silent().into_iter().map(|node| (node, StoreError::Timeout)));
        Acquired::Unknown(no_quorum(inner, answered, &errors))
    }
}
