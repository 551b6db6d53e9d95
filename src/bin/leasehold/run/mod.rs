//! `leasehold run`: a command that runs while a lock is held.
//!
//! It is not a shell: the words are the command's own. The command gets stdin, stdout, stderr, and a process group of its
//! own, which is the terminal's foreground group meanwhile. A file each: `args`, `child` (the process), `terminal`,
//! `notices` (signals), `watch` (when to beat, when to end the command), `deadline` (a thread that ends the command in time
//! whatever becomes of the rest), and here the order of it all.
//!
//! | before the lock | with the lock | its end |
//! |---|---|---|
//! | a signal ends the waiting | signals go to the command | the command's own exit code, or 128 + N |
//! | held by others: `--conflict-exit-code` | about to be lost: SIGTERM, then SIGKILL | 75 |
//! | no server, no store: 69 | cannot be run, not found | 126, 127 |
//!
//! What it cannot do: a command outlives a `leasehold run` that is itself killed by SIGKILL. Its lock then ends with
//! the TTL, and only the fencing token keeps it from the resource.

mod args;
mod child;
mod deadline;
mod notices;
mod terminal;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

pub(crate) use args::RunArgs;
use child::{Child, Ended, NotStarted};
use notices::Notices;
use terminal::Terminal;
use watch::Verdict;

use crate::client::Client;
use crate::exit::Failure;
use crate::lend::{Lease, Lender, Terms};
use crate::output::notice;
use crate::settings::store;

/// Acquires the lock, runs the command, releases the lock.
///
/// # Errors
/// The command was not run, or the lock was lost.
pub(crate) fn run(args: RunArgs) -> Result<ExitCode, Failure> {
    let kill_after = args.kill_after()?;
    let terms = args.terms();
    let conflict = args.conflict_exit_code;
    let runtime = crate::runtime()?;
    let done = runtime.block_on(async {
        let mut notices = Notices::listen().map_err(|why| Failure::Os(format!("cannot listen for signals: {why}")))?;
        let lender = lender(&args).await?;
        let lease = {
            tokio::select! {
                signal = notices.ended_by() => {
                    lender.give_up(&terms).await;
                    return Ok(code(Ended::Signal(signal as i32)));
                }
                granted = lender.acquire(&terms) => match granted {
                    Ok(lease) => lease,
                    Err(why) => {
                        // The lock may have been granted by an answer that was lost.
                        if let Failure::Unavailable(_) = why {
                            lender.give_up(&terms).await;
                        }
                        return Err(why);
                    }
                },
            }
        };
        hold(&args, &terms, kill_after, lease, &mut notices).await
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    match done {
        Err(Failure::NotAcquired(why)) => {
            notice(format_args!("{}: {why}", terms.key));
            Ok(conflict.into())
        }
        done => done,
    }
}

async fn lender(args: &RunArgs) -> Result<Lender, Failure> {
    match &args.store {
        None => Ok(Lender::Server(Client::new(&args.server)?)),
        Some(name) => {
            let choice = store::choose(name, args.redlock_max_ttl).map_err(Failure::Usage)?;
            Lender::over(choice, args.ttl).await
        }
    }
}

/// Runs the command under the lease.
async fn hold(
    args: &RunArgs,
    terms: &Terms,
    kill_after: Duration,
    mut lease: Lease,
    notices: &mut Notices,
) -> Result<ExitCode, Failure> {
    let terminal = Terminal::open();
    let mut child = match Child::start(&args.command, terms, &lease) {
        Ok(child) => child,
        Err(NotStarted { code, why }) => {
            notice(why);
            lease.give_up().await;
            return Ok(code.into());
        }
    };
    if let Some(terminal) = &terminal {
        terminal.lend(&child);
    }
    let verdict = watch::watch(&mut child, &mut lease, terms.ttl, kill_after, terminal.as_ref(), notices).await;
    if let Some(terminal) = &terminal {
        terminal.take_back(&child, &verdict);
    }
    match verdict {
        Verdict::Ended(ended) => match lease.release().await {
            Ok(()) => Ok(code(ended)),
            Err(why @ Failure::Lost(_)) => Err(why),
            // The command did what it did under its lock, which now ends with its TTL.
            Err(why) => {
                notice(format_args!("{}: not released: {why}", terms.key));
                Ok(code(ended))
            }
        },
        Verdict::Lost(why) => {
            lease.give_up().await;
            Err(Failure::Lost(format!("{}: the lock is lost, the command was ended: {why}", terms.key)))
        }
    }
}

fn code(ended: Ended) -> ExitCode {
    match ended {
        Ended::Code(code) => ExitCode::from(code),
        Ended::Signal(signal) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
    }
}
