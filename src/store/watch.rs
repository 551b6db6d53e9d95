//! What a store reports without being asked: [`Watch`] for one key, [`Events`] for the process.
//!
//! Both are the receiving ends of bounded channels. A watch that nobody reads may lose hints: those that it has mean the
//! same. Events are not lost: too many of them turn into [`Event::Resumed`], after which everything is verified.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::key::Key;

/// What may have happened to a watched key. All of them mean that a try may succeed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// A holder released it.
    Released,
    /// An operator ended its holder.
    Forced,
    /// It was seen free: it ran out, or a foreign client deleted it.
    Free,
    /// The store was out of reach and is back: hints may have been missed.
    Resumed,
}

/// What concerns the process as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An operator ended the holder of this key, which may be us.
    Forced(Key),
    /// An operator will end the holder of this key, which may be us.
    Notice {
        /// The key, as [`Store::canonical`](super::Store::canonical) spells it.
        key: Key,
        /// The fence of the grant that is meant, if it is known.
        fence: Option<u64>,
        /// So long from now.
        within: Duration,
    },
    /// Another process asks for this key, which this one has a claim or shares on.
    Wanted(Key),
    /// The other side may have changed or forgotten: verify every key that is held (R21).
    Resumed,
}

/// The hints about one key. Dropping it ends the subscription.
pub struct Watch {
    hints: mpsc::Receiver<Hint>,
    at_end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

/// The sending end of a watch or of events.
pub struct Sender<T> {
    channel: mpsc::Sender<T>,
    /// Set when something was dropped because the channel was full. Events are then read as [`Event::Resumed`]; for hints
    /// it means nothing.
    missed: Arc<AtomicBool>,
}

/// Whether what was sent may be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It will be received, or what waits to be received means the same.
    Heard,
    /// The receiver is gone.
    Gone,
}

impl Watch {
    /// So many hints wait to be read; more would mean the same.
    const BOUND: usize = 8;

    /// A watch and its sending end. `at_end` runs when the watch is dropped.
    pub fn new(at_end: impl FnOnce() + Send + Sync + 'static) -> (Sender<Hint>, Self) {
        let (sender, hints) = mpsc::channel(Self::BOUND);
        (Sender { channel: sender, missed: Arc::default() }, Self { hints, at_end: Some(Box::new(at_end)) })
    }

    /// A watch of a store that gives no hints ([`Hints::None`](super::Hints::None)): none ever comes, and it has no end.
    #[must_use]
    pub fn silent() -> Self {
        let (sender, hints) = mpsc::channel(1);
        // Until the watch is dropped its channel is open.
        Self { hints, at_end: Some(Box::new(move || drop(sender))) }
    }

    /// The next hint; `None` when the store has stopped. Needs no runtime.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Hint> {
        self.hints.recv().await
    }

    /// Forgets the hints that have come so far: a try that begins now finds out by itself what they are about.
    pub fn clear(&mut self) {
        while self.hints.try_recv().is_ok() {}
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end();
        }
    }
}

debug_of!(Watch, |it| waiting: it.hints.len());

/// The events of the process.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    missed: Arc<AtomicBool>,
    /// Keeps the channel of silent events open.
    _open: Option<mpsc::Sender<Event>>,
}

impl Events {
    /// So many events wait to be read; one more, and all have to be verified.
    const BOUND: usize = 1024;

    /// Events and their sending end.
    #[must_use]
    pub fn new() -> (Sender<Event>, Self) {
        let (channel, events) = mpsc::channel(Self::BOUND);
        let missed = Arc::<AtomicBool>::default();
        (Sender { channel, missed: Arc::clone(&missed) }, Self { events, missed, _open: None })
    }

    /// Those of a store that gives no hints ([`Hints::None`](super::Hints::None)): none ever comes, and they have no end.
    #[must_use]
    pub fn silent() -> Self {
        let (sender, events) = Self::new();
        Self { _open: Some(sender.channel), ..events }
    }

    /// The next event; `None` when the store has stopped. Needs no runtime.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        if self.missed.swap(false, Ordering::AcqRel) {
            return Some(Event::Resumed);
        }
        self.events.recv().await
    }
}

impl<T> Sender<T> {
    /// Sends it, without waiting.
    pub fn send(&self, what: T) -> Sent {
        match self.channel.try_send(what) {
            Ok(()) => Sent::Heard,
            Err(mpsc::error::TrySendError::Full(_)) => {
                // The next read finds the flag before any of the many.
                self.missed.store(true, Ordering::Release);
                Sent::Heard
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Sent::Gone,
        }
    }

    /// Whether the receiver is gone.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn is_gone(&self) -> bool {
        self.channel.is_closed()
    }
}

debug_of!(Sender[T][T]);
