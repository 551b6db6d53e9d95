//! From a key's hash to its slot: buckets of chained slots, of which one more is made, or one is undone, at a time.
//!
//! Linear hashing (Litwin, 1980). A bucket is the number of its first slot, and each slot has that of the next one
//! ([`Chained`]). Buckets lie in one row and are named by the low bits of the hash: by as many as name them all, or, where
//! those name one that is not there yet, by one bit less. An insertion that finds as many keys as buckets adds one, and takes
//! over from one other chain what belongs there. So a step moves the few entries of one chain, and never all of them; but a
//! row that has no room left is copied as a whole, four bytes for each key. The row shrinks when there is time for it.
//!
//! | what holds | |
//! |---|---|
//! | Each entry is in the chain of the bucket that its hash names, once, and in no other. | what `find` and `remove` rely on |
//! | There are as many buckets as entries, or more. | chains are of one or two entries on average |
//! | `mask` covers the number of buckets: it is the least of the form 2^n - 1 that is not below it. | two buckets at most are named by one hash |
//!
//! The hash must be keyed: whoever can choose keys for one chain makes it slow.

use super::slab::NIL;

/// So many buckets are not worth shrinking.
const FEW: usize = 512;
/// They are undone when there are so many times as many as entries, down to twice as many.
const SPARSE: usize = 16;
/// Buckets that are undone at a time.
const UNDONE_AT_ONCE: usize = 256;

/// Where the entries live.
pub(super) trait Chained {
    fn hash_of(&self, id: u32) -> u32;

    /// The entry behind this one in its chain.
    fn next_of(&self, id: u32) -> u32;

    fn set_next(&mut self, id: u32, next: u32);
}

/// Names a bucket until the next one is added or undone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket(usize);

#[derive(Debug)]
#[repr(C)]
pub(super) struct KeyIndex {
    /// The first entries; `NIL` where there is none.
    heads: Vec<u32>,
    mask: u32,
    len: usize,
    /// To how many buckets it is being shrunk; 0 if it is not.
    goal: usize,
}

