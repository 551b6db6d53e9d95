//! Storage with stable indices that grows in chunks: no growth ever copies what is there, so no insert pauses the
//! shard for long, and a million entries waste at most one chunk.

/// Stands for "no entry" where an index is optional.
pub(crate) const NIL: u32 = u32::MAX;

const CHUNK_BITS: u32 = 6;
const CHUNK: usize = 1 << CHUNK_BITS;

#[derive(Debug)]
enum Entry<T> {
    Full(T),
    /// The next free entry, or `NIL`.
    Free(u32),
}

/// A chunked slab; indices are reused, last freed first.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// Arrays, not vectors: an index within one needs neither its own pointer nor a check.
    chunks: Vec<Box<[Entry<T>; CHUNK]>>,
    first_free: u32,
    len: usize,
    /// How many entries have ever been full: all indices lie below.
    bound: u32,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), first_free: NIL, len: 0, bound: 0 }
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
        self.len += 1;
        let mut index = self.first_free;
        if index == NIL {
            index = self.bound;
            self.bound = index.checked_add(1).expect("limits keep every slab below 2^31 entries");
            if (index as usize).is_multiple_of(CHUNK) {
                self.chunks.push(Box::new(std::array::from_fn(|_| Entry::Free(NIL))));
            }
        }
        let entry = self.entry_mut(index).expect("the free list and the last chunk hold indices of this slab");
        let Entry::Free(next) = *entry else { unreachable!("what is not in use is free") };
        *entry = Entry::Full(value);
        self.first_free = next;
        index
    }

    /// Frees an entry, if it is in use, and drops it where it lies.
    pub(crate) fn remove(&mut self, index: u32) {
        let next = self.first_free;
        if let Some(entry) = self.entry_mut(index)
            && matches!(entry, Entry::Full(_))
        {
            *entry = Entry::Free(next);
            self.first_free = index;
            self.len -= 1;
        }
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        match &self.chunks.get((index >> CHUNK_BITS) as usize)?[index as usize % CHUNK] {
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
        Some(&mut self.chunks.get_mut((index >> CHUNK_BITS) as usize)?[index as usize % CHUNK])
    }
}

/// Indexing is for entries whose presence the caller has just established; anything else is a bug in the table.
impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;
    fn index(&self, index: u32) -> &T {
        self.get(index).expect("the entry is in the slab")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index).expect("the entry is in the slab")
    }
}

#[cfg(test)]
mod tests {
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
}
