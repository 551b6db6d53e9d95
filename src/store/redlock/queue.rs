//! This process's places in the queues of keys that others hold: [`Queue`].
//!
//! Each node keeps a queue per key: which processes wait, since when, and until when their tickets last by the node's
//! clock. **It only ever denies**: a node does not vote for a process while another one that has waited for longer
//! stands in its queue, and tells a release to the first one alone. Who holds the key is still decided by votes (L2),
//! so nothing here can grant it twice.
//!
//! The order of a process is one number, the same on all nodes: the nodes' middle clock when it began to wait. So the
//! one that has waited for longest is first on every node that knows it, and gets all their votes: after a release
//! there is one who tries, not as many as wait, and no split vote to be taken back. A place is renewed by the tries
//! themselves, which come at least twice in the life of a ticket; a process that died is in the way until its ticket
//! has run out. Two that begin to wait on a free key at the same moment may still split it, once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Inner;
use super::script::LEAVE;
use crate::clock::Moment;
use crate::store::redis::call::call;
use crate::store::redis::keys::KeyNames;
use crate::store::redis::script::ScriptArgs;
use crate::store::{Hint, Sender, Watch};

/// How long a place lasts without another try: so long a dead process holds the others up.
pub(super) const TICKET: Duration = Duration::from_millis(1500);
/// A process that waits tries again after so long at most, to keep its place.
pub(super) const RENEWAL: Duration = Duration::from_millis(500);
/// From so many on, places that nobody has asked for lately are looked for and forgotten.
const MANY: usize = 1024;

/// The keys that this process waits for.
#[derive(Default)]
pub(super) struct Queue(Mutex<HashMap<KeyNames, Place>>);

struct Place {
    /// Since when, in microseconds of the nodes' clocks.
    order: u64,
    last_try: Moment,
    /// Tries under way.
    asking: u32,
    /// The nodes that have told a release to this process since the last try began, one bit each.
    told_by: u64,
    /// A majority has, and nobody listened yet.
    called: bool,
    turn: Option<Sender<Hint>>,
}

impl Place {
    fn is_wanted(&self) -> bool {
        self.asking > 0 || self.turn.as_ref().is_some_and(|sender| !sender.is_gone())
    }

    /// The nodes have forgotten it, or will have when the next try comes.
    fn is_over(&self, now: Moment) -> bool {
        !self.is_wanted() && now.saturating_since(self.last_try) > TICKET
    }
}

/// A try that waits, while it is under way.
pub(super) struct Asking<'a> {
    queue: &'a Queue,
    names: &'a KeyNames,
    pub(super) order: u64,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.queue.0.lock().get_mut(self.names) {
            place.asking = place.asking.saturating_sub(1);
        }
    }
}

impl Queue {
    /// A try that waits begins, at the place that the process has already, or at a new one.
    pub(super) fn ask<'a>(&'a self, names: &'a KeyNames, now: Moment, micros: impl FnOnce() -> u64) -> Asking<'a> {
        let places = &mut *self.0.lock();
        if let Some(place) = places.get_mut(names).filter(|place| !place.is_over(now)) {
            // This try sees what it was told of. Nodes that deny it because another holds the key tell it yet.
            (place.last_try, place.told_by, place.called) = (now, 0, false);
            place.asking += 1;
            return Asking { queue: self, names, order: place.order };
        }
        if places.len() >= MANY && places.len() == places.capacity() {
            places.retain(|_, place| !place.is_over(now));
        }
        let order = micros().max(1);
        let place = Place { order, last_try: now, asking: 1, told_by: 0, called: false, turn: None };
        places.insert(names.clone(), place);
        Asking { queue: self, names, order }
    }

    /// Listens for the turn of this process.
    pub(super) fn turn(&self, names: &KeyNames) -> Option<Watch> {
        let mut places = self.0.lock();
        let place = places.get_mut(names)?;
        let (sender, watch) = Watch::new(|| {});
        if std::mem::take(&mut place.called) {
            // It has just been made, and is not full.
            let _ = sender.send(Hint::Released);
        }
        place.turn = Some(sender);
        Some(watch)
    }

