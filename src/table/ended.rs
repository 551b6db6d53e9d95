//! The last tokens whose grants ended, and why (DESIGN 6): best effort, a ring of fixed size beside the table.
//!
//! Only grants whose token can still be asked about are kept: those that ended against their holder's will, and
//! those whose token travels without a guard. A guard that releases itself is nobody else's business.

use std::collections::VecDeque;

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
    entries: VecDeque<Ended>,
    capacity: usize,
}

impl EndedRing {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), capacity }
    }

    pub(crate) fn push(&mut self, token: Token, key_hash: u32, fence: FencingToken, end: End) {
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(Ended { token, key_hash, fence, end });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How the grant with this token on this key ended, if that is still known.
    pub(crate) fn find(&self, token: Token, key_hash: u32) -> Option<End> {
        self.entries.iter().rev().find(|e| e.token == token && e.key_hash == key_hash).map(|e| e.end)
    }

    /// The same for a guard, by what is its own alone: clients may use one token for several keys.
    pub(crate) fn find_fence(&self, fence: FencingToken) -> Option<End> {
        self.entries.iter().rev().find(|e| e.fence == fence).map(|e| e.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(ring.entries.len(), 3);
    }
}
