//! The last tokens whose grants ended, and why (T12): best effort, a ring of fixed size beside the table.
//!
//! Only grants that can still be asked about are kept: those that ended against their holder's will, and those whose token
//! travels without a guard. Nobody else can ask about a guard that releases itself. One whose token nobody was told is
//! asked about by its guard alone, by its fence.

use std::hash::BuildHasher;

use super::end::End;
use crate::key::{FencingToken, Token};

#[derive(Clone, Copy, Debug)]
struct Ended {
    token: Token,
    fence: FencingToken,
    key_hash: u32,
    /// The one of the same bucket before it; another's place by now if that one is forgotten. [`UNTOLD`] if it is in none.
    before: u16,
    end: End,
}

impl Ended {
    /// Its token, if anybody was told that.
    fn told(&self) -> Option<Token> {
        (self.before != UNTOLD).then_some(self.token)
    }

    fn is_named(&self, (token, key_hash): (Token, u32)) -> bool {
        self.key_hash == key_hash && self.told() == Some(token)
    }
}

/// No place.
const NOWHERE: u16 = u16::MAX;
/// No place either: the token is none that was told.
const UNTOLD: u16 = u16::MAX - 1;

/// The rings of all shards are more than a processor keeps at hand, so a release only writes: nothing is taken out of a
/// bucket. A chain ends where it would lead to a place that is younger than the one before, and so another's.
#[derive(Debug)]
pub(crate) struct EndedTokens {
    /// The oldest one stands at `next` once the ring is full.
    entries: Vec<Ended>,
    next: usize,
    capacity: u16,
    /// Where the last one of each bucket stood. None until something has ended.
    buckets: Box<[u16]>,
    hasher: foldhash::fast::RandomState,
}

impl EndedTokens {
    pub(crate) fn new(capacity: u16) -> Self {
        Self { entries: Vec::new(), next: 0, capacity, buckets: Box::default(), hasher: Default::default() }
    }

    /// `token`: `None` if nobody was told it.
    pub(crate) fn push(&mut self, token: Option<Token>, key_hash: u32, fence: FencingToken, end: End) {
        let before = token.map_or(UNTOLD, |token| self.put_in_bucket((token, key_hash)));
        let ended = Ended { token: token.unwrap_or(Token::NIL), fence, key_hash, before, end };
        match self.entries.get_mut(self.next) {
            Some(oldest) => *oldest = ended,
            None => self.entries.push(ended),
        }
        self.next = (self.next + 1) % usize::from(self.capacity);
    }

    /// The next one is the last of its bucket from now on; answers which was.
    fn put_in_bucket(&mut self, name: (Token, u32)) -> u16 {
        if self.buckets.is_empty() {
            self.buckets = vec![NOWHERE; 4 * usize::from(self.capacity).next_power_of_two()].into();
        }
        let bucket = self.bucket(name);
        // Below the capacity, which is one.
        std::mem::replace(&mut self.buckets[bucket], self.next as u16)
    }

    /// How the last grant with this token on this key ended, if that is still known.
    pub(crate) fn find(&self, token: Token, key_hash: u32) -> Option<End> {
        let name = (token, key_hash);
        let mut place = *self.buckets.get(self.bucket(name))?;
        let mut youngest = 0;
        while place < self.capacity {
            let (ended, age) = (self.entries[usize::from(place)], self.age(place));
            if age < youngest {
                return None;
            }
            if ended.is_named(name) {
                return Some(ended.end);
            }
            (place, youngest) = (ended.before, age + 1);
        }
        None
    }

    /// How many have ended since.
    fn age(&self, place: u16) -> usize {
        let capacity = usize::from(self.capacity);
        (self.next + capacity - 1 - usize::from(place)) % capacity
    }

    fn bucket(&self, name: (Token, u32)) -> usize {
        self.hasher.hash_one(name) as usize & self.buckets.len().wrapping_sub(1)
    }

    /// The same for a guard, by what is its own alone: clients may use one token for several keys. O(ring).
    pub(crate) fn find_fence(&self, fence: FencingToken) -> Option<End> {
        self.with_fence(fence).map(|ended| ended.end)
    }

    /// The token of the grant with this fence, if it was told.
    pub(crate) fn token_of(&self, fence: FencingToken) -> Option<Token> {
        self.with_fence(fence)?.told()
    }

    fn with_fence(&self, fence: FencingToken) -> Option<&Ended> {
        self.entries.iter().find(|ended| ended.fence == fence)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_ended_again_is_known_by_its_last_end_until_that_is_forgotten() {
        let mut ring = EndedTokens::new(3);
        let (twice, other) = (Token::random(), Token::random());
        let mut push = |token, number, end| {
            ring.push(Some(token), 1, FencingToken::at_least_one(number), end);
            ring.find(twice, 1)
        };
        assert_eq!(push(twice, 1, End::ByToken), Some(End::ByToken));
        assert_eq!(push(twice, 2, End::Expired), Some(End::Expired));
        // The place of its first end is another's now.
        assert_eq!(push(other, 3, End::Forced), Some(End::Expired));
        assert_eq!(push(Token::random(), 4, End::Forced), Some(End::Expired));
        assert_eq!(push(Token::random(), 5, End::Forced), None);
    }

    #[test]
    fn whatever_ends_in_whatever_order_the_last_ends_are_known_and_no_others() {
        let mut random = fastrand::Rng::with_seed(7);
        let tokens: Vec<Token> = (0..24).map(|_| Token::random()).collect();
        let ends = [End::ByToken, End::Expired, End::Forced, End::Revoked];
        for capacity in [1, 2, 5, 16] {
            let mut ring = EndedTokens::new(capacity);
            let mut all: Vec<((Option<Token>, u32), End)> = Vec::new();
            for number in 1..2000 {
                let (token, key) = (tokens[random.usize(..tokens.len())], random.u32(..2));
                let end = ends[random.usize(..ends.len())];
                let token = (random.usize(..4) > 0).then_some(token);
                ring.push(token, key, FencingToken::at_least_one(number), end);
                all.push(((token, key), end));
                let kept = &all[all.len().saturating_sub(usize::from(capacity))..];
                for (token, key) in tokens.iter().chain([&Token::NIL]).flat_map(|token| [(*token, 0), (*token, 1)]) {
                    let known = kept.iter().rev().find(|(other, _)| *other == (Some(token), key)).map(|(_, end)| *end);
                    assert_eq!(ring.find(token, key), known, "{number} of {capacity}");
                }
                assert_eq!(ring.token_of(FencingToken::at_least_one(number)), kept[kept.len() - 1].0.0);
                assert_eq!(ring.find_fence(FencingToken::at_least_one(number)), Some(end));
            }
        }
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_keeps_its_bound() {
        let mut ring = EndedTokens::new(3);
        let tokens: Vec<Token> = (0..5).map(|_| Token::random()).collect();
        for (token, fence) in tokens.iter().zip(1..) {
            ring.push(Some(*token), 1, FencingToken::at_least_one(fence), End::Expired);
        }
        let known: Vec<bool> = tokens.iter().map(|token| ring.find(*token, 1).is_some()).collect();
        assert_eq!(known, [false, false, true, true, true]);
        assert_eq!(ring.find(tokens[4], 2), None, "another key's token");
        let fences: Vec<bool> = (1..6).map(|n| ring.find_fence(FencingToken::at_least_one(n)).is_some()).collect();
        assert_eq!(fences, known);
        assert_eq!(ring.len(), 3);
    }
}
