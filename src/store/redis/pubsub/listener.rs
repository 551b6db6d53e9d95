//! Who listens for what in this process: [`Listener`]. `listen` keeps the connection over which messages arrive.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::store::redis::builder::OnWarning;
use crate::store::redis::conn::link::WARN_AGAIN;
use crate::store::redis::keys::KeyNames;
use crate::store::{Event, Events, Hint, Sender, Sent, StoreError, Warning, Watch};

#[derive(Default)]
pub(in crate::store) struct Listener {
    topics: Mutex<Topics>,
    /// A caller began or stopped to listen.
    pub(in crate::store) changed: Notify,
    /// A caller waits in turn, or did.
    turns: AtomicBool,
    /// Listeners were told to look again since the connections that are up now came up. Cleared when another comes up;
    /// were it not, held locks would not be verified (R21) where no channel can be had.
    has_resumed: AtomicBool,
    /// Why there are no channels, if there are none, and when the last warning of it was given.
    no_channels: Mutex<Option<(StoreError, Instant)>>,
}

/// Which releases of a watched key are published.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Releases {
    /// Those of a key that is marked as watched.
    IfMarked,
    /// All: the scripts that release do not look for the mark.
    Always,
}

#[derive(Default)]
struct Topics {
    by_lock: HashMap<Box<str>, Topic>,
    lock_of: HashMap<Box<str>, Box<str>>,
    events: Vec<Sender<Event>>,
    next_id: u64,
    subscription: watch::Sender<ListenState>,
}

struct Topic {
    names: KeyNames,
    releases: Releases,
    watches: Vec<(u64, Sender<Hint>)>,
    subscription: watch::Sender<ListenState>,
}

/// Says when a subscription is in force.
pub(in crate::store) type Subscription = watch::Receiver<ListenState>;

/// Whether a subscription is in force.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in crate::store) enum ListenState {
    #[default]
    Closed,
    Open,
}

impl Listener {
    /// Watches one lock. The second value says when the subscription is in force.
    pub(in crate::store) fn watch(self: &Arc<Self>, names: KeyNames, releases: Releases) -> (Watch, Subscription) {
        let topics = &mut *self.topics.lock();
        let id = topics.next_id;
        topics.next_id += 1;
        let (weak, lock) = (Arc::downgrade(self), Box::<str>::from(names.lock()));
        let (sender, watch) = Watch::new(move || {
            if let Some(this) = weak.upgrade() {
                this.leave(&lock, id);
            }
        });
        topics.lock_of.entry(names.wake().into()).or_insert_with(|| names.lock().into());
        let topic = topics.by_lock.entry(names.lock().into()).or_insert_with(|| Topic {
            names,
            releases,
            watches: Vec::new(),
            subscription: watch::Sender::default(),
        });
        topic.watches.push((id, sender));
        (watch, topic.subscription.subscribe())
    }

    /// Listens to what concerns the process. The second value says when the subscription is in force.
    pub(in crate::store) fn events(&self) -> (Events, Subscription) {
        let (sender, events) = Events::new();
        let topics = &mut *self.topics.lock();
        // A listener may have given up before any event came.
        topics.events.retain(|sender| !sender.is_gone());
        topics.events.push(sender);
        (events, topics.subscription.subscribe())
    }

    /// How many locks and channels are watched.
    #[cfg(test)]
    pub(super) fn watches(&self) -> (usize, usize) {
        let topics = self.topics.lock();
        (topics.by_lock.len(), topics.lock_of.len())
    }

    fn leave(&self, lock: &str, id: u64) {
        let mut topics = self.topics.lock();
        let Some(topic) = topics.by_lock.get_mut(lock) else { return };
        topic.watches.retain(|(other, _)| *other != id);
        if topic.watches.is_empty() {
            // At once: perhaps no session runs that would do it later. A session that has subscribed finds out.
            topics.forget(lock);
            self.changed.notify_one();
        }
    }

