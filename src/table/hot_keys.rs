//! The most contended keys of a shard, in bounded space: Space-Saving (Metwally, Agrawal and El Abbadi, 2005).
//!
//! Counts halve every ten minutes, so that the keys are those that are contended these days.
//!
//! A key that is not among the counted takes the place of the least counted, and its count: a key with more than
//! `1 / PLACES` of all contention is always among them, and no count is too low.

use std::time::Duration;

use crate::clock::Moment;
use crate::key::Key;

/// What was counted counts half as much after this long.
const HALF_LIFE: Duration = Duration::from_mins(10);
const HALF_LIFE_NANOS: u64 = HALF_LIFE.as_nanos() as u64;
/// Keys counted per shard (T9).
const PLACES: usize = 16;

#[derive(Debug)]
pub(crate) struct HotKeys {
    /// Apart from the rest, since they are looked through at every hit.
    hashes: Vec<u32>,
    counted: Vec<(Key, u64)>,
    /// The place of the last one hit: often it is the next one too.
    last: usize,
    /// When the counts were halved last.
    halved: Moment,
}

impl Default for HotKeys {
    fn default() -> Self {
        Self { hashes: Vec::new(), counted: Vec::new(), last: 0, halved: Moment::ZERO }
    }
}

impl HotKeys {
    /// Somebody had to wait for this key, or was refused.
    #[inline]
    pub(crate) fn hit(&mut self, hash: u32, key: &Key, now: Moment) {
        self.age(now);
        match self.counted.get_mut(self.last) {
            Some((other, count)) if other == key => *count += 1,
            _ => self.hit_another(hash, key),
        }
    }

    #[inline(never)]
    fn hit_another(&mut self, hash: u32, key: &Key) {
        let known = self.hashes.iter().position(|other| *other == hash).unwrap_or(PLACES);
        match self.counted.get_mut(known).filter(|(other, _)| other == key) {
            Some((_, count)) => {
                *count += 1;
                self.last = known;
            }
            None => self.enter(hash, key),
        }
    }

    /// Counts a key for the first time.
    #[cold]
    fn enter(&mut self, hash: u32, key: &Key) {
        if self.counted.len() < PLACES {
            self.hashes.push(hash);
            self.counted.push((key.clone(), 1));
            return;
        }
        let least = (0..PLACES).min_by_key(|at| self.counted[*at].1).expect("there are places");
        self.hashes[least] = hash;
        self.counted[least] = (key.clone(), self.counted[least].1 + 1);
    }

    /// The counted keys, in no order.
    pub(crate) fn counted(&mut self, now: Moment) -> &[(Key, u64)] {
        self.age(now);
        &self.counted
    }

    #[inline]
    fn age(&mut self, now: Moment) {
        if now.nanos_since(self.halved) >= HALF_LIFE_NANOS {
            self.halve(now);
        }
    }

    #[cold]
    fn halve(&mut self, now: Moment) {
        let times = now.nanos_since(self.halved) / HALF_LIFE_NANOS;
        // By then nothing is left of any count.
        let times = times.min(63) as u32;
        self.halved = now;
        for (_, count) in &mut self.counted {
            *count >>= times;
        }
        let mut kept = self.counted.iter().map(|(_, count)| *count > 0);
        self.hashes.retain(|_| kept.next() == Some(true));
        self.counted.retain(|(_, count)| *count > 0);
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
            hot.hit(n, &key(n), Moment::ZERO);
            if n % 4 == 0 {
                hot.hit(u32::MAX, &key(u32::MAX), Moment::ZERO);
            }
        }
        assert_eq!(hot.counted(Moment::ZERO).len(), PLACES);
        let count = hot.counted(Moment::ZERO).iter().find(|(k, _)| *k == key(u32::MAX)).map(|(_, count)| *count);
        assert!(count.is_some_and(|count| (2_500..=12_500 / PLACES as u64 + 2_500).contains(&count)), "{count:?}");
    }

    #[test]
    fn what_was_hot_once_makes_room_for_what_is_hot_now() {
        let at = |minutes| Moment::ZERO.saturating_add(Duration::from_mins(minutes));
        let key = |n: u32| Key::new(format!("k{n}")).unwrap();
        let mut hot = HotKeys::default();
        (0..1_000).for_each(|_| hot.hit(1, &key(1), at(0)));
        (0..100).for_each(|_| hot.hit(2, &key(2), at(45)));
        assert_eq!(hot.counted(at(45)), [(key(1), 62), (key(2), 100)]);
        assert!(hot.counted(at(120)).is_empty(), "and in the end it is forgotten");
        hot.hit(2, &key(2), at(121));
        assert_eq!(hot.counted(at(121)), [(key(2), 1)]);
    }
}
