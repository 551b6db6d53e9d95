//! Moving the end of a lock on a majority of the nodes (L3): `extend.lua` on each. A minority that has lost the lock is
//! given it back afterwards (`repair`).
//!
//! It counts if a majority held the token all the time: each node that answers held it from its grant on, and the
//! answers came before the old end, as the nodes themselves tell it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;

use super::super::fanout::{Enough, drain_in_background, hear, no_quorum};
use super::super::in_flight::InFlightGuard;
use super::super::node::Node;
use super::super::quorum::{Ballot, Outcome, Vote, left_by_quorum};
use super::super::script::EXTEND;
use super::super::{Inner, Lock};
use super::repair::{Lost, repair};
use crate::clock::Moment;
use crate::key::{Key, Token, Ttl};
use crate::store::redis::call::call;
use crate::store::redis::fault::protocol_error;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::millis;
use crate::store::redis::script::ScriptArgs;
use crate::store::{Extended, StoreError, drift};

struct Question {
    inner: Arc<Inner>,
    names: KeyNames,
    token: Token,
    ttl: Duration,
    begun: Moment,
}

/// What a node that holds the token had left, and has now, and the fence that it keeps beside it.
#[derive(Clone, Copy)]
struct Kept {
    was: Duration,
    left: Duration,
    fence: u64,
}

type Answer = (usize, Result<Option<Kept>, StoreError>);

pub(crate) async fn extend(inner: &Arc<Inner>, key: &Key, token: Token, ttl: Ttl) -> Extended {
    attempt(inner, key, token, ttl).await.unwrap_or_else(Extended::Unknown)
}

async fn attempt(inner: &Arc<Inner>, key: &Key, token: Token, ttl: Ttl) -> Result<Extended, StoreError> {
    let begun = inner.now();
    let (names, ttl) = (inner.names(key)?, inner.checked_ttl(ttl)?);
    let question = Arc::new(Question { inner: Arc::clone(inner), names, token, ttl, begun });
    let deadline = begun.saturating_add(ttl.saturating_sub(drift(ttl)));
    let mut running: FuturesUnordered<_> =
        inner.nodes.iter().map(|node| ask(Arc::clone(node), Arc::clone(&question))).collect();
    let (mut ballot, mut kept, mut errors) = (Ballot::new(inner.quorum, deadline), Vec::new(), Vec::new());
    hear(inner, begun, &mut running, |(node, answer): Answer| {
        let _ = ballot.cast(node, vote(&answer), inner.now());
        match answer {
            Ok(Some(one)) => kept.push(one),
            Ok(None) => {}
            Err(error) => errors.push((node, error)),
        }
        if ballot.outcome() == Outcome::Open { Enough::No } else { Enough::Yes }
    })
    .await;
    let now = inner.now();
    let outcome = ballot.settle(now);
    let lefts = |of: fn(&Kept) -> Duration| {
        left_by_quorum(inner.quorum, &mut kept.iter().map(of).collect::<Vec<_>>()).unwrap_or_default()
    };
    let (was, left) = (lefts(|kept| kept.was), lefts(|kept| kept.left));
    // It may have had more left than was asked for now.
    let valid_for = left.saturating_sub(drift(left));
    let in_time = now.saturating_since(begun) < was.saturating_sub(drift(was)).min(valid_for);
    match outcome {
        Outcome::Granted if in_time => {
            let fence = kept.iter().map(|kept| kept.fence).max().unwrap_or_default();
            let lost = Lost { question: (question.names.clone(), token), fence, ends: begun.saturating_add(valid_for) };
            let lock = Arc::new(Lock { names: question.names.clone(), token });
            let stay = InFlightGuard::of_extend(inner, lock);
            give_back(inner, ballot, lost, running, stay);
            Ok(Extended::Extended { valid_for })
        }
        Outcome::Denied => Ok(Extended::Lost),
        Outcome::Granted | Outcome::TooLate => Err(StoreError::Timeout),
        Outcome::Refused | Outcome::Unknown | Outcome::Open => {
            let answered = inner.nodes.len() - errors.len() - running.len();
            let silent = (0..inner.nodes.len()).filter(|node| !ballot.has_heard(*node));
            errors.extend(silent.map(|node| (node, StoreError::Timeout)));
            Err(no_quorum(inner, answered, &errors))
        }
    }
}

fn vote(answer: &Result<Option<Kept>, StoreError>) -> Vote {
    match answer {
        Ok(Some(_)) => Vote::Granted,
        Ok(None) => Vote::Denied,
        Err(_) => Vote::Unknown,
    }
}

/// Gives the lock back to the nodes that have lost it, those that answer late too, unless its release has begun.
fn give_back<F>(inner: &Arc<Inner>, mut ballot: Ballot, lost: Lost, running: FuturesUnordered<F>, stay: InFlightGuard)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let stay = Arc::new(stay);
    let weak = Arc::downgrade(inner);
    let mend = move |ballot: &Ballot, known: &[usize]| {
        let Some(inner) = weak.upgrade() else { return };
        let Some((nodes, left)) = ballot.to_repair(lost.ends, inner.now()) else { return };
        for node in nodes.into_iter().filter(|node| !known.contains(node)) {
            repair(&inner, node, &lost, left, &stay);
        }
    };
    mend(&ballot, &[]);
    let mut known = ballot.lost();
    drain_in_background(inner, running, move |(node, answer): Answer| {
        let _ = ballot.cast(node, vote(&answer), Moment::ZERO);
        mend(&ballot, &known);
        known = ballot.lost();
    });
}

/// Asks one node.
async fn ask(node: Arc<Node>, question: Arc<Question>) -> Answer {
    (node.index, put(&node, &question).await)
}

async fn put(node: &Node, question: &Question) -> Result<Option<Kept>, StoreError> {
    node.wire(&question.inner, question.begun).await?;
    let token = question.token.as_uuid();
    let answered = call(&node.redis, &question.names, &EXTEND, question.begun, (), |not_after| {
        let parts = ScriptArgs::of([question.names.lock(), question.names.fence()]).arg(token.hyphenated());
        parts.arg(millis(question.ttl)).arg(not_after)
    });
    let reply = answered.await.map_err(|failure| failure.error)?.reply;
    let span = |ms: i64| u64::try_from(ms).map_or(question.ttl, Duration::from_millis);
    match (reply.code(), reply.rest()) {
        (1, &[was, left, fence]) => {
            Ok(Some(Kept { was: span(was), left: span(left), fence: u64::try_from(fence).unwrap_or(0) }))
        }
        (2, _) => Ok(None),
        (3, _) => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither extended nor lost")),
    }
}
