//! Grants whose deadline is not in its wheel yet, and waits whose end is not: most of them are over long before anybody
//! looks at it.
//!
//! The lane files nothing. It notes the slot or the waiter down here, once, and the table's next
//! [`tick`](super::Table::tick) files what still is there then; that is soon enough, since nothing but a tick takes anything
//! out of a wheel. Whoever comes to wait for such a lock, to watch or to refresh it, files it at once (C1).

/// The slots, or the waiters, that the lane has used since the last tick.
#[derive(Debug, Default)]
pub(super) struct Unfiled {
    /// A bit for each that is listed.
    bits: Vec<u64>,
    /// Each at most once, so it is never longer than there were slots, or waiters (T9).
    listed: Vec<u32>,
}

impl Unfiled {
    /// Notes one down.
    #[inline]
    pub(super) fn note(&mut self, id: u32) {
        if !self.has(id) {
            self.list(id);
        }
    }

    #[inline(never)]
    fn list(&mut self, id: u32) {
        let (word, bit) = place(id);
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= bit;
        self.listed.push(id);
    }

    /// Whether one is noted down. What was there then may be gone.
    #[inline]
    pub(super) fn has(&self, id: u32) -> bool {
        let (word, bit) = place(id);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Takes the next one off the list.
    pub(super) fn take(&mut self) -> Option<u32> {
        let id = self.listed.pop()?;
        let (word, bit) = place(id);
        self.bits[word] &= !bit;
        Some(id)
    }

    /// Whether nothing is noted down.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Gives memory back after a spike; `bound`: all are below it.
    pub(super) fn trim(&mut self, bound: u32) {
        if self.is_empty() {
            self.bits.truncate(place(bound).0 + 1);
            shrink_if_sparse!(self.bits);
            shrink_if_sparse!(self.listed);
        }
    }
}

/// The word of one, and its bit there.
fn place(id: u32) -> (usize, u64) {
    ((id >> 6) as usize, 1 << (id & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_listed_once_until_it_is_taken() {
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
