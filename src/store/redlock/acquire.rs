//! One try to take a lock on a majority of the nodes: `acquire.lua` on each, and what their answers come to (L2, L5).
//!
//! The usual try is one round. A second one follows where a majority would give the key, and not under the fence that
//! was proposed: another process was quicker, or has a faster clock. What was given without a majority is taken back
//! at once, from nodes that answer late too; a node that has said no has nothing to take back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;

use super::Inner;
use super::fan::{Enough, hear, no_quorum, see_off};
use super::fence::{Judgement, Round, Turn, Verdict, propose};
use super::node::{MARKER, Node, other_max_ttl};
use super::quorum::{Ballot, Heard, Outcome, Vote, left_by_quorum};
use super::script::ACQUIRE;
use super::underway::Stay;
use crate::clock::Moment;
use crate::key::Token;
use crate::store::redis::call::{Confirm, Failure, call};
use crate::store::redis::cleanup::{Debt, Guard};
use crate::store::redis::fault::{Ran, nonsense};
use crate::store::redis::millis;
use crate::store::redis::names::Names;
use crate::store::redis::script::{Parts, Reply};
use crate::store::{Acquired, Ask, Denial, StoreError, drift};

/// After a split vote: so long do the rivals wait, each another time.
const RETRY_MS: std::ops::Range<u64> = 2..40;

/// What each node is asked.
#[derive(Clone)]
struct Question {
    inner: Arc<Inner>,
    names: Names,
    token: Token,
    ttl: Duration,
    turn: Turn,
    fence: u64,
    /// When this round began.
    begun: Moment,
}

/// A node's answer, with what takes it back.
struct Answer {
    node: usize,
    turn: Turn,
    said: Said,
    guard: Guard,
}

#[derive(Debug)]
enum Said {
    Granted { left: Duration },
    Already { fence: u64, left: Duration },
    Refused { seen: u64 },
    Denied { why: Denial, left: Option<Duration> },
    Quarantined { left: Duration },
    Unknown(StoreError),
}

impl Said {
    fn vote(&self) -> Vote {
        match self {
            Self::Granted { .. } => Vote::Granted,
            Self::Already { .. } | Self::Refused { .. } => Vote::Refused,
            Self::Denied { .. } => Vote::Denied,
            Self::Quarantined { .. } => Vote::Abstained,
            Self::Unknown(_) => Vote::Unknown,
        }
    }

    fn judgement(&self) -> Option<Judgement> {
        match *self {
            Self::Granted { .. } => Some(Judgement::Accepted),
            Self::Already { fence: seen, .. } | Self::Refused { seen } => Some(Judgement::Refused { seen }),
            Self::Denied { .. } => Some(Judgement::NotHeld),
            Self::Quarantined { .. } | Self::Unknown(_) => None,
        }
    }

    /// Whether the node holds the token now.
    fn holds(&self) -> bool {
        matches!(self, Self::Granted { .. } | Self::Already { .. })
    }
}

pub(super) async fn acquire(inner: &Arc<Inner>, ask: Ask<'_>) -> Acquired {
    let begun = inner.now();
    match (inner.names(ask.key), inner.checked_ttl(ask.ttl)) {
        (Ok(names), Ok(ttl)) => attempt(inner, names, ask.token, ttl, begun).await,
        (Err(error), _) | (_, Err(error)) => Acquired::Unknown(error),
    }
}

