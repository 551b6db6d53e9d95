//! Renewing tickets: `renew.lua`, for many in one script where they are on one server.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};

use super::leave;
use crate::store::redis::call::call;
use crate::store::redis::conn::link::Link;
use crate::store::redis::conn::wire::Asking;
use crate::store::redis::fault::Then;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::{RENEW, Reply, ScriptArgs};
use crate::store::redis::tickets::{ROUND, Renewal};
use crate::store::{Hint, StoreError};

/// So many are renewed by one script: a server does nothing else meanwhile.
const BATCH: usize = 256;
/// So many scripts at a time, where each ticket needs one of its own.
const AT_ONCE: usize = 64;
/// What stands among the tickets for those who watch without a place.
const WATCHED: &str = "*";

/// Renews the tickets of this process and the marks of watched locks, for as long as it is polled.
pub(in crate::store) async fn run(inner: Arc<Inner>) {
    loop {
        let begun = inner.tickets.now();
        let round = inner.tickets.round(inner.listener.watched());
        for (names, left) in round.abandoned {
            leave::give_up(&inner, names, left);
        }
        renew(&inner, &round.renewals).await;
        if !inner.tickets.rested().await {
            tokio::time::sleep(ROUND.saturating_sub(inner.tickets.now().saturating_since(begun))).await;
        }
    }
}

/// Marks these locks as watched on the server, so that releases are published.
pub(in crate::store) async fn mark_watched(inner: &Arc<Inner>, locks: impl Iterator<Item = KeyNames>) {
    let now = inner.tickets.now();
    let renewals: Vec<_> = locks.map(|names| Renewal::of_watched(names, now)).collect();
    if !renewals.is_empty() {
        inner.tickets.renew_watched();
        renew(inner, &renewals).await;
    }
}

fn args(inner: &Inner, renewal: &Renewal) -> ScriptArgs {
    let names = &renewal.names;
    let args = ScriptArgs::of([names.lock(), names.queue(), names.tickets()]);
    match renewal.number {
        Some(number) => args.arg(format_args!("{}:{number}", inner.config.process)),
        None => args.arg(WATCHED),
    }
}

/// Renews all of these, at most half a round long.
async fn renew(inner: &Arc<Inner>, renewals: &[Renewal]) {
    let Some(link) = inner.link() else {
        // Those of one script would have to be in one slot.
        stream::iter(renewals).for_each_concurrent(AT_ONCE, |renewal| renew_one(inner, renewal)).await;
        return;
    };
    let batches = renewals.len().div_ceil(BATCH);
    for (number, batch) in renewals.chunks(BATCH).enumerate() {
        if number > 0 {
            // The server answers others in between.
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
    let args: Vec<ScriptArgs> = batch.iter().map(|renewal| args(inner, renewal)).collect();
    let running = tokio::time::timeout(limit, wire.run(&RENEW, Asking::No, &args));
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
    // A node that is away must not hold up the tickets of others: a try on its key gets the cause.
    let link = inner.servers.of(|| renewal.names.slot()).now_or_never();
    if link.is_some_and(|link| link.is_ok_and(|link| link.failure().is_some())) {
        return inner.tickets.cannot_renew(std::slice::from_ref(renewal));
    }
    match call(inner, &renewal.names, &RENEW, inner.now(), (), |_| args(inner, renewal)).await {
        Ok(answer) => note(inner, renewal, &answer.reply),
        Err(_) => inner.tickets.cannot_renew(std::slice::from_ref(renewal)),
    }
}

/// Takes in how a ticket stands. If it is the next, its listeners get a hint when the holder's time is over.
fn note(inner: &Arc<Inner>, renewal: &Renewal, reply: &Reply) {
    let (Some(left), Some(number)) = (inner.tickets.renewed(renewal, reply), renewal.number) else { return };
    let Some(runtime) = inner.runtime() else { return };
    let (inner, names) = (Arc::downgrade(inner), renewal.names.clone());
    runtime.spawn(async move {
        tokio::time::sleep(left.saturating_add(Duration::from_millis(1))).await;
        if let Some(inner) = inner.upgrade() {
            inner.tickets.hint(names.lock(), number, Hint::Free);
        }
    });
}
