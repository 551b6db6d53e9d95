//! How the last grants of a shard ended: what became of a token (T12), and what an operator sees of a key's past.
//!
//! Both are rings of fixed size (T9), and every end is written to them by [`History::push`]. They differ in what they
//! keep: `log` the last ends of all kinds, `tokens` the last of those whose token can still be asked about. So many guards
//! that release themselves make nobody forget a token.

mod log;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::error::Loss;
use crate::key::{FencingToken, Token};
use log::EndLog;
use tokens::EndedTokens;

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
    /// The loss that a late request with the token is answered with.
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

/// One grant that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndRecord {
    pub(crate) key_hash: u32,
    pub(crate) end: End,
    pub(crate) fence: FencingToken,
    /// What its resource was shown, if anything.
    pub(crate) proof: Option<FencingToken>,
    pub(crate) granted_at: Moment,
    pub(crate) ended_at: Moment,
}

impl EndRecord {
    pub(crate) fn held(&self) -> Duration {
        self.ended_at.saturating_since(self.granted_at)
    }
}

#[derive(Debug)]
pub(crate) struct History {
    log: EndLog,
    tokens: EndedTokens,
}

impl History {
    /// `tokens`: how many ended tokens are remembered.
    pub(crate) fn new(tokens: u16) -> Self {
        Self { log: EndLog::new(), tokens: EndedTokens::new(tokens) }
    }

    /// Writes an end down, with the label of its owner. `token`: the grant's, if it can still be asked about.
    #[inline(always)]
    pub(super) fn push(&mut self, record: EndRecord, token: Option<Token>, owner: Option<Arc<str>>) {
        if let Some(token) = token {
            self.tokens.push(token, record.key_hash, record.fence, record.end);
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

    /// The ends of one key's grants, the last first, with the labels of their owners.
    pub(super) fn ends_of_key(&self, key_hash: u32) -> impl Iterator<Item = (&EndRecord, Option<&Arc<str>>)> {
        self.log.of(key_hash)
    }

    #[cfg(test)]
    pub(super) fn tokens_remembered(&self) -> usize {
        self.tokens.len()
    }
}
