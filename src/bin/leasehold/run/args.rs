//! The flags of `leasehold run`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use leasehold::Token;

use crate::client::ServerArgs;
use crate::exit::Failure;
use crate::lend::{Kind, Terms, this_process};

/// How long a command may take to end by itself, unless that is too long for its TTL.
const KILL_AFTER: Duration = Duration::from_secs(5);

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// What to lock
    #[arg(long)]
    key: String,

    /// How long to wait for the lock
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::settings::time)]
    wait: Duration,

    /// Do not wait at all
    #[arg(long, conflicts_with = "wait")]
    nonblock: bool,

    /// How long the lock lasts without a heartbeat; one is sent every third of it
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::settings::time)]
    pub(super) ttl: Duration,

    #[command(flatten)]
    pub(super) server: ServerArgs,

    /// Lock in a store, without a server: `redis://host:port`, `redis` with REDIS_URL, or
    /// `redlock:redis://a,redis://b,redis://c`
    #[arg(long, conflicts_with = "server")]
    pub(super) store: Option<String>,

    /// Over `redlock:` what its servers have, the same for all
    #[arg(long, env = "LEASEHOLD_REDLOCK_MAX_TTL", value_name = "TIME", default_value = "60s", value_parser = crate::settings::time)]
    pub(super) redlock_max_ttl: Duration,

    /// Share the lock with all who ask for it so
    #[arg(long, conflicts_with = "limit")]
    shared: bool,

    /// Let so many hold the lock at once; all must name the same number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// Who holds the lock, for people who look [default: host and process]
    #[arg(long)]
    owner: Option<String>,

    /// How long the command may take to end after SIGTERM when the lock is about to be lost; less than half the TTL
    /// [default: 5s, or a quarter of the TTL]
    #[arg(long, value_name = "TIME", value_parser = crate::settings::time)]
    kill_after: Option<Duration>,

    /// The exit code when the lock is not acquired
    #[arg(long, value_name = "CODE", default_value_t = crate::exit::NOT_ACQUIRED)]
    pub(super) conflict_exit_code: u8,

    /// The command and its words
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

const EXAMPLES: &str = "\
The command sees LEASEHOLD_KEY, LEASEHOLD_FENCING_TOKEN (where there is one) and LEASEHOLD_DEADLINE, the first deadline
in milliseconds since 1970, which heartbeats move on.

Exit codes: the command's own; 128+N if signal N ended it; 1 not acquired (--conflict-exit-code); 75 the lock was lost;
69 server or store unreachable; 64 usage; 126 the command cannot be run; 127 it is not found.

Examples:
  leasehold run --key cron:daily -- backup --full
  leasehold run --key cron:daily --nonblock --conflict-exit-code 0 -- backup    # skip the turn
  leasehold run --key gpu --limit 2 --wait 1h -- train
  leasehold run --key deploy --store redis://127.0.0.1:6379 -- ./deploy.sh";

impl RunArgs {
    /// What to ask for.
    pub(super) fn terms(&self) -> Terms {
        let kind = match (self.shared, self.limit) {
            (true, _) => Kind::Shared,
            (false, Some(limit)) => Kind::Permit { limit },
            (false, None) => Kind::Exclusive,
        };
        let wait = if self.nonblock { Duration::ZERO } else { self.wait };
        let owner = self.owner.clone().unwrap_or_else(this_process);
        Terms { key: self.key.clone(), kind, ttl: self.ttl, wait, owner, token: Token::random() }
    }

    /// How long the command may take to end.
    ///
    /// # Errors
    /// `Usage` if a heartbeat could not fail before SIGTERM would have to be sent.
    pub(super) fn kill_after(&self) -> Result<Duration, Failure> {
        match self.kill_after {
            None => Ok(KILL_AFTER.min(self.ttl / 4)),
            Some(kill_after) if kill_after < self.ttl / 2 => Ok(kill_after),
            Some(_) => Err(Failure::Usage("--kill-after must be under half of --ttl".to_owned())),
        }
    }
}
