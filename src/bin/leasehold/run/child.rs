//! The command as a process: in a group of its own, and told of its lock by the environment.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::lend::{Lease, Terms, whole_ms};

/// It is there and cannot be run.
const CANNOT_RUN: u8 = 126;
/// It is not there.
const NOT_FOUND: u8 = 127;

/// A command that was started and not yet waited for. Its process group has its process id.
pub(super) struct Child {
    pub(super) group: Pid,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(u8),
    Signal(i32),
}

/// What has become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Runs,
    /// By the terminal (SIGTSTP, SIGTTIN, SIGTTOU) or by somebody.
    Stopped(Signal),
    Ended(Ended),
}

/// Why it was not started.
pub(super) struct NotStarted {
    pub(super) code: u8,
    pub(super) why: String,
}

impl Child {
    /// Starts it.
    pub(super) fn start(words: &[OsString], terms: &Terms, lease: &Lease) -> Result<Self, NotStarted> {
        let (program, arguments) = words.split_first().expect("the parser asks for one word at least");
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let deadline = wall.saturating_add(lease.deadline.saturating_since(lease.now()));
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        command.env("LEASEHOLD_KEY", &terms.key).env("LEASEHOLD_DEADLINE", whole_ms(deadline).to_string());
        match lease.fencing_token {
            Some(fence) => command.env("LEASEHOLD_FENCING_TOKEN", fence.to_string()),
            // One that an outer `leasehold run` set is not about this lock.
            None => command.env_remove("LEASEHOLD_FENCING_TOKEN"),
        };
        match command.spawn() {
            // It is waited for by its id: the handle cannot tell that a process was stopped.
            Ok(child) => {
                Ok(Self { group: Pid::from_raw(i32::try_from(child.id()).expect("process ids are positive")) })
            }
            Err(why) => {
                let code = if why.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
                Err(NotStarted { code, why: format!("{}: {why}", program.display()) })
            }
        }
    }

    /// What has become of it since it was last asked. Not to be asked again once it has ended.
    pub(super) fn state(&self) -> State {
        match waitpid(self.group, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => State::Ended(Ended::Code(u8::try_from(code).unwrap_or(u8::MAX))),
            Ok(WaitStatus::Signaled(_, signal, _)) => State::Ended(Ended::Signal(signal as i32)),
            Ok(WaitStatus::Stopped(_, signal)) => State::Stopped(signal),
            // Somebody else has waited for it; only its end does that.
            Err(Errno::ECHILD) => State::Ended(Ended::Code(u8::MAX)),
            _ => State::Runs,
        }
    }

    /// Sends a signal to its group. One that has just ended hears nothing.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = killpg(self.group, signal);
    }
}
