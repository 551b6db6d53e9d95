//! [`Ticket`]: a held lock as a value.

use crate::key::{FencingToken, Key, Token};

/// A held lock as a value: whoever has the token may refresh and release it. Dropping a ticket does nothing.
///
/// Its parts, with the token, are all that there is to keep of it, and [`from_parts`](Ticket::from_parts) makes it of
/// them again; with the feature `serde` it is written and read as a whole. Keep it where the token may be.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Ticket {
    key: Key,
    token: Token,
    #[cfg_attr(feature = "serde", serde(rename = "fencing_token", default))]
    fence: Option<FencingToken>,
}

impl Ticket {
    /// The ticket of a lock that somebody wrote down. Whether it still holds is for
    /// [`restore`](crate::LockManager::restore) to say, or `refresh`.
    #[must_use]
    pub fn from_parts(key: Key, token: Token, fence: Option<FencingToken>) -> Self {
        Self { key, token, fence }
    }

    /// The key that is locked.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The proof of holding.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// The number for the protected resource to compare; see [`Held::fencing_token`](super::Held::fencing_token).
    #[must_use]
    pub fn fencing_token(&self) -> Option<FencingToken> {
        self.fence
    }
}

debug_of!(Ticket, |it| key: it.key, fencing_token: it.fence);
