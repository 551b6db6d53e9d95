//! May this process hand a key out, and until when? The seam to the store.
//!
//! A claim is the process's own right to a key. Every grant is made in one place, [`Table::holder`], which keeps it
//! within the claim (REDIS R19): no grant outlives the right that it was made under. Without a store, in memory mode,
//! every key is this process's own for good, and all of this costs nothing.
//!
//! [`Table::holder`]: super::Table::holder

use crate::clock::Moment;

/// The right of this process to grant a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// Memory mode: there is no store to ask.
    Local,
}

impl Claim {
    /// The moment that no grant under this claim may outlast.
    pub(crate) const fn horizon(self) -> Moment {
        match self {
            Self::Local => Moment::FAR,
        }
    }
}
