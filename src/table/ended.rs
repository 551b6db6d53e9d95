//! The last tokens whose grants ended, and why (DESIGN 6): best effort, a ring of fixed size beside the table.
//!
//! Only grants whose token can still be asked about are kept: those that ended against their holder's will, and
//! those whose token travels without a guard. A guard that releases itself is nobody else's business.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::error::Loss;
use crate::key::{FencingToken, Token};

/// How a grant ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Unlocked by its guard.
    Released,
    /// Released with its token.
    ByToken,
    /// Its guard was dropped, or the future that it had been granted to.
    Dropped,
    /// Its deadline passed.
    Expired,
    /// Released by an operator.
    Forced,
    /// Taken from its holder to break a deadlock.
    Revoked,
    /// Its session was ended.
    SessionEnded,
    /// The store does not keep it any more.
    Vanished,
    /// The manager shut down.
    ShutDown,
}

impl End {
    /// What a late holder of the token is told.
    pub(crate) fn as_loss(self) -> Loss {
        match self {
            Self::Released | Self::ByToken | Self::Dropped => Loss::Released,
            Self::Expired => Loss::Expired,
            Self::Forced => Loss::Forced,
            Self::Revoked => Loss::Revoked,
            Self::SessionEnded => Loss::SessionEnded,
            Self::Vanished => Loss::Vanished,
            Self::ShutDown => Loss::ShutDown,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    token: Token,
    key_hash: u32,
    fence: FencingToken,
    end: End,
}

#[derive(Debug)]
pub(crate) struct EndedRing {
    /// The oldest one stands at `next` once the ring is full.
    entries: Vec<Ended>,
    next: usize,
    capacity: usize,
    /// Where the last end of a key's token stands. Only that, since the rings of all shards are more than a processor
    /// keeps at hand.
    places: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl Ended {
    fn name(&self) -> (Token, u32) {
        (self.token, self.key_hash)
    }
}

impl EndedRing {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: Vec::new(), next: 0, capacity, places: HashTable::new(), hasher: Default::default() }
    }

    pub(crate) fn push(&mut self, token: Token, key_hash: u32, fence: FencingToken, end: End) {
        let ended = Ended { token, key_hash, fence, end };
        let place = self.next as u32;
        match self.entries.get_mut(self.next) {
            Some(oldest) => {
                let forgotten = std::mem::replace(oldest, ended);
                // A later end of the same name stands elsewhere.
                let hash = self.hasher.hash_one(forgotten.name());
                if let Ok(stale) = self.places.find_entry(hash, |at| *at == place) {
                    stale.remove();
                }
            }
            None => self.entries.push(ended),
        }
        let (entries, hasher) = (&self.entries, &self.hasher);
        let is_same = |at: &u32| entries[*at as usize].name() == ended.name();
        let rehash = |at: &u32| hasher.hash_one(entries[*at as usize].name());
        match self.places.entry(hasher.hash_one(ended.name()), is_same, rehash) {
            Entry::Occupied(mut last) => *last.get_mut() = place,
            Entry::Vacant(none) => {
                none.insert(place);
            }
        }
        self.next = (self.next + 1) % self.capacity;
    }

    /// How the last grant with this token on this key ended, if that is still known.
    pub(crate) fn find(&self, token: Token, key_hash: u32) -> Option<End> {
        let name = (token, key_hash);
        let is_same = |at: &u32| self.entries[*at as usize].name() == name;
        let place = self.places.find(self.hasher.hash_one(name), is_same)?;
        Some(self.entries[*place as usize].end)
    }

    /// The same for a guard, by what is its own alone: clients may use one token for several keys. O(ring).
    pub(crate) fn find_fence(&self, fence: FencingToken) -> Option<End> {
        self.entries.iter().find(|ended| ended.fence == fence).map(|ended| ended.end)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        assert!(self.places.len() <= self.entries.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_ended_again_is_known_by_its_last_end_until_that_is_forgotten() {
        let mut ring = EndedRing::new(3);
        let (twice, other) = (Token::random(), Token::random());
        let mut push = |token, number, end| {
            ring.push(token, 1, FencingToken::at_least_one(number), end);
            ring.find(twice, 1)
        };
        assert_eq!(push(twice, 1, End::ByToken), Some(End::ByToken));
        assert_eq!(push(twice, 2, End::Expired), Some(End::Expired));
        // The place of its first end is another's now.
        assert_eq!(push(other, 3, End::Forced), Some(End::Expired));
        assert_eq!(push(Token::random(), 4, End::Forced), Some(End::Expired));
        assert_eq!(push(Token::random(), 5, End::Forced), None);
        assert_eq!(ring.places.len(), 3);
    }

    #[test]
    fn the_ring_forgets_the_oldest_and_keeps_its_bound() {
        let mut ring = EndedRing::new(3);
        let tokens: Vec<Token> = (0..5).map(|_| Token::random()).collect();
        for (token, fence) in tokens.iter().zip(1..) {
            ring.push(*token, 1, FencingToken::at_least_one(fence), End::Expired);
        }
        let known: Vec<bool> = tokens.iter().map(|token| ring.find(*token, 1).is_some()).collect();
        assert_eq!(known, [false, false, true, true, true]);
        assert_eq!(ring.find(tokens[4], 2), None, "another key's token");
        let fences: Vec<bool> = (1..6).map(|n| ring.find_fence(FencingToken::at_least_one(n)).is_some()).collect();
        assert_eq!(fences, known);
        assert_eq!((ring.len(), ring.places.len()), (3, 3));
    }
}