    /// From now on the store listens for this process's turn.
    pub(in crate::store) fn listen_for_turns(&self) {
        if !self.turns.swap(true, Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    /// The locks that are to be marked as watched.
    pub(in crate::store) fn watched(&self) -> Vec<KeyNames> {
        let topics = self.topics.lock();
        let marked =
            topics.by_lock.values().filter(|topic| topic.releases == Releases::IfMarked && !topic.watches.is_empty());
        marked.map(|topic| topic.names.clone()).collect()
    }

    /// The locks among these that are to be marked.
    pub(in crate::store) fn watched_of(&self, locks: &[KeyNames]) -> impl Iterator<Item = KeyNames> + use<> {
        let topics = self.topics.lock();
        let is_marked = |names: &&KeyNames| {
            topics.by_lock.get(names.lock()).is_some_and(|topic| topic.releases == Releases::IfMarked)
        };
        locks.iter().filter(is_marked).cloned().collect::<Vec<_>>().into_iter()
    }

    /// Whether anybody listens for anything.
    pub(in crate::store) fn is_wanted(&self) -> bool {
        let topics = self.topics.lock();
        self.turns.load(Ordering::Relaxed) || !topics.events.is_empty() || !topics.by_lock.is_empty()
    }

    /// A connection has come up: what is held has to be verified once more.
    pub(in crate::store) fn reconnected(&self) {
        self.has_resumed.store(false, Ordering::Relaxed);
    }

    /// Says that messages may have been missed.
    pub(in crate::store) fn resumed(&self) {
        self.has_resumed.store(true, Ordering::Relaxed);
        self.publish(&Event::Resumed);
    }

    /// The same, unless it was said since the last connection came up.
    pub(in crate::store) fn resumed_at_least_once(&self) {
        if !self.has_resumed.load(Ordering::Relaxed) {
            self.resumed();
        }
    }

    /// The user has no rights to channels. Warns once a minute, for as long as sessions try.
    pub(in crate::store) fn refused(&self, on_warning: Option<&OnWarning>, why: StoreError) {
        let mut no_channels = self.no_channels.lock();
        let is_new = no_channels.as_ref().is_none_or(|(_, warned)| warned.elapsed() >= WARN_AGAIN);
        if is_new {
            *no_channels = Some((why.clone(), Instant::now()));
        }
        drop(no_channels);
        if let Some(hook) = on_warning.filter(|_| is_new) {
            hook(&Warning::NoChannels { why });
        }
    }

    /// The user has rights to channels.
    pub(in crate::store) fn granted(&self) {
        *self.no_channels.lock() = None;
    }

    /// A warning if the user has no rights to channels.
    pub(in crate::store) fn warning(&self) -> Option<Warning> {
        self.no_channels.lock().as_ref().map(|(why, _)| Warning::NoChannels { why: why.clone() })
    }

    /// Ends every watch and the events.
    pub(in crate::store) fn end(&self) {
        *self.topics.lock() = Topics::default();
    }

    /// No subscription is in force any more.
    pub(in crate::store) fn close(&self) {
        let topics = self.topics.lock();
        topics.subscription.send_replace(ListenState::Closed);
        for topic in topics.by_lock.values() {
            topic.subscription.send_replace(ListenState::Closed);
        }
    }

    /// Passes on what came over the channel of a lock.
    pub(in crate::store) fn hint_on(&self, channel: &str, hint: Hint) {
        let topics = self.topics.lock();
        if let Some(topic) = topics.lock_of.get(channel).and_then(|lock| topics.by_lock.get(lock)) {
            topic.notify(hint);
        }
    }

    /// Passes on what happened to a lock.
    pub(in crate::store) fn hint(&self, lock: &str, hint: Hint) {
        if let Some(topic) = self.topics.lock().by_lock.get(lock) {
            topic.notify(hint);
        }
    }

    /// Passes on what concerns the process.
    pub(in crate::store) fn publish(&self, event: &Event) {
        self.topics.lock().events.retain(|sender| sender.send(event.clone()) == Sent::Heard);
    }

    /// The watched locks without a subscription, and the locks in `known` that are not watched any more.
    pub(in crate::store) fn difference(&self, known: &HashMap<Box<str>, Box<str>>) -> (Vec<KeyNames>, Vec<Box<str>>) {
        let topics = self.topics.lock();
        let unwatched = known.keys().filter(|lock| !topics.by_lock.contains_key(*lock)).cloned().collect();
        // Also one that was watched before, and not in between.
        let new = topics.by_lock.values().filter(|topic| *topic.subscription.borrow() == ListenState::Closed);
        (new.map(|topic| topic.names.clone()).collect(), unwatched)
    }

    /// The subscriptions of these locks are in force from now on, and those of the process.
    pub(in crate::store) fn open(&self, locks: &[KeyNames], hint: Option<Hint>) {
        let topics = self.topics.lock();
        topics.subscription.send_replace(ListenState::Open);
        for topic in locks.iter().filter_map(|names| topics.by_lock.get(names.lock())) {
            topic.subscription.send_replace(ListenState::Open);
            if let Some(hint) = hint {
                topic.notify(hint);
            }
        }
    }
}

impl Topics {
    fn forget(&mut self, lock: &str) {
        if let Some(topic) = self.by_lock.remove(lock) {
            self.lock_of.remove(topic.names.wake());
        }
    }
}

impl Topic {
    fn notify(&self, hint: Hint) {
        self.watches.iter().for_each(|(_, sender)| {
            // A watch that is gone takes itself out.
            let _ = sender.send(hint);
        });
    }
}
