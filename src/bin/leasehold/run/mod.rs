//! `leasehold run`: a command that runs while a lock is held, or several.
//!
//! It is not a shell: the words are the command's own. The command gets stdin, stdout, stderr, and a process group of its
//! own, which is the terminal's foreground group meanwhile. A file each: `args`, `launch` and `child` (the process),
//! `descendants` (what it leaves behind), `terminal`, `forwarded_signals`, `watch` (when to beat, when to end the
//! command), `deadline` (a thread that ends the command in time whatever becomes of the rest), and here the order of it
//! all.
//!
//! | before the lock | with the lock | its end |
//! |---|---|---|
//! | a signal ends the waiting | signals go to the command | the command's own exit code, or 128 + N |
//! | held by others: `--conflict-exit-code` | about to be lost: SIGTERM, then SIGKILL | 75 |
//! | no server, no store until the wait is over: 69 | cannot be run, not found | 126, 127 |
//! | | held longer than `--max-hold`: SIGTERM, then SIGKILL | 124 |
//!
//! What it cannot do: if it is itself killed by SIGKILL, Linux kills the command with it, but not what the command has
//! begun. Their lock then ends with the TTL, and only the fencing token keeps them from the resource.

mod args;
mod child;
mod deadline;
mod descendants;
mod forwarded_signals;
mod launch;
mod terminal;
mod watch;

use std::process::ExitCode;

pub(crate) use args::RunArgs;
use child::{Child, Ended, NotStarted};
use forwarded_signals::Signals;
pub(crate) use launch::become_command;
use leasehold::Clock;
use terminal::Terminal;
use watch::{Rules, Verdict, Why};

use crate::client::Client;
use crate::exit::{self, Failure};
use crate::lease::leases::Leases;
use crate::lease::progress::{Progress, Verbosity};
use crate::lease::{LeaseSource, LeaseTerms, OwnEngine};
use crate::output::{clear_line, notice};

/// Acquires the locks, runs the command, releases the locks.
///
/// # Errors
/// The command was not run, or a lock was lost.
pub(crate) fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let rules = args.rules()?;
    let mut terms = args.terms();
    let runtime = crate::runtime()?;
    let done = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|why| Failure::Os(format!("cannot listen for signals: {why}")))?;
        let source = source(&args)?;
        let progress = Progress::new(args.verbosity());
        let end = Clock::system().now().saturating_add(args.wait());
        let acquired = {
            let owner = terms.first().map(|terms| terms.owner.clone()).unwrap_or_default();
            let shown = progress.show(async |key: &str| source.look(key, &owner).await);
            tokio::select! {
                signal = signals.ended_by() => Err(Ended::Signal(signal as i32)),
                acquired = Leases::acquire(&source, &mut terms, end, &progress) => Ok(acquired),
                () = shown => Ok(Err(Failure::Os("the waiting is not shown any more".to_owned()))),
            }
        };
        clear_line();
        match acquired {
            Ok(Ok(leases)) => {
                let done = hold(&args, &terms, rules, leases, &mut signals).await;
                source.close().await;
                done
            }
            Ok(Err(why)) => {
                // A lock may have been granted by an answer that was lost.
                source.give_up(&terms).await;
                Err(why)
            }
            Err(ended) => {
                source.give_up(&terms).await;
                Ok(code(ended))
            }
        }
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    match done {
        Err(Failure::NotAcquired(why)) => {
            if args.verbosity() == Verbosity::Normal {
                notice(format_args!("{}: {why}", named(&terms)));
            }
            Ok(args.conflict_exit_code.into())
        }
        done => done,
    }
}

fn named(terms: &[LeaseTerms]) -> String {
    let keys: Vec<&str> = terms.iter().map(|terms| terms.key.as_str()).collect();
    crate::print::plain(&keys.join(", ")).into_owned()
}

fn source(args: &RunArgs) -> Result<LeaseSource, Failure> {
    match &args.store {
        None => Ok(LeaseSource::Server(Client::new(&args.server)?)),
        Some(name) => {
            let engine = OwnEngine::over(name, args.redlock_max_ttl, &args.store_settings, args.ttl)?;
            Ok(LeaseSource::Store(Box::new(engine)))
        }
    }
}

/// Runs the command under the leases.
async fn hold(
    args: &RunArgs,
    terms: &[LeaseTerms],
    rules: Rules,
    mut leases: Leases,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let terminal = Terminal::open();
    let child = match Child::start(&args.command, terms, &leases, &args.withheld()) {
        Ok(child) => child,
        Err(NotStarted { code, why }) => {
            notice(why);
            leases.give_up().await;
            return Ok(code.into());
        }
    };
    if let Some(terminal) = &terminal {
        // Only if the command was started directly: otherwise its process has taken it.
        terminal.lend(&child);
    }
    let verdict = watch::watch(&child, &mut leases, rules, terminal.as_ref(), signals).await;
    if let Some(terminal) = &terminal {
        terminal.take_back(&child, &verdict);
    }
    let code = match verdict {
        Verdict::Ended(ended) => code(ended),
        Verdict::Stopped(Why::Overran) => exit::OVERRAN.into(),
        Verdict::Stopped(Why::Lost(why)) => {
            leases.give_up().await;
            return Err(Failure::Lost(format!("{}: the lock is lost, the command was ended: {why}", named(terms))));
        }
    };
    match leases.release().await {
        Ok(()) => Ok(code),
        Err(why @ Failure::Lost(_)) => Err(why),
        // The command did what it did under its lock, which now ends with its TTL.
        Err(why) => {
            notice(format_args!("{}: not released: {why}", named(terms)));
            Ok(code)
        }
    }
}

fn code(ended: Ended) -> ExitCode {
    match ended {
        Ended::Code(code) => ExitCode::from(code),
        Ended::Signal(signal) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
    }
}
