//! What Redis tells by itself: [`Listener`], one connection for all watches and events of a process (R15).
//!
//! Whoever waits in turn is called on one channel of its process (`tickets`). Whoever watches a key without a place has
//! a channel of the key, and a mark beside the key by which a release knows of it; force-releases are told always. Foreign
//! deletes and expiries send nothing, so the connection also asks Redis to remember which watched keys it has read
//! (`CLIENT TRACKING OPTIN`), and looks again when one changes. In a Cluster there is pub/sub only. All of it is hints:
//! pollers find out without.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::Inner;
use super::hear::session;
use super::link::Phase;
use super::names::Names;
use super::wire::Wire;
use crate::clock::Moment;
use crate::store::{Event, Events, Hint, Sender, Sent, StoreError, Watch};

#[derive(Default)]
pub(super) struct Listener {
    topics: Mutex<Topics>,
    /// Somebody began or stopped to listen.
    pub(super) changed: Notify,
    /// Somebody waits in turn, or did.
    turns: AtomicBool,
}

/// Which releases of a watched key are told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Releases {
    /// Those of a key that is marked as watched.
    ToldIfMarked,
    /// All: whoever releases does not look for the mark.
    AlwaysTold,
}

#[derive(Default)]
struct Topics {
    by_lock: HashMap<Box<str>, Topic>,
    lock_of: HashMap<Box<str>, Box<str>>,
    events: Vec<Sender<Event>>,
    next_id: u64,
    ears: watch::Sender<Ears>,
}

struct Topic {
    names: Names,
    releases: Releases,
    watches: Vec<(u64, Sender<Hint>)>,
    ears: watch::Sender<Ears>,
}

/// Whether a subscription is in force.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Ears {
    #[default]
    Closed,
    Open,
}

impl Listener {
    /// Listens to one lock; answers when the subscription is in force.
    pub(super) async fn watch(inner: &Arc<Inner>, names: Names, releases: Releases) -> Result<Watch, StoreError> {
        let begun = inner.now();
        let (watch, mut ears) = {
            let mut topics = inner.listener.topics.lock();
            let id = topics.next_id;
            topics.next_id += 1;
            let (weak, lock) = (Arc::downgrade(inner), Box::<str>::from(names.lock()));
            let (sender, watch) = Watch::new(move || {
                if let Some(inner) = weak.upgrade() {
                    inner.listener.leave(&lock, id);
                }
            });
            let topics = &mut *topics;
            topics.lock_of.entry(names.wake().into()).or_insert_with(|| names.lock().into());
            let topic = topics.by_lock.entry(names.lock().into()).or_insert_with(|| Topic {
                names,
                releases,
                watches: Vec::new(),
                ears: watch::Sender::default(),
            });
            topic.watches.push((id, sender));
            (watch, topic.ears.subscribe())
        };
        inner.listener.in_force(inner, begun, &mut ears).await?;
        Ok(watch)
    }

    /// Listens to what concerns the process.
    pub(super) async fn events(inner: &Arc<Inner>) -> Result<Events, StoreError> {
        let begun = inner.now();
        let (sender, events) = Events::new();
        let mut ears = {
            let mut topics = inner.listener.topics.lock();
            // Those who gave up before anything was heard.
            topics.events.retain(|sender| !sender.is_gone());
            topics.events.push(sender);
            topics.ears.subscribe()
        };
        inner.listener.in_force(inner, begun, &mut ears).await?;
        Ok(events)
    }

    async fn in_force(&self, inner: &Inner, begun: Moment, ears: &mut watch::Receiver<Ears>) -> Result<(), StoreError> {
        if inner.runtime().is_none() {
            return Err(StoreError::NotRunning);
        }
        if *ears.borrow() == Ears::Open {
            return Ok(());
        }
        self.changed.notify_one();
        let opened = ears.wait_for(|ears| *ears == Ears::Open);
        match inner.ticks.within(begun, inner.config.operation_timeout, opened).await? {
            Ok(_) => Ok(()),
            Err(_) => Err(StoreError::NotRunning),
        }
    }

    fn leave(&self, lock: &str, id: u64) {
        let mut topics = self.topics.lock();
        let Some(topic) = topics.by_lock.get_mut(lock) else { return };
        topic.watches.retain(|(other, _)| *other != id);
        if topic.watches.is_empty() {
            self.changed.notify_one();
        }
    }

