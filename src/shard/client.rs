//! What the drivers of all shards share: the store, the runtime that its calls run on, and their order.
//!
//! Calls for one token come one after the other (R6), each in a task that no caller can take back.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio_util::task::TaskTracker;

use super::Shard;
use super::answer::{Answered, answer};
use super::inbox::Inbox;
use super::reconcile::{recheck_blocking, reconcile_events};
use crate::clock::{Clock, Moment};
use crate::key::{Key, Token, Ttl};
use crate::store::{
    Extended, FailMode, Forced, Health, HoldInfo, KeyState, LeftValue, Released, ScanPage, Store, StoreError,
    ValueToLeave,
};
use crate::supervise::{guarded, supervise};
use crate::table::ClaimEnd;
use crate::telemetry::InstrumentedStore;
use crate::telemetry::trace;

/// How long a shutdown lets the last calls take.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// What the drivers of all shards share.
pub(crate) struct StoreClient {
    pub(crate) store: Arc<dyn Store>,
    /// The same store, with its type: it has counts and the last error to be asked for.
    observed: Arc<InstrumentedStore>,
    pub(super) clock: Clock,
    pub(super) fail_mode: FailMode,
    runtime: OnceLock<Handle>,
    inbox: Arc<Inbox>,
    /// What starting the store came to; `None` until it has.
    started: watch::Sender<Option<Result<(), StoreError>>>,
    tasks: TaskTracker,
    /// One call at a time for each token that is kept just now. A release is the last call for its token, so it only
    /// waits for those before it.
    turns: Mutex<HashMap<Token, Arc<tokio::sync::Mutex<()>>>>,
}

impl std::fmt::Debug for StoreClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreClient").field("store", &self.store).finish_non_exhaustive()
    }
}

impl StoreClient {
    pub(crate) fn new(store: Arc<dyn Store>, fail_mode: FailMode, clock: Clock) -> Arc<Self> {
        let observed = InstrumentedStore::new(store);
        let store: Arc<dyn Store> = observed.clone();
        Arc::new(Self {
            store,
            observed,
            clock,
            fail_mode,
            runtime: OnceLock::new(),
            inbox: Arc::default(),
            started: watch::Sender::new(None),
            tasks: TaskTracker::new(),
            turns: Mutex::default(),
        })
    }

    /// The store, as its manager calls it.
    pub(crate) fn observed(&self) -> &InstrumentedStore {
        &self.observed
    }

    /// Starts the store: from now on calls are made, on this runtime. `place` finds a key's shard and its hash there.
    pub(crate) fn open(
        self: &Arc<Self>,
        runtime: Handle,
        shards: Vec<Weak<Shard>>,
        place: impl Fn(&Key) -> (u32, u32) + Send + Sync + 'static,
    ) {
        // Set once, by the runtime that the manager starts.
        let _ = self.runtime.set(runtime.clone());
        runtime.spawn(Inbox::pump(Arc::clone(&self.inbox)));
        let client = Arc::clone(self);
        // None of the calls that a shutdown waits for: it ends with the store.
        runtime.spawn(async move {
            let outcome = client.store.start().await;
            let has_failed = outcome.is_err();
            // Kept for those who ask later, too: `send` forgets what nobody waits for yet.
            client.started.send_replace(Some(outcome));
            if !has_failed {
                let events = supervise("events of the store", || reconcile_events(&client, &shards, &place));
                let blocking = supervise("locks that somebody waits for", || recheck_blocking(&client, &shards));
                tokio::join!(events, blocking);
            }
        });
    }

    /// Waits until the store has started, and answers.
    pub(crate) async fn connected(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut started = self.started.subscribe();
        let outcome = started.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        outcome.ok().flatten().unwrap_or(Err(StoreError::NotRunning))?;
        let health = self.health().await.ok_or(StoreError::NotRunning)?;
        health.answer.map(drop)
    }

    /// Waits until what is under way has ended, for two seconds at most. Needs no runtime of the caller's.
    pub(crate) async fn settle(self: &Arc<Self>) {
        let Some(runtime) = self.runtime.get() else { return };
        let client = Arc::clone(self);
        let (sender, answer) = oneshot::channel();
        runtime.spawn(async move {
            client.tasks.close();
            // A release that has not begun yet would find the store stopped.
            let _ = tokio::time::timeout(LAST_CALLS / 2, client.tasks.wait()).await;
            let _ = tokio::time::timeout(LAST_CALLS / 2, client.store.stop()).await;
            let _ = sender.send(());
        });
        let _ = answer.await;
    }

