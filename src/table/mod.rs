//! Who is next here? A pure, synchronous state machine: the keys of one shard, their holders, queues and deadlines.
//!
//! It reads no clock, does no I/O and spawns nothing: `now` and the tokens that a store is given are arguments, and what
//! must happen next comes back as [`Effects`], to be run after the shard's mutex is dropped. Transitions check first
//! and write last, so that a refused one has changed nothing.
//!
//! Called by the shard alone: `acquire` (who gets a key at once), `idempotency` (a token that is named again), `minted` (tokens
//! that nobody chose), `queue` (who waits), `shares` (who joins others that share a key), `handoff` (to whom a key passes on),
//! `hold` (what a holder does), `auto_refresh`, `release` (how a grant ends),
//! `tick` (what time brings), `claim` and `confirm` (the seam to the store), `reclaim` (who had it before a restart), `view`
//! and `reading` (what can be seen). Sessions are `owner` and `owner_index`, lock kinds `group`, events `events`.
//!
//! # Rules
//!
//! What holds of a table after every step. `tests::invariants` checks it as far as one step shows it; that things go
//! in the right order, and answers are true, is for `tests::model` to show.
//!
//! | rule | what holds of keys, holders and waiters |
//! |---|---|
//! | T1 | A key has at most one exclusive holder, or any number of shared ones, or permits up to its limit. A holder past its deadline counts for nothing: whoever comes next ends it first. |
//! | T2 | A key's waiters are granted in the order in which they queued, and no request passes them but the holder's own. Pollers do not wait: they pass nobody, and may starve. |
//! | T3 | A waiter is queued, or granted and not yet seen, or refused, and in no two of these. When the last request that shares it leaves, nothing of it stays, and a grant made to it goes on to the next waiter. A grant that ended before it was seen is answered as lost. |
//! | T4 | Every grant has a fence above all earlier ones of its key, also those before an idle time or a restart. Fences count by shard, from the wall clock's microseconds: no more than a million grants a second and shard on average, and a clock that is not set back across a restart, are assumed. |
//! | T5 | Only the grant that holds a key can refresh or release it. A stale one changes nothing, and the answer says so. |
//! | T6 | A refresh creates nothing, revives nothing, shortens nothing. |
//! | T7 | A key that nobody holds, waits for, watches or has claimed is not in the table, and nothing else of it is. Nothing live is evicted. |
//! | T8 | The counters balance: grants are those ended plus those held, queued are those that left plus those that wait, attempts are the sum of their outcomes. So for the shard, and for each key that counts for itself. |
//! | T9 | Everything that grows has a bound with a name, and an error that names it. |
//! | T10 | A grant has one guard in a process; one whose token travels without a guard is watched like a lock that another process holds. |
//! | T11 | A client may choose its token and so ask twice. The same token with the same terms joins the waiter that it queued, or is answered with the grant that it holds, nothing dated anew; with other terms it is refused, and once its grant has ended it is answered as lost. |
//! | T12 | How the last tokens ended is remembered in a ring of fixed size, best effort: a request with a token that is still in it is answered with how it ended; with one that is not, with no more than that it does not hold the key. |
//!
//! | rule | what holds of time |
//! |---|---|
//! | C1 | Time is one clock that counts through suspend. Deadlines are compared when they are used, not when a timer fires, and the table's time never goes back: a thread that read the clock early and came late revives nothing. |
//! | C2 | Where an earlier deadline or a longer wait is harmless, a coarse reading of the clock will do. A refresh, and the question whether a lock is held, take the exact one. |
//! | C3 | Spans are checked where they come in: nothing that is zero, negative, not a number or too large gets further, and no sum of times wraps. |

mod acquire;
mod auto_refresh;
mod blockers;
mod claim;
mod confirm;
mod counters;
mod downgrade;
mod effects;
mod events;
mod group;
mod handoff;
#[cfg(feature = "metrics")]
mod histogram;
mod history;
mod hold;
mod holder;
mod hot_keys;
mod idempotency;
mod index;
mod minted;
mod owner;
mod owner_index;
mod permits_wanted;
mod queue;
#[cfg(feature = "metrics")]
mod queue_depth;
#[cfg(feature = "metrics")]
mod reading;
#[cfg(feature = "http")]
mod reclaim;
mod refresh_order;
mod release;
mod request;
mod shares;
mod slab;
mod slot;
pub(crate) mod steps;
#[cfg(test)]
mod tests;
mod tick;
mod timer_wheel;
mod unfiled;
#[cfg(not(feature = "metrics"))]
mod untallied;
mod upgrade;
mod view;
mod wants;