async fn attempt(inner: &Arc<Inner>, names: Names, token: Token, ttl: Duration, begun: Moment) -> Acquired {
    let fence = propose(inner.highest_fence.load(Ordering::Relaxed), inner.micros_at(begun));
    let mut question = Question { inner: Arc::clone(inner), names, token, ttl, turn: Turn::First, fence, begun };
    let deadline = begun.saturating_add(ttl.saturating_sub(drift(ttl)));
    let mut poll = Poll::begin(inner, &question, deadline);
    let mut running = FuturesUnordered::new();
    loop {
        let asked = Arc::new(question.clone());
        running.extend(inner.nodes.iter().map(|node| ask(Arc::clone(node), Arc::clone(&asked))));
        hear(inner, question.begun, &mut running, |answer| poll.hear(answer)).await;
        match poll.end_round() {
            None => break,
            Some(higher) => {
                (question.turn, question.fence, question.begun) = (Turn::Second, higher, inner.now());
                // What the first round has given stays guarded.
                let answers = std::mem::take(&mut poll.answers);
                poll = Poll { answers, ..Poll::begin(inner, &question, deadline) };
            }
        }
    }
    let answer = poll.meaning(ttl, begun);
    let holds = matches!(answer, Acquired::Granted { .. });
    if let Acquired::Granted { fence: Some(fence), .. } = answer {
        inner.highest_fence.fetch_max(fence, Ordering::Relaxed);
    }
    let heard: Vec<usize> = poll.heard().map(|answer| answer.node).collect();
    poll.answers.drain(..).for_each(|answer| answer.dispose(holds));
    let silent = (0..inner.nodes.len()).filter(|node| !heard.contains(node)).collect();
    // Its release goes to those nodes when they have answered, and finds what they have given.
    let mut stay = holds.then(|| Stay::begin(inner, token, silent));
    see_off(inner, running, move |answer: Answer| {
        let (node, counted) = (answer.node, poll.late(&answer) == Heard::Counted);
        answer.dispose(counted && stay.as_ref().is_some_and(|stay| stay.keeps(node)));
        if let Some(stay) = &mut stay {
            stay.answered(node);
        }
    });
    answer
}

impl Answer {
    /// Leaves the key where it is held and is to be. Otherwise the guard takes it back, where it may be.
    fn dispose(mut self, keeps: bool) {
        if keeps && self.said.holds() {
            self.guard.disarm();
        }
    }
}

/// The answers to one try.
struct Poll {
    inner: Arc<Inner>,
    turn: Turn,
    ballot: Ballot,
    round: Round,
    answers: Vec<Answer>,
}

impl Poll {
    fn begin(inner: &Arc<Inner>, question: &Question, deadline: Moment) -> Self {
        let round = match question.turn {
            Turn::First => Round::first,
            Turn::Second => Round::second,
        };
        Self {
            inner: Arc::clone(inner),
            turn: question.turn,
            ballot: Ballot::new(inner.quorum, deadline),
            round: round(inner.quorum, question.fence),
            answers: Vec::with_capacity(2 * inner.nodes.len()),
        }
    }

    fn hear(&mut self, answer: Answer) -> Enough {
        if answer.turn == self.turn {
            let _ = self.late(&answer);
            let _ = self.round.hear(answer.said.judgement());
        }
        self.answers.push(answer);
        let decided = self.ballot.outcome() != Outcome::Open || self.held_already().is_some();
        if decided { Enough::Yes } else { Enough::No }
    }

    /// Counts an answer, which may come after the decision.
    fn late(&mut self, answer: &Answer) -> Heard {
        match answer.turn == self.turn {
            true => self.ballot.cast(answer.node, answer.said.vote(), self.inner.now()),
            false => Heard::Counted,
        }
    }

    /// Ends the wait for answers; the fence to propose in a second round, if there is to be one.
    fn end_round(&mut self) -> Option<u64> {
        let outcome = self.ballot.settle(self.inner.now());
        match (outcome, self.held_already(), self.round.close()) {
            (Outcome::Refused, None, Verdict::AskAgain(higher)) => Some(higher),
            _ => None,
        }
    }

