//! When is what due: a hierarchical timing wheel (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987).
//!
//! Insert and remove are O(1) and touch only the neighbours in one bucket; entries live where their owner keeps them
//! ([`Timed`]), the wheel links them. A tick is 1 ms, and deadlines round up to one: an entry is never handed out
//! early, at most a tick late, and whoever uses a deadline compares it itself (C1). One whose deadline moves on may stay
//! where it is: it comes up at the earlier one, and is filed anew then.
//!
//! Work comes in single steps ([`Wheel::step`]), so that a tick can stop after any of them: a bucket of a million
//! entries is opened entry by entry, never at one go. For what somebody waits for there is a second set of buckets,
//! with steps of its own ([`Wheel::urgent_step`]): it is not behind the million.

use super::slab::NIL;
use crate::clock::Moment;

const TICK_NANOS: u64 = 1_000_000;
const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
/// The two sets of buckets; the levels of the second come after those of the first.
const PLAIN: usize = 0;
const URGENT: usize = 1;
const SETS: usize = 2;
/// The furthest an entry is filed ahead: one top-level slot short of a whole turn, about two years.
const HORIZON: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - (1 << (SLOT_BITS * (LEVELS as u32 - 1)));
const UNFILED: u16 = u16::MAX;

/// The links of one entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    prev: u32,
    next: u32,
    /// Level (those of the second set counted on) and slot, or `UNFILED`.
    bucket: u16,
}

impl Links {
    pub(crate) const NEW: Self = Self { prev: NIL, next: NIL, bucket: UNFILED };

    /// Whether the entry is filed, and not among the urgent ones.
    pub(crate) fn is_plain(self) -> bool {
        usize::from(self.bucket) < LEVELS << SLOT_BITS
    }

    pub(crate) fn is_filed(self) -> bool {
        self.bucket != UNFILED
    }

    pub(crate) fn is_urgent(self) -> bool {
        self.is_filed() && !self.is_plain()
    }
}

/// Where the entries live.
pub(crate) trait Timed {
    /// When an entry is due, and its links: found once for both.
    fn timed(&mut self, id: u32) -> (Moment, &mut Links);

    fn links_mut(&mut self, id: u32) -> &mut Links {
        self.timed(id).1
    }
}

/// What one step of a wheel did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This entry is due; it is no longer in the wheel.
    Due(u32),
    /// One entry moved closer to its time.
    Moved,
    /// Nothing is due yet.
    Idle,
}

#[derive(Debug)]
pub(crate) struct Wheel {
    /// Of each set, the tick up to which everything due was handed out.
    elapsed: [u64; SETS],
    occupied: [u64; SETS * LEVELS],
    heads: Box<[[u32; SLOTS]; SETS * LEVELS]>,
    /// Of each set, a bucket above level 0 that is being emptied into the levels below. It is finished before anything
    /// else of its set is looked at, since it may hold entries that come before theirs.
    opening: [Option<(usize, usize)>; SETS],
}