use hashbrown::HashMap;

pub(crate) use acquire::{Grant, NotFree};
pub(crate) use auto_refresh::AutoRefreshStart;
pub(crate) use blockers::{Blocker, QueuePosition};
pub(crate) use claim::{
    AtFirst, Attempts, Claim, ClaimEnd, ClaimFilter, ClaimOutcome, ClaimRequest, ClaimSource, LocalWaiters,
    ReleaseCommand, StoreCommand, StoreCommands, StoreGrant, Told,
};
pub(crate) use counters::Counters;
pub(crate) use downgrade::Downgrade;
pub(crate) use effects::Effects;
pub use events::{Event, EventKind};
pub(crate) use events::{Interest, Sink};
#[cfg(feature = "metrics")]
pub(crate) use histogram::{HOLD_BUCKETS, OUTCOMES, Samples, Tally, WAIT_BUCKETS};
pub(crate) use history::{End, EndRecord};
pub use hold::Release;
pub(crate) use holder::{GrantState, TokenOrigin};
pub(crate) use owner::{Owner, OwnerId, OwnerKind, OwnerSet, check_owner};
pub(crate) use queue::{Offered, PassedOn, WaiterId};
#[cfg(feature = "metrics")]
pub(crate) use reading::{Oldest, Reading};
pub(crate) use refresh_order::AutoRefreshId;
pub(crate) use release::HoldersCursor;
pub(crate) use request::{AcquireOutcome, AcquireRequest, RefreshRequest, Refreshed, WaitPolicy, WaiterPoll};
pub(crate) use slab::Slab;
pub(crate) use slot::{ExtraTerms, Leaves, Reentry, Scope, Terms, Watcher};
pub(crate) use tick::Slice;
pub(crate) use timer_wheel::{Links, Step, Timed, Wheel};
#[cfg(not(feature = "metrics"))]
pub(crate) use untallied::Tally;
pub(crate) use upgrade::{UpgradeOutcome, UpgradeSeat};
pub(crate) use view::{Awaiting, Candidate, Row};
pub use view::{HolderInfo, WaiterInfo};
pub(crate) use wants::{HeldPart, InTheWay, Want};

pub(crate) use crate::mode::Mode;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::claim_reuse::ClaimReuse;
use crate::clock::Moment;
use crate::key::{FencingToken, Key, Token};
use claim::IdleKeys;
use events::Subscriptions;
use history::History;
use hot_keys::HotKeys;
use index::{KeyIndex, find_from};
use minted::Minter;
use owner_index::OwnerIndex;
use queue::Waiter;
use slot::Slot;
use unfiled::Unfiled;

/// The bounds of one shard (T9).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) keys: usize,
    /// Holders beside the first of each key. Waiters are let in beyond it.
    pub(crate) members: usize,
    pub(crate) waiters: usize,
    pub(crate) waiters_per_key: usize,
}

/// Requests that may share one waiter by naming its token (T9).
const MAX_SEATS: u32 = 16;
/// Waiters that one step lets in or sends away, as long as somebody holds the key; the next step goes on.
const HAND_OFFS: usize = if cfg!(test) { 2 } else { 32 };
/// Holders of one key that one step ends or looks at.
const HOLDERS_AT_ONCE: usize = 64;
/// Chunks of a slab that one step looks through for what can be given back.
const CHUNKS_AT_ONCE: usize = 8;
/// Ended tokens that a shard remembers (T9).
const ENDED_TOKENS: u16 = 1024;

