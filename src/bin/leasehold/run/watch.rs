//! Watches over a command and its lock: heartbeats, signals, and the end of the command before that of the lock.
//!
//! ```text
//!   grant           ttl/3            2 ttl/3                   end       kill      deadline
//!     |---------------+----------------+---------------------------|---------|---------|
//!     |           heartbeat        heartbeat                    SIGTERM   SIGKILL   margin
//! ```
//!
//! Each heartbeat that is answered moves the three on the right. One whose fate is not known is tried again soon; one
//! that says that the lock has gone means SIGKILL at once. Times are read anew every second at least: a timer does not
//! see that the machine slept.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use leasehold::Moment;
use nix::sys::signal::Signal;

use super::child::{Child, Ended, State};
use super::deadline::LastResort;
use super::notices::{Notice, Notices};
use super::terminal::Terminal;
use crate::lend::{Beat, Lease};
use crate::output::notice;

/// How long the watch sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long SIGKILL may take to be carried out: this share of the TTL, and no more than so long.
const MARGIN_SHARE: u32 = 20;
const LONGEST_MARGIN: Duration = Duration::from_millis(250);
/// How soon a heartbeat whose fate is not known is tried again: this share of the TTL, and no later than that.
const AGAIN_SHARE: u32 = 10;
const LATEST_AGAIN: Duration = Duration::from_secs(1);
/// How long a process may take to be stopped by a signal that it has sent to itself.
const STOPPING: Duration = Duration::from_millis(100);

/// How it went.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The command ended by itself, or by a signal from outside.
    Ended(Ended),
    /// The lock was lost, or was about to be, and the command was ended for that.
    Lost(String),
}

/// How far the end of the command has come.
enum Stage {
    Runs,
    /// It was told to end, and is killed at that time.
    Told {
        why: String,
        kill: Moment,
    },
    Killed {
        why: String,
    },
}

/// Watches until the command has ended.
pub(super) async fn watch(
    child: &mut Child,
    lease: &mut Lease,
    ttl: Duration,
    kill_after: Duration,
    terminal: Option<&Terminal>,
    notices: &mut Notices,
) -> Verdict {
    let margin = (ttl / MARGIN_SHARE).min(LONGEST_MARGIN);
    let (every, again) = (ttl / 3, (ttl / AGAIN_SHARE).min(LATEST_AGAIN));
    let mut lost = lease.lost();
    let mut beat: Pin<Box<dyn Future<Output = Beat>>> = Box::pin(pending());
    let mut next_beat = lease.now().saturating_add(every);
    let mut unknown: Option<String> = None;
    let mut stage = Stage::Runs;
    let last_resort = {
        let group = Arc::clone(child.group());
        LastResort::arm(lease.deadline, margin / 2, move || group.signal(Signal::SIGKILL))
    };
    loop {
        match child.state() {
            State::Ended(ended) => {
                return match stage {
                    Stage::Runs if last_resort.has_struck() => Verdict::Lost("its time ran out".to_owned()),
                    Stage::Runs => Verdict::Ended(ended),
                    Stage::Told { why, .. } | Stage::Killed { why } => Verdict::Lost(why),
                };
            }
            State::Stopped(signal @ (Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU)) => {
                if let Some(terminal) = terminal {
                    terminal.stop_with(child, signal);
                    tokio::time::sleep(STOPPING).await;
                    // What follows comes before the command goes on: its lock may have ended meanwhile.
                    if !is_over(lease, margin) {
                        terminal.lend(child);
                        child.signal(Signal::SIGCONT);
                    }
                    next_beat = lease.now();
                }
            }
            State::Stopped(_) | State::Runs => {}
        }
        let now = lease.now();
        let left = lease.deadline.saturating_since(now).saturating_sub(margin);
        let sleep = match &stage {
            Stage::Runs if left.is_zero() => {
                child.signal(Signal::SIGKILL);
                stage = Stage::Killed { why: unknown.take().unwrap_or_else(|| "its time ran out".to_owned()) };
                continue;
            }
            Stage::Runs if left <= kill_after => {
                child.signal(Signal::SIGTERM);
                // A stopped command hears it only when it goes on.
                child.signal(Signal::SIGCONT);
                let why = unknown.take().unwrap_or_else(|| "no heartbeat in time".to_owned());
                notice(format_args!("the lock is about to be lost, telling the command to end: {why}"));
                stage = Stage::Told { why, kill: now.saturating_add(left) };
                continue;
            }
            Stage::Runs => {
                if now >= next_beat {
                    beat = lease.beat(every);
                    // Not before this one has been answered.
                    next_beat = now.saturating_add(every.saturating_mul(2));
                }
                (left - kill_after).min(next_beat.saturating_since(now))
            }
            Stage::Told { why, kill } => {
                let left = kill.saturating_since(now);
                if left.is_zero() {
                    child.signal(Signal::SIGKILL);
                    stage = Stage::Killed { why: why.clone() };
                    continue;
                }
                left
            }
            Stage::Killed { .. } => LONGEST_SLEEP,
        };
        tokio::select! {
            notice = notices.next() => if let Notice::Forward(signal) = notice {
                child.signal(signal);
            },
            why = &mut lost => {
                lost = Box::pin(pending());
                stage = end_at_once(child, stage, why);
            }
            answer = &mut beat => {
                beat = Box::pin(pending());
                match answer {
                    Beat::Until(deadline) => {
                        // Never back (T6).
                        lease.deadline = lease.deadline.max(deadline);
                        last_resort.put_off(lease.deadline);
                        next_beat = now.saturating_add(every);
                        unknown = None;
                    }
                    Beat::Unknown(why) => {
                        next_beat = lease.now().saturating_add(again);
                        unknown = Some(why);
                    }
                    Beat::Gone(why) => stage = end_at_once(child, stage, why),
                }
            }
            () = tokio::time::sleep(sleep.min(LONGEST_SLEEP)) => {}
        }
    }
}

fn is_over(lease: &Lease, margin: Duration) -> bool {
    lease.deadline.saturating_since(lease.now()) <= margin
}

/// The lock has gone: whatever the command does now, it does without it.
fn end_at_once(child: &Child, stage: Stage, why: String) -> Stage {
    match stage {
        killed @ Stage::Killed { .. } => killed,
        Stage::Runs | Stage::Told { .. } => {
            child.signal(Signal::SIGKILL);
            Stage::Killed { why }
        }
    }
}