    /// Whether calls are under way that a shutdown would wait for.
    pub(crate) fn has_calls(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Waits until they have ended, at most for so long.
    pub(crate) async fn finish_calls(&self, at_most: Duration) {
        // More may come all the same, of locks that outlive the manager.
        self.tasks.close();
        let _ = tokio::time::timeout(at_most, self.tasks.wait()).await;
    }

    /// Ends whatever holds a key in the store. `None` if there is no runtime to ask it on.
    pub(crate) async fn force_release(&self, key: &Key) -> Option<Forced> {
        let key = key.clone();
        self.ask(|store| async move { store.force_release(&key).await }).await
    }

    /// Who holds a key in the store, and whether it is `token`. `None` if there is no runtime to ask it on.
    pub(crate) async fn look(&self, key: &Key, token: Option<Token>) -> Option<Result<KeyState, StoreError>> {
        let key = key.clone();
        self.ask(|store| async move { store.look(&key, token).await }).await
    }

    /// Everybody who holds a key in the store. `None` if there is no runtime to ask it on.
    pub(crate) async fn holders(&self, key: &Key) -> Option<Result<Vec<HoldInfo>, StoreError>> {
        let key = key.clone();
        self.ask(|store| async move { store.holders(&key, None).await }).await
    }

    /// What a release has left in the store since then, and when the store was asked. `None` if there is no runtime to ask
    /// it on.
    pub(crate) async fn value(
        &self,
        key: &Key,
        since: Moment,
    ) -> Option<(Moment, Result<Option<LeftValue>, StoreError>)> {
        let (key, clock) = (key.clone(), self.clock.clone());
        let asking = |store: Arc<dyn Store>| async move {
            // Now, and not when it was to be asked: a busy runtime comes to it late, and its age is counted from here.
            let asked = clock.now();
            (asked, store.value(&key, asked.saturating_since(since)).await)
        };
        self.ask(asking).await
    }

    /// Some of the locks that the store keeps. `None` if there is no runtime to ask it on.
    pub(crate) async fn scan(
        &self,
        prefix: String,
        cursor: Option<String>,
        limit: usize,
    ) -> Option<Result<Option<ScanPage>, StoreError>> {
        self.ask(|store| async move { store.scan(&prefix, cursor.as_deref(), limit).await }).await
    }

    /// How the store and its nodes are, asked now. `None` if there is no runtime to ask it on.
    pub(crate) async fn health(&self) -> Option<Health> {
        self.ask(|store| async move { store.health().await }).await
    }

    /// Makes a call in a task, so that it is finished also when the caller has gone. `None` if there is no runtime for
    /// it.
    async fn ask<T, F>(&self, call: impl FnOnce(Arc<dyn Store>) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let call = call(Arc::clone(&self.store));
        self.spawn(async move {
            // Fails only if the caller has gone.
            let _ = sender.send(call.await);
        });
        answer.await.ok()
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Without its runtime the manager is not built yet, or gone.
        if self.runtime.get().is_some() {
            let work = trace::instrument(guarded("a call to the store", work));
            self.inbox.put(Box::pin(self.tasks.track_future(work)));
        }
    }

    /// The same for work that no shutdown waits for: it may last.
    pub(super) fn spawn_unawaited(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = self.runtime.get() {
            runtime.spawn(trace::instrument(work));
        }
    }

    /// Releases a claim's key; the answer is what the store finds, and never comes if the runtime stops before.
    ///
    /// The sender is in the task and nowhere else, so that it is dropped with the task.
    pub(crate) fn release(self: &Arc<Self>, key: Key, claim: ClaimEnd) -> Answered<Released> {
        self.release_leaving(key, claim, None)
    }

    /// The same, and a value is left to other processes. A claim that was reused leaves none.
    pub(super) fn release_leaving(
        self: &Arc<Self>,
        key: Key,
        claim: ClaimEnd,
        value: Option<ValueToLeave>,
    ) -> Answered<Released> {
        let (sender, found) = answer();
        let client = Arc::clone(self);
        self.spawn(async move {
            let releasing = async {
                // Called in its turn, not before: a release begins with the call (S7, R6).
                client.wait_turn(claim.token).await;
                client.release_now(&key, claim, value).await
            };
            if !client.has_turn(claim.token) {
                return sender.give(releasing.await);
            }
            // With the call that it waits for it may take twice as long as one call does.
            let longest = client.store.capabilities().operation_timeout;
            let mut releasing = std::pin::pin!(releasing);
            match tokio::time::timeout(longest, &mut releasing).await {
                Ok(found) => sender.give(found),
                Err(_) => {
                    sender.give(Released::Unknown(StoreError::Timeout));
                    let _ = releasing.await;
                }
            }
        });
        found
    }

    /// Extends what a token holds that no grant of this process has, in its turn; answers also when it was asked.
    pub(super) async fn extend_unknown(&self, key: &Key, token: Token, ttl: Ttl) -> (Moment, Extended) {
        let extending = async {
            let asked = self.clock.now();
            (asked, self.store.extend(key, token, ttl).await)
        };
        self.in_turn(token, extending).await
    }

    /// Has the calls that `does` makes begin together, so that those which go together go out as one.
    pub(crate) fn together<R>(&self, does: impl FnOnce() -> R) -> R {
        let _held = self.inbox.hold();
        does()
    }

    /// Whether a call for a token is under way.
    fn has_turn(&self, token: Token) -> bool {
        self.turns.lock().contains_key(&token)
    }

    async fn release_now(&self, key: &Key, claim: ClaimEnd, value: Option<ValueToLeave>) -> Released {
        match (claim.last_fence, value) {
            (Some(last), _) => self.store.release_claim(key, claim.token, last.get()).await,
            (None, Some(value)) => self.store.release_with_value(key, claim.token, value).await,
            (None, None) => self.store.release(key, claim.token).await,
        }
    }

    /// Runs a call for a token when those before it have ended.
    pub(super) async fn in_turn<T>(&self, token: Token, call: impl Future<Output = T>) -> T {
        let turn = Arc::clone(self.turns.lock().entry(token).or_default());
        let guard = turn.lock().await;
        let answer = call.await;
        drop(guard);
        self.end_turn(token, &turn);
        answer
    }

    /// Waits until the calls for a token that are under way have ended.
    pub(super) async fn wait_turn(&self, token: Token) {
        let turn = self.turns.lock().get(&token).cloned();
        if let Some(turn) = turn {
            drop(turn.lock().await);
            self.end_turn(token, &turn);
        }
    }

    fn end_turn(&self, token: Token, turn: &Arc<tokio::sync::Mutex<()>>) {
        let mut turns = self.turns.lock();
        // Ours and the map's: nobody else is waiting.
        if Arc::strong_count(turn) == 2 {
            turns.remove(&token);
        }
    }
}
