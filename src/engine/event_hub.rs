//! Where the events of one manager go: the listeners to everything, and those to single keys. The streams that they
//! hold are the manager's `events`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::error::LockError;
use crate::key::Key;
use crate::quota::Quota;
use crate::table::{Event, Sink};

/// Events kept for a listener of one key that has not come to them yet.
const KEY_BUFFER: usize = 64;

/// Where the events of one manager go.
#[derive(Debug)]
pub(crate) struct Hub {
    sequence: AtomicU64,
    /// How many listen to everything; each [`CountedListener`] is one.
    listeners: AtomicUsize,
    everything: broadcast::Sender<Event>,
    keys: DashMap<Key, Watched>,
    /// How many streams of single keys there are, at most `max_watchers` (T9).
    watchers: Quota,
    /// Cancelled when nothing more will happen.
    over: CancellationToken,
}

#[derive(Debug)]
struct Watched {
    sender: broadcast::Sender<Event>,
    listeners: usize,
}

impl Hub {
    pub(crate) fn new(buffer: usize, max_watchers: usize) -> Self {
        Self {
            sequence: AtomicU64::new(0),
            listeners: AtomicUsize::new(0),
            everything: broadcast::Sender::new(buffer),
            keys: DashMap::new(),
            watchers: Quota::of(u32::try_from(max_watchers).unwrap_or(u32::MAX)),
            over: CancellationToken::new(),
        }
    }

    /// Everything that happens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.everything.subscribe()
    }

    /// Everything that happens to one key from now on, until [`Hub::unwatch`]. The caller has the key's shard publish.
    pub(crate) fn watch(&self, key: &Key) -> Result<broadcast::Receiver<Event>, LockError> {
        if !self.watchers.take() {
            return Err(LockError::TooManyWatchers);
        }
        let unwatched = || Watched { sender: broadcast::Sender::new(KEY_BUFFER), listeners: 0 };
        let mut watched = self.keys.entry(key.clone()).or_insert_with(unwatched);
        watched.listeners += 1;
        Ok(watched.sender.subscribe())
    }

    /// Ends one stream of a key.
    pub(crate) fn unwatch(&self, key: &Key) {
        self.watchers.give_back();
        if let Some(mut watched) = self.keys.get_mut(key) {
            watched.listeners -= 1;
        }
        self.keys.remove_if(key, |_, watched| watched.listeners == 0);
    }

    /// How many listen to everything.
    pub(crate) fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn watched_keys(&self) -> usize {
        self.keys.len()
    }

    /// Cancelled when nothing more will happen.
    pub(crate) fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// Ends the streams: nothing more will happen.
    pub(crate) fn close(&self) {
        self.over.cancel();
    }
}

impl Sink for Hub {
    fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn publish(&self, event: Event) {
        let watched = self.keys.get(&event.key).map(|watched| watched.sender.clone());
        // Wakers run here, with no entry of the registry locked.
        if let Some(sender) = watched {
            let _ = sender.send(event.clone());
        }
        let _ = self.everything.send(event);
    }
}

/// One of the manager's [listeners](crate::LockManager::listeners), until it is dropped; made by
/// [`LockManager::count_listener`](crate::LockManager::count_listener).
#[must_use = "dropped, it counts no more"]
#[derive(Debug)]
pub struct CountedListener(Arc<Hub>);

impl CountedListener {
    pub(crate) fn new(hub: &Arc<Hub>) -> Self {
        hub.listeners.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hub))
    }
}

impl Drop for CountedListener {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}
