//! The terminal, which the command has while it runs.
//!
//! A process that reads from a terminal without being in its foreground group is stopped. So the command's group becomes
//! that group, if `leasehold run` itself was in it, and not if it runs in the background. The command's process does so
//! itself, before it becomes the command: no SIGCONT is needed, which would undo a Ctrl-Z that comes at once.

use std::fs::File;

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgid, getpgrp, getppid, tcgetpgrp, tcsetpgrp};

use super::child::{Child, Ended};
use super::watch::Verdict;

/// The terminal that controls this process.
pub(super) struct Terminal {
    tty: File,
    /// As the terminal was; a command that was killed may have left it raw.
    modes: Option<Termios>,
}

impl Terminal {
    /// `None`: there is none, as under cron.
    pub(super) fn open() -> Option<Self> {
        let tty = File::options().read(true).write(true).open("/dev/tty").ok()?;
        let modes = tcgetattr(&tty).ok();
        Some(Self { tty, modes })
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.tty).ok()
    }

    /// Makes this process's group the foreground group, if that of this process's parent is it.
    pub(super) fn take_from_parent(&self) {
        if let Ok(parent) = getpgid(Some(getppid())) {
            self.pass_on(parent, getpgrp());
        }
    }

    /// Makes the command's group the foreground group, if this process's is it.
    pub(super) fn lend(&self, child: &Child) {
        self.pass_on(getpgrp(), child.id());
    }

    /// Whether the command's group is the foreground group.
    pub(super) fn is_lent_to(&self, child: &Child) -> bool {
        self.foreground() == Some(child.id())
    }

    /// Makes this process's group the foreground group again, if the command's is it; and the terminal as it was, if
    /// the command had no time to do so.
    pub(super) fn take_back(&self, child: &Child, verdict: &Verdict) {
        if !self.pass_on(child.id(), getpgrp()) {
            return;
        }
        if let (Verdict::Stopped(_) | Verdict::Ended(Ended::Signal(_)), Some(modes)) = (verdict, &self.modes) {
            self.undisturbed(|| tcsetattr(&self.tty, SetArg::TCSANOW, modes));
        }
    }

    /// Stops this process's whole group as the command was stopped, so that the shell takes over. Returns when the
    /// shell has told it to go on, or when it cannot be stopped since no shell is there to do so.
    pub(super) fn stop_with(&self, child: &Child, signal: Signal) {
        self.pass_on(child.id(), getpgrp());
        let _ = killpg(getpgrp(), signal);
    }

    /// Makes another group the foreground group, if the first one is it; answers whether it was.
    fn pass_on(&self, from: Pid, to: Pid) -> bool {
        let was_from = self.foreground() == Some(from);
        if was_from {
            self.undisturbed(|| tcsetpgrp(&self.tty, to));
        }
        was_from
    }

    /// Does what a process in the background is stopped for, without being stopped.
    fn undisturbed<T>(&self, change: impl FnOnce() -> nix::Result<T>) {
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTTOU);
        if stop.thread_block().is_ok() {
            // A terminal that has gone (EIO, ENOTTY) needs no change.
            let _ = change();
            let _ = stop.thread_unblock();
        }
    }
}
