//! The last tokens whose grants ended, and why (DESIGN 6): best effort, a ring of fixed size beside the table.
//!
//! Only grants whose token can still be asked about are kept: those that ended against their holder's will, and
//! those whose token travels without a guard. A guard that releases itself is nobody else's business.

use std::collections::VecDeque;

use crate::error::Loss;
use crate::key::Token;

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

#[derive(Debug)]
pub(crate) struct EndedRing {
    entries: VecDeque<(Token, u32, End)>,
    capacity: usize,
}

impl EndedRing {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), capacity }
    }

    pub(crate) fn push(&mut self, token: Token, key_hash: u32, end: End) {
        if self.entries.len() >= self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back((token, key_hash, end));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How the grant with this token on this key ended, if that is still known.
    pub(crate) fn find(&self, token: Token, key_hash: u32) -> Option<End> {
        self.entries.iter().rev().find(|(t, h, _)| *t == token && *h == key_hash).map(|(_, _, end)| *end)
    }

    /// The same for a caller that does not know the key's hash: a guard, whose token no client chose twice.
    pub(crate) fn find_token(&self, token: Token) -> Option<End> {
        self.entries.iter().rev().find(|(t, _, _)| *t == token).map(|(_, _, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_forgets_the_oldest_and_keeps_its_bound() {
        let mut ring = EndedRing::new(3);
        let tokens: Vec<Token> = (0..5).map(|_| Token::random()).collect();
        for token in &tokens {
            ring.push(*token, 1, End::Expired);
        }
        let known: Vec<bool> = tokens.iter().map(|token| ring.find(*token, 1).is_some()).collect();
        assert_eq!(known, [false, false, true, true, true]);
        assert_eq!(ring.find(tokens[4], 2), None, "another key's token");
        assert_eq!(ring.entries.len(), 3);
    }
}
