//! Keys of the store that nobody of this process holds or wants, and that are still this process's: idle claims; and
//! keys that were given up for others' sake, which nobody of this process asks for yet.

use hashbrown::HashTable;

use super::kept::KeptClaim;
use crate::clock::Moment;
use crate::key::{Key, Token};
use crate::table::slab::Slab;
use crate::table::timer_wheel::{Links, Step, Timed, Wheel};

/// One of these keys.
#[derive(Debug)]
pub(in crate::table) struct IdleKey {
    key: Key,
    hash: u32,
    until: Moment,
    links: Links,
    what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Claim(Box<KeptClaim>),
    /// Nobody asks for it before `until` (K5).
    Pause,
}

/// All of them, by key and by when their time is over.
#[derive(Debug)]
pub(in crate::table) struct IdleKeys {
    index: HashTable<u32>,
    keys: Slab<IdleKey>,
    ends: Wheel,
}

impl Timed for Slab<IdleKey> {
    fn timed(&mut self, id: u32) -> (Moment, &mut Links) {
        let idle = &mut self[id];
        (idle.until, &mut idle.links)
    }
}

impl IdleKeys {
    pub(in crate::table) fn new(now: Moment) -> Self {
        Self { index: HashTable::new(), keys: Slab::new(), ends: Wheel::new(now) }
    }

    pub(in crate::table) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn find(&self, hash: u32, key: &Key) -> Option<u32> {
        let is_it = |id: &u32| self.keys[*id].hash == hash && self.keys[*id].key == *key;
        self.index.find(spread(hash), is_it).copied()
    }

    /// Until when nobody of this process asks the store for a key.
    pub(super) fn pause_of(&self, hash: u32, key: &Key) -> Option<Moment> {
        let idle = &self.keys[self.find(hash, key)?];
        matches!(idle.what, What::Pause).then_some(idle.until)
    }

    pub(super) fn claim_mut(&mut self, id: u32) -> Option<&mut KeptClaim> {
        match &mut self.keys[id].what {
            What::Claim(claim) => Some(claim),
            What::Pause => None,
        }
    }

    /// A key that is not there yet.
    pub(super) fn insert(&mut self, key: Key, hash: u32, until: Moment, what: What) {
        let id = self.keys.insert(IdleKey { key, hash, until, links: Links::NEW, what });
        let keys = &self.keys;
        self.index.insert_unique(spread(hash), id, |&other| spread(keys[other].hash));
        self.ends.insert(&mut self.keys, id);
    }

    /// Takes a key out; answers its claim, if it has one.
    pub(super) fn remove(&mut self, id: u32) -> Option<Box<KeptClaim>> {
        self.ends.remove(&mut self.keys, id);
        if let Ok(entry) = self.index.find_entry(spread(self.keys[id].hash), |&other| other == id) {
            entry.remove();
        }
        let what = std::mem::replace(&mut self.keys[id].what, What::Pause);
        self.keys.remove(id);
        match what {
            What::Claim(claim) => Some(claim),
            What::Pause => None,
        }
    }

    pub(super) fn claim(&self, id: u32) -> Option<&KeptClaim> {
        match &self.keys[id].what {
            What::Claim(claim) => Some(claim),
            What::Pause => None,
        }
    }

    pub(super) fn token(&self, id: u32) -> Option<Token> {
        self.claim(id).map(|claim| claim.token)
    }

    pub(super) fn key(&self, id: u32) -> &Key {
        &self.keys[id].key
    }

    pub(super) fn hash(&self, id: u32) -> u32 {
        self.keys[id].hash
    }

    /// One step towards the next key whose time is over.
    pub(super) fn step(&mut self, now: Moment) -> Step {
        self.ends.step(&mut self.keys, now)
    }

    pub(in crate::table) fn next_end(&self) -> Option<Moment> {
        self.ends.next()
    }

    /// One of the claims among up to `budget` keys from `cursor` on, each, and where to go on.
    pub(super) fn claims(&self, cursor: u32, budget: u32) -> (Vec<u32>, Option<u32>) {
        let window = self.keys.window(cursor, budget);
        let end = window.end;
        let is_claim = |id: &u32| self.keys.get(*id).is_some_and(|idle| matches!(idle.what, What::Claim(_)));
        (window.filter(is_claim).collect(), (end < self.keys.bound()).then_some(end))
    }

    /// Gives memory back after a spike, a bounded piece at a time; whether there is more to be done.
    pub(in crate::table) fn trim(&mut self, chunks: usize) -> bool {
        self.keys.trim(chunks)
    }
}

/// Makes the 64 bits that the index wants of the 32 that a slot keeps; it takes its tag from the highest ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
