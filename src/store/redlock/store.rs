//! One lock over several servers: [`RedlockStore`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::inner::Inner;
use super::lock::Lock;
use super::node::Node;
use super::ops::acquire::Acquires;
use super::ops::release::{self, Releases};
use super::ops::{extend, force, health, initialise, leave, look, node_states, notice, watch};
use crate::key::{Key, Token, Ttl};
use crate::store::{
    AcquireRequest, Acquired, BoxFuture, Capabilities, Events, Extended, Forced, Health, KeyState, NodeVote, Noticed,
    Released, Store, StoreError, Watch,
};
use crate::supervise::supervise;

/// A [`Store`] over an odd number of independent Redis servers.
///
/// ```no_run
/// use leasehold::store::redlock::RedlockStore;
/// let store = RedlockStore::new(["redis://a", "redis://b", "redis://c"])?;
/// # Ok::<(), leasehold::store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct RedlockStore {
    inner: Arc<Inner>,
    acquires: Acquires,
    releases: Releases,
}

/// How long a stop waits for calls and clean-ups that go on.
const MAX_STOP: Duration = Duration::from_secs(1);

impl RedlockStore {
    pub(super) fn over(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        let releases = Releases::new(Arc::clone(&inner));
        Self { acquires: Acquires::new(Arc::clone(&inner), releases.clone()), releases, inner }
    }

    /// Ends the quarantine of all nodes at once, for those who know that no lock is held anywhere: before the first
    /// start of a new deployment, or to change `max_ttl`. Needs a store that was started.
    ///
    /// **While anything is held this can grant it twice**, where nodes have forgotten it: it is a step for an operator,
    /// never for a program that starts by itself.
    ///
    /// # Errors
    /// If a node does not answer. The others may have been initialised by then.
    ///
    /// # Cancel safety
    /// Some nodes may have been initialised when it is dropped; it can be called again.
    pub async fn initialise(&self) -> Result<(), StoreError> {
        initialise::initialise(&self.inner).await
    }
}

impl Store for RedlockStore {
    fn name(&self) -> &'static str {
        "redlock"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn canonical(&self, key: &Key) -> Result<Key, StoreError> {
        self.inner.nodes[0].store.canonical(key)
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            for node in &self.inner.nodes {
                let (inner, at) = (Arc::downgrade(&self.inner), node.index);
                node.redis.pass_calls_on(move |lock| {
                    if let Some(inner) = inner.upgrade() {
                        inner.queue.call(at, lock, inner.quorum.needed());
                    }
                });
                node.store.start().await?;
            }
            let Some(runtime) = self.inner.runtime() else { return Err(StoreError::NotRunning) };
            let ticks = Arc::clone(&self.inner.ticks);
            let ticking = supervise("timeouts", move || {
                let ticks = Arc::clone(&ticks);
                async move { ticks.run().await }
            });
            let mut tasks = vec![runtime.spawn(ticking).abort_handle()];
            for node in &self.inner.nodes {
                let (node, inner) = (Arc::clone(node), Arc::downgrade(&self.inner));
                let admitting =
                    supervise("a node", move || Node::keep_admitted(Arc::clone(&node), Weak::clone(&inner)));
                tasks.push(runtime.spawn(admitting).abort_handle());
            }
            self.inner.tasks.lock().extend(tasks);
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _end = EndTasks(&self.inner);
            // Nodes that are away are not waited for: what is to be released there runs out by itself.
            let begun = self.inner.now();
            self.inner.calls.close();
            let _ = self.inner.ticks.within(begun, MAX_STOP, self.inner.calls.wait()).await;
            let stops = self.inner.nodes.iter().map(|node| node.store.stop());
            let _ = self.inner.ticks.within(begun, MAX_STOP, futures_util::future::join_all(stops)).await;
        })
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        Box::pin(self.acquires.acquire(ask))
    }

    fn leave(&self, key: &Key) {
        if let Ok(names) = self.inner.names(key) {
            leave::leave(&self.inner, names);
        }
    }

    fn turn(&self, key: &Key) -> Option<Watch> {
        let turn = self.inner.names(key).ok().and_then(|names| self.inner.queue.turn(&names));
        if turn.is_some() {
            self.inner.nodes.iter().for_each(|node| node.redis.listen_for_turns());
        }
        turn
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        Box::pin(extend::extend(&self.inner, key, token, ttl))
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        match self.inner.names(key) {
            Ok(names) => Box::pin(release::result(self.releases.start(Arc::new(Lock { names, token })))),
            Err(error) => Box::pin(std::future::ready(Released::Unknown(error))),
        }
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        Box::pin(force::force(&self.inner, key))
    }

    fn give_notice<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Noticed, StoreError>> {
        Box::pin(notice::give(&self.inner, key, within))
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        Box::pin(look::look(&self.inner, key, token))
    }

    fn votes<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Vec<NodeVote>> {
        Box::pin(node_states::votes(&self.inner, key, token))
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        Box::pin(watch::watch(&self.inner, key))
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        Box::pin(watch::events(&self.inner))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(health::health(&self.inner))
    }
}

/// Ends the tasks, also when the future of a stop is dropped.
struct EndTasks<'a>(&'a Inner);

impl Drop for EndTasks<'_> {
    fn drop(&mut self) {
        self.0.tasks.lock().drain(..).for_each(|task| task.abort());
        self.0.queue.end();
    }
}

debug_of!(
    RedlockStore,
    |it| nodes: it.inner.nodes.iter().map(|node| &node.name).collect::<Vec<_>>(),
    node_timeout: it.inner.config.node_timeout,
    max_ttl: it.inner.config.max_ttl
);
