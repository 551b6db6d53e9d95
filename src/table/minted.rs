//! The tokens of grants for which nobody chose one: made when somebody asks for them, not with the grant.
//!
//! Most guards are asked for no token, so none is drawn or kept for them. One that is asked for is the SipHash-2-4 (Aumasson
//! and Bernstein, 2012; the 128 bits of it that a UUID of version 4 has room for, 122) of the grant's fence under a random
//! key of 128 bits that nobody but this shard has. That is a keyed pseudorandom function: without the key, no number of
//! tokens that were seen helps to guess another. A fence of the table's own making names one grant of its shard (T4), so no
//! two grants have a token in common. A token that a client chose, or that a store was given, is kept instead.
//!
//! Weakness: whoever can read the memory of the process learns the tokens of past and future grants, and not only those
//! that are there.
//!
//! A fork has the keys of its parent, and counts on from the same fence. So a token is made under a key that was drawn in
//! the process that is asked for it first, and its holder notes down which: what was told before the fork is good in both
//! processes, what is told afterwards in one.

use siphasher::sip128::SipHasher24;

use super::{Grant, Table};
use crate::key::{FencingToken, Token};

/// Processes in a row, each a fork of the one before, that told tokens of one table (T9). Beyond them the last key is
/// forgotten for a new one.
const MAX_KEYS: usize = u8::MAX as usize;

/// Under which key the token of a grant was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ToldUnder(u8);

impl ToldUnder {
    /// None: nobody can know the token.
    pub(super) const NOBODY: Self = Self(0);
}

/// The keys of a shard.
#[derive(Default)]
pub(super) struct Minter {
    /// The first one is drawn when it is needed, a further one in each fork.
    keys: Vec<[u8; 16]>,
    /// That drew the last one.
    process: u32,
}

impl Minter {
    /// The key of this process.
    fn key_of(&mut self, process: u32) -> ToldUnder {
        if self.keys.is_empty() || process != self.process {
            let mut key = [0; 16];
            getrandom::fill(&mut key).expect("every operating system that there is a clock for has random bytes");
            self.keys.truncate(MAX_KEYS - 1);
            self.keys.push(key);
            self.process = process;
        }
        // As many as a byte counts.
        ToldUnder(self.keys.len() as u8)
    }

    /// The token of the grant with this fence; `None` if it was never told.
    fn token(&self, told: ToldUnder, fence: FencingToken) -> Option<Token> {
        let key = self.keys.get(usize::from(told.0).checked_sub(1)?)?;
        let hash = SipHasher24::new_with_key(key).hash(&fence.get().to_le_bytes());
        Some(Token::from_random_bytes(hash.as_bytes()))
    }

    fn tell(&mut self, fence: FencingToken, process: u32) -> (ToldUnder, Token) {
        let told = self.key_of(process);
        (told, self.token(told, fence).expect("the key is there"))
    }
}

/// Shows no key.
impl std::fmt::Debug for Minter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minter").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// The token of a grant, which others may know from now on. After its end it is the one that was told before, as long
    /// as that is remembered. `process`: the one that is asked, as the system names it now.
    pub(crate) fn tell_token(&mut self, grant: &Grant, process: u32) -> Token {
        if self.holder_of(grant).is_none() {
            let ended = self.history.token_of_fence(grant.fence);
            return ended.unwrap_or_else(|| self.minter.tell(grant.fence, process).1);
        }
        if let Some(known) = self.known_token(grant.slot) {
            return known;
        }
        let (told, token) = self.minter.tell(grant.fence, process);
        let slot = &mut self.slots[grant.slot];
        slot.holder.iter_mut().for_each(|holder| holder.told = told);
        if let Some(key_slot) = slot.member_of()
            && let Some(group) = self.slots[key_slot].group_mut()
        {
            group.name(token, grant.slot);
        }
        token
    }

    /// The token that is kept with a grant, if it still holds its key.
    pub(crate) fn kept_token(&self, grant: &Grant) -> Option<Token> {
        self.holder_of(grant)?;
        self.slots[grant.slot].kept_token()
    }

    /// The token of what holds a slot, if anybody but the table can know it.
    #[inline]
    pub(super) fn known_token(&self, index: u32) -> Option<Token> {
        let slot = &self.slots[index];
        let holder = slot.holder.as_ref()?;
        slot.kept_token().or_else(|| self.minter.token(holder.told, holder.fence()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(number: u64) -> FencingToken {
        FencingToken::at_least_one(number)
    }

    #[test]
    fn a_token_is_a_random_uuid_of_its_fence_and_its_shard_alone() {
        let (mut one, mut other) = (Minter::default(), Minter::default());
        assert_eq!(one.token(ToldUnder::NOBODY, fence(7)), None);
        let (told, token) = one.tell(fence(7), 1);
        assert_eq!((one.token(told, fence(7)), one.tell(fence(7), 1)), (Some(token), (told, token)));
        assert_ne!(one.tell(fence(8), 1).1, token);
        assert_ne!(other.tell(fence(7), 1).1, token);
        let uuid = token.as_uuid();
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (4, uuid::Variant::RFC4122));
        assert!(!format!("{one:?}").contains(&format!("{:?}", one.keys[0])));
    }

    #[test]
    fn a_fork_tells_other_tokens_than_its_parent_and_knows_those_that_were_told_before() {
        let mut parent = Minter::default();
        let before = parent.key_of(1);
        let token = parent.token(before, fence(7));
        let mut fork = Minter { keys: parent.keys.clone(), process: parent.process };
        let (told, in_parent) = (fork.key_of(2), parent.key_of(1));
        assert_eq!((fork.token(before, fence(7)), in_parent), (token, before));
        assert_ne!(fork.token(told, fence(8)), parent.token(in_parent, fence(8)));
        assert_eq!(fork.key_of(2), told);
        for process in 3..1_000 {
            fork.key_of(process);
        }
        assert_eq!((fork.keys.len(), fork.token(before, fence(7))), (MAX_KEYS, token));
    }
}
