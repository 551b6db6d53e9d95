//! May this process hand a key out at all? The place where the store's answers will be kept.
//!
//! Without a store the process always may. With one, a slot will carry the claim that its grants live under
//! (REDIS R13, R17 to R19), and `Ask` below is where that question is put; see [`crate::store`].

use crate::clock::Moment;

/// The right of this process to grant the keys of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// Memory mode: there is no store, every key is this process's own.
    Local,
}

impl Claim {
    /// Whether a free key may be granted now, without asking anybody.
    pub(crate) fn may_grant(self, _now: Moment) -> bool {
        match self {
            Self::Local => true,
        }
    }
}
