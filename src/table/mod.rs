//! Who is next here? A pure, synchronous state machine: the keys of one shard, their holders, queues and deadlines.
//!
//! It reads no clock, mints no token, does no I/O and spawns nothing: `now` and fresh tokens are arguments, and what
//! must happen next comes back as [`Effects`], to be run after the shard's mutex is dropped. Transitions check first
//! and write last, so that a refused one has changed nothing. The invariants T1 to T9 are listed, and checked, in
//! `invariants`.
//!
//! Called by the shard alone: `acquire` (who gets a key), `hold` (refresh and the ends of a grant), `sweep` (what
//! time brings), `view` (what can be seen).

mod acquire;
mod claim;
mod counters;
mod effects;
mod ended;
mod expiry;
mod hold;
mod hot;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod model;
mod queue;
mod slab;
mod slot;
mod sweep;
mod view;

use hashbrown::{HashMap, HashTable};

pub(crate) use acquire::{Ask, Grant, NotFree, Patience, Seen, TokenChoice, Verdict};
pub(crate) use claim::Claim;
pub(crate) use counters::Counters;
pub(crate) use effects::Effects;
pub(crate) use ended::End;
pub(crate) use expiry::{Links, Step, Timed, Wheel};
pub use hold::Release;
pub(crate) use hold::{RefreshAsk, Refreshed};
pub(crate) use queue::WaiterId;
pub(crate) use slab::Slab;
pub(crate) use slot::{ExtraTerms, Keeper, Terms, Watcher};
pub(crate) use sweep::Slice;
pub(crate) use view::Row;

use crate::clock::Moment;
use crate::key::{FencingToken, Key, Token};
use ended::EndedRing;
use hot::HotKeys;
use queue::Waiter;
use slot::Slot;

/// The bounds of one shard (T9).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) keys: usize,
    pub(crate) waiters: usize,
    pub(crate) waiters_per_key: usize,
}

/// Requests that may share one waiter by naming its token (T9).
const MAX_SEATS: u32 = 16;
/// Ended tokens that a shard remembers (T9).
const ENDED_TOKENS: usize = 1024;

#[derive(Debug)]
pub(crate) struct Table {
    /// From a key's hash to its slot.
    index: HashTable<u32>,
    slots: Slab<Slot>,
    waiters: Slab<Waiter>,
    /// Waiters whose client chose their token.
    chosen: HashMap<Token, u32, foldhash::fast::RandomState>,
    expiries: Wheel,
    timeouts: Wheel,
    refreshes: Wheel,
    ended: EndedRing,
    claim: Claim,
    limits: Limits,
    /// The last fence handed out; counts per shard, so that idle keys cost nothing (T4).
    fence: FencingToken,
    /// The latest moment seen; time here never goes back (C1).
    now: Moment,
    waiter_seq: u64,
    waiting: usize,
    /// Set by `close`: nothing is granted any more.
    closed: bool,
    counters: Counters,
    hot: HotKeys,
}

impl Table {
    /// An empty table whose fences start above `fence_floor`: wall-clock microseconds, so that they rise across
    /// restarts as long as a shard grants under 10^6 times a second on average and the wall clock is not set back
    /// over a restart (T4).
    pub(crate) fn new(limits: Limits, claim: Claim, fence_floor: u64, now: Moment) -> Self {
        Self {
            index: HashTable::new(),
            slots: Slab::new(),
            waiters: Slab::new(),
            chosen: HashMap::default(),
            expiries: Wheel::new(now),
            timeouts: Wheel::new(now),
            refreshes: Wheel::new(now),
            ended: EndedRing::new(ENDED_TOKENS),
            claim,
            limits,
            fence: FencingToken::at_least_one(fence_floor),
            now,
            waiter_seq: 0,
            waiting: 0,
            closed: false,
            counters: Counters::default(),
            hot: HotKeys::default(),
        }
    }

    /// Takes note of the time: a thread that read the clock early and came late revives nothing (C1).
    fn see(&mut self, now: Moment) {
        self.now = self.now.max(now);
    }

    #[inline]
    fn find(&self, hash: u32, key: &Key) -> Option<u32> {
        let slots = &self.slots;
        self.index
            .find(spread(hash), |&index| {
                let slot = &slots[index];
                slot.hash == hash && slot.key == *key
            })
            .copied()
    }

    /// Puts a new slot in the table.
    fn insert_slot(&mut self, slot: Slot) -> u32 {
        let hash = spread(slot.hash);
        let index = self.slots.insert(slot);
        let slots = &self.slots;
        self.index.insert_unique(hash, index, |&other| spread(slots[other].hash));
        index
    }

    /// Takes a slot out that nobody holds or waits for (T7).
    #[inline]
    fn remove_slot(&mut self, index: u32) {
        if let Ok(entry) = self.index.find_entry(spread(self.slots[index].hash), |&other| other == index) {
            entry.remove();
        }
        self.slots.remove(index);
    }

    /// Counts for the shard and, where the key is contended, for the key.
    fn count(&mut self, index: u32, add: impl Fn(&mut Counters)) {
        add(&mut self.counters);
        if let Some(traffic) = self.slots[index].extras.as_mut().and_then(|extras| extras.traffic.as_mut()) {
            add(traffic);
        }
    }

    /// Starts the key's own counters, with the grant that is there.
    fn mark_contended(&mut self, index: u32) {
        let slot = &mut self.slots[index];
        let held = u64::from(slot.holder.is_some());
        slot.extras_mut()
            .traffic
            .get_or_insert_with(|| Box::new(Counters { attempts: held, grants: held, ..Counters::default() }));
    }

    /// The most contended keys and how often each was, in no order.
    pub(crate) fn hot_keys(&self) -> &[(Key, u64)] {
        self.hot.counted()
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For what the shard itself sees end: bad input, pollers that gave up.
    pub(crate) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    pub(crate) fn held(&self) -> usize {
        // In memory mode a slot exists for its holder's sake, and a freed one is handed on in the same step.
        self.slots.len()
    }

    /// Whether no further key fits.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.len() >= self.limits.keys
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bounds the waiters to those that are there and `more`.
    pub(crate) fn admit(&mut self, more: usize) {
        self.limits.waiters = self.waiting.saturating_add(more);
    }
}

/// Makes the 64 bits that the index wants of the 32 that a slot keeps; it takes its tag from the highest ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
