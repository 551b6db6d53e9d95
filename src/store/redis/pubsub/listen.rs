//! What Redis tells by itself: [`Listener`], one connection for all watches and events of a process (R15).
//!
//! Whoever waits in turn is called on one channel of its process (`tickets`). Whoever watches a key without a place has
//! a channel of the key, and a mark beside the key by which a release knows of it; force-releases are told always. Foreign
//! deletes and expiries send nothing, so the connection also asks Redis to remember which watched keys it has read
//! (`CLIENT TRACKING OPTIN`), and looks again when one changes. In a Cluster there is pub/sub only. All of it is hints:
//! pollers find out without, also where the user has no rights to channels, or where no second connection comes about.
//! Then it is tried again, less and less often (N1), and what is held is verified all the same when the first one has
//! come up (R21).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::subscription::session;
use crate::clock::Moment;
use crate::store::redis::Inner;
use crate::store::redis::conn::link::{AWAY, Pauses, Phase, TELL_AGAIN};
use crate::store::redis::conn::wire::Wire;
use crate::store::redis::keys::KeyNames;
use crate::store::{Event, Events, Hint, Sender, Sent, StoreError, Warning, Watch};

/// A session that lasted for less counts as one more failure.
const STEADY: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(in crate::store) struct Listener {
    topics: Mutex<Topics>,
    /// Somebody began or stopped to listen.
    pub(in crate::store) changed: Notify,
    /// Somebody waits in turn, or did.
    turns: AtomicBool,
    /// Of the connections that are up now, everybody has been told.
    has_resumed: AtomicBool,
    /// Why there are no channels, if there are none, and when that was said.
    no_channels: Mutex<Option<(StoreError, Instant)>>,
}

/// Which releases of a watched key are told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Releases {
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
    ears: watch::Sender<ListenState>,
}

struct Topic {
    names: KeyNames,
    releases: Releases,
    watches: Vec<(u64, Sender<Hint>)>,
    ears: watch::Sender<ListenState>,
}

/// Whether a subscription is in force.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum ListenState {
    #[default]
    Closed,
    Open,
}

impl Listener {
    /// Listens to one lock; answers when the subscription is in force.
    pub(in crate::store) async fn watch(
        inner: &Arc<Inner>,
        names: KeyNames,
        releases: Releases,
    ) -> Result<Watch, StoreError> {
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
    pub(in crate::store) async fn events(inner: &Arc<Inner>) -> Result<Events, StoreError> {
        let begun = inner.now();
        let (sender, events) = Events::new();
        let mut ears = {
            let mut topics = inner.listener.topics.lock();
            // Those who gave up before anything was heard.
            topics.events.retain(|sender| !sender.is_gone());
            topics.events.push(sender);
            topics.ears.subscribe()
        };
        match inner.listener.in_force(inner, begun, &mut ears).await {
            Err(StoreError::NotRunning) => Err(StoreError::NotRunning),
            // They are told as soon as anything can be heard, and that is the first thing that they are told.
            Ok(()) | Err(_) => Ok(events),
        }
    }

    async fn in_force(
        &self,
        inner: &Inner,
        begun: Moment,
        ears: &mut watch::Receiver<ListenState>,
    ) -> Result<(), StoreError> {
        if inner.runtime().is_none() {
            return Err(StoreError::NotRunning);
        }
        if *ears.borrow() == ListenState::Open {
            return Ok(());
        }
        self.changed.notify_one();
        let opened = ears.wait_for(|ears| *ears == ListenState::Open);
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
            // At once, for there may be nobody who would do it later; a session that has subscribed to it finds out.
            topics.forget(lock);
            self.changed.notify_one();
        }
    }

    /// From now on messages to whoever waits in turn are listened to.
    pub(in crate::store) fn listen_for_turns(&self) {
        if !self.turns.swap(true, Ordering::Relaxed) {
            self.changed.notify_one();
        }
    }

    /// The locks that are to be marked as watched.
    pub(in crate::store) fn watched(&self) -> Vec<KeyNames> {
        let topics = self.topics.lock();
        let marked = topics
            .by_lock
            .values()
            .filter(|topic| topic.releases == Releases::ToldIfMarked && !topic.watches.is_empty());
        marked.map(|topic| topic.names.clone()).collect()
    }

    /// Those of these that are.
    pub(in crate::store) fn watched_of(&self, locks: &[KeyNames]) -> impl Iterator<Item = KeyNames> + use<> {
        let topics = self.topics.lock();
        let is_marked = |names: &&KeyNames| {
            topics.by_lock.get(names.lock()).is_some_and(|topic| topic.releases == Releases::ToldIfMarked)
        };
        locks.iter().filter(is_marked).cloned().collect::<Vec<_>>().into_iter()
    }

    fn is_wanted(&self) -> bool {
        let topics = self.topics.lock();
        self.turns.load(Ordering::Relaxed) || !topics.events.is_empty() || !topics.by_lock.is_empty()
    }

