//! What can be seen of the table from outside; never a token.

use std::sync::Arc;
use std::time::Duration;

use super::{Counters, Grant, Table};
use crate::clock::Moment;
use crate::key::{FencingToken, Key};

/// One held key.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: Key,
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) fence: FencingToken,
    pub(crate) age: Duration,
    pub(crate) remaining: Duration,
    pub(crate) ttl: Duration,
    pub(crate) refreshes: u32,
    pub(crate) waiting: u32,
    pub(crate) contended: Option<Counters>,
    /// Owner and wait of the first waiters, in order.
    pub(crate) queue: Vec<(Option<Arc<str>>, Duration)>,
}

impl Table {
    /// The lock on a key, with the first `queue_limit` of its waiters, unless its deadline has passed.
    pub(crate) fn look(&self, key: &Key, hash: u32, now: Moment, queue_limit: usize) -> Option<Row> {
        self.row(self.find(hash, key)?, now.max(self.now), queue_limit)
    }

    /// Up to `budget` slots from `cursor` on; answers where to go on, or `None` at the end.
    pub(crate) fn scan(
        &self,
        cursor: u32,
        budget: u32,
        prefix: &str,
        now: Moment,
        mut found: impl FnMut(Row),
    ) -> Option<u32> {
        let end = self.slots.bound().min(cursor.saturating_add(budget));
        for index in cursor..end {
            if self.slots.get(index).is_some_and(|slot| slot.key.as_bytes().starts_with(prefix.as_bytes()))
                && let Some(row) = self.row(index, now.max(self.now), 0)
            {
                found(row);
            }
        }
        (end < self.slots.bound()).then_some(end)
    }

    /// Whether a grant still holds its key, and until when.
    pub(crate) fn held_until(&self, grant: &Grant, now: Moment) -> Option<Moment> {
        self.deadline_of(grant).filter(|deadline| *deadline > now.max(self.now))
    }

    fn row(&self, index: u32, now: Moment, queue_limit: usize) -> Option<Row> {
        let slot = &self.slots[index];
        let holder = slot.holder.as_ref().filter(|holder| holder.deadline > now)?;
        Some(Row {
            key: slot.key.clone(),
            owner: slot.owner().cloned(),
            fence: holder.fence,
            age: now.saturating_since(holder.granted_at),
            remaining: holder.deadline.saturating_since(now),
            ttl: holder.ttl.as_duration(),
            refreshes: holder.refreshes,
            waiting: slot.queue.len,
            contended: slot.extras.as_ref().and_then(|extras| extras.traffic.as_deref()).copied(),
            queue: slot
                .queue
                .iter(&self.waiters)
                .take(queue_limit)
                .map(|(_, waiter)| (waiter.terms.owner().cloned(), now.saturating_since(waiter.queued_at)))
                .collect(),
        })
    }
}
