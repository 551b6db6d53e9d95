//! Who is told what happens to keys: [`Ears`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::key::Key;
use crate::store::{Event, Events, Hint, Sender, Sent, Watch};

/// So long a key counts as watched, unless that is renewed: releases of it are told to all.
pub(super) const WATCH: Duration = Duration::from_secs(6);

/// The watches and events of this process.
pub(super) struct Ears {
    state: Mutex<State>,
    /// Whether messages are listened to.
    up: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    watches: HashMap<Key, Vec<(u64, Sender<Hint>)>>,
    events: Vec<Sender<Event>>,
    next: u64,
}

impl Default for Ears {
    fn default() -> Self {
        Self { state: Mutex::default(), up: watch::Sender::new(false) }
    }
}

impl Ears {
    /// A watch on one key.
    pub(super) fn watch(self: &Arc<Self>, key: &Key) -> Watch {
        let mut state = self.state.lock();
        state.next += 1;
        let (id, weak, left) = (state.next, Arc::downgrade(self), key.clone());
        let (sender, watch) = Watch::new(move || {
            if let Some(this) = weak.upgrade() {
                this.stop_watching(&left, id);
            }
        });
        state.watches.entry(key.clone()).or_default().push((id, sender));
        watch
    }

    fn stop_watching(&self, key: &Key, id: u64) {
        let mut state = self.state.lock();
        let Some(watches) = state.watches.get_mut(key) else { return };
        watches.retain(|(other, _)| *other != id);
        if watches.is_empty() {
            state.watches.remove(key);
        }
    }

    /// The events of the process.
    pub(super) fn events(&self) -> Events {
        let (sender, events) = Events::new();
        let mut state = self.state.lock();
        state.events.retain(|sender| !sender.is_gone());
        state.events.push(sender);
        events
    }

    /// Every key that is watched.
    pub(super) fn watched(&self) -> Vec<Key> {
        self.state.lock().watches.keys().cloned().collect()
    }

    /// Tells those who watch a key.
    pub(super) fn hint(&self, key: &Key, hint: Hint) {
        for (_, sender) in self.state.lock().watches.get(key).into_iter().flatten() {
            // A watch that is gone takes itself out.
            let _ = sender.send(hint);
        }
    }

    /// Tells all who listen to events.
    pub(super) fn publish(&self, event: &Event) {
        self.state.lock().events.retain(|sender| sender.send(event.clone()) == Sent::Heard);
    }

    /// Messages may have been missed.
    pub(super) fn resumed(&self) {
        for (_, sender) in self.state.lock().watches.values().flatten() {
            let _ = sender.send(Hint::Resumed);
        }
        self.publish(&Event::Resumed);
    }

    /// Whether messages are listened to from now on.
    pub(super) fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    /// Waits until they are.
    pub(super) async fn wait_up(&self) {
        let mut up = self.up.subscribe();
        // The sender is a field of ours.
        let _ = up.wait_for(|up| *up).await;
    }

    /// Ends every watch and all events.
    pub(super) fn end(&self) {
        *self.state.lock() = State::default();
    }
}
