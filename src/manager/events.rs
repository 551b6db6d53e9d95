//! What happens to locks, as it happens: [`LockManager::events`] and [`LockManager::watch`].
//!
//! Nothing is made or sent while nobody listens. Events pass through a bounded buffer per stream (`tokio`'s broadcast
//! channel): a listener that falls behind loses the oldest ones and learns how many; it never slows a lock down.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use crate::engine::{CountedListener, Engine, LockManager};
use crate::error::LockError;
use crate::key::Key;
use crate::table::{Event, Interest, Sink};

/// A stream of events, from the moment it was made.
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    /// Cancelled when no more events will come.
    over: CancellationToken,
    listening: Listening,
    _counted: Option<CountedListener>,
}

/// What a stream of events gives next.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Heard {
    /// Something happened.
    Event(Event),
    /// So many events were lost, because this listener was too slow. What comes next is later than them.
    Lagged(u64),
}

impl Events {
    /// Waits for the next event; `None` once the manager is gone, or has shut down and all events were given.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Heard> {
        let received = tokio::select! {
            biased;
            received = self.receiver.recv() => received,
            () = self.over.cancelled() => Err(RecvError::Closed),
        };
        match received {
            Ok(event) => Some(Heard::Event(event)),
            Err(RecvError::Lagged(missed)) => Some(Heard::Lagged(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Events {
    /// The same as a [`Stream`](futures_util::Stream), for those who combine streams.
    pub fn into_stream(self) -> EventStream {
        let next = async |mut events: Self| events.next().await.map(|next| (next, events));
        EventStream(stream::unfold(self, next).boxed())
    }

    /// The next event, if it is there already; see [`next`](Self::next).
    pub fn try_next(&mut self) -> Option<Heard> {
        match self.receiver.try_recv() {
            Ok(event) => Some(Heard::Event(event)),
            Err(TryRecvError::Lagged(missed)) => Some(Heard::Lagged(missed)),
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

debug_of!(EventStream);

debug_of!(Events, |it| of: it.listening.key);

/// Has the shards publish events for as long as a stream lives.
struct Listening {
    manager: Weak<Engine>,
    key: Option<Key>,
}

impl LockManager {
    /// Everything that happens to locks of this manager from now on.
    ///
    /// The buffer holds the builder's [`event_buffer`](crate::Builder::event_buffer) events.
    #[must_use]
    pub fn events(&self) -> Events {
        Events { _counted: Some(self.count_listener()), ..self.events_to_pass_on() }
    }

    /// The same for a caller that passes the events on to listeners of its own, and
    /// [counts](LockManager::count_listener) each of those: this stream is not counted.
    #[must_use]
    pub fn events_to_pass_on(&self) -> Events {
        let receiver = self.hub().subscribe();
        let sink: Arc<dyn Sink> = Arc::clone(self.hub()) as _;
        for shard in self.shards() {
            shard.listen(Interest::Everything, Arc::clone(&sink));
        }
        Events {
            receiver,
            over: self.hub().over(),
            listening: Listening { manager: self.downgrade(), key: None },
            _counted: None,
        }
    }

    /// Counts a listener that gets its events from a stream [to pass on](LockManager::events_to_pass_on), until the answer
    /// is dropped.
    pub fn count_listener(&self) -> CountedListener {
        CountedListener::new(self.hub())
    }

    /// How many [streams](LockManager::events) of everything, and [counted](LockManager::count_listener) listeners, there are
    /// now, for those who bound them.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.hub().listeners()
    }

    /// Everything that happens to one key from now on. The buffer holds 64 events.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`]; [`LockError::TooManyWatchers`] beyond the builder's
    /// [`max_watchers`](crate::Builder::max_watchers).
    pub fn watch<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> Result<Events, LockError> {
        let key = self.good_key(key)?;
        let hub = self.hub();
        let receiver = hub.watch(&key)?;
        let (shard, hash) = self.place(&key);
        self.shard_at(shard).listen(Interest::Key { hash }, Arc::clone(hub) as _);
        let over = hub.over();
        let listening = Listening { manager: self.downgrade(), key: Some(key) };
        Ok(Events { receiver, over, listening, _counted: None })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(manager) = self.manager.upgrade().map(LockManager::from_engine) else { return };
        let Some(key) = &self.key else {
            for shard in manager.shards() {
                shard.stop_listening(Interest::Everything);
            }
            return;
        };
        let (shard, hash) = manager.place(key);
        manager.shard_at(shard).stop_listening(Interest::Key { hash });
        manager.hub().unwatch(key);
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
        assert_eq!(locks.hub().watched_keys(), 2);
        drop((other, another));
        assert_eq!(locks.hub().watched_keys(), 0);
    }
}
