//! Storage with stable indices that grows in chunks: no growth ever copies what is there, so no insert pauses the
//! shard for long, and a million entries waste at most one chunk.
//!
//! It shrinks by whole chunks that nobody uses any more, chunk by chunk when its owner has time for it
//! ([`Slab::trim`]), so that no removal pauses the shard either. Where a chunk was, a hole is left until it is needed
//! again, since what lies behind keeps its index.

use std::ops::Range;

/// Stands for "no entry" where an index is optional.
pub(crate) const NIL: u32 = u32::MAX;

const CHUNK_BITS: u32 = 6;
const CHUNK: usize = 1 << CHUNK_BITS;
/// So many chunks are not worth shrinking.
const FEW_CHUNKS: usize = 16;
/// It shrinks when fewer than one entry in so many is in use.
const SPARSE: usize = 4;
/// Holes that a window is moved past at a time.
const HOLES_SKIPPED: usize = 4096;

#[derive(Debug)]
enum Entry<T> {
    Full(T),
    /// The next free entry, or `NIL`.
    Free(u32),
}

/// Arrays, not vectors: an index within one needs neither its own pointer nor a check.
type Chunk<T> = Box<[Entry<T>; CHUNK]>;

/// A chunked slab; indices are reused, last freed first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slab<T> {
    /// `None` for a hole.
    chunks: Vec<Option<Chunk<T>>>,
    len: usize,
    first_free: u32,
    /// The first of the free entries that are in no list, and how many entries from there on are not, full ones
    /// included: those that a trim has yet to come to. No such entry is handed out.
    unlisted: u32,
    unlisted_len: u32,
    /// How many entries have been full since it shrank last: all indices lie below.
    bound: u32,
    holes: Vec<u32>,
    /// How many entries and chunks were left by the last trim.
    trimmed: (usize, usize),
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            first_free: NIL,
            len: 0,
            bound: 0,
            holes: Vec::new(),
            unlisted: 0,
            unlisted_len: 0,
            trimmed: (usize::MAX, 0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Indices are all below this bound.
    pub(crate) fn bound(&self) -> u32 {
        self.bound
    }

    #[inline(always)]
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.insert_with(|| value)
    }

    /// The same for a value that is made where it will lie: a large one is then not copied.
    #[inline(always)]
    pub(crate) fn insert_with(&mut self, make: impl FnOnce() -> T) -> u32 {
        self.len += 1;
        if self.first_free == NIL {
            self.grow();
        }
        let index = self.first_free;
        let entry = self.entry_mut(index).expect("the free list holds indices of this slab");
        let Entry::Free(next) = *entry else { unreachable!("what is not in use is free") };
        *entry = Entry::Full(make());
        self.first_free = next;
        index
    }

    /// Puts one more entry in the free list, or a whole chunk where there is a hole.
    #[inline(never)]
    fn grow(&mut self) {
        // A trim may have yet to come to where the hole is.
        if self.unlisted_len == 0
            && let Some(hole) = self.holes.pop()
        {
            let first = hole << CHUNK_BITS;
            let next = |at: usize| if at + 1 == CHUNK { NIL } else { first + at as u32 + 1 };
            self.chunks[hole as usize] = Some(Box::new(std::array::from_fn(|at| Entry::Free(next(at)))));
            self.first_free = first;
            return;
        }
        let index = self.bound;
        self.bound = index.checked_add(1).expect("limits keep every slab below 2^31 entries");
        if (index as usize).is_multiple_of(CHUNK) {
            self.chunks.push(Some(Box::new(std::array::from_fn(|_| Entry::Free(NIL)))));
        }
        self.first_free = index;
    }

    /// Frees an entry, if it is in use, and drops it where it lies.
    #[inline]
    pub(crate) fn remove(&mut self, index: u32) {
        let is_listed = index.wrapping_sub(self.unlisted) >= self.unlisted_len;
        let next = self.first_free;
        if let Some(entry) = self.entry_mut(index)
            && matches!(entry, Entry::Full(_))
        {
            *entry = Entry::Free(next);
            if is_listed {
                self.first_free = index;
            }
            self.len -= 1;
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match &self.chunks.get((index >> CHUNK_BITS) as usize)?.as_ref()?[index as usize % CHUNK] {
            Entry::Full(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entry_mut(index)? {
            Entry::Full(value) => Some(value),
            Entry::Free(_) => None,
        }
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        Some(&mut self.chunks.get_mut((index >> CHUNK_BITS) as usize)?.as_mut()?[index as usize % CHUNK])
    }

    /// The next indices from `cursor` on that are worth a look, up to so many; it ends at the bound if there are no
    /// more. Holes are not worth one.
    pub(crate) fn window(&self, cursor: u32, budget: u32) -> Range<u32> {
        let first = (cursor >> CHUNK_BITS) as usize;
        let chunks = self.chunks.get(first..).unwrap_or_default();
        let skipped = chunks.iter().take(HOLES_SKIPPED).take_while(|chunk| chunk.is_none()).count();
        let start = if skipped == 0 { cursor } else { ((first + skipped) as u32) << CHUNK_BITS };
        if skipped == HOLES_SKIPPED {
            return start.min(self.bound)..start.min(self.bound);
        }
        start.min(self.bound)..start.saturating_add(budget).min(self.bound)
    }

    /// Gives memory back that very few entries are left of, looking through up to `chunks` chunks; whether there is
    /// more to be done.
    pub(crate) fn trim(&mut self, chunks: usize) -> bool {
        if self.unlisted_len == 0 {
            if !self.is_worth_trimming() {
                return false;
            }
            // The free list is made anew on the way, of the chunks that stay.
            (self.unlisted, self.unlisted_len, self.first_free) = (0, self.bound, NIL);
        }
        for _ in 0..chunks {
            if self.unlisted_len == 0 {
                break;
            }
            self.trim_chunk();
        }
        if self.unlisted_len > 0 {
            return true;
        }
        self.drop_last_holes();
        self.trimmed = (self.len, self.there());
        false
    }

    /// Chunks that are no holes.
    fn there(&self) -> usize {
        self.chunks.len() - self.holes.len()
    }

    /// Whether few entries are left, and half of those that the last trim found, or twice as many chunks: what is left
    /// may lie so that no chunk is empty.
    fn is_worth_trimming(&self) -> bool {
        let (there, (len, chunks)) = (self.there(), self.trimmed);
        there > FEW_CHUNKS && self.len * SPARSE < there * CHUNK && (self.len <= len / 2 || there >= chunks * 2)
    }

    /// Looks through the next chunk: gives it back, or puts what is free of it in the list.
    fn trim_chunk(&mut self) {
        let (first, end) = (self.unlisted, self.unlisted + self.unlisted_len);
        let at = (first >> CHUNK_BITS) as usize;
        let last = end.min(first + CHUNK as u32);
        // What was handed out for the first time since then is in the list when it is free.
        let is_whole = last == first + CHUNK as u32 || self.bound == end;
        if let Some(chunk) = &mut self.chunks[at] {
            if is_whole && chunk.iter().all(|entry| matches!(entry, Entry::Free(_))) {
                self.chunks[at] = None;
                self.holes.push(at as u32);
            } else {
                for (index, entry) in (first..last).zip(chunk.iter_mut()).rev() {
                    if let Entry::Free(next) = entry {
                        *next = std::mem::replace(&mut self.first_free, index);
                    }
                }
            }
        }
        (self.unlisted, self.unlisted_len) = (last, end - last);
    }

    /// Lowers the bound to the last chunk that is there.
    fn drop_last_holes(&mut self) {
        while self.chunks.last().is_some_and(Option::is_none) {
            self.chunks.pop();
            self.bound = (self.chunks.len() * CHUNK) as u32;
        }
        let there = self.chunks.len() as u32;
        self.holes.retain(|hole| *hole < there);
        if self.chunks.capacity() > SPARSE * self.chunks.len() {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
        if self.holes.capacity() > SPARSE * self.holes.len() {
            self.holes.shrink_to(self.holes.len() * 2);
        }
    }
}

/// Indexing is for entries whose presence the caller has just established; anything else is a bug in the table.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    #[inline(always)]
    fn index(&self, index: u32) -> &T {
        self.get(index).expect("the entry is in the slab")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    #[inline(always)]
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index).expect("the entry is in the slab")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn indices_are_stable_and_reused_last_freed_first() {
        let mut slab = Slab::new();
        let indices: Vec<u32> = (0..200).map(|n| slab.insert(n)).collect();
        assert_eq!(indices, (0..200).collect::<Vec<u32>>());
        assert_eq!((slab.len(), slab.bound()), (200, 200));
        slab.remove(7);
        slab.remove(7);
        slab.remove(150);
        assert_eq!((slab.get(7), slab.len()), (None, 198));
        assert_eq!(slab.get(150), None);
        assert_eq!(slab.insert(1), 150);
        assert_eq!(slab.insert(2), 7);
        assert_eq!(slab.insert(3), 200);
        assert_eq!(slab[7], 2);
        assert_eq!(slab.get(100_000), None);
        slab.remove(100_000);
        assert_eq!(slab.len(), 201);
    }

    fn trim<T>(slab: &mut Slab<T>) {
        while slab.trim(1) {}
    }

    #[test]
    fn what_is_left_of_a_spike_is_what_is_in_use() {
        let mut slab = Slab::new();
        let indices: Vec<u32> = (0..100_000).map(|n| slab.insert(n)).collect();
        for index in indices.iter().filter(|index| **index % 10_000 != 17) {
            slab.remove(*index);
        }
        trim(&mut slab);
        assert_eq!((slab.len(), slab.there()), (10, 10), "a chunk for each that is left");
        assert!(indices.iter().all(|index| slab.get(*index).is_some() == (*index % 10_000 == 17)));
        // Whoever looks through it looks at little else.
        let (mut at, mut looks, mut found) = (0, 0, 0);
        while at < slab.bound() {
            let window = slab.window(at, 128);
            (at, looks) = (window.end, looks + window.len());
            found += window.filter(|index| slab.get(*index).is_some()).count();
        }
        assert!(found == 10 && looks <= 10 * 128, "{found} in {looks}");
        for index in indices {
            slab.remove(index);
        }
        for n in 0..10_000 {
            slab.insert(n);
        }
        assert!(slab.bound() <= 100_000, "holes are filled first");
        (0..slab.bound()).for_each(|index| slab.remove(index));
        trim(&mut slab);
        assert_eq!((slab.there(), slab.bound(), slab.holes.len()), (0, 0, 0));
        assert_eq!(slab.insert(1), 0);
    }

    #[test]
    fn entries_scattered_over_all_chunks_are_not_looked_through_again_and_again() {
        let mut slab = Slab::new();
        for n in 0..64_000 {
            slab.insert(n);
        }
        (0..64_000).filter(|index| index % 64 != 0).for_each(|index| slab.remove(index));
        trim(&mut slab);
        assert_eq!((slab.there(), slab.is_worth_trimming()), (1_000, false));
        (0..32_000).for_each(|index| slab.remove(index));
        trim(&mut slab);
        assert_eq!(slab.there(), 500);
    }

    #[test]
    fn whatever_comes_and_goes_while_it_is_trimmed_every_index_is_one_entrys() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20 {
            let (mut slab, mut kept, mut serial) = (Slab::new(), HashMap::new(), 0);
            for round in 0..40 {
                let (grows, count) = (round % 2 == 0, random.usize(..5_000));
                for _ in 0..count {
                    serial += 1;
                    if random.usize(..10) < if grows { 8 } else { 1 } {
                        let index = slab.insert(serial);
                        assert_eq!(kept.insert(index, serial), None, "an index in use was handed out");
                        assert!(index < slab.bound());
                    } else if let Some(&index) = kept.keys().next() {
                        kept.remove(&index);
                        slab.remove(index);
                    }
                    if random.usize(..20) == 0 {
                        slab.trim(random.usize(..4));
                    }
                }
                assert_eq!(slab.len(), kept.len());
                assert!(kept.iter().all(|(index, value)| slab.get(*index) == Some(value)));
                assert_eq!((0..slab.bound()).filter(|index| slab.get(*index).is_some()).count(), kept.len());
            }
        }
    }
}
