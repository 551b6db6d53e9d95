//! What the command line takes. The settings of the server are a room of their own.

use clap::{Parser, Subcommand};

use super::{
    acquire, bench, completions, force_release, health, heartbeat, ls, man, postgres, redlock, release, show, stats,
    token, watch,
};
#[cfg(unix)]
use crate::run;
use crate::settings::ServeArgs;

/// A keyed lock server and its client: TTL, fencing tokens, fair queues.
///
/// Without a verb it serves.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

const EXAMPLES: &str = "\
Examples:
  leasehold                                          # serve on 127.0.0.1:7420
  leasehold run --key cron:daily -- backup --full    # one at a time, wherever it is started
  leasehold ls --watch                               # who holds what
  leasehold completions bash > ~/.local/share/bash-completion/completions/leasehold

The client's verbs ask --server, LEASEHOLD_SERVER or http://127.0.0.1:7420.
Exit codes: 1 not acquired, 64 usage, 69 server or store unreachable, 75 lock lost.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve locks over HTTP (this is what `leasehold` alone does)
    Serve(Box<ServeArgs>),
    /// Run a command while holding a lock
    #[cfg(unix)]
    Run(Box<run::RunArgs>),
    /// Acquire a lock, and print its token
    Acquire(acquire::AcquireArgs),
    /// Release a lock by its token
    Release(release::ReleaseArgs),
    /// Make a lock last longer, by its token
    Heartbeat(heartbeat::HeartbeatArgs),
    /// List the locks that are held
    Ls(ls::LsArgs),
    /// Show who holds a lock, and who waits for it
    Show(show::ShowArgs),
    /// Tell the totals, and the most contended keys
    Stats(stats::StatsArgs),
    /// Tell whether a server is ready, by the exit code too
    Health(health::HealthArgs),
    /// Take a lock from whoever holds it
    ForceRelease(force_release::ForceReleaseArgs),
    /// Tell what happens to locks, as it happens
    Watch(watch::WatchArgs),
    /// Measure how fast a server acquires and releases
    Bench(bench::BenchArgs),
    /// Look after the servers behind `--store redlock:`
    #[command(subcommand)]
    Redlock(redlock::RedlockCommand),
    /// Look after the table behind `--store postgres://`
    #[command(subcommand)]
    Postgres(postgres::PostgresCommand),
    /// Make bearer tokens for a server
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Look at the settings of the server
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Write a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Write a manual page, in roff
    Man(man::ManArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what `serve` would work with, as a file for its --config
    Print(Box<ServeArgs>),
}

impl Cli {
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }

    /// Whether a misspelt setting could be meant for it.
    pub(crate) fn heeds_environment(&self) -> bool {
        !matches!(self.command, Some(Command::Completions(_) | Command::Man(_)))
    }

    /// The settings of the server, if it is about those.
    pub(crate) fn settings(&self) -> Option<&ServeArgs> {
        match &self.command {
            None => Some(&self.serve),
            Some(Command::Serve(args) | Command::Config(ConfigCommand::Print(args))) => Some(args),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_it_serves_and_takes_the_flags_of_serve() {
        for words in [vec!["leasehold", "--grace", "90ms"], vec!["leasehold", "serve", "--grace", "90ms"]] {
            let Command::Serve(args) = Cli::try_parse_from(words).unwrap().into_command() else { panic!("it serves") };
            assert_eq!(args.grace, Duration::from_millis(90));
        }
    }
}
