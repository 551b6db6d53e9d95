//! A store in this process for tests, which answers as the test tells it to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::engine::LockManager;
use crate::key::{Key, Token, Ttl};
use crate::store::{
    AcquireRequest, Acquired, BoxFuture, Capabilities, Denial, Event, Events, Extended, Forced, Health, Hint, Holder,
    KeyState, Released, Sender, Sent, Store, StoreError, Watch,
};

/// What becomes of refreshes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refreshes {
    Answered,
    Unanswered,
}

#[derive(Clone, Debug)]
pub(crate) struct StubStore(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    operation_timeout: Duration,
    held: HashMap<Key, Token>,
    looks: HashMap<Key, u32>,
    never_look: HashSet<Key>,
    refreshes: Refreshes,
    never_release: bool,
    events: Vec<Sender<Event>>,
    watches: Vec<Sender<Hint>>,
}

/// A manager over a store, without its thread: what it asks of the store is driven by the test's runtime.
pub(crate) fn manager(store: &StubStore) -> LockManager {
    let config = LockManager::builder().store(store.clone()).check().expect("good settings");
    let manager = LockManager::without_actors(config);
    let shards = manager.shards().iter().map(Arc::downgrade).collect();
    let placing = manager.downgrade();
    let place = move |key: &Key| LockManager::from_engine(placing.upgrade().expect("the test keeps it")).place(key);
    manager.client().expect("it has a store").open(Handle::current(), shards, place);
    manager
}

fn key(key: &str) -> Key {
    Key::new(key).expect("a good key")
}

fn ready<'a, T: Send + 'a>(answer: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl StubStore {
    pub(crate) fn new(operation_timeout: Duration) -> Self {
        Self(Arc::new(Mutex::new(State {
            operation_timeout,
            held: HashMap::new(),
            looks: HashMap::new(),
            never_look: HashSet::new(),
            refreshes: Refreshes::Answered,
            never_release: false,
            events: Vec::new(),
            watches: Vec::new(),
        })))
    }

    /// From now on it answers no look at a key.
    pub(crate) fn never_look(&self, name: &str) {
        self.0.lock().never_look.insert(key(name));
    }

    /// From now on it answers no release.
    pub(crate) fn never_release(&self) {
        self.0.lock().never_release = true;
    }

    pub(crate) fn set_refreshes(&self, refreshes: Refreshes) {
        self.0.lock().refreshes = refreshes;
    }

    /// How often it was looked at a key.
    pub(crate) fn looks(&self, name: &str) -> u32 {
        self.0.lock().looks.get(&key(name)).copied().unwrap_or(0)
    }

    /// Forgets who holds a key, without a word.
    pub(crate) fn delete(&self, name: &str) {
        self.0.lock().held.remove(&key(name));
    }
}

impl Store for StubStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(self.0.lock().operation_timeout)
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(Ok(()))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        ready(())
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        let holder = *self.0.lock().held.entry(ask.key.clone()).or_insert(ask.token);
        ready(if holder == ask.token {
            Acquired::Granted { fence: None, valid_for: ask.ttl.as_duration(), clock: None }
        } else {
            Acquired::Denied { retry_in: None, why: Denial::Held }
        })
    }

    fn leave(&self, _: &Key) {}

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        let state = self.0.lock();
        if state.refreshes == Refreshes::Unanswered {
            return ready(Extended::Unknown(StoreError::Timeout));
        }
        let is_held = state.held.get(key) == Some(&token);
        ready(if is_held { Extended::Extended { valid_for: ttl.as_duration() } } else { Extended::Lost })
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        let mut state = self.0.lock();
        if state.never_release {
            return Box::pin(std::future::pending());
        }
        ready(if state.held.get(key) == Some(&token) {
            state.held.remove(key);
            Released::Released
        } else {
            Released::AlreadyGone
        })
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        let mut state = self.0.lock();
        ready(if state.held.remove(key).is_some() {
            state.events.retain(|events| events.send(Event::Forced(key.clone())) == Sent::Heard);
            Forced::Released
        } else {
            Forced::WasFree
        })
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        let mut state = self.0.lock();
        *state.looks.entry(key.clone()).or_default() += 1;
        if state.never_look.contains(key) {
            return Box::pin(std::future::pending());
        }
        ready(Ok(match state.held.get(key) {
            Some(holder) => {
                let by = if Some(*holder) == token { Holder::Ours } else { Holder::Other };
                KeyState::Held { by, ends_in: None, fence: None }
            }
            None => KeyState::Free,
        }))
    }

    fn watch<'a>(&'a self, _: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        let (sender, watch) = Watch::new(|| ());
        self.0.lock().watches.push(sender);
        ready(Ok(watch))
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        let (sender, events) = Events::new();
        self.0.lock().events.push(sender);
        ready(Ok(events))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        ready(Health::new(Ok(Duration::ZERO), Vec::new()))
    }
}
