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

/// Why a key is not locked in the mode that was asked for; or why a lock does not go over to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModeConflict {
    /// The key is in use as a read-write lock. Permits have keys of their own.
    #[error("{} asked for, and the key is in use as a read-write lock", Words(*asked))]
    ReadWrite {
        /// What was asked for.
        asked: Mode,
    },
    /// The key is in use as a semaphore of so many permits. All who use it must name that number.
    #[error("{} asked for, and the key is in use as a semaphore of {limit}", Words(*asked))]
    Semaphore {
        /// How many permits it has.
        limit: u32,
        /// What was asked for.
        asked: Mode,
    },
    /// Others hold the key in the store in a mode that does not go together with this, not even in turn.
    #[error("{} asked for, and others hold the key as another kind of lock", Words(*asked))]
    Elsewhere {
        /// What was asked for.
        asked: Mode,
    },
    /// The key is in use [within this process alone](crate::LockOptions::process_scope), and was asked for across
    /// processes.
    #[error("the key is in use within this process alone, and was asked for across processes")]
    WithinProcess,
    /// The key is in use across processes, and was asked for [within this one](crate::LockOptions::process_scope).
    #[error("the key is in use across processes, and was asked for within this one alone")]
    AcrossProcesses,
    /// The store keeps exclusive locks alone. [`process_scope`](crate::LockOptions::process_scope) asks for a lock that
    /// holds within this process.
    #[error("{} asked for, and the store keeps exclusive locks alone{}", Words(*asked), Because(*why))]
    Store {
        /// What was asked for.
        asked: Mode,
        /// Why it does, in words of its own.
        why: Option<&'static str>,
    },
    /// Permits are neither upgraded nor downgraded.
    #[error("permits are neither upgraded nor downgraded")]
    Permits,
    /// What a store keeps is not upgraded: release it, and ask for the key alone.
    #[error(
        "a share that a store keeps is not upgraded: other processes' shares would have to end first, and the store \
         keeps no queue for that; release it, and ask for the key alone"
    )]
    Upgrade,
}

/// What was asked for, in words.
struct Words(Mode);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Mode::Exclusive => f.write_str("the key alone is"),
            Mode::Shared => f.write_str("a share is"),
            permits @ Mode::Permits { .. } => write!(f, "{permits} are"),
        }
    }
}

/// A reason, if there is one.
struct Because(Option<&'static str>);

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

/// What a key is used as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    ReadWrite,
    Semaphore { limit: u32 },
}

impl Kind {
    /// Why a key that is used so is not asked for in this mode.
    pub(crate) fn conflict(self, asked: Mode) -> Option<ModeConflict> {
        (self != asked.kind()).then_some(match self {
            Self::ReadWrite => ModeConflict::ReadWrite { asked },
            Self::Semaphore { limit } => ModeConflict::Semaphore { limit, asked },
        })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_conflict_says_what_was_asked_for_and_what_is_in_the_way() {
        let permits = Mode::Permits { limit: 3, permits: 2 };
        let semaphore = Kind::Semaphore { limit: 5 };
        assert_eq!(Kind::ReadWrite.conflict(Mode::Shared), None);
        let told = [
            Kind::ReadWrite.conflict(permits).unwrap(),
            semaphore.conflict(Mode::Exclusive).unwrap(),
            ModeConflict::Elsewhere { asked: Mode::Shared },
            ModeConflict::Store { asked: Mode::Shared, why: None },
            ModeConflict::Store { asked: permits, why: Some("nobody counts them") },
        ];
        let told = told.map(|conflict| conflict.to_string());
        assert_eq!(
            told,
            [
                "2 of 3 permits are asked for, and the key is in use as a read-write lock",
                "the key alone is asked for, and the key is in use as a semaphore of 5",
                "a share is asked for, and others hold the key as another kind of lock",
                "a share is asked for, and the store keeps exclusive locks alone",
                "2 of 3 permits are asked for, and the store keeps exclusive locks alone: nobody counts them",
            ]
        );
    }
}
