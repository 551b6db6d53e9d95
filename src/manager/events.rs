//! What happens to locks, as it happens: [`LockManager::events`] and [`LockManager::watch`].
//!
//! Nothing is made or sent while nobody listens. Events pass through a bounded buffer per stream (`tokio`'s broadcast
//! channel): a listener that falls behind loses the oldest ones and learns how many; it never slows a lock down.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use dashmap::DashMap;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use crate::error::LockError;
use crate::key::Key;
use crate::manager::{Inner, LockManager};
use crate::table::{Event, Interest, Sink};

/// Events kept for a listener of one key that has not come to them yet.
const KEY_BUFFER: usize = 64;

/// A stream of events, from the moment it was made.
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    /// No more will come.
    over: CancellationToken,
    listening: Listening,
    _counted: Option<Counted>,
}

/// What a listener hears next.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Heard {
    /// Something happened.
    Event(Event),
    /// So many events were lost, because this listener was too slow. What comes next is later than them.
    Missed(u64),
}

impl Events {
    /// Waits for the next event; `None` once the manager is gone, or has shut down and all was heard.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Heard> {
        let heard = tokio::select! {
            biased;
            heard = self.receiver.recv() => heard,
            () = self.over.cancelled() => Err(RecvError::Closed),
        };
        match heard {
            Ok(event) => Some(Heard::Event(event)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Events {
    /// The same as a [`Stream`](futures_util::Stream), for those who combine streams.
    pub fn into_stream(self) -> EventStream {
        let next = async |mut events: Self| events.next().await.map(|heard| (heard, events));
        EventStream(stream::unfold(self, next).boxed())
    }

    /// The next event, if it is there already; see [`next`](Self::next).
    pub fn try_next(&mut self) -> Option<Heard> {
        match self.receiver.try_recv() {
            Ok(event) => Some(Heard::Event(event)),
            Err(TryRecvError::Lagged(missed)) => Some(Heard::Missed(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

/// [`Events`] as a stream; made by [`Events::into_stream`]. Dropping what it gives next loses no event.
#[must_use = "streams do nothing unless polled"]
pub struct EventStream(BoxStream<'static, Heard>);

impl Stream for EventStream {
    type Item = Heard;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("of", &self.listening.key).finish_non_exhaustive()
    }
}

/// Keeps the shards telling; the last of a stream's listeners has them stop.
struct Listening {
    manager: Weak<Inner>,
    key: Option<Key>,
}

/// One who listens to everything, directly or through somebody who passes on what he hears.
pub(crate) struct Counted(Arc<Hub>);

impl Counted {
    fn new(hub: &Arc<Hub>) -> Self {
        hub.listeners.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(hub))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the events of one manager go.
#[derive(Debug)]
pub(crate) struct Hub {
    sequence: AtomicU64,
    /// Of everything.
    listeners: AtomicUsize,
    everything: broadcast::Sender<Event>,
    keys: DashMap<Key, Watched>,
    /// Streams of single keys (T9).
    watchers: AtomicUsize,
    max_watchers: usize,
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
            watchers: AtomicUsize::new(0),
            max_watchers,
            over: CancellationToken::new(),
        }
    }

    /// Takes a place for one more stream of a key.
    fn take_place(&self) -> Result<(), LockError> {
        let more = |there: usize| (there < self.max_watchers).then_some(there + 1);
        let taken = self.watchers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| LockError::TooManyWatchers)
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

    fn tell(&self, event: Event) {
        let watched = self.keys.get(&event.key).map(|watched| watched.sender.clone());
        // Wakers run here, with no entry of the registry locked.
        if let Some(sender) = watched {
            let _ = sender.send(event.clone());
        }
        let _ = self.everything.send(event);
    }
}

impl LockManager {
    /// Everything that happens to locks of this manager from now on.
    ///
    /// The buffer holds the builder's [`event_buffer`](crate::Builder::event_buffer) events.
    #[must_use]
    pub fn events(&self) -> Events {
        Events { _counted: Some(self.count_listener()), ..self.events_to_pass_on() }
    }

    /// The same for one who passes them on to others, and counts these.
    pub(crate) fn events_to_pass_on(&self) -> Events {
        let receiver = self.hub().everything.subscribe();
        let sink: Arc<dyn Sink> = Arc::clone(self.hub()) as _;
        for shard in self.shards() {
            shard.listen(Interest::Everything, Arc::clone(&sink));
        }
        Events {
            receiver,
            over: self.hub().over.clone(),
            listening: Listening { manager: self.downgrade(), key: None },
            _counted: None,
        }
    }

    /// Counts one who listens to everything, until it is dropped.
    pub(crate) fn count_listener(&self) -> Counted {
        Counted::new(self.hub())
    }

    /// How many [streams](LockManager::events) of everything there are now, for those who bound them.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.hub().listeners.load(Ordering::Relaxed)
    }

    /// Everything that happens to one key from now on. The buffer holds 64 events.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`]; [`LockError::TooManyWatchers`] beyond the builder's
    /// [`max_watchers`](crate::Builder::max_watchers).
    pub fn watch<K>(&self, key: K) -> Result<Events, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        let key = self.good_key(key)?;
        let hub = self.hub();
        hub.take_place()?;
        let mut watched = hub
            .keys
            .entry(key.clone())
            .or_insert_with(|| Watched { sender: broadcast::Sender::new(KEY_BUFFER), listeners: 0 });
        watched.listeners += 1;
        let receiver = watched.sender.subscribe();
        drop(watched);
        let (shard, hash) = self.place(&key);
        self.shard_at(shard).listen(Interest::Key { hash }, Arc::clone(hub) as _);
        let over = hub.over.clone();
        let listening = Listening { manager: self.downgrade(), key: Some(key) };
        Ok(Events { receiver, over, listening, _counted: None })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(manager) = self.manager.upgrade().map(LockManager::from_inner) else { return };
        let Some(key) = &self.key else {
            for shard in manager.shards() {
                shard.stop_listening(Interest::Everything);
            }
            return;
        };
        let (shard, hash) = manager.place(key);
        manager.shard_at(shard).stop_listening(Interest::Key { hash });
        manager.hub().watchers.fetch_sub(1, Ordering::Relaxed);
        if let Some(mut watched) = manager.hub().keys.get_mut(key) {
            watched.listeners -= 1;
        }
        manager.hub().keys.remove_if(key, |_, watched| watched.listeners == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_of_single_keys_have_a_bound() {
        let locks = LockManager::builder().max_watchers(2).build().unwrap();
        let watched = ["a", "a"].map(|key| locks.watch(key).unwrap());
        assert_eq!(locks.watch("b").unwrap_err(), LockError::TooManyWatchers);
        assert!(locks.watch("").is_err_and(|why| why != LockError::TooManyWatchers));
        let _everything = locks.events();
        drop(watched);
        let _again = ["b", "c"].map(|key| locks.watch(key).unwrap());
        assert_eq!(locks.watch("a").unwrap_err(), LockError::TooManyWatchers);
    }

    #[test]
    fn a_key_that_nobody_watches_any_more_is_not_registered() {
        let locks = LockManager::builder().build().unwrap();
        let [one, other] = [(); 2].map(|()| locks.watch("k").unwrap());
        let another = locks.watch("another").unwrap();
        drop(one);
        assert_eq!(locks.hub().keys.len(), 2);
        drop((other, another));
        assert!(locks.hub().keys.is_empty());
    }
}
