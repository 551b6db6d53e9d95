//! The most contended keys of a shard, in bounded space: Space-Saving (Metwally, Agrawal and El Abbadi, 2005).
//!
//! A key that is not among the counted takes the place of the least counted, and its count: a key with more than
//! `1 / PLACES` of all contention is always among them, and no count is too low.

use crate::key::Key;

/// Keys counted per shard (T9).
const PLACES: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct HotKeys {
    /// Apart from the rest, since they are looked through at every hit.
    hashes: Vec<u32>,
    counted: Vec<(Key, u64)>,
}

impl HotKeys {
    /// Somebody had to wait for this key, or was refused.
    pub(crate) fn hit(&mut self, hash: u32, key: &Key) {
        let known = self.hashes.iter().position(|other| *other == hash).filter(|at| self.counted[*at].0 == *key);
        match known {
            Some(at) => self.counted[at].1 += 1,
            None if self.counted.len() < PLACES => {
                self.hashes.push(hash);
                self.counted.push((key.clone(), 1));
            }
            None => {
                let least = (0..PLACES).min_by_key(|at| self.counted[*at].1).expect("there are places");
                self.hashes[least] = hash;
                self.counted[least] = (key.clone(), self.counted[least].1 + 1);
            }
        }
    }

    /// The counted keys, in no order.
    pub(crate) fn counted(&self) -> &[(Key, u64)] {
        &self.counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_key_is_found_among_a_crowd_of_cold_ones_in_bounded_space() {
        let key = |n: u32| Key::new(format!("k{n}")).unwrap();
        let mut hot = HotKeys::default();
        for n in 0..10_000 {
            hot.hit(n, &key(n));
            if n % 4 == 0 {
                hot.hit(u32::MAX, &key(u32::MAX));
            }
        }
        assert_eq!(hot.counted().len(), PLACES);
        let count = hot.counted().iter().find(|(k, _)| *k == key(u32::MAX)).map(|(_, count)| *count);
        assert!(count.is_some_and(|count| (2_500..=12_500 / PLACES as u64 + 2_500).contains(&count)), "{count:?}");
    }
}
