//! Renewing tickets: `renew.lua`, for many in one script where they are on one server.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};

use crate::store::redis::Inner;
use crate::store::redis::call::call;
use crate::store::redis::conn::link::Link;
use crate::store::redis::conn::wire::Asking;
use crate::store::redis::fault::Then;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{RENEW, Reply, ScriptArgs};
use crate::store::redis::tickets::ROUND;
use crate::store::{Hint, StoreError};

/// So many are renewed by one script: a server does nothing else meanwhile.
const BATCH: usize = 256;
/// So many scripts at a time, where each ticket needs one of its own.
const AT_ONCE: usize = 64;
/// What stands among the tickets for those who watch without a place.
const WATCHED: &str = "*";

/// What is to be renewed.
pub(in crate::store) struct Renewal {
    pub(in crate::store) names: KeyNames,
    /// `None`: that somebody watches.
    pub(in crate::store) number: Option<u64>,
}

/// Says that these locks are watched.
pub(in crate::store) async fn mark_watched(inner: &Arc<Inner>, locks: impl Iterator<Item = KeyNames>) {
    let renewals: Vec<_> = locks.map(|names| Renewal { names, number: None }).collect();
    if !renewals.is_empty() {
        inner.tickets.renew_watched();
        renew(inner, &renewals).await;
    }
}

fn parts(inner: &Inner, renewal: &Renewal) -> ScriptArgs {
    let names = &renewal.names;
    let parts = ScriptArgs::of([names.lock(), names.queue(), names.alive()]);
    match renewal.number {
        Some(number) => parts.arg(format_args!("{}:{number}", inner.config.process)),
        None => parts.arg(WATCHED),
    }
}

/// Renews all of these, at most half a round long.
pub(in crate::store) async fn renew(inner: &Arc<Inner>, renewals: &[Renewal]) {
    let Some(link) = inner.link() else {
        // Those of one script would have to be in one slot.
        stream::iter(renewals).for_each_concurrent(AT_ONCE, |renewal| renew_one(inner, renewal)).await;
        return;
    };
    let batches = renewals.len().div_ceil(BATCH);
    for (number, batch) in renewals.chunks(BATCH).enumerate() {
        if number > 0 {
            // Others want to be served in between.
            tokio::time::sleep(ROUND / 2 / u32::try_from(batches).unwrap_or(u32::MAX)).await;
        }
        if renew_batch(inner, link, batch).await.is_err() {
            inner.tickets.cannot_renew(&renewals[number * BATCH..]);
            return;
        }
    }
}

/// One script for many.
async fn renew_batch(inner: &Arc<Inner>, link: &Link, batch: &[Renewal]) -> Result<(), StoreError> {
    let limit = inner.config.operation_timeout;
    let wire = tokio::time::timeout(limit, link.wire()).await.map_err(|_| StoreError::Timeout)??;
    let parts: Vec<ScriptArgs> = batch.iter().map(|renewal| parts(inner, renewal)).collect();
    let running = tokio::time::timeout(limit, wire.run(&RENEW, Asking::No, &parts));
    let replies = match running.await {
        Ok(Ok(replies)) => replies,
        Ok(Err(fault)) => {
            if fault.then == Then::Reconnect {
                wire.mark_broken();
            }
            return Err(fault.error);
        }
        Err(_) => {
            wire.mark_broken();
            return Err(StoreError::Timeout);
        }
    };
    for (renewal, reply) in batch.iter().zip(replies) {
        match reply {
            Ok(reply) => note(inner, renewal, &reply),
            Err(_) => inner.tickets.cannot_renew(std::slice::from_ref(renewal)),
        }
    }
    Ok(())
}

async fn renew_one(inner: &Arc<Inner>, renewal: &Renewal) {
    // A node that is away must not hold up those of the others: whoever waits there hears so from a try.
    let link = inner.servers.of(|| renewal.names.slot()).now_or_never();
    if link.is_some_and(|link| link.is_ok_and(|link| link.failure().is_some())) {
        return inner.tickets.cannot_renew(std::slice::from_ref(renewal));
    }
    match call(inner, &renewal.names, &RENEW, inner.now(), (), |_| parts(inner, renewal)).await {
        Ok(answer) => note(inner, renewal, &answer.reply),
        Err(_) => inner.tickets.cannot_renew(std::slice::from_ref(renewal)),
    }
}

/// Takes down how a ticket stands; whoever is the next is told when the holder's time is over.
fn note(inner: &Arc<Inner>, renewal: &Renewal, reply: &Reply) {
    let (Some(left), Some(number)) = (inner.tickets.stands(renewal, reply), renewal.number) else { return };
    let Some(runtime) = inner.runtime() else { return };
    let (inner, names) = (Arc::downgrade(inner), renewal.names.clone());
    runtime.spawn(async move {
        tokio::time::sleep(left.saturating_add(Duration::from_millis(1))).await;
        if let Some(inner) = inner.upgrade() {
            inner.tickets.tell(names.lock(), number, Hint::Free);
        }
    });
}
