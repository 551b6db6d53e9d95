//! Watches over a command and its locks: heartbeats, signals, and the end of the command before that of a lock.
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
//!
//! What is ended is the command's group and whatever else the command has begun. If the command itself has ended when it
//! got SIGTERM, and others of its group have not, they have the time that it had.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use leasehold::Moment;
use nix::sys::signal::Signal;

use super::child::{Child, CommandState, Ended};
use super::deadline::LastResort;
use super::forwarded_signals::{SignalEvent, Signals};
use super::terminal::Terminal;
use crate::lease::Beat;
use crate::lease::leases::{AllBeats, Leases, again};
use crate::output::notice;

/// How long the watch sleeps at most.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How often it looks whether a group whose leader has ended is gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long SIGKILL may take to be carried out: this share of the TTL, and no more than so long.
const MARGIN_SHARE: u32 = 20;
const LONGEST_MARGIN: Duration = Duration::from_millis(250);
/// How long a process may take to be stopped by a signal that it has sent to itself.
const STOPPING: Duration = Duration::from_millis(100);
/// How long what was killed may take to be gone. What the kernel does not let go of by then has no more to do.
const DYING: Duration = Duration::from_secs(2);

/// How it went.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The command ended by itself, or by a signal from outside.
    Ended(Ended),
    /// It was ended for this.
    Stopped(Why),
}

/// Why a command is ended.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// A lock was lost, or was about to be.
    Lost(String),
    /// The command took longer than it may.
    Overran,
}

/// What a command is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) ttl: Duration,
    /// How long it may take to end after SIGTERM.
    pub(super) kill_after: Duration,
    /// How long it may hold the lock.
    pub(super) max_hold: Option<Duration>,
    pub(super) until: Until,
}

/// When a command counts as ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// When its first process has ended.
    Command,
    /// When its whole process group has.
    Group,
}

/// How far the end of the command has come.
enum Stage {
    Runs,
    /// SIGTERM was sent. At `kill` follows SIGKILL.
    Ending {
        why: Why,
        kill: Moment,
    },
    Killed {
        why: Why,
        since: Moment,
    },
}

/// Watches until the command has ended.
pub(super) async fn watch(
    child: &Child,
    leases: &mut Leases,
    rules: Rules,
    terminal: Option<&Terminal>,
    signals: &mut Signals,
) -> Verdict {
    let margin = (rules.ttl / MARGIN_SHARE).min(LONGEST_MARGIN);
    let last_resort = {
        let group = Arc::clone(child.group());
        LastResort::arm(leases.deadline(), margin / 2, move || group.kill())
    };
    let mut watch = Watch { child, rules, margin, last_resort, stage: Stage::Runs, unknown: None };
    let verdict = watch.run(leases, terminal, signals).await;
    child.let_go();
    verdict
}

struct Watch<'a> {
    child: &'a Child,
    rules: Rules,
    margin: Duration,
    last_resort: LastResort,
    stage: Stage,
    /// Why the last heartbeat was not answered.
    unknown: Option<String>,
}