impl KeyIndex {
    pub(super) const fn new() -> Self {
        Self { heads: Vec::new(), mask: 0, len: 0, goal: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    fn bucket_of(&self, hash: u32) -> usize {
        let by_all = (hash & self.mask) as usize;
        if by_all < self.heads.len() { by_all } else { (hash & (self.mask >> 1)) as usize }
    }

    /// The first entry of the chain that has those with this hash.
    #[inline(always)]
    pub(super) fn first(&self, hash: u32) -> u32 {
        self.heads.get(self.bucket_of(hash)).copied().unwrap_or(NIL)
    }

    /// Makes room for one more, and answers where it goes, with the first entry of that chain, which is to be its next.
    #[inline(always)]
    pub(super) fn place(&mut self, entries: &mut impl Chained, hash: u32) -> (Bucket, u32) {
        if self.len >= self.heads.len() {
            self.add_bucket(entries);
        }
        let bucket = self.bucket_of(hash);
        (Bucket(bucket), self.heads[bucket])
    }

    /// Puts an entry there, whose next one is set.
    #[inline(always)]
    pub(super) fn put(&mut self, Bucket(bucket): Bucket, id: u32) {
        self.heads[bucket] = id;
        self.len += 1;
    }

    /// Takes an entry out, if it is there. `next` is the one behind it.
    #[inline(always)]
    pub(super) fn remove(&mut self, entries: &mut impl Chained, id: u32, (hash, next): (u32, u32)) {
        let bucket = self.bucket_of(hash);
        match self.heads.get_mut(bucket) {
            Some(head) if *head == id => {
                *head = next;
                self.len -= 1;
            }
            Some(head) => {
                let first = *head;
                self.len -= usize::from(take_from_behind(entries, first, (id, next)));
            }
            None => {}
        }
    }

    /// Adds a bucket, and moves what it takes over from another.
    #[cold]
    #[inline(never)]
    fn add_bucket(&mut self, entries: &mut impl Chained) {
        let (added, from) = (self.heads.len() as u32, self.last_of(self.heads.len()));
        self.heads.push(NIL);
        if added > 0 {
            let (mut stays, mut goes) = (NIL, NIL);
            let mut id = self.heads[from];
            while id != NIL {
                let next = entries.next_of(id);
                let chain = if entries.hash_of(id) & self.mask == added { &mut goes } else { &mut stays };
                entries.set_next(id, std::mem::replace(chain, id));
                id = next;
            }
            (self.heads[from], self.heads[added as usize]) = (stays, goes);
        }
        self.set_mask();
    }

    /// Undoes the last bucket: the other one that its entries may be in has them then.
    fn undo_bucket(&mut self, entries: &mut impl Chained) {
        let Some(mut id) = self.heads.pop() else { return };
        self.set_mask();
        let to = self.last_of(self.heads.len());
        while id != NIL {
            let next = entries.next_of(id);
            entries.set_next(id, std::mem::replace(&mut self.heads[to], id));
            id = next;
        }
    }

    /// What the bucket of this number takes its entries over from.
    fn last_of(&self, bucket: usize) -> usize {
        bucket & (self.mask >> 1) as usize
    }

    fn set_mask(&mut self) {
        // Slabs are below 2^31 entries, and so are buckets, but for a spike.
        self.mask = (self.heads.len() as u32 + 1).next_power_of_two() - 1;
    }

    /// Gives memory back after a spike, a bounded piece at a time; whether there is more to be done.
    pub(super) fn trim(&mut self, entries: &mut impl Chained) -> bool {
        if self.goal == 0 {
            if self.heads.len() <= FEW.max(self.len * SPARSE) {
                return false;
            }
            self.goal = FEW.max(self.len * 2);
        }
        for _ in 0..UNDONE_AT_ONCE {
            if self.heads.len() <= self.goal.max(self.len) {
                self.heads.shrink_to_fit();
                self.goal = 0;
                return false;
            }
            self.undo_bucket(entries);
        }
        true
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.heads.capacity()
    }
}

/// The first entry of its kind from this one on, in its chain.
#[inline(always)]
pub(super) fn find_from(entries: &impl Chained, first: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
    let mut id = first;
    while id != NIL {
        if is_it(id) {
            return Some(id);
        }
        id = entries.next_of(id);
    }
    None
}

/// Takes an entry out of the chain that begins with `first`, which it is not; whether it was there.
#[inline(never)]
fn take_from_behind(entries: &mut impl Chained, first: u32, (id, next): (u32, u32)) -> bool {
    let found = find_from(entries, first, |before| entries.next_of(before) == id);
    found.into_iter().for_each(|before| entries.set_next(before, next));
    found.is_some()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Entries with their hashes and next ones.
    #[derive(Default)]
    struct Entries(Vec<(u32, u32)>);

    impl Chained for Entries {
        fn hash_of(&self, id: u32) -> u32 {
            self.0[id as usize].0
        }

        fn next_of(&self, id: u32) -> u32 {
            self.0[id as usize].1
        }

        fn set_next(&mut self, id: u32, next: u32) {
            self.0[id as usize].1 = next;
        }
    }

    struct Tested {
        index: KeyIndex,
        entries: Entries,
        /// By hash, the entries that are in.
        known: HashMap<u32, Vec<u32>>,
        free: Vec<u32>,
    }

    impl Tested {
        fn new() -> Self {
            Self { index: KeyIndex::new(), entries: Entries::default(), known: HashMap::new(), free: Vec::new() }
        }

        fn insert(&mut self, hash: u32) {
            let id = self.free.pop().unwrap_or_else(|| {
                self.entries.0.push((0, NIL));
                self.entries.0.len() as u32 - 1
            });
            let (bucket, next) = self.index.place(&mut self.entries, hash);
            self.entries.0[id as usize] = (hash, next);
            self.index.put(bucket, id);
            self.known.entry(hash).or_default().push(id);
        }

        fn remove_one(&mut self, hash: u32) {
            let Some(id) = self.known.get_mut(&hash).and_then(Vec::pop) else { return };
            self.take_out(id);
            self.free.push(id);
        }

        fn take_out(&mut self, id: u32) {
            let entry = self.entries.0[id as usize];
            self.index.remove(&mut self.entries, id, entry);
        }

        fn chain(&self, first: u32) -> Vec<u32> {
            let mut chain = Vec::new();
            find_from(&self.entries, first, |id| {
                chain.push(id);
                false
            });
            chain
        }

        fn found(&self, hash: u32) -> Vec<u32> {
            let mut found = self.chain(self.index.first(hash));
            found.retain(|id| self.entries.hash_of(*id) == hash);
            found.sort_unstable();
            found
        }

        fn check(&self) {
            let (index, heads) = (&self.index, self.index.heads.len());
            let known: usize = self.known.values().map(Vec::len).sum();
            let chained = index.heads.iter().map(|head| self.chain(*head).len()).sum();
            assert_eq!((index.len(), known), (chained, chained), "each is in one chain");
            assert!(heads >= index.len(), "buckets and entries");
            assert!(
                index.mask as usize >= heads && index.mask as usize / 2 < heads.max(1),
                "{} of {heads}",
                index.mask
            );
            for (hash, ids) in &self.known {
                let mut ids = ids.clone();
                ids.sort_unstable();
                assert_eq!(self.found(*hash), ids, "those with hash {hash}");
            }
        }
    }

    #[test]
    fn whatever_comes_and_goes_every_entry_is_found_by_its_hash() {
        let mut random = fastrand::Rng::with_seed(7);
        // Hashes that fill all buckets, and few that many entries have in common.
        for hashes in [u32::MAX, 3_000, 7, 1] {
            let mut tested = Tested::new();
            for round in 0..30 {
                let (grows, count) = (round % 2 == 0, random.usize(..400));
                for _ in 0..count {
                    let hash = random.u32(..hashes);
                    if random.usize(..10) < if grows { 9 } else { 3 } {
                        tested.insert(hash);
                    } else {
                        let some = tested.known.keys().copied().nth(random.usize(..20)).unwrap_or(hash);
                        tested.remove_one(some);
                    }
                }
                tested.check();
            }
        }
    }

    #[test]
    fn one_that_is_not_there_is_not_found_nor_taken_out() {
        let mut tested = Tested::new();
        assert_eq!((tested.found(3), tested.index.trim(&mut tested.entries)), (Vec::new(), false));
        tested.insert(3);
        tested.remove_one(3);
        tested.take_out(0);
        assert_eq!((tested.found(3), tested.index.len()), (Vec::new(), 0));
        (0..5).for_each(|hash| tested.insert(hash));
        tested.remove_one(2);
        tested.take_out(tested.free[0]);
        tested.check();
    }

    #[test]
    fn no_insertion_moves_many_and_a_spike_is_given_back_piece_by_piece() {
        let mut tested = Tested::new();
        let mut random = fastrand::Rng::with_seed(7);
        let hashes: Vec<u32> = (0..50_000).map(|_| random.u32(..)).collect();
        for hash in &hashes {
            let before = tested.index.heads.len();
            tested.insert(*hash);
            assert!(tested.index.heads.len() - before <= 1, "one bucket at a time");
        }
        assert!(!tested.index.trim(&mut tested.entries), "nothing to be given back");
        let (gone, stay) = hashes.split_at(49_900);
        gone.iter().for_each(|hash| tested.remove_one(*hash));
        let mut pieces = 0;
        loop {
            let before = tested.index.heads.len();
            let more = tested.index.trim(&mut tested.entries);
            assert!(before - tested.index.heads.len() <= UNDONE_AT_ONCE);
            // Whoever comes meanwhile is found, too.
            tested.insert(pieces);
            tested.check();
            pieces += 1;
            if !more {
                break;
            }
        }
        assert!(pieces as usize > 40_000 / UNDONE_AT_ONCE);
        assert!(tested.index.capacity() <= 2 * FEW, "{}", tested.index.capacity());
        assert!(stay.iter().all(|hash| !tested.found(*hash).is_empty()));
    }
}
