//! The last step before the command: this program once more, in the command's process, which becomes the command.
//!
//! In between it does what only the process itself can do: it asks the kernel to be killed when `leasehold run` dies,
//! by SIGKILL too, makes its group the terminal's foreground group, and looks at the deadline once more, since any time
//! may have passed since the lock was granted.
//! Where the system does not show a program its own file (`/proc` is not there), the command is started without.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use leasehold::{Clock, Moment};

use super::child::{CANNOT_RUN, NOT_FOUND};
use super::terminal::Terminal;
use crate::exit;
use crate::output;

/// The first word of such a start. Not a verb: nobody is to type it.
const MARK: &str = "__leasehold-run-command";
/// This program, also when its file was replaced or removed.
const OWN_FILE: &str = "/proc/self/exe";

/// The command, by way of this program; it is not started after that deadline.
pub(super) fn by_way_of_us(words: &[OsString], deadline: Moment) -> Command {
    let mut command = Command::new(OWN_FILE);
    command.arg(MARK).arg(std::process::id().to_string()).arg(deadline.as_nanos().to_string()).args(words);
    command
}

/// The command as it is.
pub(super) fn directly(words: &[OsString]) -> Command {
    let (program, arguments) = words.split_first().expect("the parser asks for one word at least");
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Why a program was not started, as an exit code and for people.
pub(super) fn not_started(program: &OsStr, why: &io::Error) -> (u8, String) {
    let code = if why.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    (code, format!("{}: {why}", program.display()))
}

/// Becomes the command, if this process was started for that; answers only if it cannot.
pub(crate) fn become_command(words: &[OsString]) -> Option<ExitCode> {
    let [_, mark, parent, deadline, words @ ..] = words else { return None };
    if mark != MARK {
        return None;
    }
    let number = |word: &OsString| word.to_str().and_then(|word| word.parse::<u64>().ok());
    let (Some(parent), Some(deadline), [program, ..]) = (number(parent), number(deadline), words) else {
        return Some(exit::USAGE.into());
    };
    die_with_parent();
    // Whoever ended before that was asked for has left no lock behind that is ours.
    let is_ours = nix::unistd::getppid().as_raw().unsigned_abs() == u32::try_from(parent).unwrap_or_default();
    if !is_ours || Clock::system().now().as_nanos() >= deadline {
        output::notice("the lock ended before the command was started");
        return Some(exit::LOST.into());
    }
    if let Some(terminal) = Terminal::open() {
        terminal.take_from_parent();
    }
    let why = directly(words).exec();
    let (code, why) = not_started(program, &why);
    output::notice(why);
    Some(code.into())
}

#[cfg(target_os = "linux")]
fn die_with_parent() {
    // A kernel that refuses leaves things as they are elsewhere.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

#[cfg(not(target_os = "linux"))]
fn die_with_parent() {}
