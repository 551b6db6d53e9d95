//! Grants whose deadline is not in the wheel yet: most locks are released long before anybody looks at it.
//!
//! The lane files nothing. It notes the slot down here, once, and the table's next [`tick`](super::Table::tick) files what
//! is still held then; that is soon enough, since nothing but a tick takes anything out of the wheel. Whoever comes to
//! wait for such a lock, to watch or to refresh it, files it at once (C1).

/// The slots that the lane has used since the last tick.
#[derive(Debug, Default)]
pub(super) struct Unfiled {
    /// A bit for each slot that is listed.
    bits: Vec<u64>,
    /// Each slot at most once, so it is never longer than there were slots (T9).
    slots: Vec<u32>,
}

impl Unfiled {
    /// Notes a slot down.
    #[inline]
    pub(super) fn note(&mut self, slot: u32) {
        if !self.has(slot) {
            self.list(slot);
        }
    }

    #[inline(never)]
    fn list(&mut self, slot: u32) {
        let (word, bit) = place(slot);
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= bit;
        self.slots.push(slot);
    }

    /// Whether a slot is noted down. What held it then may be gone.
    #[inline]
    pub(super) fn has(&self, slot: u32) -> bool {
        let (word, bit) = place(slot);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Takes the next slot off the list.
    pub(super) fn take(&mut self) -> Option<u32> {
        let slot = self.slots.pop()?;
        let (word, bit) = place(slot);
        self.bits[word] &= !bit;
        Some(slot)
    }

    /// Whether nothing is noted down.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Gives memory back after a spike; `bound`: all slots are below it.
    pub(super) fn trim(&mut self, bound: u32) {
        if self.is_empty() {
            self.bits.truncate(place(bound).0 + 1);
            shrink_if_sparse!(self.bits);
            shrink_if_sparse!(self.slots);
        }
    }
}

/// The word of a slot, and its bit there.
fn place(slot: u32) -> (usize, u64) {
    ((slot >> 6) as usize, 1 << (slot & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_listed_once_until_it_is_taken() {
        let mut unfiled = Unfiled::default();
        [70, 3, 70, 3].into_iter().for_each(|slot| unfiled.note(slot));
        assert!(unfiled.has(70) && unfiled.has(3) && !unfiled.has(4) && !unfiled.has(1_000));
        assert_eq!([unfiled.take(), unfiled.take(), unfiled.take()], [Some(3), Some(70), None]);
        assert!(unfiled.is_empty() && !unfiled.has(70));
        unfiled.note(70);
        assert_eq!(unfiled.take(), Some(70));
        unfiled.trim(64);
        assert!(unfiled.bits.len() <= 2);
    }
}
