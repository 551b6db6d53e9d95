//! The processes that the command has left behind, or that have left its group.
//!
//! `leasehold run` takes the place of process 1 for them: their parent, when that has ended. It reaps them, and when the
//! lock is lost it finds all of them, also one that made a session of its own (`setsid`).

use nix::unistd::Pid;

/// From here on orphans below this process become its children.
#[cfg(target_os = "linux")]
pub(super) fn adopt_orphans() {
    // A kernel that refuses leaves them to process 1.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

#[cfg(not(target_os = "linux"))]
pub(super) fn adopt_orphans() {}

/// Every process below this one that has not ended, but for `others` and what is below them: a shell that became this
/// program (`exec`) may have left it children. Elsewhere than on Linux none is known.
pub(super) fn living(others: &[Pid]) -> Vec<Pid> {
    let mut below = vec![std::process::id()];
    let mut all = processes();
    all.retain(|process| !others.iter().any(|other| other.as_raw().unsigned_abs() == process.id));
    let mut at = 0;
    while at < below.len() {
        let parent = below[at];
        below.extend(all.iter().filter(|process| process.parent == parent).map(|process| process.id));
        at += 1;
    }
    let living = all.iter().filter(|process| !process.is_over && below[1..].contains(&process.id));
    living.filter_map(|process| i32::try_from(process.id).ok()).map(Pid::from_raw).collect()
}

struct Process {
    id: u32,
    parent: u32,
    /// Ended and not yet reaped.
    is_over: bool,
}

fn processes() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(read).collect()
}

fn read(id: u32) -> Option<Process> {
    // `PID (NAME) STATE PARENT …`; a name may hold anything.
    let stat = std::fs::read(format!("/proc/{id}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_over = ["Z", "X"].contains(&fields.next()?);
    Some(Process { id, parent: fields.next()?.parse().ok()?, is_over })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn children_and_their_children_are_found_until_they_end() {
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let id = Pid::from_raw(i32::try_from(child.id()).unwrap());
        while living(&[]).len() < 2 {
            std::thread::yield_now();
        }
        assert!(living(&[]).contains(&id));
        assert_eq!(living(&[id]), [], "what is below others is theirs");
        for process in living(&[]) {
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
        assert!(!living(&[]).contains(&id));
    }
}