/// In the order in which the lane comes to it: what that needs lies in a few lines of the cache, of each of the shards
/// that a thread goes through in turn.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Table {
    /// Whether the table is closed, has listeners, or has a store to ask. `grant_if_free` and `release_if_alone` then
    /// leave every request to the full functions. Set by `new`, `listen`, `stop_listening` and `close`. If it were false
    /// when it should not be, the fast path would grant after a shutdown, publish no event, or not ask the store.
    slow_path: bool,
    /// Set by `close`: nothing is granted any more.
    closed: bool,
    /// The latest moment seen; time here never goes back (C1).
    now: Moment,
    /// The last fence handed out; counts per shard, so that idle keys cost nothing (T4).
    fence: FencingToken,
    limits: Limits,
    slots: Slab<Slot>,
    /// From a key's hash to its slot.
    index: KeyIndex,
    unfiled: Unfiled,
    /// Waiters.
    unfiled_waits: Unfiled,
    history: History,
    counters: Counters,
    tally: Tally,
    waiters: Slab<Waiter>,
    /// Waiters whose client chose their token, by that and the slot of their key: a client may name one token for
    /// several keys.
    chosen: HashMap<(Token, u32), u32, foldhash::fast::RandomState>,
    expiries: Wheel,
    timeouts: Wheel,
    refreshes: Wheel,
    last_order: AutoRefreshId,
    /// By owner: what it holds and waits for here.
    owner_index: HashMap<OwnerId, OwnerIndex, foldhash::fast::RandomState>,
    subscriptions: Subscriptions,
    claim: Claim,
    /// Raised when the store may have forgotten every claim: one that it was asked for before is not reused (K6). If it
    /// were not compared, a claim that goes from key to key while the table is looked through in slices would be.
    claims_epoch: u32,
    /// Keys of the store between two grants; only where claims are reused.
    idle_keys: Option<Box<IdleKeys>>,
    waiter_seq: u64,
    upgrade_seq: u64,
    waiting: usize,
    /// Slots of keys with waiters still to be let in. One may be named twice, or be another key's by now; going on with
    /// a hand-off that is finished changes nothing.
    handing_off: VecDeque<u32>,
    /// How many slots have a holder in the state `Claiming`, which is no grant yet. Raised by `start_claim`, lowered by
    /// `claimed` and `end_claim`. If it were wrong, `held` would miscount the grants (T8).
    claiming: usize,
    /// How many key slots have neither holder nor members, and are there for the requests that shares of them are being
    /// taken for. Raised by `start_join` and when the last of a group ends, lowered by `take_join` and `place_holder`. If it
    /// were wrong, `held` would miscount the grants (T8).
    bare: usize,
    /// How many key slots have no holder of their own, though members hold the key. Raised when the first holder of a
    /// group ends before its members, lowered when a new holder takes that slot or the last member ends. If it were
    /// wrong, `held` would miscount the grants (T8).
    headless: usize,
    hot_keys: HotKeys,
    minter: Minter,
}

impl Table {
    /// An empty table whose fences start above `fence_floor`: wall-clock microseconds, so that they rise across
    /// restarts as long as a shard grants under 10^6 times a second on average and the wall clock is not set back
    /// over a restart (T4).
    pub(crate) fn new(limits: Limits, claim: Claim, fence_floor: u64, now: Moment) -> Self {
        let slow_path = claim.is_stored();
        Self {
            index: KeyIndex::new(),
            slots: Slab::new(),
            waiters: Slab::new(),
            chosen: HashMap::default(),
            expiries: Wheel::new(now),
            unfiled: Unfiled::default(),
            unfiled_waits: Unfiled::default(),
            timeouts: Wheel::new(now),
            refreshes: Wheel::new(now),
            last_order: AutoRefreshId::default(),
            history: History::new(ENDED_TOKENS),
            owner_index: HashMap::default(),
            subscriptions: Subscriptions::default(),
            idle_keys: (claim.reuse() != ClaimReuse::Off).then(|| Box::new(IdleKeys::new(now))),
            claim,
            claims_epoch: 0,
            limits,
            fence: FencingToken::at_least_one(fence_floor),
            now,
            waiter_seq: 0,
            upgrade_seq: 0,
            waiting: 0,
            handing_off: VecDeque::new(),
            claiming: 0,
            bare: 0,
            headless: 0,
            closed: false,
            slow_path,
            counters: Counters::default(),
            tally: Tally::default(),
            hot_keys: HotKeys::default(),
            minter: Minter::default(),
        }
    }

    /// Takes note of the time: a thread that read the clock early and came late revives nothing (C1).
    fn advance_clock(&mut self, now: Moment) {
        self.now = self.now.max(now);
    }

    #[inline]
    fn find(&self, hash: u32, key: &Key) -> Option<u32> {
        find_from(&self.slots, self.index.first(hash), |index| self.slots[index].is_of(hash, key))
    }

    /// Puts a new slot in the table.
    fn insert_slot(&mut self, slot: Slot) -> u32 {
        let (bucket, chained) = self.index.place(&mut self.slots, slot.hash);
        let index = self.slots.insert(slot.before(chained));
        self.index.put(bucket, index);
        index
    }

    /// Takes a slot out that nobody holds or waits for (T7).
    #[inline(always)]
    fn remove_slot(&mut self, index: u32) {
        let Some(slot) = self.slots.get(index) else { return };
        let (hash, next) = (slot.hash, slot.chained);
        self.index.remove(&mut self.slots, index, (hash, next));
        self.slots.remove(index);
    }

