//! Which tokens hold shares, as far as this process knows: [`Shares`].
//!
//! A lock that a token has for itself and a share have scripts of their own. A call names the token alone, so this says
//! which script is asked first. It is a hint: the wrong one answers that it is the wrong one, and the other is asked.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::key::Token;
use crate::mode::Mode;

/// More than these are not remembered.
const MOST: usize = 1 << 16;

/// What a token's hold is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HoldKind {
    /// It has the lock for itself.
    Exclusive,
    Share,
}

impl HoldKind {
    pub(super) fn of(mode: Mode) -> Self {
        if mode == Mode::Exclusive { Self::Exclusive } else { Self::Share }
    }
}

/// The tokens of shares.
#[derive(Default)]
pub(super) struct Shares {
    /// How many there are, read without the mutex: mostly there are none.
    len: AtomicUsize,
    tokens: Mutex<HashSet<Token, RandomState>>,
}

impl Shares {
    /// A token is about to hold a share.
    pub(super) fn insert(&self, token: Token) {
        let mut tokens = self.tokens.lock();
        if tokens.len() >= MOST {
            tokens.clear();
        }
        tokens.insert(token);
        self.len.store(tokens.len(), Ordering::Relaxed);
    }

    /// A token holds nothing any more.
    pub(super) fn remove(&self, token: Token) {
        if self.len.load(Ordering::Relaxed) > 0 {
            let mut tokens = self.tokens.lock();
            tokens.remove(&token);
            self.len.store(tokens.len(), Ordering::Relaxed);
        }
    }

    /// What a token's hold is to be taken for.
    pub(super) fn kind(&self, token: Token) -> HoldKind {
        if self.len.load(Ordering::Relaxed) > 0 && self.tokens.lock().contains(&token) {
            HoldKind::Share
        } else {
            HoldKind::Exclusive
        }
    }
}

impl HoldKind {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Exclusive => Self::Share,
            Self::Share => Self::Exclusive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_are_remembered_and_one_that_is_not_counts_as_exclusive() {
        let (shares, token) = (Shares::default(), Token::random());
        assert_eq!(shares.kind(token), HoldKind::Exclusive);
        shares.insert(token);
        assert_eq!(shares.kind(token), HoldKind::Share);
        (0..=MOST).for_each(|_| shares.insert(Token::random()));
        assert!(shares.tokens.lock().len() <= MOST);
        shares.insert(token);
        shares.remove(token);
        assert_eq!(shares.kind(token), HoldKind::Exclusive);
    }
}
