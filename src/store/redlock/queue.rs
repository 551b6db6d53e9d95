//! This process's places in the queues of keys that others hold: [`Queue`].
//!
//! Each node keeps a queue per key: which processes wait, since when, and until when their tickets last by the node's
//! clock. **It only ever denies**: a node does not vote for a process while another one that has waited for longer
//! stands in its queue, and after a release it calls the first one alone. Who holds the key is still decided by votes (L2),
//! so nothing here can grant it twice.
//!
//! The order of a process is one number, the same on all nodes: the nodes' middle clock when it began to wait. So the
//! one that has waited for longest is first on every node that knows it, and gets all their votes: after a release
//! there is one who tries, not as many as wait, and no split vote to be taken back. A place is renewed by the tries
//! themselves, which come at least twice in the life of a ticket; a process that died is in the way until its ticket
//! has run out. Two that begin to wait on a free key at the same moment may still split it, once.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::Moment;
use crate::store::redis::keys::KeyNames;
use crate::store::{Hint, Sender, Watch};

/// How long a place lasts without another attempt: a process that died holds the others up for so long.
pub(super) const TICKET: Duration = Duration::from_millis(1500);
/// How often a process that waits tries again at least, to keep its place.
pub(super) const RENEWAL: Duration = Duration::from_millis(500);
/// From so many places on, those that are over are removed before more memory is taken.
const MANY: usize = 1024;

/// The keys that this process waits for.
#[derive(Default)]
pub(super) struct Queue(Mutex<HashMap<KeyNames, Place>>);

struct Place {
    /// When this process began to wait, in microseconds of the nodes' clocks. It stays for as long as the place does.
    order: u64,
    /// The nodes keep the place for [`TICKET`] from here.
    last_attempt: Moment,
    /// Attempts in flight. The place is not given up while there are any.
    attempts: u32,
    /// The nodes that have called this process since the last attempt began, one bit each.
    called_by: u64,
    /// A majority has called while nobody listened; the next listener gets the hint at once.
    is_called: bool,
    turn: Option<Sender<Hint>>,
}

impl Place {
    fn is_wanted(&self) -> bool {
        self.attempts > 0 || self.turn.as_ref().is_some_and(|sender| !sender.is_gone())
    }

    /// Whether the nodes have forgotten the place, or will have when the next attempt comes.
    fn is_over(&self, now: Moment) -> bool {
        !self.is_wanted() && now.saturating_since(self.last_attempt) > TICKET
    }
}

/// An attempt of this process, at its place in the queue.
pub(super) struct Attempt<'a> {
    queue: &'a Queue,
    names: &'a KeyNames,
    pub(super) order: u64,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.queue.0.lock().get_mut(self.names) {
            place.attempts = place.attempts.saturating_sub(1);
        }
    }
}

impl Queue {
    /// An attempt begins, at the place that the process has already, or at a new one.
    pub(super) fn attempt<'a>(&'a self, names: &'a KeyNames, now: Moment, micros: impl FnOnce() -> u64) -> Attempt<'a> {
        let places = &mut *self.0.lock();
        if let Some(place) = places.get_mut(names).filter(|place| !place.is_over(now)) {
            // Earlier calls have served: this attempt finds out itself. Nodes where another holds the key will call again.
            (place.last_attempt, place.called_by, place.is_called) = (now, 0, false);
            place.attempts += 1;
            return Attempt { queue: self, names, order: place.order };
        }
        if places.len() >= MANY && places.len() == places.capacity() {
            places.retain(|_, place| !place.is_over(now));
        }
        let order = micros().max(1);
        let place = Place { order, last_attempt: now, attempts: 1, called_by: 0, is_called: false, turn: None };
        places.insert(names.clone(), place);
        Attempt { queue: self, names, order }
    }

    /// Listens for the turn of this process.
    pub(super) fn turn(&self, names: &KeyNames) -> Option<Watch> {
        let mut places = self.0.lock();
        let place = places.get_mut(names)?;
        let (sender, watch) = Watch::new(|| {});
        if std::mem::take(&mut place.is_called) {
            // It has just been made, and is not full.
            let _ = sender.send(Hint::Released);
        }
        place.turn = Some(sender);
        Some(watch)
    }

    /// A node has called this process: the lock of this name is free, and the process is next. Without a name, a call may
    /// have been lost. One node alone says little: a majority gives the key.
    pub(super) fn call(&self, node: usize, lock: Option<&str>, needed: usize) {
        let mut places = self.0.lock();
        let count = |place: &mut Place| {
            place.called_by |= 1 << node;
            if place.called_by.count_ones() as usize >= needed {
                place.called_by = 0;
                // A listener that is gone will try before it listens again.
                place.is_called = place.turn.as_ref().is_none_or(|sender| sender.is_gone());
                if let Some(sender) = &place.turn {
                    let _ = sender.send(Hint::Released);
                }
            }
        };
        match lock {
            Some(lock) => places.get_mut(lock).into_iter().for_each(count),
            None => places.values_mut().for_each(count),
        }
    }

    /// The process was granted: its place has ended.
    pub(super) fn forget(&self, names: &KeyNames) {
        self.0.lock().remove(names);
    }

    /// The store has stopped: every listener gets to its end.
    pub(super) fn end(&self) {
        self.0.lock().clear();
    }

    /// Gives the place up, unless this process still tries or listens. Whether it did.
    pub(super) fn give_up(&self, names: &KeyNames) -> bool {
        let mut places = self.0.lock();
        if places.get(names).is_none_or(Place::is_wanted) {
            return false;
        }
        places.remove(names).is_some()
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
        assert_eq!(queue.attempt(&k, at(0), || 7).order, 7);
        assert_eq!(queue.attempt(&k, at(1_000), || 8).order, 7);
        assert_eq!(queue.attempt(&k, at(2_500), || 9).order, 7, "it is kept from try to try");
        assert_eq!(queue.attempt(&k, at(4_001), || 10).order, 10, "the nodes have forgotten it");
        queue.forget(&k);
        assert_eq!(queue.attempt(&k, at(4_001), || 11).order, 11);
        for key in 0..100_000 {
            drop(queue.attempt(&names(&format!("{key}")), at(10_000 + 10 * key), || key));
        }
        assert!(queue.0.lock().len() < 4_096, "{}", queue.0.lock().len());
    }

    #[test]
    fn it_is_this_processs_turn_when_a_majority_says_so_whenever_somebody_listens() {
        let (queue, k) = (Queue::default(), names("k"));
        let hint = |watch: &mut Watch| futures_util::FutureExt::now_or_never(watch.next()).flatten();
        assert!(queue.turn(&k).is_none(), "there was no attempt");
        drop(queue.attempt(&k, at(0), || 7));
        let mut turn = queue.turn(&k).unwrap();
        for node in [0, 1, 1, 1] {
            queue.call(node, Some("lock:k"), 3);
        }
        assert_eq!(hint(&mut turn), None, "one that says it often is one");
        queue.call(4, Some("lock:k"), 3);
        assert_eq!(hint(&mut turn), Some(Hint::Released));
        assert_eq!(hint(&mut turn), None, "once");
        drop(turn);
        drop(queue.attempt(&k, at(1), || 7));
        (0..3).for_each(|node| queue.call(node, None, 3));
        assert_eq!(hint(&mut queue.turn(&k).unwrap()), Some(Hint::Released), "before anybody listened");
        queue.call(0, Some("lock:other"), 1);
    }
}
