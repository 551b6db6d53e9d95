//! The command as a process: in a group of its own, with the facts of its lock in its environment.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{descendants, launch};
use crate::lease::leases::Leases;
use crate::lease::{LeaseTerms, whole_ms};

/// It is there and cannot be run.
pub(super) const CANNOT_RUN: u8 = 126;
/// It is not there.
pub(super) const NOT_FOUND: u8 = 127;

/// A command that was started. Its process group has its process id. Dropped before [`let_go`](Self::let_go), it is
/// killed: nobody else would end it before its lock ends.
pub(super) struct Child {
    group: Arc<Group>,
    ended: Cell<Option<Ended>>,
    let_go: Cell<bool>,
}

/// The command's process group, and what has left it, as more than one thread sees them.
#[derive(Debug)]
pub(super) struct Group {
    id: Pid,
    /// Processes below this one that were there before the command.
    others: Vec<Pid>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(u8),
    Signal(i32),
}

/// What has become of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandState {
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
    pub(super) fn start(
        words: &[OsString],
        terms: &[LeaseTerms],
        leases: &Leases,
        withheld: &[&str],
    ) -> Result<Self, NotStarted> {
        descendants::adopt_orphans();
        let others = descendants::living(&[]);
        let ready = |mut command: Command| {
            command.process_group(0);
            for name in withheld {
                command.env_remove(name);
            }
            set_environment(&mut command, terms, leases);
            command.spawn()
        };
        let started = match ready(launch::by_way_of_us(words, leases.deadline())) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => ready(launch::directly(words)),
            started => started,
        };
        match started {
            // It is waited for by its id: the handle cannot tell that a process was stopped.
            Ok(child) => Ok(Self::of(child.id(), others)),
            Err(why) => {
                let (code, why) = launch::not_started(&words[0], &why);
                Err(NotStarted { code, why })
            }
        }
    }

    fn of(process: u32, others: Vec<Pid>) -> Self {
        let id = Pid::from_raw(i32::try_from(process).expect("process ids are positive"));
        Self { group: Arc::new(Group { id, others }), ended: Cell::new(None), let_go: Cell::new(false) }
    }

    pub(super) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Its process group.
    pub(super) fn id(&self) -> Pid {
        self.group.id
    }

    /// What has become of it since it was last asked. Reaps whatever has ended.
    pub(super) fn state(&self) -> CommandState {
        while self.ended.get().is_none() {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(id, code)) if id == self.id() => {
                    self.ended.set(Some(Ended::Code(u8::try_from(code).unwrap_or(u8::MAX))));
                }
                Ok(WaitStatus::Signaled(id, signal, _)) if id == self.id() => {
                    self.ended.set(Some(Ended::Signal(signal as i32)));
                }
                Ok(WaitStatus::Stopped(id, signal)) if id == self.id() => return CommandState::Stopped(signal),
                // An orphan.
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..) | WaitStatus::Stopped(..)) | Err(Errno::EINTR) => {
                }
                // Somebody else has waited for it; only its end does that.
                Err(Errno::ECHILD) => self.ended.set(Some(Ended::Code(u8::MAX))),
                _ => return CommandState::Runs,
            }
        }
        reap_orphans();
        self.ended.get().map_or(CommandState::Runs, CommandState::Ended)
    }

    /// Sends a signal to its group.
    pub(super) fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }

    /// Nothing of it has to be ended any more.
    pub(super) fn let_go(&self) {
        self.let_go.set(true);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.let_go.get() {
            self.group.kill();
        }
    }
}

impl Group {
    /// Sends a signal to all that are in it.
    pub(super) fn signal(&self, signal: Signal) {
        // A process that ends just now does not get it.
        let _ = killpg(self.id, signal);
    }

    /// Sends a signal to all that are in it, and to all that have left it.
    pub(super) fn signal_all(&self, signal: Signal) {
        self.signal(signal);
        for process in descendants::living(&self.others) {
            if nix::unistd::getpgid(Some(process)) != Ok(self.id) {
                let _ = kill(process, signal);
            }
        }
    }

    /// Ends all of them for good.
    pub(super) fn kill(&self) {
        self.signal_all(Signal::SIGKILL);
    }

    /// Whether anything is left in it; what has ended and was not reaped by its parent counts.
    pub(super) fn is_there(&self) -> bool {
        killpg(self.id, None) != Err(Errno::ESRCH)
    }

    /// Whether anything is left that it has begun.
    pub(super) fn has_left_something(&self) -> bool {
        self.is_there() || !descendants::living(&self.others).is_empty()
    }
}

fn reap_orphans() {
    while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {}
}

/// Gives the command the facts of its locks.
fn set_environment(command: &mut Command, terms: &[LeaseTerms], leases: &Leases) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = wall.saturating_add(leases.deadline().saturating_since(leases.now()));
    let keys: Vec<&str> = terms.iter().map(|terms| terms.key.as_str()).collect();
    command.env("LEASEHOLD_KEY", keys.join("\n")).env("LEASEHOLD_DEADLINE", whole_ms(deadline).to_string());
    let fences: Vec<String> =
        leases.fencing_tokens().map(|fence| fence.map_or(String::new(), |f| f.to_string())).collect();
    if fences.iter().all(String::is_empty) {
        // One that an outer `leasehold run` set is not about this lock.
        command.env_remove("LEASEHOLD_FENCING_TOKEN");
    } else {
        command.env("LEASEHOLD_FENCING_TOKEN", fences.join("\n"));
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
            let _child = Child::of(id, Vec::new());
            panic!("as the watch might");
        });
        assert!(broke.is_err());
        assert_eq!(process.wait().unwrap().signal(), Some(9));
    }
}
