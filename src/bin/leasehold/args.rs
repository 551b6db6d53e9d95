//! What the command line takes: flags over environment over defaults.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A keyed lock server: TTL, fencing tokens, fair queues.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve locks over HTTP (this is what `leasehold` alone does)
    Serve(ServeArgs),
}

impl Cli {
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

/// Durations are written as in `500ms`, `30s`, `1h 30m`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where to listen; port 0 takes any free one and prints it
    #[arg(long, env = "LEASEHOLD_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7420")]
    pub(crate) listen: String,

    /// Allow an address that others can reach: they can all take and release locks
    #[arg(long, env = "LEASEHOLD_INSECURE")]
    pub(crate) insecure: bool,

    /// Where locks live: `memory` (they end with the process), `redis://host:port`, `redis` with REDIS_URL, or
    /// `redlock:redis://a,redis://b,redis://c`
    // Checked by hand: a refusal by clap would print the value, and a store's URL may hold a password.
    #[arg(long, env = "LOCK_STORE", hide_env_values = true, default_value = "memory")]
    pub(crate) store: String,

    /// Over `redlock:` the longest time that a lock lasts without a refresh, and for which a node that may have
    /// forgotten locks does not vote, a new one too; the same in all servers
    #[arg(long, env = "LEASEHOLD_REDLOCK_MAX_TTL", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) redlock_max_ttl: Duration,

    /// How long a lock lasts when its request does not say
    #[arg(long, env = "LEASEHOLD_TTL", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Duration,

    /// The longest time that a request may ask a lock to last
    #[arg(long, env = "LEASEHOLD_MAX_TTL", value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) max_ttl: Duration,

    /// How long a request waits when it does not say
    #[arg(long, env = "LEASEHOLD_WAIT", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) wait: Duration,

    /// The longest time that a request may ask to wait
    #[arg(long, env = "LEASEHOLD_MAX_WAIT", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) max_wait: Duration,

    /// How many keys may be locked at once
    #[arg(long, env = "LEASEHOLD_MAX_KEYS", value_name = "N", default_value_t = 4_194_304)]
    pub(crate) max_keys: usize,

    /// How many requests may wait at once; must be below --max-connections, so that holders can still release
    #[arg(long, env = "LEASEHOLD_MAX_WAITERS", value_name = "N", default_value_t = 32_768)]
    pub(crate) max_waiters: usize,

    /// How many requests may wait for one key
    #[arg(long, env = "LEASEHOLD_MAX_WAITERS_PER_KEY", value_name = "N", default_value_t = 16_384)]
    pub(crate) max_waiters_per_key: usize,

    /// How many connections may be open at once (split over the workers)
    #[arg(long, env = "LEASEHOLD_MAX_CONNECTIONS", value_name = "N", default_value_t = 65_536)]
    pub(crate) max_connections: usize,

    /// The longest body of a request
    #[arg(long, env = "LEASEHOLD_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 16_384)]
    pub(crate) max_body_bytes: usize,

    /// How long a client may take to send its body
    #[arg(long, env = "LEASEHOLD_BODY_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) body_timeout: Duration,

    /// How long a shutdown may take, holders being given time to release
    #[arg(long, env = "LEASEHOLD_GRACE", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) grace: Duration,

    /// How many threads serve requests [default: one per core]
    #[arg(long, env = "LEASEHOLD_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) workers: Option<u16>,

    /// How log lines look; which are written is for RUST_LOG to say
    #[arg(long, env = "LEASEHOLD_LOG_FORMAT", value_enum, default_value = "pretty")]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Pretty,
    /// One JSON object per line
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as CommandFactory>::command().debug_assert();
    }

    #[test]
    fn without_a_subcommand_it_serves_and_takes_the_flags_of_serve() {
        for words in [vec!["leasehold", "--grace", "90ms"], vec!["leasehold", "serve", "--grace", "90ms"]] {
            let Command::Serve(args) = Cli::try_parse_from(words).unwrap().into_command();
            assert_eq!(args.grace, Duration::from_millis(90));
        }
    }
}
