//! The lock server and its command line.
//!
//! `leasehold` alone is `leasehold serve`.
//!
//! | room | what it does |
//! |---|---|
//! | `cli` | reads the command line; the verbs |
//! | `run` | `leasehold run`: a command under a lock |
//! | `server` | `leasehold serve` |
//! | `lease`, `client` | locks from a server or from a store; HTTP |
//! | `settings`, `environment` | what both the server and the verbs can be told |
//! | `output`, `print`, `screen`, `writer`, `exit` | what is printed and how, exit codes |

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "they panic when a write fails; `output` does not")]

mod cli;
mod client;
mod environment;
mod exit;
mod lease;
mod output;
mod print;
#[cfg(unix)]
mod run;
mod screen;
mod server;
mod settings;
mod writer;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use cli::args::{Command, ConfigCommand};
use cli::{
    acquire, bench, completions, config, force_release, health, heartbeat, ls, man, postgres, redlock, release, show,
    stats, token, watch,
};
use exit::Failure;
use mimalloc::MiMalloc;

/// A request allocates some forty pieces of memory, most of them in actix-web.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(output::panic_hook));
    let code = catch_unwind(AssertUnwindSafe(program)).unwrap_or_else(|_| exit::PANICKED.into());
    output::flush();
    code
}

fn program() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    #[cfg(unix)]
    if let Some(code) = run::become_command(&words) {
        return code;
    }
    let cli = match config::parse(words) {
        Ok(cli) => cli,
        Err(config::Unread::Clap(why)) => {
            return refused(&why);
        }
        Err(config::Unread::File(why)) => return failed(&why),
    };
    match carry_out(cli.into_command()) {
        Ok(code) => code,
        Err(why) => failed(&why),
    }
}

/// What the parser has to say: what is wrong with the words; or help, or the version.
fn refused(why: &clap::Error) -> ExitCode {
    if why.use_stderr() {
        let text = why.render();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let coloured = std::io::stderr().is_terminal() && !no_colour;
        output::status(if coloured { text.ansi().to_string() } else { text.to_string() });
        return exit::USAGE.into();
    }
    match why.print() {
        Err(why) if why.kind() != std::io::ErrorKind::BrokenPipe => failed(&Failure::Output(why)),
        _ => ExitCode::SUCCESS,
    }
}

fn failed(why: &Failure) -> ExitCode {
    if !matches!(why, Failure::NobodyReads) {
        output::notice(why);
    }
    why.code().into()
}

fn carry_out(command: Command) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Serve(args) => server::serve::run(*args),
        #[cfg(unix)]
        Command::Run(args) => run::run(*args),
        Command::Acquire(args) => wait_for(acquire::acquire(args)).map(done),
        Command::Release(args) => wait_for(release::release(args)).map(done),
        Command::Heartbeat(args) => wait_for(heartbeat::heartbeat(args)).map(done),
        Command::Ls(args) => wait_for(ls::ls(args)).map(done),
        Command::Show(args) => wait_for(show::show(args)).map(done),
        Command::Health(args) => wait_for(health::health(args)).map(done),
        Command::Stats(args) => wait_for(stats::stats(args)).map(done),
        Command::ForceRelease(args) => wait_for(force_release::force_release(args)).map(done),
        Command::Watch(args) => wait_for(watch::watch(args)).map(done),
        Command::Bench(args) => wait_for(bench::bench(args)).map(done),
        Command::Redlock(command) => wait_for(redlock::redlock(command)).map(done),
        Command::Postgres(command) => wait_for(postgres::postgres(command)).map(done),
        Command::Token(command) => token::token(command).map(done),
        Command::Config(ConfigCommand::Print(args)) => config::print(&args).map(done),
        Command::Completions(args) => completions::completions(&args).map(done),
        Command::Man(args) => man::man(&args).map(done),
    }
}

/// Runs a verb that asks a server.
fn wait_for(verb: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let done = runtime.block_on(verb);
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    done
}

/// One thread is enough for a client.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|why| Failure::Os(format!("no runtime: {why}")))
}
