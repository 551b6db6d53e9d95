//! The command as a process: in a group of its own, and told of its lock by the environment.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// A command that was started. Its process group has its process id. Dropped while it runs, it is killed: nobody would
/// end it before its lock.
pub(super) struct Child(Arc<Group>);

/// The command's process group, as more than one thread sees it.
pub(super) struct Group {
    id: Pid,
    /// Whether the command was waited for: its id may since be another's. Held while a signal is sent.
    ended: Mutex<bool>,
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
            Ok(child) => Ok(Self::of(child.id())),
            Err(why) => {
                let code = if why.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
                Err(NotStarted { code, why: format!("{}: {why}", program.display()) })
            }
        }
    }

    fn of(process: u32) -> Self {
        let id = Pid::from_raw(i32::try_from(process).expect("process ids are positive"));
        Self(Arc::new(Group { id, ended: Mutex::new(false) }))
    }

    pub(super) fn group(&self) -> &Arc<Group> {
        &self.0
    }

    /// Its process group.
    pub(super) fn id(&self) -> Pid {
        self.0.id
    }

    /// What has become of it since it was last asked. Not to be asked again once it has ended.
    pub(super) fn state(&self) -> State {
        let mut over = self.0.ended();
        let state = Self::look(self.0.id);
        *over = matches!(state, State::Ended(_));
        state
    }

    fn look(process: Pid) -> State {
        match waitpid(process, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => State::Ended(Ended::Code(u8::try_from(code).unwrap_or(u8::MAX))),
            Ok(WaitStatus::Signaled(_, signal, _)) => State::Ended(Ended::Signal(signal as i32)),
            Ok(WaitStatus::Stopped(_, signal)) => State::Stopped(signal),
            // Somebody else has waited for it; only its end does that.
            Err(Errno::ECHILD) => State::Ended(Ended::Code(u8::MAX)),
            _ => State::Runs,
        }
    }

    /// Sends a signal to its group.
    pub(super) fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGKILL);
    }
}

impl Group {
    fn ended(&self) -> MutexGuard<'_, bool> {
        // A panic elsewhere leaves it as it is.
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal to all that are in it. A command that has ended gets none.
    pub(super) fn signal(&self, signal: Signal) {
        let over = self.ended();
        if !*over {
            // One that ends just now gets none either.
            let _ = killpg(self.id, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::panic::catch_unwind;

    use super::*;

    #[test]
    fn a_panic_ends_the_command() {
        let mut process = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let id = process.id();
        let broke = catch_unwind(|| {
            let _child = Child::of(id);
            panic!("as the watch might");
        });
        assert!(broke.is_err());
        assert_eq!(process.wait().unwrap().signal(), Some(9));
    }
}
