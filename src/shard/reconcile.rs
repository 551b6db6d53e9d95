//! Whether the store still keeps what this process holds: asked when it may have forgotten, and while somebody waits.
//!
//! | when | what is verified |
//! |---|---|
//! | a key was force-released by any process (R26) | what is held of it: it may have been granted anew since |
//! | the store may have lost what it knew: a reconnect, another master (R21) | everything |
//! | about once a second (R15) | what somebody of this process waits behind: a token may be released through another process, and a key deleted, without a message to the process that granted it |
//!
//! A key is looked at once per round. One whose answer is unknown is left to a later round, and one that is slow to
//! answer holds up no other.
//!
//! A grant that is found gone while somebody waits is ended a moment later: if it was forced, the message that says so
//! is on its way, and the holder gets the right reason.
//!
//! An unknown answer ends nothing (R20): what is held stays good until its deadline, and is looked at again until then.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::Shard;
use super::client::StoreClient;
use crate::backoff::Backoff;
use crate::key::{FencingToken, Key, Token};
use crate::store::{self, KeyState, StoreError};
use crate::table::{ClaimFilter, End, Grant, Told};

/// Between two rounds while some answers are unknown, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How often the store is asked about what local waiters wait behind.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long to wait for the message that a key was forced: it comes by another connection than the look that found the
/// key gone.
const FORCED_MESSAGE_DELAY: Duration = Duration::from_millis(100);
/// Looks that are under way at a time.
const LOOKS: usize = 64;
/// Rounds that a key which somebody waits for is left out of at most, after several unknown answers in a row.
const MOST_ROUNDS_OUT: u32 = 3;

/// Follows the store's events, and verifies what is held when the store may have forgotten it.
pub(super) async fn reconcile_events(
    client: &Arc<StoreClient>,
    shards: &[Weak<Shard>],
    place: &impl Fn(&Key) -> (u32, u32),
) {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    let mut events = loop {
        match client.store.events().await {
            Ok(events) => break events,
            Err(StoreError::NotRunning) => return,
            // The store cannot be reached yet.
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
                if let Some(shard) = shards[shard as usize].upgrade() {
                    shard.tell_claim(&key, hash, Told::Doubted);
                }
                // The key may have been granted anew since.
                let found = claims_on(&shards[shard as usize], &key, hash);
                checks.spawn(verify(Arc::clone(client), found, End::Forced));
            }
            Some(store::Event::Notice { key, fence, within }) => {
                let (shard, hash) = place(&key);
                if let Some(shard) = shards[shard as usize].upgrade() {
                    shard.pass_on_notice(&key, hash, fence, within);
                }
            }
            Some(store::Event::Wanted(key)) => {
                let (shard, hash) = place(&key);
                if let Some(shard) = shards[shard as usize].upgrade() {
                    shard.tell_claim(&key, hash, Told::Wanted);
                }
            }
            Some(store::Event::Resumed) => {
                // What is not verified grants nothing new (R21).
                shards.iter().filter_map(Weak::upgrade).for_each(|shard| shard.doubt_claims());
                let found = shards.iter().flat_map(|shard| claims(shard, ClaimFilter::All)).collect();
                let check = checks.spawn(verify(Arc::clone(client), found, End::Vanished));
                if let Some(before) = of_all.replace(check) {
                    before.abort();
                }
            }
            None => return,
        }
    }
}