    /// The answers of this round; those of an earlier one only wait to be disposed of.
    fn heard(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| answer.turn == self.turn)
    }

    /// The fence under which the token held a majority before it asked (R2, S3), and what is left there.
    fn held_already(&self) -> Option<(u64, Duration)> {
        let already = |answer: &Answer| match answer.said {
            Said::Already { fence, left } if fence > 0 => Some((fence, left)),
            _ => None,
        };
        let (fence, _) = self.heard().find_map(already)?;
        let mut lefts: Vec<Duration> =
            self.heard().filter_map(already).filter(|one| one.0 == fence).map(|one| one.1).collect();
        Some((fence, left_by_quorum(self.inner.quorum, &mut lefts)?))
    }

    fn meaning(&self, ttl: Duration, begun: Moment) -> Acquired {
        let granted = |fence, left: Duration| {
            let span = ttl.min(left);
            let valid_for = span.saturating_sub(drift(span));
            if self.inner.now().saturating_since(begun) >= valid_for {
                return Acquired::Denied { retry_in: None, why: Denial::TooLate };
            }
            Acquired::Granted { fence: Some(fence), valid_for }
        };
        if let Some((fence, left)) = self.held_already() {
            return granted(fence, left);
        }
        let random = || Some(Duration::from_millis(fastrand::u64(RETRY_MS)));
        match (self.ballot.outcome(), self.round.close()) {
            (Outcome::Granted, Verdict::Proved(fence)) => {
                let mut lefts: Vec<Duration> = self.heard().filter_map(|answer| answer.said.left()).collect();
                left_by_quorum(self.inner.quorum, &mut lefts)
                    .map_or_else(|| self.unknown(), |left| granted(fence.get(), left))
            }
            (Outcome::TooLate, _) => Acquired::Denied { retry_in: None, why: Denial::TooLate },
            // Others are faster.
            (Outcome::Refused, _) => Acquired::Denied { retry_in: random(), why: Denial::Held },
            (Outcome::Denied, _) => {
                let is_split = self.heard().any(|answer| answer.said.holds());
                let retry_in = if is_split { random() } else { self.free_in() };
                Acquired::Denied { retry_in, why: self.why() }
            }
            (Outcome::Granted | Outcome::Unknown | Outcome::Open, _) => self.unknown(),
        }
    }

    /// Why most of those who said no said so.
    fn why(&self) -> Denial {
        let mut whys = self.heard().filter_map(|answer| match answer.said {
            Said::Denied { why, .. } => Some(why),
            _ => None,
        });
        let first = whys.next().unwrap_or(Denial::Held);
        if whys.all(|why| why == first) { first } else { Denial::Held }
    }

    /// When a majority will be free, if all ends by time.
    fn free_in(&self) -> Option<Duration> {
        let mut ends: Vec<Duration> = Vec::new();
        for answer in self.heard() {
            match answer.said {
                Said::Denied { left, .. } => ends.push(left.unwrap_or(Duration::MAX)),
                Said::Refused { .. } => ends.push(Duration::ZERO),
                _ => {}
            }
        }
        ends.sort_unstable();
        ends.get(self.inner.quorum.needed() - 1).copied().filter(|end| *end < Duration::MAX)
    }

    fn unknown(&self) -> Acquired {
        let answered = self.heard().filter(|answer| answer.said.error().is_none()).count();
        let mut errors: Vec<(usize, StoreError)> =
            self.heard().filter_map(|answer| Some((answer.node, answer.said.error()?))).collect();
        let silent = (0..self.inner.nodes.len()).filter(|node| self.heard().all(|answer| answer.node != *node));
        errors.extend(silent.map(|node| (node, StoreError::Timeout)));
        Acquired::Unknown(no_quorum(&self.inner, answered, &errors))
    }
}

impl Said {
    fn left(&self) -> Option<Duration> {
        match self {
            Self::Granted { left } => Some(*left),
            _ => None,
        }
    }

    /// Why the node did not vote.
    fn error(&self) -> Option<StoreError> {
        match self {
            Self::Unknown(error) => Some(error.clone()),
            Self::Quarantined { left } => Some(StoreError::Quarantined { left: *left }),
            _ => None,
        }
    }
}

