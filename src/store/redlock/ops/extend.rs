//! Moving the end of a lock on a majority of the nodes (L3): `extend.lua` on each. A minority that has lost the lock is
//! given it back afterwards (`repair`).
//!
//! It counts if a majority held the token all the time: each node that answers held it from its grant on, and the
//! answers came before the old end, as the nodes themselves give it.

use std::sync::Arc;
use std::time::Duration;

use super::super::fanout::{Enough, Fanout, undecided};
use super::super::in_flight::InFlightGuard;
use super::super::inner::Inner;
use super::super::lock::Lock;
use super::super::node::Node;
use super::super::quorum::{Ballot, BallotState, Vote, left_by_quorum};
use super::super::script::EXTEND;
use super::repair::{Lost, repair};
use crate::clock::Moment;
use crate::key::{Key, Token, Ttl};
use crate::store::redis::call::call;
use crate::store::redis::fault::protocol_error;
use crate::store::redis::millis;
use crate::store::redis::script::ScriptArgs;
use crate::store::{Extended, StoreError, drift};

/// What each node is asked.
struct ExtendCall {
    lock: Arc<Lock>,
    ttl: Duration,
    begun: Moment,
}

/// What a node that holds the token had left before, what it has left now, and the fence that it keeps beside it.
#[derive(Clone, Copy)]
struct Kept {
    before: Duration,
    left: Duration,
    fence: u64,
}

/// `None`: the node does not hold the token.
type Answer = Result<Option<Kept>, StoreError>;

pub(crate) async fn extend(inner: &Arc<Inner>, key: &Key, token: Token, ttl: Ttl) -> Extended {
    try_extend(inner, key, token, ttl).await.unwrap_or_else(Extended::Unknown)
}

async fn try_extend(inner: &Arc<Inner>, key: &Key, token: Token, ttl: Ttl) -> Result<Extended, StoreError> {
    let begun = inner.now();
    let (names, ttl) = (inner.names(key)?, inner.checked_ttl(ttl)?);
    let request = Arc::new(ExtendCall { lock: Arc::new(Lock { names, token }), ttl, begun });
    let mut fanout = Fanout::to_all(inner, |node| ask(Arc::clone(node), Arc::clone(&request)));
    let deadline = begun.saturating_add(ttl.saturating_sub(drift(ttl)));
    let (mut ballot, mut kept, mut errors) = (Ballot::new(inner.quorum, deadline), Vec::new(), Vec::new());
    let counting = fanout.collect(inner, begun, |node, answer: Answer| {
        ballot.cast(node, vote(&answer), inner.now());
        match answer {
            Ok(Some(one)) => kept.push(one),
            Ok(None) => {}
            Err(error) => errors.push((node, error)),
        }
        if ballot.state() == BallotState::Open { Enough::No } else { Enough::Yes }
    });
    counting.await;
    let now = inner.now();
    match ballot.settle(now) {
        BallotState::Granted => {
            let Some(valid_for) = valid_for(inner, &kept, now.saturating_since(begun)) else {
                return Err(StoreError::Timeout);
            };
            let fence = kept.iter().map(|kept| kept.fence).max().unwrap_or_default();
            let lost = Lost { lock: Arc::clone(&request.lock), fence, ends: begun.saturating_add(valid_for) };
            give_back(inner, ballot, lost, fanout);
            Ok(Extended::Extended { valid_for })
        }
        BallotState::Denied => Ok(Extended::Lost),
        BallotState::TooLate => Err(StoreError::Timeout),
        BallotState::Refused | BallotState::Unknown | BallotState::Open => Err(undecided(inner, &ballot, errors)),
    }
}

/// For how long a majority keeps the token from the start of the call; `None` if the call took so long that a majority
/// may have lost it in between.
fn valid_for(inner: &Inner, kept: &[Kept], took: Duration) -> Option<Duration> {
    let lefts = |of: fn(&Kept) -> Duration| {
        left_by_quorum(inner.quorum, &mut kept.iter().map(of).collect::<Vec<_>>()).unwrap_or_default()
    };
    // What is left may be more than was asked for now.
    let (before, left) = (lefts(|kept| kept.before), lefts(|kept| kept.left));
    let valid_for = left.saturating_sub(drift(left));
    (took < before.saturating_sub(drift(before)).min(valid_for)).then_some(valid_for)
}

fn vote(answer: &Answer) -> Vote {
    match answer {
        Ok(Some(_)) => Vote::Granted,
        Ok(None) => Vote::Denied,
        Err(_) => Vote::Unknown,
    }
}

/// Gives the lock back to the nodes that have lost it, those that answer late too, unless its release has begun.
fn give_back<F>(inner: &Arc<Inner>, mut ballot: Ballot, lost: Lost, fanout: Fanout<F>)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let guard = Arc::new(InFlightGuard::of_extend(&inner.in_flight, Arc::clone(&lost.lock)));
    let weak = Arc::downgrade(inner);
    let repair_all = move |ballot: &Ballot, known: &[usize]| {
        let Some(inner) = weak.upgrade() else { return };
        let Some((nodes, left)) = ballot.to_repair(lost.ends, inner.now()) else { return };
        for node in nodes.into_iter().filter(|node| !known.contains(node)) {
            repair(&inner, node, &lost, left, &guard);
        }
    };
    repair_all(&ballot, &[]);
    let mut known = ballot.lost();
    fanout.drain_in_background(inner, move |node, answer| {
        ballot.cast(node, vote(&answer), Moment::ZERO);
        repair_all(&ballot, &known);
        known = ballot.lost();
    });
}

/// Asks one node.
async fn ask(node: Arc<Node>, request: Arc<ExtendCall>) -> Answer {
    node.wire(request.begun).await?;
    let Lock { names, token } = &*request.lock;
    let answered = call(&node.redis, names, &EXTEND, request.begun, (), |not_after| {
        let parts = ScriptArgs::of([names.lock(), names.fence()]).arg(token.as_uuid().hyphenated());
        parts.arg(millis(request.ttl)).arg(not_after)
    });
    let reply = answered.await.map_err(|failure| failure.error)?.reply;
    let span = |ms: i64| u64::try_from(ms).map_or(request.ttl, Duration::from_millis);
    match (reply.code(), reply.rest()) {
        (1, &[before, left, fence]) => {
            Ok(Some(Kept { before: span(before), left: span(left), fence: u64::try_from(fence).unwrap_or(0) }))
        }
        (2, _) => Ok(None),
        (3, _) => Err(StoreError::Timeout),
        _ => Err(protocol_error("neither extended nor lost")),
    }
}
