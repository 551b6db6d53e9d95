//! Listening: one connection for all watches and events of a process ([`run`], R15).
//!
//! A process that waits in turn is called on one channel of its own (`tickets`). A caller that watches a key without a
//! place has a channel of the key, and a mark beside the key by which a release knows of it; forced releases are always
//! published. Foreign deletes and expiries send nothing, so the connection also asks Redis to remember which watched
//! keys it has read (`CLIENT TRACKING OPTIN`), and looks again when one changes. In a Cluster there is pub/sub only. All
//! messages are hints: polling finds out without them, also where the user has no rights to channels, or where no second
//! connection comes about. Then the connection is tried again, less and less often (N1), and what is held is verified all
//! the same when the first connection has come up (R21).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listener::{ListenState, Releases, Subscription};
use super::subscription::session;
use crate::clock::Moment;
use crate::store::redis::conn::link::{AWAY, Pauses, Phase};
use crate::store::redis::conn::wire::Wire;
use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;
use crate::store::{Events, StoreError, Watch};

/// A session that lasted for less counts as one more failure.
const STEADY: Duration = Duration::from_secs(5);

/// Watches one lock; answers when the subscription is in force.
pub(in crate::store) async fn watch(inner: &Inner, names: KeyNames, releases: Releases) -> Result<Watch, StoreError> {
    let begun = inner.now();
    let (watch, mut subscription) = inner.listener.watch(names, releases);
    in_force(inner, begun, &mut subscription).await?;
    Ok(watch)
}

/// Listens to what concerns the process.
pub(in crate::store) async fn events(inner: &Inner) -> Result<Events, StoreError> {
    let begun = inner.now();
    let (events, mut subscription) = inner.listener.events();
    match in_force(inner, begun, &mut subscription).await {
        Err(StoreError::NotRunning) => Err(StoreError::NotRunning),
        // The first event says when the subscription has come into force.
        Ok(()) | Err(_) => Ok(events),
    }
}

async fn in_force(inner: &Inner, begun: Moment, subscription: &mut Subscription) -> Result<(), StoreError> {
    if inner.runtime().is_none() {
        return Err(StoreError::NotRunning);
    }
    if *subscription.borrow() == ListenState::Open {
        return Ok(());
    }
    inner.listener.changed.notify_one();
    let opened = subscription.wait_for(|state| *state == ListenState::Open);
    match inner.ticks.within(begun, inner.config.operation_timeout, opened).await? {
        Ok(_) => Ok(()),
        Err(_) => Err(StoreError::NotRunning),
    }
}

/// Listens until it is dropped.
pub(in crate::store) async fn run(inner: Arc<Inner>) {
    let listener = &inner.listener;
    while !listener.is_wanted() {
        listener.changed.notified().await;
    }
    let mut reconnects = inner.servers.reconnects();
    let (mut pauses, mut known) = (Pauses::default(), 0);
    loop {
        let current = *reconnects.borrow_and_update();
        if current != known {
            known = current;
            listener.reconnected();
        }
        let Some(wire) = up(&inner) else {
            // A link comes up, or none ever does.
            if reconnects.changed().await.is_err() {
                return;
            }
            continue;
        };
        let begun = Instant::now();
        let ended = tokio::select! {
            // The server may be another now.
            _ = reconnects.changed() => None,
            why = session(&inner, &wire) => Some(why),
        };
        listener.close();
        let pause = match ended {
            None => AWAY.0,
            Some(why) => {
                // No message arrives, and held locks may be gone all the same.
                listener.resumed_at_least_once();
                if begun.elapsed() > STEADY {
                    pauses.reset();
                }
                pauses.after(&why)
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = async { reconnects.clone().changed().await } => tokio::time::sleep(AWAY.0.mul_f64(fastrand::f64())).await,
        }
    }
}

/// A wire that is up now.
fn up(inner: &Inner) -> Option<Arc<Wire>> {
    inner.servers.links().iter().find_map(|link| match link.phase() {
        Phase::Up(wire) => Some(wire),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::store::Store;
    use crate::store::redis::RedisStore;

    #[tokio::test]
    async fn watches_that_do_not_come_about_leave_nothing_behind() {
        // Nobody is there.
        let builder = RedisStore::builder("redis://127.0.0.1:1").operation_timeout(Duration::from_millis(50));
        let store = builder.build().unwrap();
        store.start().await.unwrap();
        let listener = &store.0.listener;
        for round in 0..20 {
            let keys: Vec<Key> = (0..50).map(|n| Key::new(format!("k{round}:{n}")).unwrap()).collect();
            let mut watching: Vec<_> = keys.iter().map(|key| store.watch(key)).collect();
            for one in &mut watching {
                assert!(futures_util::poll!(one).is_pending());
            }
            assert_eq!(listener.watches().0, keys.len());
            // Half of them are dropped, and the others fail.
            watching.truncate(keys.len() / 2);
            let failed = futures_util::future::join_all(watching).await;
            assert!(failed.iter().all(Result::is_err));
            assert_eq!(listener.watches(), (0, 0));
        }
        store.stop().await;
    }
}