    /// From now on messages to whoever waits in turn are listened to.
    pub(super) fn listen_for_turns(&self) {
        if !self.turns.swap(true, Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    /// The locks that are to be marked as watched.
    pub(super) fn watched(&self) -> Vec<Names> {
        let topics = self.topics.lock();
        let marked = topics
            .by_lock
            .values()
            .filter(|topic| topic.releases == Releases::ToldIfMarked && !topic.watches.is_empty());
        marked.map(|topic| topic.names.clone()).collect()
    }

    /// Those of these that are.
    pub(super) fn watched_of(&self, locks: &[Names]) -> impl Iterator<Item = Names> + use<> {
        let topics = self.topics.lock();
        let is_marked = |names: &&Names| {
            topics.by_lock.get(names.lock()).is_some_and(|topic| topic.releases == Releases::ToldIfMarked)
        };
        locks.iter().filter(is_marked).cloned().collect::<Vec<_>>().into_iter()
    }

    fn is_wanted(&self) -> bool {
        let topics = self.topics.lock();
        self.turns.load(Ordering::Relaxed) || !topics.events.is_empty() || !topics.by_lock.is_empty()
    }

    /// Listens until it is dropped.
    pub(super) async fn run(inner: Arc<Inner>) {
        let listener = &inner.listener;
        while !listener.is_wanted() {
            listener.changed.notified().await;
        }
        let mut ups = inner.servers.ups();
        loop {
            ups.borrow_and_update();
            let Some(wire) = up(&inner) else {
                // A link comes up, or none ever does.
                if ups.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                // The server may be another now.
                _ = ups.changed() => {}
                () = session(&inner, &wire) => {}
            }
            listener.close();
            tokio::time::sleep(Duration::from_millis(fastrand::u64(10..50))).await;
        }
    }

    /// Nobody will be told anything any more: every watch and the events end.
    pub(super) fn end(&self) {
        *self.topics.lock() = Topics::default();
    }

    /// Nothing is heard any more.
    fn close(&self) {
        let topics = self.topics.lock();
        topics.ears.send_replace(Ears::Closed);
        for topic in topics.by_lock.values() {
            topic.ears.send_replace(Ears::Closed);
        }
    }

    /// Passes on what came over a channel.
    pub(super) fn heard(&self, channel: &str, hint: Hint) {
        let topics = self.topics.lock();
        if let Some(topic) = topics.lock_of.get(channel).and_then(|lock| topics.by_lock.get(lock)) {
            topic.tell(hint);
        }
    }

    /// Passes on what happened to a lock.
    pub(super) fn hint(&self, lock: &str, hint: Hint) {
        if let Some(topic) = self.topics.lock().by_lock.get(lock) {
            topic.tell(hint);
        }
    }

    pub(super) fn tell(&self, event: &Event) {
        self.topics.lock().events.retain(|sender| sender.send(event.clone()) == Sent::Heard);
    }

    /// The locks that are watched and not in `known`, and those in `known` that are not watched any more; these are
    /// forgotten here.
    pub(super) fn difference(&self, known: &HashMap<Box<str>, Box<str>>) -> (Vec<Names>, Vec<Box<str>>) {
        let topics = &mut *self.topics.lock();
        let unwatched: Vec<Box<str>> =
            topics.by_lock.iter().filter(|(_, topic)| topic.watches.is_empty()).map(|(lock, _)| lock.clone()).collect();
        for lock in &unwatched {
            if let Some(topic) = topics.by_lock.remove(lock) {
                topics.lock_of.remove(topic.names.wake());
            }
        }
        let new = topics.by_lock.iter().filter(|(lock, _)| !known.contains_key(*lock));
        (new.map(|(_, topic)| topic.names.clone()).collect(), unwatched)
    }

    /// Says that these are listened to from now on, and everything that concerns the process.
    pub(super) fn open(&self, locks: &[Names], hint: Option<Hint>) {
        let topics = self.topics.lock();
        topics.ears.send_replace(Ears::Open);
        for topic in locks.iter().filter_map(|names| topics.by_lock.get(names.lock())) {
            topic.ears.send_replace(Ears::Open);
            if let Some(hint) = hint {
                topic.tell(hint);
            }
        }
    }
}

impl Topic {
    fn tell(&self, hint: Hint) {
        self.watches.iter().for_each(|(_, sender)| {
            // A watch that is gone has said so itself.
            let _ = sender.send(hint);
        });
    }
}

/// A wire that is up now.
fn up(inner: &Inner) -> Option<Arc<Wire>> {
    inner.servers.links().iter().find_map(|link| match link.phase() {
        Phase::Up(wire) => Some(wire),
        _ => None,
    })
}
