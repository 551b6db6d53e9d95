//! The lock server and its command line.
//!
//! `leasehold` alone is `leasehold serve`. Every verb has a file of its own, with its flags and what it does.
//!
//! | files | what they do |
//! |---|---|
//! | `args`, `settings`, `config`, `exit`, `shape` | flags and settings, exit codes, what is printed |
//! | `serve`, `bounds`, `logs`, `patience`, `signals`, `sockets`, `tls`, `tokens` | the server |
//! | `client`, `lend` | HTTP, and locks that are borrowed by it or from a store |
//! | the others | one verb each |

mod acquire;
mod args;
mod bench;
mod bounds;
mod client;
mod completions;
mod config;
mod exit;
mod force_release;
mod heartbeat;
mod lend;
mod logs;
mod ls;
mod man;
mod metrics;
mod patience;
mod redlock;
mod release;
#[cfg(unix)]
mod run;
mod serve;
mod settings;
mod shape;
mod show;
mod signals;
mod sockets;
mod stats;
mod tls;
mod tokens;
mod watch;

use std::process::ExitCode;

use args::{Command, ConfigCommand};
use exit::Failure;
use mimalloc::MiMalloc;

/// A request allocates some forty pieces of memory, most of them in actix-web.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = match config::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(config::Unread::Clap(why)) => {
            // Help and version come here as well. There is nobody to tell if they cannot be printed.
            let _ = why.print();
            return if why.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
        Err(config::Unread::File(why)) => return failed(&why),
    };
    match carry_out(cli.into_command()) {
        Ok(code) => code,
        Err(why) => failed(&why),
    }
}

fn failed(why: &Failure) -> ExitCode {
    if !matches!(why, Failure::NobodyReads) {
        eprintln!("leasehold: {why}");
    }
    why.code().into()
}

fn carry_out(command: Command) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Serve(args) => serve::run(*args),
        #[cfg(unix)]
        Command::Run(args) => run::run(args),
        Command::Acquire(args) => wait_for(acquire::acquire(args)).map(done),
        Command::Release(args) => wait_for(release::release(args)).map(done),
        Command::Heartbeat(args) => wait_for(heartbeat::heartbeat(args)).map(done),
        Command::Ls(args) => wait_for(ls::ls(args)).map(done),
        Command::Show(args) => wait_for(show::show(args)).map(done),
        Command::Stats(args) => wait_for(stats::stats(args)).map(done),
        Command::ForceRelease(args) => wait_for(force_release::force_release(args)).map(done),
        Command::Watch(args) => wait_for(watch::watch(args)).map(done),
        Command::Bench(args) => wait_for(bench::bench(args)).map(done),
        Command::Redlock(command) => wait_for(redlock::redlock(command)).map(done),
        Command::Config(ConfigCommand::Print(args)) => config::print(&args).map(done),
        Command::Completions(args) => completions::completions(&args).map(done),
        Command::Man(args) => man::man(&args).map(done),
    }
}

/// Runs a verb that asks a server.
fn wait_for(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime()?.block_on(verb)
}

/// One thread is enough for a client.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|why| Failure::Os(format!("no runtime: {why}")))
}
