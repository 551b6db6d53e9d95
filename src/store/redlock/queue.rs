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
use crate::store::redis::names::Names;
use crate::store::redis::script::Parts;

/// How long a place lasts without another try: so long a dead process holds the others up.
pub(super) const TICKET: Duration = Duration::from_millis(1500);
/// A process that waits tries again after so long at most, to keep its place.
pub(super) const RENEWAL: Duration = Duration::from_millis(500);
/// From so many on, places that nobody has asked for lately are looked for and forgotten.
const MANY: usize = 1024;

/// Since when this process waits for keys, in microseconds of the nodes' clocks.
#[derive(Default)]
pub(super) struct Queue(Mutex<HashMap<Names, Place>>);

struct Place {
    order: u64,
    last_try: Moment,
}

impl Place {
    /// The nodes have forgotten it, or will have when the next try comes.
    fn is_over(&self, now: Moment) -> bool {
        now.saturating_since(self.last_try) > TICKET
    }
}

impl Queue {
    /// The place of a try that waits: the one that the process has already, or a new one.
    pub(super) fn order(&self, names: &Names, now: Moment, micros: impl FnOnce() -> u64) -> u64 {
        let places = &mut *self.0.lock();
        if let Some(place) = places.get_mut(names).filter(|place| !place.is_over(now)) {
            place.last_try = now;
            return place.order;
        }
        if places.len() >= MANY && places.len() == places.capacity() {
            places.retain(|_, place| !place.is_over(now));
        }
        let order = micros().max(1);
        places.insert(names.clone(), Place { order, last_try: now });
        order
    }

    /// The place is used up, or given up.
    pub(super) fn forget(&self, names: &Names) {
        self.0.lock().remove(names);
    }

    /// Gives the place up: here at once, and on the nodes when they can be told. Where they cannot, it runs out.
    pub(super) fn leave(inner: &Arc<Inner>, names: Names) {
        inner.queue.forget(&names);
        let names = Arc::new(names);
        for node in inner.nodes.iter().filter(|node| node.failure().is_none()) {
            let (inner, node, names) = (Arc::clone(inner), Arc::clone(node), Arc::clone(&names));
            let process = Arc::clone(&inner.config.process);
            Arc::clone(&inner).spawn(async move {
                let leaving = call(&node.redis, &names, &LEAVE, inner.now(), (), |_| {
                    Parts::of([names.lock(), names.queue()]).arg(&process).arg(names.wake())
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

    #[test]
    fn a_place_is_kept_while_its_process_tries_and_is_forgotten_afterwards() {
        let names = |key: &str| Names::new(&KeyTemplate::default(), &Key::new(key).unwrap()).unwrap();
        let at = |ms| Moment::ZERO.saturating_add(Duration::from_millis(ms));
        let queue = Queue::default();
        assert_eq!(queue.order(&names("k"), at(0), || 7), 7);
        assert_eq!(queue.order(&names("k"), at(1_000), || 8), 7);
        assert_eq!(queue.order(&names("k"), at(2_500), || 9), 7, "it is kept from try to try");
        assert_eq!(queue.order(&names("k"), at(4_001), || 10), 10, "the nodes have forgotten it");
        queue.forget(&names("k"));
        assert_eq!(queue.order(&names("k"), at(4_001), || 11), 11);
        for key in 0..100_000 {
            queue.order(&names(&format!("{key}")), at(10_000 + 10 * key), || key);
        }
        assert!(queue.0.lock().len() < 4_096, "{}", queue.0.lock().len());
    }
}
