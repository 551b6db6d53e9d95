//! Exit codes, from BSD's `sysexits.h` and the shell, and the errors that lead to them.
//!
//! | code | what it says |
//! |---|---|
//! | 1 | the lock was not acquired, or nobody holds the key that was named |
//! | 64 | the command line, a setting or what was asked makes no sense, or is not allowed |
//! | 69 | the server or the store cannot be reached, or cannot serve now |
//! | 70 | a fault of this program; `run` has ended its command |
//! | 71 | the operating system has no thread, no signal, no process to give |
//! | 74 | what was asked for was there and could not be written to stdout, as on a full disk |
//! | 75 | the lock is lost |
//! | 124 | `run`: the command was ended since it had held the lock for `--max-hold` |
//! | 126, 127 | `run`: the command cannot be run, is not found |
//! | 128 + N | `run`: the command, or the waiting for its lock, was ended by signal N |
//!
//! A notice that cannot be written to stderr changes none of them. A reader of stdout that has gone ends a verb with 0,
//! except where only stdout has what was done (`acquire`: the lock is released, and it is 74).

use std::io;

use leasehold::{BuildError, LockError};

use crate::client::Problem;

/// Somebody else holds the lock, or nobody does.
pub(crate) const NOT_ACQUIRED: u8 = 1;
/// The command line or a setting makes no sense.
pub(crate) const USAGE: u8 = 64;
/// The server cannot listen where it was told to, or a server or store cannot be reached.
pub(crate) const UNAVAILABLE: u8 = 69;
/// This program has panicked.
pub(crate) const PANICKED: u8 = 70;
/// The operating system has no thread or no signal to give.
pub(crate) const OS_ERROR: u8 = 71;
/// Stdout takes nothing.
pub(crate) const NOT_WRITTEN: u8 = 74;
/// The lock was lost before its time.
pub(crate) const LOST: u8 = 75;

/// A command held its lock for longer than it may; what `timeout` of the coreutils answers.
#[cfg(unix)]
pub(crate) const OVERRAN: u8 = 124;

/// Why the program ends without having done what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A setting that parses and makes no sense, or a request that is refused for good.
    #[error("{0}")]
    Usage(String),
    /// The address is in use, or not ours.
    #[error("cannot listen on {address}: {why}")]
    Listen { address: String, why: io::Error },
    /// The store or the server cannot be reached, or cannot serve now.
    #[error("{0}")]
    Unavailable(String),
    /// Others hold the lock, or nobody holds the key.
    #[error("{0}")]
    NotAcquired(String),
    /// The lock ended before its holder ended it.
    #[error("{0}")]
    Lost(String),
    /// The machine is short of something.
    #[error("{0}")]
    Os(String),
    /// What was asked for could not be written.
    #[error("cannot write to stdout: {0}")]
    Output(io::Error),
    /// Whoever read stdout has gone: nothing went wrong.
    #[error("the reader of the output has gone")]
    NobodyReads,
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Listen { .. } | Self::Unavailable(_) => UNAVAILABLE,
            Self::NotAcquired(_) => NOT_ACQUIRED,
            Self::Lost(_) => LOST,
            Self::Os(_) => OS_ERROR,
            Self::Output(_) => NOT_WRITTEN,
            Self::NobodyReads => 0,
        }
    }

    /// What a code of the server's problem documents comes to; unknown ones by their status.
    fn of_code(code: &str, status: u16, said: String) -> Self {
        match code {
            "held" | "timeout" | "queue_full" | "deadlock" | "not_locked" => Self::NotAcquired(said),
            "not_held" | "lost" | "session_ended" => Self::Lost(said),
            "rate_limited" | "body_timeout" => Self::Unavailable(said),
            code if code.starts_with("too_many_") || code.ends_with("_quota") => Self::Unavailable(said),
            _ if status >= 500 => Self::Unavailable(said),
            _ => Self::Usage(said),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let said = problem.to_string();
        Self::of_code(&problem.code, problem.status, said)
    }
}

impl From<LockError> for Failure {
    fn from(why: LockError) -> Self {
        Self::of_code(why.code(), why.http_status(), why.to_string())
    }
}

impl From<BuildError> for Failure {
    fn from(why: BuildError) -> Self {
        match why {
            BuildError::Thread(_) => Self::Os(why.to_string()),
            BuildError::Store(_) => Self::Unavailable(why.to_string()),
            _ => Self::Usage(why.to_string()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        Self::Os(why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_the_code_of_its_kind() {
        let rows = [
            ("held", 423, 1),
            ("timeout", 423, 1),
            ("queue_full", 429, 1),
            ("deadlock", 409, 1),
            ("not_locked", 404, 1),
            ("not_held", 409, 75),
            ("lost", 409, 75),
            ("store_unavailable", 503, 69),
            ("shutting_down", 503, 69),
            ("starting", 503, 69),
            ("rate_limited", 429, 69),
            ("too_many_keys", 429, 69),
            ("too_many_holders", 429, 69),
            ("lock_quota", 429, 69),
            ("waiter_quota", 429, 69),
            ("internal", 500, 69),
            ("unauthenticated", 401, 64),
            ("forbidden", 403, 64),
            ("invalid_ttl", 422, 64),
            ("wrong_mode", 409, 64),
        ];
        for (code, status, exit) in rows {
            assert_eq!(Failure::of_code(code, status, String::new()).code(), exit, "{code}");
        }
    }
}