/// Asks one node.
async fn ask(node: Arc<Node>, question: Arc<Question>) -> Answer {
    let redis = &node.redis;
    // The last moment at which a lost grant could begin, and its life; the second is for the difference of clocks.
    let over = question.begun.saturating_add(redis.config.operation_timeout * 2).saturating_add(question.ttl);
    let mut guard = Guard::new(redis, &question.names, question.token, Debt::new(over), Confirm::No);
    let said = match put(&node, &question, &mut guard).await {
        Ok(said) => said,
        Err(Failure { error, ran }) => {
            if ran == Ran::No {
                guard.disarm();
            }
            match error {
                StoreError::OutOfMemory => Said::Denied { why: Denial::OutOfMemory, left: None },
                error => Said::Unknown(error),
            }
        }
    };
    if let Said::Quarantined { left } = said {
        node.quarantined(left);
    }
    if matches!(said, Said::Denied { .. } | Said::Refused { .. } | Said::Quarantined { .. }) {
        // There is nothing to take back.
        guard.disarm();
    }
    node.count(said.vote());
    Answer { node: node.index, turn: question.turn, said, guard }
}

async fn put(node: &Node, question: &Question, guard: &mut Guard) -> Result<Said, Failure> {
    let unsent = |error| Failure { error, ran: Ran::No };
    let (inner, redis) = (&question.inner, &node.redis);
    let wire = node.wire(inner, question.begun).await.map_err(unsent)?;
    if !redis.cleaning.is_idle() {
        // An earlier try with this token must be out of the way first (S5).
        let waiting = redis.cleaning.wait_for(&question.names, question.token);
        let limit = redis.config.operation_timeout;
        redis.ticks.within(question.begun, limit, waiting).await.map_err(|_| unsent(StoreError::CleaningUp))?;
    }
    redis.lately.forget(question.token);
    let token = question.token.as_uuid();
    let longest = millis(inner.config.silence());
    let turn = if question.turn == Turn::First { 1 } else { 2 };
    let answered = call(redis, &question.names, &ACQUIRE, question.begun, guard, |not_after| {
        let parts = Parts::of([question.names.lock(), question.names.fence(), MARKER]).arg(token.hyphenated());
        let parts = parts.arg(millis(question.ttl)).arg(not_after).arg(question.fence);
        parts.arg(millis(inner.config.fence_retention)).arg(longest).arg(turn)
    });
    let answer = answered.await?;
    if answer.wire.id != wire.id {
        // It was another connection, on which nobody has asked yet what the node has forgotten (L4).
        return Err(Failure { error: StoreError::Unreachable("the connection was lost".into()), ran: Ran::Maybe });
    }
    meaning(inner, &answer.reply).map_err(|error| Failure { error, ran: Ran::Maybe })
}

fn meaning(inner: &Inner, reply: &Reply) -> Result<Said, StoreError> {
    let span = |ms: i64| u64::try_from(ms).ok().map(Duration::from_millis);
    // A key without an end: somebody took it away. It lasts at least as long as we asked.
    let left = |ms: i64| span(ms).unwrap_or(Duration::MAX);
    let fence = |fence: i64| u64::try_from(fence).map_err(|_| nonsense("a fence below zero"));
    Ok(match (reply.code(), reply.rest()) {
        (1, &[left_ms]) => Said::Granted { left: left(left_ms) },
        (2, &[why, left_ms]) => {
            let why = if why == 1 { Denial::OtherKind } else { Denial::Held };
            Said::Denied { why, left: span(left_ms) }
        }
        (3, _) => return Err(StoreError::Timeout),
        (4, &[seen]) => Said::Refused { seen: fence(seen)? },
        (5, &[left_ms]) => Said::Quarantined { left: span(left_ms).unwrap_or_default() },
        (6, &[held, left_ms]) => Said::Already { fence: fence(held)?, left: left(left_ms) },
        (7, &[other_ms]) => return Err(other_max_ttl(inner, other_ms)),
        _ => return Err(nonsense("neither granted nor denied")),
    })
}
