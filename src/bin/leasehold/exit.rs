//! Exit codes, from BSD's `sysexits.h`, and the errors that lead to them.

use std::io;

use leasehold::BuildError;

/// The command line or a setting makes no sense.
pub(crate) const USAGE: u8 = 64;
/// The server cannot listen where it was told to, or its store cannot be reached.
pub(crate) const UNAVAILABLE: u8 = 69;
/// The operating system has no thread or no signal to give.
pub(crate) const OS_ERROR: u8 = 71;

/// Why the program ends without having done what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A setting that parses and makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The address is in use, or not ours.
    #[error("cannot listen on {address}: {why}")]
    Listen { address: String, why: io::Error },
    /// The store cannot be reached.
    #[error("{0}")]
    Store(String),
    /// The machine is short of something.
    #[error("{0}")]
    Os(String),
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Listen { .. } | Self::Store(_) => UNAVAILABLE,
            Self::Os(_) => OS_ERROR,
        }
    }
}

impl From<BuildError> for Failure {
    fn from(why: BuildError) -> Self {
        match why {
            BuildError::Thread(_) => Self::Os(why.to_string()),
            BuildError::Store(_) => Self::Store(why.to_string()),
            _ => Self::Usage(why.to_string()),
        }
    }
}
