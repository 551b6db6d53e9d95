//! Whether the store still keeps what this process holds: asked when it may have forgotten, and while somebody waits.
//!
//! | when | what is verified |
//! |---|---|
//! | a key was force-released by any process (R26) | what is held of it: it may have been granted anew since |
//! | the store may have lost what it knew: a reconnect, another master (R21) | everything |
//! | about once a second (R15) | what somebody of this process waits behind: a token may be released through another process, and a key deleted, without a word to the process that granted it |
//!
//! What is found gone while somebody waits is ended a moment later: if it was forced, the word that says so is on its way,
//! and the holder hears the right reason.
//!
//! An unknown answer ends nothing (R20): what is held stays good until its deadline, and is looked at again until then.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::task::{AbortHandle, JoinSet};

use super::Shard;
use super::desk::Desk;
use crate::backoff::Backoff;
use crate::key::Key;
use crate::store::{self, Seen, StoreError};
use crate::table::{End, Grant, Which};

/// Between two looks while nothing is known, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often the store is asked about what local waiters wait behind.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// For the word that a key was forced, which comes by another connection than the look that found it gone.
const WORD_ON_ITS_WAY: Duration = Duration::from_millis(100);
/// Grants that are verified at a time.
const CHECKS: usize = 64;

/// Hears what concerns all shards, and verifies what is held when the store may have forgotten it.
pub(super) async fn attend(desk: &Arc<Desk>, shards: &[Weak<Shard>], place: &impl Fn(&Key) -> (u32, u32)) {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let mut events = loop {
        match desk.store.events().await {
            Ok(events) => break events,
            Err(StoreError::NotRunning) => return,
            // Nobody is there yet: it is listened to as soon as somebody is.
            Err(_) => tokio::time::sleep(backoff.next()).await,
        }
    };
    // They end with this task, and it ends with the store.
    let mut checks = JoinSet::new();
    let mut of_all: Option<AbortHandle> = None;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            Some(_) = checks.join_next() => continue,
        };
        match event {
            Some(store::Event::Forced(key)) => {
                let (shard, hash) = place(&key);
                // The key may have been granted anew since.
                let found = claim_on(&shards[shard as usize], &key, hash);
                checks.spawn(verify(Arc::clone(desk), found, End::Forced, Duration::ZERO));
            }
            Some(store::Event::Resumed) => {
                let found = shards.iter().flat_map(|shard| claims(shard, Which::All)).collect();
                let check = checks.spawn(verify(Arc::clone(desk), found, End::Vanished, Duration::ZERO));
                if let Some(before) = of_all.replace(check) {
                    before.abort();
                }
            }
            None => return,
        }
    }
}

/// Verifies again and again what somebody waits behind; ends with the manager.
pub(super) async fn clear_the_way(desk: &Arc<Desk>, shards: &[Weak<Shard>]) {
    while shards.iter().any(|shard| shard.strong_count() > 0) {
        tokio::time::sleep(LOOK_AGAIN).await;
        let found = shards.iter().flat_map(|shard| claims(shard, Which::InTheWay)).collect();
        verify(Arc::clone(desk), found, End::Vanished, WORD_ON_ITS_WAY).await;
    }
}

/// A grant to verify.
type Found = (Weak<Shard>, Grant, Key);

fn claims(shard: &Weak<Shard>, which: Which) -> Vec<Found> {
    let held = shard.upgrade().map(|shard| shard.claims(which)).unwrap_or_default();
    held.into_iter().map(|(grant, key)| (Weak::clone(shard), grant, key)).collect()
}

fn claim_on(shard: &Weak<Shard>, key: &Key, hash: u32) -> Vec<Found> {
    let held = shard.upgrade().and_then(|shard| shard.claim_on(key, hash));
    held.into_iter().map(|grant| (Weak::clone(shard), grant, key.clone())).collect()
}

/// Ends those grants that the store does not keep, `after` it was seen.
async fn verify(desk: Arc<Desk>, found: Vec<Found>, end: End, after: Duration) {
    let each = |(shard, grant, key)| verify_one(&desk, shard, grant, key, end, after);
    stream::iter(found).for_each_concurrent(CHECKS, each).await;
}

async fn verify_one(desk: &Arc<Desk>, shard: Weak<Shard>, grant: Grant, key: Key, end: End, after: Duration) {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    loop {
        let seen = desk.store.look(&key, Some(grant.token)).await;
        let Some(shard) = shard.upgrade() else { return };
        if shard.is_degraded(&grant) {
            // It has yet to win what is looked for.
            return;
        }
        match seen {
            Ok(Seen::Held { by: store::Holder::Ours, .. }) => return,
            Ok(_) => {
                if !after.is_zero() {
                    tokio::time::sleep(after).await;
                }
                shard.vanished(&grant, end);
                // The store's next server may know of it still; nobody else would end it there.
                return desk.release(key, grant.token);
            }
            // Unknown: what is held stays good until its deadline (R20), and is looked at again until then.
            Err(_) if shard.held_until(&grant).is_none() => return,
            Err(_) => {}
        }
        drop(shard);
        tokio::time::sleep(backoff.next()).await;
    }
}
