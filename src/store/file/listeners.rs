//! Who is told what happens to keys: watches, and the events of each handle.
//!
//! What is sent wakes code of the caller's: it is sent while no mutex is held.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::key::Key;
use crate::store::{Event, Events, Hint, Sender, Sent, Watch};

#[derive(Debug, Default)]
pub(super) struct Listeners {
    watches: Mutex<HashMap<Key, Vec<Watcher>>>,
    /// How many watches there are: mostly none, and then a release asks for no mutex.
    count: AtomicUsize,
    numbers: AtomicU64,
    events: Mutex<Vec<(u64, Arc<Sender<Event>>)>>,
}

#[derive(Debug)]
struct Watcher {
    number: u64,
    handle: u64,
    sender: Arc<Sender<Hint>>,
}

impl Listeners {
    /// A watch of one key, in force from now on, and its sending end.
    pub(super) fn watch(self: &Arc<Self>, key: &Key, handle: u64) -> (Arc<Sender<Hint>>, Watch) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (listeners, watched): (Weak<Self>, _) = (Arc::downgrade(self), key.clone());
        let (sender, watch) = Watch::new(move || {
            if let Some(listeners) = listeners.upgrade() {
                listeners.drop_watches(Some(&watched), |watcher| watcher.number == number);
            }
        });
        let sender = Arc::new(sender);
        let watcher = Watcher { number, handle, sender: Arc::clone(&sender) };
        self.count.fetch_add(1, Ordering::SeqCst);
        self.watches.lock().entry(key.clone()).or_default().push(watcher);
        (sender, watch)
    }

    fn drop_watches(&self, key: Option<&Key>, whom: impl Fn(&Watcher) -> bool) {
        let mut dropped = Vec::new();
        let mut watches = self.watches.lock();
        let mut drop_of = |watchers: &mut Vec<Watcher>| {
            dropped.extend(watchers.extract_if(.., |watcher| whom(watcher)));
            watchers.is_empty()
        };
        match key {
            Some(key) => {
                if watches.get_mut(key).is_some_and(&mut drop_of) {
                    watches.remove(key);
                }
            }
            None => watches.retain(|_, watchers| !drop_of(watchers)),
        }
        drop(watches);
        self.count.fetch_sub(dropped.len(), Ordering::SeqCst);
    }

    /// Tells those who watch the key.
    pub(super) fn hint(&self, key: &Key, hint: Hint) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let senders: Vec<_> = match self.watches.lock().get(key) {
            Some(watchers) => watchers.iter().map(|watcher| Arc::clone(&watcher.sender)).collect(),
            None => return,
        };
        for sender in senders {
            // Who is gone drops its watch itself.
            let _ = sender.send(hint);
        }
    }

    pub(super) fn events(&self, handle: u64) -> Events {
        let (sender, events) = Events::new();
        self.events.lock().push((handle, Arc::new(sender)));
        events
    }

    /// Tells every handle.
    pub(super) fn tell(&self, event: &Event) {
        let senders: Vec<_> = self.events.lock().iter().map(|(_, sender)| Arc::clone(sender)).collect();
        let gone: Vec<_> = senders.into_iter().filter(|sender| sender.send(event.clone()) == Sent::Gone).collect();
        if !gone.is_empty() {
            self.events.lock().retain(|(_, sender)| !gone.iter().any(|gone| Arc::ptr_eq(gone, sender)));
        }
    }

    /// Ends all that one handle listens to.
    pub(super) fn end(&self, handle: u64) {
        self.drop_watches(None, |watcher| watcher.handle == handle);
        let mut ended = Vec::new();
        let mut events = self.events.lock();
        ended.extend(events.extract_if(.., |(of, _)| *of == handle));
        drop(events);
    }
}