    /// Gives memory back after a spike, a bounded piece at a time; whether there is more to be done.
    pub(crate) fn trim(&mut self) -> bool {
        let trims_idle = |idle: &mut Box<IdleKeys>| idle.trim(CHUNKS_AT_ONCE);
        if self.slots.trim(CHUNKS_AT_ONCE)
            || self.waiters.trim(CHUNKS_AT_ONCE)
            || self.index.trim(&mut self.slots)
            || self.idle_keys.as_mut().is_some_and(trims_idle)
        {
            return true;
        }
        self.unfiled.trim(self.slots.bound());
        self.unfiled_waits.trim(self.waiters.bound());
        // What is moved for it is few, and what was there before was many: O(1) for each that has gone.
        shrink_if_sparse!(self.chosen);
        shrink_if_sparse!(self.owner_index);
        shrink_if_sparse!(self.handing_off);
        false
    }

    /// The slot of the key that the holder in this slot holds.
    fn key_slot(&self, index: u32) -> u32 {
        self.slots[index].member_of().unwrap_or(index)
    }

    /// Counts for the shard and, where the key is contended, for the key.
    fn count(&mut self, index: u32, add: impl Fn(&mut Counters)) {
        add(&mut self.counters);
        if let Some(traffic) = self.slots[index].traffic_mut() {
            add(traffic);
        }
    }

    /// Counts that a request takes up the wait of one that has timed out.
    #[cfg(feature = "http")]
    pub(crate) fn count_continued(&mut self, key: &Key, hash: u32) {
        match self.find(hash, key) {
            Some(index) => self.count(index, |c| c.continued += 1),
            None => self.counters.continued += 1,
        }
    }

    /// The most contended keys and how often each was, in no order.
    pub(crate) fn hot_keys(&mut self, now: Moment) -> &[(Key, u64)] {
        self.advance_clock(now);
        self.hot_keys.counted(self.now)
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// For what the shard itself sees end: bad input, pollers that gave up.
    pub(crate) fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// Counts an attempt for the shard itself, as `counters_mut` does.
    pub(crate) fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// How many grants there are.
    pub(crate) fn held(&self) -> usize {
        // A slot exists for its holder's sake, and a freed one is handed on in the same step; but a key's own slot
        // stays for its members'.
        self.slots.len() - self.headless - self.claiming - self.bare
    }

    /// Opens a subscription: events go to the sink from now on.
    pub(crate) fn listen(&mut self, interest: Interest, sink: Arc<dyn Sink>) {
        self.subscriptions.open(interest, sink);
        self.slow_path = true;
    }

    /// Ends what one `listen` began.
    pub(crate) fn stop_listening(&mut self, interest: Interest) {
        self.subscriptions.close(interest);
        self.slow_path = self.closed || self.subscriptions.are_open() || self.claim.is_stored();
    }

    /// Publishes what happens to the grant in a slot.
    fn publish(&self, index: u32, kind: EventKind, fx: &mut Effects) {
        let slot = &self.slots[index];
        if let Some(sink) = self.subscriptions.sink_of(slot.hash) {
            let event = Event {
                sequence: sink.next(),
                key: slot.key.clone(),
                owner: slot.owner_label().cloned(),
                fencing_token: self.proof_in(index),
                kind,
            };
            fx.publish(sink.clone(), event);
        }
    }

    /// Has the actor wake at the end of a grant, if anybody listens: its event is then published in time.
    fn wake_for_listeners(&self, index: u32, fx: &mut Effects) {
        let slot = &self.slots[index];
        if let (Some(holder), Some(_)) = (&slot.holder, self.subscriptions.sink_of(slot.hash)) {
            fx.due(holder.deadline);
        }
    }

    /// Whether anybody listens.
    pub(crate) fn has_listeners(&self) -> bool {
        self.subscriptions.are_open()
    }

    /// Whether no further key fits, or no further holder beside the first of a key.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full_of_keys() || self.members() >= self.limits.members
    }

    fn is_full_of_keys(&self) -> bool {
        self.index.len() >= self.limits.keys
    }

    /// Holders beside the first of each key: their slots are not in the index.
    pub(crate) fn members(&self) -> usize {
        self.slots.len() - self.index.len()
    }

    /// Bounds those to what there are and `more`.
    pub(crate) fn admit_members(&mut self, more: usize) {
        self.limits.members = self.members().saturating_add(more);
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
