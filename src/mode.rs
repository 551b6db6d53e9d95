//! The kinds of lock: exclusive, shared, permits; and which of them go together on one key.
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

/// What a key is used as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    ReadWrite,
    Semaphore { limit: u32 },
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