    /// Listens until it is dropped.
    pub(in crate::store) async fn run(inner: Arc<Inner>) {
        let listener = &inner.listener;
        while !listener.is_wanted() {
            listener.changed.notified().await;
        }
        let mut reconnects = inner.servers.reconnects();
        let (mut pauses, mut known) = (Pauses::default(), 0);
        loop {
            let current = *reconnects.borrow_and_update();
            if current != known {
                known = current;
                listener.has_resumed.store(false, Ordering::Relaxed);
            }
            let Some(wire) = up(&inner) else {
                // A link comes up, or none ever does.
                if reconnects.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let begun = Instant::now();
            let ended = tokio::select! {
                // The server may be another now.
                _ = reconnects.changed() => None,
                why = session(&inner, &wire) => Some(why),
            };
            listener.close();
            let pause = match ended {
                None => AWAY.0,
                Some(why) => {
                    // Nothing can be heard, and held locks may be gone all the same.
                    if !listener.has_resumed.load(Ordering::Relaxed) {
                        listener.resumed();
                    }
                    if begun.elapsed() > STEADY {
                        pauses.reset();
                    }
                    pauses.after(&why)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = async { reconnects.clone().changed().await } => tokio::time::sleep(AWAY.0.mul_f64(fastrand::f64())).await,
            }
        }
    }

    /// Tells that something may have happened unheard.
    pub(in crate::store) fn resumed(&self) {
        self.has_resumed.store(true, Ordering::Relaxed);
        self.tell(&Event::Resumed);
    }

    /// The user has no rights to channels. Said once a minute, for as long as somebody tries.
    pub(in crate::store) fn refused(&self, inner: &Inner, why: StoreError) {
        let mut no_channels = self.no_channels.lock();
        let is_new = no_channels.as_ref().is_none_or(|(_, said)| said.elapsed() >= TELL_AGAIN);
        if is_new {
            *no_channels = Some((why.clone(), Instant::now()));
        }
        drop(no_channels);
        if let Some(hook) = inner.config.on_warning.as_ref().filter(|_| is_new) {
            hook(&Warning::NoChannels { why });
        }
    }

    /// It has them.
    pub(in crate::store) fn granted(&self) {
        *self.no_channels.lock() = None;
    }

    /// What is to be said about the user's rights.
    pub(in crate::store) fn warning(&self) -> Option<Warning> {
        self.no_channels.lock().as_ref().map(|(why, _)| Warning::NoChannels { why: why.clone() })
    }

    /// Nobody will be told anything any more: every watch and the events end.
    pub(in crate::store) fn end(&self) {
        *self.topics.lock() = Topics::default();
    }

    /// Nothing is heard any more.
    fn close(&self) {
        let topics = self.topics.lock();
        topics.ears.send_replace(ListenState::Closed);
        for topic in topics.by_lock.values() {
            topic.ears.send_replace(ListenState::Closed);
        }
    }

    /// Passes on what came over a channel.
    pub(in crate::store) fn heard(&self, channel: &str, hint: Hint) {
        let topics = self.topics.lock();
        if let Some(topic) = topics.lock_of.get(channel).and_then(|lock| topics.by_lock.get(lock)) {
            topic.tell(hint);
        }
    }

    /// Passes on what happened to a lock.
    pub(in crate::store) fn hint(&self, lock: &str, hint: Hint) {
        if let Some(topic) = self.topics.lock().by_lock.get(lock) {
            topic.tell(hint);
        }
    }

    pub(in crate::store) fn tell(&self, event: &Event) {
        self.topics.lock().events.retain(|sender| sender.send(event.clone()) == Sent::Heard);
    }

    /// The locks that are watched and not listened to, and those in `known` that are not watched any more.
    pub(in crate::store) fn difference(&self, known: &HashMap<Box<str>, Box<str>>) -> (Vec<KeyNames>, Vec<Box<str>>) {
        let topics = self.topics.lock();
        let unwatched = known.keys().filter(|lock| !topics.by_lock.contains_key(*lock)).cloned().collect();
        // Also one that was watched before, and not in between.
        let new = topics.by_lock.values().filter(|topic| *topic.ears.borrow() == ListenState::Closed);
        (new.map(|topic| topic.names.clone()).collect(), unwatched)
    }

    /// Says that these are listened to from now on, and everything that concerns the process.
    pub(in crate::store) fn open(&self, locks: &[KeyNames], hint: Option<Hint>) {
        let topics = self.topics.lock();
        topics.ears.send_replace(ListenState::Open);
        for topic in locks.iter().filter_map(|names| topics.by_lock.get(names.lock())) {
            topic.ears.send_replace(ListenState::Open);
            if let Some(hint) = hint {
                topic.tell(hint);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::store::Store;
    use crate::store::redis::RedisStore;

    #[tokio::test]
    async fn watches_that_do_not_come_about_leave_nothing_behind() {
        // Nobody is there.
        let builder = RedisStore::builder("redis://127.0.0.1:1").operation_timeout(Duration::from_millis(50));
        let store = builder.build().unwrap();
        store.start().await.unwrap();
        let listener = &store.0.listener;
        for round in 0..20 {
            let keys: Vec<Key> = (0..50).map(|n| Key::new(format!("k{round}:{n}")).unwrap()).collect();
            let mut watching: Vec<_> = keys.iter().map(|key| store.watch(key)).collect();
            for one in &mut watching {
                assert!(futures_util::poll!(one).is_pending());
            }
            assert_eq!(listener.topics.lock().by_lock.len(), keys.len());
            // Half of them are dropped, and the others fail.
            watching.truncate(keys.len() / 2);
            let failed = futures_util::future::join_all(watching).await;
            assert!(failed.iter().all(Result::is_err));
            let topics = listener.topics.lock();
            assert_eq!((topics.by_lock.len(), topics.lock_of.len()), (0, 0));
        }
        store.stop().await;
    }
}
