//! The state of every server that the store has a link to, asked for now. Redlock asks for each of its nodes.
//!
//! A server that answers a `PING` may still refuse every lock: rights are missing, it is full, cannot save, has too few
//! replicas. So a lock is taken and released too (N2), once a second at most however many ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::acquire;
use super::release::GuardedRelease;
use crate::key::{Key, Token, Ttl};
use crate::mode::Mode;
use crate::store::redis::conn::link::{Link, Phase};
use crate::store::redis::inner::Inner;
use crate::store::{
    AcquireRequest, Acquired, Denial, Health, NodeHealth, OnHeld, Released, StoreError, Votes, Warning,
};

/// The key that is locked to see whether keys can be.
pub(in crate::store) const KEY: &str = "leasehold-probe";
/// The outcome of a trial holds for so long, and so does its lock.
const FRESH: Duration = Duration::from_secs(1);

/// Whether locks can be taken and released. Of several callers, one tries for all.
async fn trial(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let mut last = inner.last_trial.lock().await;
    if let Some((at, outcome)) = &*last
        && at.elapsed() < FRESH
    {
        return outcome.clone();
    }
    let outcome = try_lock(inner).await;
    *last = Some((Instant::now(), outcome.clone()));
    outcome
}

async fn try_lock(inner: &Arc<Inner>) -> Result<(), StoreError> {
    let key = Key::new(KEY).expect("it is a good key");
    let ttl = Ttl::new(FRESH).expect("it is a good TTL");
    let token = Token::random();
    match acquire::acquire(
        inner,
        AcquireRequest { key: &key, token, ttl, on_held: OnHeld::Fail, mode: Mode::Exclusive, note: &[] },
    )
    .await
    {
        Acquired::Granted { .. } => match GuardedRelease::new(inner, &key, token)?.run(inner).await {
            Released::Unknown(why) => Err(why),
            Released::Released | Released::AlreadyGone => Ok(()),
        },
        Acquired::Denied { why: Denial::OutOfMemory, .. } => Err(StoreError::OutOfMemory),
        Acquired::Denied { why: Denial::Unreplicated, .. } => Err(StoreError::TooFewReplicas),
        // Another process tries just now.
        Acquired::Denied { .. } => Ok(()),
        Acquired::Unknown(why) => Err(why),
    }
}

pub(in crate::store) async fn health(inner: &Arc<Inner>) -> Health {
    let begun = inner.now();
    let mut links = inner.servers.links();
    links.sort_unstable_by_key(|link| link.name());
    let asked = join_all(links.iter().map(|link| ask(inner, link))).await;
    let mut warnings: Vec<Warning> = inner.listener.warning().into_iter().collect();
    let (mut answer, mut nodes) = (Ok(()), Vec::new());
    for (node, found) in asked {
        for warning in found {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        answer = answer.and(node.answer.as_ref().map(|_| ()).map_err(StoreError::clone));
        nodes.push(node);
    }
    let took = inner.now().saturating_since(begun);
    if answer.is_ok() {
        answer = trial(inner).await;
        // The only server refuses locks.
        if let ([node], Err(why)) = (&mut nodes[..], &answer) {
            node.answer = Err(why.clone());
        }
    }
    Health::new(answer.map(|()| took), warnings).with_nodes(nodes)
}

async fn ask(inner: &Inner, link: &Arc<Link>) -> (NodeHealth, Vec<Warning>) {
    let begun = inner.now();
    let mut warnings = Vec::new();
    let asking = async {
        let wire = link.wire().await?;
        warnings.clone_from(&wire.warnings);
        wire.ping().await
    };
    // The first connection is waited for: "not yet" is no answer right after the start.
    let limit = if link.is_new() { inner.config.connect_timeout } else { Duration::ZERO };
    let limit = limit.saturating_add(inner.config.operation_timeout);
    let asked = inner.ticks.within(begun, limit, asking).await.and_then(|asked| asked);
    if let Phase::Down(why) = link.phase()
        && why.is_refusal()
    {
        warnings.push(Warning::Refused { server: link.name().to_string(), why });
    }
    let answer = match (asked, link.phase()) {
        (Ok(()), _) => Ok(inner.now().saturating_since(begun)),
        (Err(StoreError::Timeout), Phase::Down(why)) => Err(why),
        (Err(error), _) => Err(error),
    };
    (NodeHealth::new(link.name(), answer, Votes::default()), warnings)
}