/// Verifies about once a second what somebody waits behind; ends with the manager. No round waits for the one before.
pub(super) async fn recheck_blocking(client: &Arc<StoreClient>, shards: &[Weak<Shard>]) {
    let (permits, mut rounds) = (Semaphore::new(LOOKS), Rounds::default());
    let mut looks = FuturesUnordered::new();
    let mut ticks = tokio::time::interval_at(Instant::now() + LOOK_AGAIN, LOOK_AGAIN);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shards.iter().any(|shard| shard.strong_count() > 0) {
        tokio::select! {
            _ = ticks.tick() => {
                let found = shards.iter().map(|shard| claims(shard, ClaimFilter::InTheWay)).enumerate();
                let found = found.flat_map(|(shard, found)| found.into_iter().map(move |found| (shard, found)));
                let due = rounds.begin(found.collect()).into_iter();
                looks.extend(due.map(|(shard, found)| {
                    let permits = &permits;
                    async move {
                        let _permit = permits.acquire().await;
                        (id(shard, &found), look(client, &found, End::Vanished, FORCED_MESSAGE_DELAY).await)
                    }
                }));
            }
            Some((id, outcome)) = looks.next() => rounds.end(id, outcome),
        }
    }
}

/// A grant to verify: its shard, itself, its key, and what the store keeps it under.
type Suspect = (Weak<Shard>, Grant, Key, Token);

/// A grant among those of all shards: fences count per shard.
type SuspectId = (usize, FencingToken);

fn id(shard: usize, (_, grant, ..): &Suspect) -> SuspectId {
    (shard, grant.fence)
}

/// What a look at a grant came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LookResult {
    /// The store has said whether it keeps the key, or the grant has ended.
    Known,
    /// The grant may or may not stand.
    Unknown,
}

/// Which of the keys in the way are to be looked at in a round: each once, and none whose look is still under way.
#[derive(Default)]
struct Rounds(HashMap<SuspectId, Progress>);

#[derive(Clone, Copy, Default)]
struct Progress {
    /// Unknown answers in a row.
    failures: u32,
    stage: LookStage,
}

#[derive(Clone, Copy, Default)]
enum LookStage {
    /// It is being looked at.
    #[default]
    UnderWay,
    /// So many rounds go by without it.
    Out(u32),
}

impl Rounds {
    /// Begins a round: answers those to be looked at of what is `found` in the way.
    fn begin(&mut self, mut found: Vec<(usize, Suspect)>) -> Vec<(usize, Suspect)> {
        let before = std::mem::take(&mut self.0);
        let under_way = before.iter().filter(|(_, progress)| matches!(progress.stage, LookStage::UnderWay));
        // Also of those that are not in the way any more: they may be again before the look has ended.
        self.0.extend(under_way.map(|(id, progress)| (*id, *progress)));
        found.retain(|(shard, found)| {
            let id = id(*shard, found);
            let mut progress = before.get(&id).copied().unwrap_or(Progress { stage: LookStage::Out(0), failures: 0 });
            let (is_due, next) = match progress.stage {
                LookStage::UnderWay => (false, LookStage::UnderWay),
                LookStage::Out(0) => (true, LookStage::UnderWay),
                LookStage::Out(rounds) => (false, LookStage::Out(rounds - 1)),
            };
            progress.stage = next;
            self.0.insert(id, progress);
            is_due
        });
        found
    }

    /// A look has ended.
    fn end(&mut self, id: SuspectId, outcome: LookResult) {
        match (outcome, self.0.get_mut(&id)) {
            (LookResult::Unknown, Some(progress)) => {
                let rounds = MOST_ROUNDS_OUT.min(progress.failures);
                *progress = Progress { failures: progress.failures.saturating_add(1), stage: LookStage::Out(rounds) };
            }
            (LookResult::Known, _) => drop(self.0.remove(&id)),
            (LookResult::Unknown, None) => {}
        }
    }
}

fn claims(shard: &Weak<Shard>, which: ClaimFilter) -> Vec<Suspect> {
    let held = shard.upgrade().map(|shard| shard.claims(which)).unwrap_or_default();
    held.into_iter().map(|(grant, key, token)| (Weak::clone(shard), grant, key, token)).collect()
}

fn claims_on(shard: &Weak<Shard>, key: &Key, hash: u32) -> Vec<Suspect> {
    let held = shard.upgrade().map(|shard| shard.claims_on(key, hash)).unwrap_or_default();
    held.into_iter().map(|(grant, token)| (Weak::clone(shard), grant, key.clone(), token)).collect()
}

