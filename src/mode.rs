//! The kinds of lock: exclusive, shared, permits; which of them go together on one key, and which a store can keep.
//!
//! A key is used either as a read-write lock (exclusive and shared) or as a semaphore of one size. What it is shows
//! from who holds it; once it is free it may be used as the other kind.

use std::fmt;

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// By one holder at a time.
    #[default]
    Exclusive,
    /// By any number of holders that all asked for it so.
    Shared,
    /// By as many holders as there are permits for.
    Permits {
        /// How many permits the key has; all who use it must name the same number.
        limit: u32,
        /// How many of them this holder takes.
        permits: u32,
    },
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive | Self::Shared => f.write_str(self.label().as_str()),
            Self::Permits { limit, permits } => write!(f, "{permits} of {limit} permits"),
        }
    }
}

named! {
    /// A [`Mode`] without its numbers, as spans and metrics tell modes apart.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum ModeLabel {
        Exclusive = "exclusive",
        Shared = "shared",
        Permits = "permits",
    }
}

/// How the keys of a store can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// By one holder at a time.
    Exclusive,
    /// In every [`Mode`], as the contract of a [`Store`](crate::store::Store) says (S15 to S17).
    All,
}

/// What a key is used as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    ReadWrite,
    Semaphore { limit: u32 },
}

impl Kind {
    /// Whether a further holder of this mode has room beside those who take so much of it together.
    pub(crate) fn has_room(self, taken: u64, mode: Mode) -> bool {
        match (self, mode) {
            (_, Mode::Exclusive) => false,
            (Self::ReadWrite, Mode::Shared) => true,
            (Self::Semaphore { limit }, Mode::Permits { permits, .. }) => {
                taken + u64::from(permits) <= u64::from(limit)
            }
            (Self::ReadWrite, Mode::Permits { .. }) | (Self::Semaphore { .. }, Mode::Shared) => false,
        }
    }
}

impl Mode {
    pub(crate) const fn label(self) -> ModeLabel {
        match self {
            Self::Exclusive => ModeLabel::Exclusive,
            Self::Shared => ModeLabel::Shared,
            Self::Permits { .. } => ModeLabel::Permits,
        }
    }

    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::Exclusive | Self::Shared => Kind::ReadWrite,
            Self::Permits { limit, .. } => Kind::Semaphore { limit },
        }
    }

    /// How much of a group's room one holder takes.
    pub(crate) const fn weight(self) -> u32 {
        match self {
            Self::Exclusive | Self::Shared => 1,
            Self::Permits { permits, .. } => permits,
        }
    }
}