    /// A node has told this process that the lock of this name is free and that it is next; or, without a name, that
    /// it may have told something that was not heard. One node alone says little: a majority gives the key.
    pub(super) fn called(&self, node: usize, lock: Option<&str>, needed: usize) {
        let mut places = self.0.lock();
        let call = |place: &mut Place| {
            place.told_by |= 1 << node;
            if place.told_by.count_ones() as usize >= needed {
                place.told_by = 0;
                // A listener that is gone will not listen again before it has tried.
                place.called = place.turn.as_ref().is_none_or(|sender| sender.is_gone());
                if let Some(sender) = &place.turn {
                    let _ = sender.send(Hint::Released);
                }
            }
        };
        match lock {
            Some(lock) => places.get_mut(lock).into_iter().for_each(call),
            None => places.values_mut().for_each(call),
        }
    }

    /// The place is used up.
    pub(super) fn forget(&self, names: &KeyNames) {
        self.0.lock().remove(names);
    }

    /// Nobody will be told anything any more.
    pub(super) fn end(&self) {
        self.0.lock().clear();
    }

    /// Gives the place up, unless somebody of this process still asks or listens for it: here at once, and on the nodes
    /// when they can be told. Where they cannot, it runs out.
    pub(super) fn leave(inner: &Arc<Inner>, names: KeyNames) {
        {
            let mut places = inner.queue.0.lock();
            if places.get(&names).is_none_or(Place::is_wanted) {
                return;
            }
            places.remove(&names);
        }
        let names = Arc::new(names);
        for node in inner.nodes.iter().filter(|node| node.failure().is_none()) {
            let (inner, node, names) = (Arc::clone(inner), Arc::clone(node), Arc::clone(&names));
            let process = Arc::clone(&inner.config.process);
            Arc::clone(&inner).spawn(async move {
                let leaving = call(&node.redis, &names, &LEAVE, inner.now(), (), |_| {
                    ScriptArgs::of([names.lock(), names.queue()]).arg(&process)
                });
                // Unanswered, it ends by itself.
                let _ = leaving.await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::store::KeyTemplate;
    use crate::store::redis::keys::SIDE_KEYS;

    fn names(key: &str) -> KeyNames {
        KeyNames::new(&KeyTemplate::default(), SIDE_KEYS, &Key::new(key).unwrap()).unwrap()
    }

    fn at(ms: u64) -> Moment {
        Moment::ZERO.saturating_add(Duration::from_millis(ms))
    }

    #[test]
    fn a_place_is_kept_while_its_process_tries_and_is_forgotten_afterwards() {
        let (queue, k) = (Queue::default(), names("k"));
        assert_eq!(queue.ask(&k, at(0), || 7).order, 7);
        assert_eq!(queue.ask(&k, at(1_000), || 8).order, 7);
        assert_eq!(queue.ask(&k, at(2_500), || 9).order, 7, "it is kept from try to try");
        assert_eq!(queue.ask(&k, at(4_001), || 10).order, 10, "the nodes have forgotten it");
        queue.forget(&k);
        assert_eq!(queue.ask(&k, at(4_001), || 11).order, 11);
        for key in 0..100_000 {
            drop(queue.ask(&names(&format!("{key}")), at(10_000 + 10 * key), || key));
        }
        assert!(queue.0.lock().len() < 4_096, "{}", queue.0.lock().len());
    }

    #[test]
    fn it_is_this_processs_turn_when_a_majority_says_so_whenever_somebody_listens() {
        let (queue, k) = (Queue::default(), names("k"));
        let told = |watch: &mut Watch| futures_util::FutureExt::now_or_never(watch.next()).flatten();
        assert!(queue.turn(&k).is_none(), "nobody has asked");
        drop(queue.ask(&k, at(0), || 7));
        let mut turn = queue.turn(&k).unwrap();
        for node in [0, 1, 1, 1] {
            queue.called(node, Some("lock:k"), 3);
        }
        assert_eq!(told(&mut turn), None, "one that says it often is one");
        queue.called(4, Some("lock:k"), 3);
        assert_eq!(told(&mut turn), Some(Hint::Released));
        assert_eq!(told(&mut turn), None, "once");
        drop(turn);
        drop(queue.ask(&k, at(1), || 7));
        (0..3).for_each(|node| queue.called(node, None, 3));
        assert_eq!(told(&mut queue.turn(&k).unwrap()), Some(Hint::Released), "before anybody listened");
        queue.called(0, Some("lock:other"), 1);
    }
}
