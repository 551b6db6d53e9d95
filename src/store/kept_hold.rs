//! What a store tells the process that comes next: [`KeptHold`].

use std::time::Duration;

use crate::key::{Key, Token};
use crate::mode::Mode;

/// One of those who hold a key, as a store tells it to the process that comes next (S20).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptHold {
    /// The key, as [`Store::canonical`](super::Store::canonical) spells it.
    pub key: Key,
    /// What it is held by.
    pub token: Token,
    /// How.
    pub mode: Mode,
    /// How long the store will keep it.
    pub ends_in: Duration,
    /// The fence of the grant.
    pub fence: u64,
    /// What it was acquired with.
    pub note: Box<[u8]>,
}

impl KeptHold {
    /// A grant that lasts, without a note.
    #[must_use]
    pub fn new(key: Key, token: Token, mode: Mode, ends_in: Duration, fence: u64) -> Self {
        Self { key, token, mode, ends_in, fence, note: Box::default() }
    }

    /// The same with its note.
    #[must_use]
    pub fn with_note(self, note: impl Into<Box<[u8]>>) -> Self {
        Self { note: note.into(), ..self }
    }
}

// Without the token (S14).
debug_of!(KeptHold, |it| key: it.key, mode: it.mode, ends_in: it.ends_in, fence: it.fence);