impl Watch<'_> {
    async fn run(&mut self, leases: &mut Leases, terminal: Option<&Terminal>, signals: &mut Signals) -> Verdict {
        let Rules { ttl, max_hold, .. } = self.rules;
        let (every, again) = (ttl / 3, again(ttl));
        let began = leases.now();
        let overrun = max_hold.map(|span| began.saturating_add(span));
        let mut lost = leases.lost();
        let mut beat: Pin<Box<dyn Future<Output = Vec<Beat>>>> = Box::pin(pending());
        // Sooner if one of several has been held for a while.
        let mut next_beat = began.saturating_add(leases.until_beat(ttl));
        loop {
            let mut longest_sleep = LONGEST_SLEEP;
            match self.child.state() {
                CommandState::Ended(ended) => {
                    if let Some(verdict) = self.verdict(ended, leases.now()) {
                        return verdict;
                    }
                    longest_sleep = LOOK_EVERY;
                }
                // It was started directly, and used the terminal before it had it.
                CommandState::Stopped(Signal::SIGTTIN | Signal::SIGTTOU)
                    if terminal.is_some_and(|terminal| terminal.is_lent_to(self.child)) =>
                {
                    self.child.signal(Signal::SIGCONT);
                }
                CommandState::Stopped(signal @ (Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU)) => {
                    if let Some(terminal) = terminal {
                        self.stop(terminal, signal, leases).await;
                        next_beat = leases.now();
                    }
                }
                CommandState::Stopped(_) | CommandState::Runs => {}
            }
            let now = leases.now();
            let Some(sleep) = self.step(now, leases.deadline(), overrun) else { continue };
            let beats = match self.stage {
                Stage::Runs | Stage::Ending { why: Why::Overran, .. } => true,
                Stage::Ending { .. } | Stage::Killed { .. } => false,
            };
            if beats && now >= next_beat {
                beat = leases.beat(every);
                // Not before this one has been answered.
                next_beat = now.saturating_add(every.saturating_mul(2));
            }
            let sleep = if beats { sleep.min(next_beat.saturating_since(now)) } else { sleep };
            tokio::select! {
                event = signals.next() => if let SignalEvent::Forward(signal) = event {
                    self.child.signal(signal);
                },
                why = &mut lost => {
                    lost = Box::pin(pending());
                    self.kill(Why::Lost(why), now);
                }
                answers = &mut beat => {
                    beat = Box::pin(pending());
                    match leases.note(answers) {
                        AllBeats::Done => {
                            next_beat = now.saturating_add(every);
                            self.unknown = None;
                        }
                        AllBeats::Unknown(why) => {
                            next_beat = leases.now().saturating_add(again);
                            self.unknown = Some(why);
                        }
                        AllBeats::Gone(why) => self.kill(Why::Lost(why), now),
                    }
                    self.last_resort.put_off(leases.deadline());
                }
                () = tokio::time::sleep(sleep.min(longest_sleep)) => {}
            }
        }
    }

    /// Ends the command as far as it is time to; answers when to look again, `None` if at once.
    fn step(&mut self, now: Moment, deadline: Moment, overrun: Option<Moment>) -> Option<Duration> {
        let left = deadline.saturating_since(now).saturating_sub(self.margin);
        let kill_after = self.rules.kill_after;
        match &self.stage {
            Stage::Killed { .. } => Some(LOOK_EVERY),
            Stage::Runs | Stage::Ending { .. } if left.is_zero() => {
                let why = self.why_lost("its time ran out");
                self.kill(why, now);
                None
            }
            Stage::Runs if left <= kill_after => {
                let why = self.unknown.take().unwrap_or_else(|| "no heartbeat in time".to_owned());
                notice(format_args!("the lock is about to be lost, telling the command to end: {why}"));
                self.terminate(Why::Lost(why), now.saturating_add(left));
                None
            }
            Stage::Runs if overrun.is_some_and(|overrun| overrun <= now) => {
                notice("the command has held the lock for too long, telling it to end");
                self.terminate(Why::Overran, now.saturating_add(kill_after));
                None
            }
            Stage::Runs => {
                let overrun = overrun.map_or(Duration::MAX, |overrun| overrun.saturating_since(now));
                Some((left - kill_after).min(overrun))
            }
            Stage::Ending { why, kill } if *kill <= now => {
                let why = why.clone();
                self.kill(why, now);
                None
            }
            Stage::Ending { kill, .. } => Some(kill.saturating_since(now).min(left)),
        }
    }

    fn why_lost(&mut self, otherwise: &str) -> Why {
        match &self.stage {
            Stage::Ending { why: why @ Why::Lost(_), .. } => why.clone(),
            _ => Why::Lost(self.unknown.take().unwrap_or_else(|| otherwise.to_owned())),
        }
    }

    fn terminate(&mut self, why: Why, kill: Moment) {
        self.child.group().signal_all(Signal::SIGTERM);
        // A stopped command gets SIGTERM only when it goes on.
        self.child.group().signal_all(Signal::SIGCONT);
        self.stage = Stage::Ending { why, kill };
    }

    /// Whatever the command does now, it may not do.
    fn kill(&mut self, why: Why, now: Moment) {
        if !matches!(self.stage, Stage::Killed { .. }) {
            self.child.group().kill();
            self.stage = Stage::Killed { why, since: now };
        }
    }

    /// What comes of it, now that the command's first process has ended; `None`: others have yet to end.
    fn verdict(&mut self, ended: Ended, now: Moment) -> Option<Verdict> {
        match &self.stage {
            Stage::Runs if self.last_resort.has_struck() => Some(Verdict::Stopped(self.why_lost("its time ran out"))),
            Stage::Runs => {
                let waits = self.rules.until == Until::Group && self.child.group().is_there();
                (!waits).then_some(Verdict::Ended(ended))
            }
            Stage::Ending { why, .. } => {
                (!self.child.group().has_left_something()).then(|| Verdict::Stopped(why.clone()))
            }
            Stage::Killed { why, since } => {
                let is_over = !self.child.group().has_left_something() || now.saturating_since(*since) >= DYING;
                if !is_over {
                    // One that was just being begun.
                    self.child.group().kill();
                }
                is_over.then(|| Verdict::Stopped(why.clone()))
            }
        }
    }

    /// Stops as the command was stopped, until somebody has it go on.
    async fn stop(&self, terminal: &Terminal, signal: Signal, leases: &Leases) {
        // Also what has left the command's group: it must not go on while nobody sends heartbeats.
        self.child.group().signal_all(Signal::SIGSTOP);
        terminal.stop_with(self.child, signal);
        tokio::time::sleep(STOPPING).await;
        // What follows comes before the command goes on: its lock may have ended meanwhile.
        if leases.deadline().saturating_since(leases.now()) > self.margin {
            terminal.lend(self.child);
            self.child.group().signal_all(Signal::SIGCONT);
        }
    }
}
