//! How the last grants of a shard ended: what became of a token (T12), and what an operator sees of a key's past.
//!
//! Both are rings of fixed size (T9), and every end is written to them by [`History::push`]. They differ in what they
//! keep: `log` the last ends of all kinds, `tokens` the last of those whose token can still be asked about. So many guards
//! that release themselves make nobody forget a token.

mod end;
mod log;
mod tokens;

use std::sync::Arc;

use crate::key::{FencingToken, Token};
pub(crate) use end::{End, EndRecord};
use log::EndLog;
use tokens::EndedTokens;

/// Who may ask how a grant ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum AskedBy {
    Nobody,
    /// Its guard, which knows its fence. Its token was not told.
    Guard,
    /// Whoever knows its token.
    Anybody(Token),
}

#[derive(Debug)]
#[repr(C)]
pub(crate) struct History {
    log: EndLog,
    tokens: EndedTokens,
}

impl History {
    /// `tokens`: how many ended tokens are remembered.
    pub(crate) fn new(tokens: u16) -> Self {
        Self { log: EndLog::new(), tokens: EndedTokens::new(tokens) }
    }

    /// Writes an end down, with the label of its owner.
    #[inline(always)]
    pub(super) fn push(&mut self, record: EndRecord, asked_by: AskedBy, owner: Option<Arc<str>>) {
        match asked_by {
            AskedBy::Nobody => {}
            AskedBy::Guard => self.tokens.push(None, record.key_hash, record.fence, record.end),
            AskedBy::Anybody(token) => self.tokens.push(Some(token), record.key_hash, record.fence, record.end),
        }
        self.log.push(record, owner);
    }

    /// How the last grant with this token on this key ended, if that is still known.
    pub(super) fn end_of_token(&self, token: Token, key_hash: u32) -> Option<End> {
        self.tokens.find(token, key_hash)
    }

    /// The same by the grant's fence, for a guard: clients may use one token for several keys. O(ring).
    pub(super) fn end_of_fence(&self, fence: FencingToken) -> Option<End> {
        self.tokens.find_fence(fence)
    }

    /// The token that was told of an ended grant, if that is still known. O(ring).
    pub(super) fn token_of_fence(&self, fence: FencingToken) -> Option<Token> {
        self.tokens.token_of(fence)
    }

    /// The ends of one key's grants, the last first, with the labels of their owners.
    pub(super) fn ends_of_key(&self, key_hash: u32) -> impl Iterator<Item = (&EndRecord, Option<&Arc<str>>)> {
        self.log.of(key_hash)
    }

    #[cfg(test)]
    pub(super) fn tokens_remembered(&self) -> usize {
        self.tokens.len()
    }
}