/// Ends those grants that the store does not keep, in rounds, until each is known.
async fn verify(client: Arc<StoreClient>, mut found: Vec<Suspect>, end: End) {
    let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
    while !found.is_empty() {
        let looks = stream::iter(found).map(async |found| (look(&client, &found, end, Duration::ZERO).await, found));
        let unknown = async |(outcome, found)| (outcome == LookResult::Unknown).then_some(found);
        found = looks.buffer_unordered(LOOKS).filter_map(unknown).collect().await;
        if !found.is_empty() {
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

/// Asks the store once whether it still keeps a grant. If it does not, the grant is ended here, `after` the answer.
async fn look(client: &Arc<StoreClient>, suspect: &Suspect, end: End, after: Duration) -> LookResult {
    let (shard, grant, key, token) = suspect;
    // A store that breaks S12 has not answered.
    let longest = client.store.capabilities().operation_timeout.saturating_mul(2);
    let seen = tokio::time::timeout(longest, client.store.look(key, Some(*token))).await;
    let Some(shard) = shard.upgrade() else { return LookResult::Known };
    match seen {
        // It has yet to win its key in the store.
        _ if shard.is_degraded(grant) => LookResult::Known,
        Ok(Ok(KeyState::Held { by: store::Holder::Ours, .. })) => LookResult::Known,
        Ok(Ok(_)) => {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            shard.claim_lost(grant, end);
            // Another server of the store may still keep it; nothing else would release it there.
            client.release(key.clone(), (*token).into());
            LookResult::Known
        }
        Ok(Err(_)) | Err(_) if shard.held_until(grant).is_none() => LookResult::Known,
        Ok(Err(_)) | Err(_) => LookResult::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::stub::{StubStore, manager};
    use super::*;

    const LONG: Duration = Duration::from_mins(2);

    #[tokio::test]
    async fn a_key_whose_look_never_ends_delays_no_other() {
        let store = StubStore::new(LONG * 10);
        let locks = manager(&store);
        let [stuck, gone] = ["stuck", "gone"].map(|key| locks.lock(key).ttl(LONG * 5));
        let (stuck, gone) = (stuck.await.unwrap(), gone.await.unwrap());
        let waiters = ["stuck", "gone"].map(|key| {
            let locks = locks.clone();
            tokio::spawn(async move { locks.lock(key).wait_forever().await.map(drop) })
        });
        store.never_look("stuck");
        let looked_at = async {
            while store.looks("stuck") == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, looked_at).await.expect("it is in somebody's way");
        store.delete("gone");
        let loss = tokio::time::timeout(LONG, gone.lost()).await.expect("it is looked at in the next round");
        assert_eq!(loss, Some(crate::Loss::Vanished));
        assert!(stuck.is_held() && store.looks("stuck") == 1, "one look is enough while it is under way");
        waiters.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[test]
    fn unknown_answers_leave_a_key_out_of_more_and_more_rounds() {
        let found = || vec![(0, (Weak::new(), grant(7), Key::new("k").unwrap(), Token::random()))];
        let mut rounds = Rounds::default();
        let mut looked_at = Vec::new();
        for round in 0..16 {
            for (shard, found) in rounds.begin(found()) {
                looked_at.push(round);
                assert!(rounds.begin(vec![(shard, found.clone())]).is_empty(), "it is under way");
                rounds.end(id(shard, &found), LookResult::Unknown);
            }
        }
        assert_eq!(looked_at, [0, 1, 3, 6, 10, 14]);
        rounds.begin(Vec::new());
        assert!(rounds.0.is_empty(), "what is in nobody's way is forgotten");
    }

    fn grant(fence: u64) -> Grant {
        Grant { slot: 0, fence: FencingToken::at_least_one(fence), proof: None }
    }
}