impl Wheel {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            elapsed: [now.as_nanos() / TICK_NANOS; SETS],
            occupied: [0; SETS * LEVELS],
            heads: Box::new([[NIL; SLOTS]; SETS * LEVELS]),
            opening: [None; SETS],
        }
    }

    /// Files an entry under its deadline. It must not be filed already.
    #[inline]
    pub(crate) fn insert(&mut self, nodes: &mut impl Timed, id: u32) {
        self.file::<PLAIN>(nodes, id);
    }

    /// The same for one that somebody waits for.
    pub(crate) fn insert_urgent(&mut self, nodes: &mut impl Timed, id: u32) {
        self.file::<URGENT>(nodes, id);
    }

    #[inline(always)]
    fn file<const SET: usize>(&mut self, nodes: &mut impl Timed, id: u32) {
        let (due, links) = nodes.timed(id);
        let tick = due.as_nanos().saturating_add(TICK_NANOS - 1) / TICK_NANOS;
        let (level, slot) = self.place::<SET>(tick.max(self.elapsed[SET]).min(self.elapsed[SET] + HORIZON));
        let head = self.heads[level][slot];
        *links = Links { prev: NIL, next: head, bucket: (level << SLOT_BITS | slot) as u16 };
        if head != NIL {
            nodes.links_mut(head).prev = id;
        }
        self.heads[level][slot] = id;
        self.occupied[level] |= 1 << slot;
    }

    /// Takes an entry out, if it is filed.
    #[inline]
    pub(crate) fn remove(&mut self, nodes: &mut impl Timed, id: u32) {
        let Links { prev, next, bucket } = std::mem::replace(nodes.links_mut(id), Links::NEW);
        if bucket == UNFILED {
            return;
        }
        let (level, slot) = (usize::from(bucket) >> SLOT_BITS, usize::from(bucket) % SLOTS);
        if next != NIL {
            nodes.links_mut(next).prev = prev;
        }
        if prev != NIL {
            nodes.links_mut(prev).next = next;
            return;
        }
        self.heads[level][slot] = next;
        if next == NIL {
            self.occupied[level] &= !(1 << slot);
            let opening = &mut self.opening[level / LEVELS];
            if *opening == Some((level, slot)) {
                *opening = None;
            }
        }
    }

    /// Files an entry anew after its deadline moved, among those among which it was.
    pub(crate) fn update(&mut self, nodes: &mut impl Timed, id: u32) {
        let is_urgent = nodes.links_mut(id).is_urgent();
        self.remove(nodes, id);
        if is_urgent { self.insert_urgent(nodes, id) } else { self.insert(nodes, id) }
    }

    /// Does one O(1) piece of what is due by `now`, of all that is not urgent.
    pub(crate) fn step(&mut self, nodes: &mut impl Timed, now: Moment) -> Step {
        self.step_of::<PLAIN>(nodes, now)
    }

    /// The same of what is urgent.
    pub(crate) fn urgent_step(&mut self, nodes: &mut impl Timed, now: Moment) -> Step {
        self.step_of::<URGENT>(nodes, now)
    }

    fn step_of<const SET: usize>(&mut self, nodes: &mut impl Timed, now: Moment) -> Step {
        let now_tick = now.as_nanos() / TICK_NANOS;
        let (level, slot) = match self.opening[SET] {
            Some(bucket) => bucket,
            None => match self.first_bucket::<SET>() {
                Some((level, slot, start)) if start <= now_tick => {
                    self.elapsed[SET] = self.elapsed[SET].max(start);
                    if level > SET * LEVELS {
                        self.opening[SET] = Some((level, slot));
                    }
                    (level, slot)
                }
                _ => {
                    self.elapsed[SET] = self.elapsed[SET].max(now_tick);
                    return Step::Idle;
                }
            },
        };
        let id = self.heads[level][slot];
        self.remove(nodes, id);
        if level == SET * LEVELS && nodes.timed(id).0 <= now {
            return Step::Due(id);
        }
        self.file::<SET>(nodes, id);
        Step::Moved
    }

    /// No entry is due before this moment. `None` if there is no entry.
    pub(crate) fn next(&self) -> Option<Moment> {
        if self.opening.iter().any(Option::is_some) {
            // A bucket that is half emptied may hold entries that are due now.
            return Some(Moment::ZERO);
        }
        let first = [self.first_bucket::<PLAIN>(), self.first_bucket::<URGENT>()];
        let start = first.into_iter().flatten().map(|(_, _, start)| start).min()?;
        Some(Moment::from_nanos(start.saturating_mul(TICK_NANOS)))
    }

    fn place<const SET: usize>(&self, tick: u64) -> (usize, usize) {
        let differs = (self.elapsed[SET] ^ tick) | SLOT_MASK;
        let level = ((63 - differs.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
        (SET * LEVELS + level as usize, (tick >> (level * SLOT_BITS) & SLOT_MASK) as usize)
    }

    /// The earliest bucket of a set and the tick at which it begins. Entries of a lower level come before those of a
    /// higher.
    fn first_bucket<const SET: usize>(&self) -> Option<(usize, usize, u64)> {
        let occupied = &self.occupied[SET * LEVELS..(SET + 1) * LEVELS];
        let level = occupied.iter().position(|&bits| bits != 0)?;
        let (shift, elapsed) = (level as u32 * SLOT_BITS, self.elapsed[SET]);
        let current = elapsed >> shift & SLOT_MASK;
        let ahead = occupied[level].rotate_right(current as u32).trailing_zeros();
        let slot = (current + u64::from(ahead)) & SLOT_MASK;
        let start = ((elapsed >> shift) + u64::from(ahead)) << shift;
        Some((SET * LEVELS + level, slot as usize, start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::table::slab::Slab;

    impl Wheel {
        /// Every entry, having checked that the wheel and the entries' links agree.
        pub(crate) fn filed(&self, links: impl Fn(u32) -> Links) -> Vec<u32> {
            let mut filed = Vec::new();
            for (level, heads) in self.heads.iter().enumerate() {
                for (slot, &head) in heads.iter().enumerate() {
                    assert_eq!(self.occupied[level] >> slot & 1 == 1, head != NIL, "the bits show the full buckets");
                    let (mut id, mut prev) = (head, NIL);
                    while id != NIL {
                        let found = links(id);
                        assert_eq!(found.prev, prev, "buckets are linked both ways");
                        assert_eq!(usize::from(found.bucket), level << SLOT_BITS | slot, "an entry knows its bucket");
                        filed.push(id);
                        (prev, id) = (id, found.next);
                    }
                }
            }
            for (level, slot) in self.opening.into_iter().flatten() {
                assert_ne!(self.heads[level][slot], NIL, "a bucket that is open is not empty");
            }
            filed
        }
    }

    struct Node {
        due: Moment,
        links: Links,
    }

    impl Timed for Slab<Node> {
        fn timed(&mut self, id: u32) -> (Moment, &mut Links) {
            let node = &mut self[id];
            (node.due, &mut node.links)
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, bool),
        Remove(usize),
        Move(usize, u64),
        /// Later than it was, and left where it is.
        Delay(usize, u64),
        Advance(u64, usize),
    }

    fn span() -> impl Strategy<Value = u64> {
        // Every level of the wheel, its edges, and beyond its horizon.
        (0_u32..63, 0_u64..1_000).prop_map(|(bits, jitter)| (1_u64 << bits).saturating_add(jitter << 18))
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (span(), any::<bool>()).prop_map(|(span, urgent)| Op::Insert(span, urgent)),
            1 => any::<usize>().prop_map(Op::Remove),
            1 => (any::<usize>(), span()).prop_map(|(at, span)| Op::Move(at, span)),
            1 => (any::<usize>(), span()).prop_map(|(at, span)| Op::Delay(at, span)),
            2 => (0_u32..52, 1_usize..20).prop_map(|(bits, steps)| Op::Advance(1 << bits, steps)),
        ]
    }

    proptest! {
        #[test]
        fn entries_come_out_once_never_early_and_never_a_tick_late(ops in prop::collection::vec(op(), 1..80)) {
            let mut nodes = Slab::new();
            let mut now = 1_u64 << 40;
            let mut wheel = Wheel::new(Moment::from_nanos(now));
            let mut filed: Vec<u32> = Vec::new();
            for op in ops {
                match op {
                    Op::Insert(span, urgent) => {
                        let due = Moment::from_nanos(now.saturating_add(span));
                        let id = nodes.insert(Node { due, links: Links::NEW });
                        if urgent { wheel.insert_urgent(&mut nodes, id) } else { wheel.insert(&mut nodes, id) }
                        prop_assert_eq!(nodes[id].links.is_urgent(), urgent);
                        filed.push(id);
                    }
                    Op::Remove(at) if !filed.is_empty() => {
                        let id = filed.swap_remove(at % filed.len());
                        wheel.remove(&mut nodes, id);
                        nodes.remove(id);
                    }
                    Op::Move(at, span) if !filed.is_empty() => {
                        let id = filed[at % filed.len()];
                        nodes[id].due = Moment::from_nanos(now.saturating_add(span));
                        wheel.update(&mut nodes, id);
                    }
                    Op::Delay(at, span) if !filed.is_empty() => {
                        let due = &mut nodes[filed[at % filed.len()]].due;
                        *due = due.saturating_add(std::time::Duration::from_nanos(span));
                    }
                    Op::Advance(span, steps) => {
                        now = now.saturating_add(span).min(1 << 60);
                        let mut idle = false;
                        for _ in 0..steps {
                            let now_at = Moment::from_nanos(now);
                            let step = match wheel.urgent_step(&mut nodes, now_at) {
                                Step::Idle => wheel.step(&mut nodes, now_at),
                                urgent => urgent,
                            };
                            match step {
                                Step::Due(id) => {
                                    prop_assert!(nodes[id].due.as_nanos() <= now, "early");
                                    filed.retain(|other| *other != id);
                                    nodes.remove(id);
                                }
                                Step::Moved => {}
                                Step::Idle => { idle = true; break; }
                            }
                        }
                        if idle {
                            for id in &filed {
                                let due_tick = nodes[*id].due.as_nanos().div_ceil(TICK_NANOS);
                                prop_assert!(due_tick > now / TICK_NANOS, "late");
                            }
                        }
                    }
                    _ => {}
                }
                let head = filed.iter().map(|id| nodes[*id].due).min();
                match (wheel.next(), head) {
                    (Some(next), Some(head)) => prop_assert!(
                        next.as_nanos() <= head.as_nanos().max(now).div_ceil(TICK_NANOS) * TICK_NANOS
                    ),
                    (None, None) => {}
                    (next, head) => prop_assert!(false, "next {next:?}, head {head:?}"),
                }
            }
        }
    }
}
