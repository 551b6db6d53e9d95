//! The flags of `leasehold run`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use leasehold::Token;

use super::watch::{Rules, Until};
use crate::client::ServerArgs;
use crate::exit::Failure;
use crate::lease::progress::Verbosity;
use crate::lease::{HolderArgs, LeaseTerms};

/// How long a command may take to end by itself, unless that is too long for its TTL.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// Variables with which leasehold proves who it is, or that say where such a proof is.
const CREDENTIALS: [&str; 8] = [
    "LEASEHOLD_TOKEN",
    "LEASEHOLD_TOKEN_FILE",
    "LEASEHOLD_TOKENS",
    "LEASEHOLD_TOKENS_FILE",
    "LEASEHOLD_LOCK_TOKEN",
    "LEASEHOLD_TLS_KEY",
    "LEASEHOLD_STORE",
    "LOCK_STORE",
];

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// What to lock; given several times, all of them or none
    #[arg(long = "key", required = true, value_name = "KEY")]
    keys: Vec<String>,

    /// How long to wait for the lock, also while the server or the store does not answer
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

    #[command(flatten)]
    pub(super) store_settings: crate::settings::store::StoreArgs,

    #[command(flatten)]
    holder: HolderArgs,

    /// How long the command may take to end after SIGTERM when the lock is about to be lost; less than half the TTL
    /// [default: 5s, or a quarter of the TTL]
    #[arg(long, value_name = "TIME", value_parser = crate::settings::time)]
    kill_after: Option<Duration>,

    /// End the command when it has held the lock for so long: SIGTERM, then SIGKILL after --kill-after
    #[arg(long, value_name = "TIME", value_parser = crate::settings::time)]
    max_hold: Option<Duration>,

    /// Hold the lock until the command's whole process group has ended, not only its first process
    #[arg(long)]
    wait_group: bool,

    /// Let the command see the bearer token and the store's URL in its environment, for its own calls of leasehold
    #[arg(long)]
    pass_credentials: bool,

    /// Say nothing when the lock is not acquired, nor while waiting
    #[arg(long, short)]
    quiet: bool,

    /// The exit code when the lock is not acquired
    #[arg(long, value_name = "CODE", default_value_t = crate::exit::NOT_ACQUIRED)]
    pub(super) conflict_exit_code: u8,

    /// The command and its words
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

const EXAMPLES: &str = "\
The command sees LEASEHOLD_KEY, LEASEHOLD_FENCING_TOKEN (where there is one) and LEASEHOLD_DEADLINE, the first deadline
in milliseconds since 1970, which heartbeats move on. Several keys are acquired in their order and stand one a line, in
that order, as their fencing tokens do.

The lock is held until the command's first process has ended; what it leaves in the background runs on without it, unless
--wait-group is given. When the lock is lost, everything that the command has begun is ended, also what has left its
process group. On Linux the command is killed when leasehold run is.

Exit codes: the command's own; 128+N if signal N ended it; 1 not acquired (--conflict-exit-code); 75 the lock was lost;
124 it was held longer than --max-hold; 69 server or store unreachable until the wait was over; 64 usage; 126 the command
cannot be run; 127 it is not found.

Examples:
  leasehold run --key cron:daily -- backup --full
  leasehold run --key cron:daily --nonblock --quiet --conflict-exit-code 0 -- backup    # skip the turn
  leasehold run --key disk:a --key disk:b --max-hold 1h -- rebalance
  leasehold run --key gpu --limit 2 --wait 1h -- train
  leasehold run --key memory --limit 64 --permits 16 -- train    # sixteen of them; all must name the same limit
  leasehold run --key deploy --store redis://127.0.0.1:6379 -- ./deploy.sh";

impl RunArgs {
    /// What to ask for, in the order of the keys.
    pub(super) fn terms(&self) -> Vec<LeaseTerms> {
        let (kind, owner) = (self.holder.kind(), self.holder.owner());
        let mut keys = self.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        let terms = |key| LeaseTerms { key, kind, ttl: self.ttl, owner: owner.clone(), token: Token::random() };
        keys.into_iter().map(terms).collect()
    }

    /// How long to wait; zero is now or never.
    pub(super) fn wait(&self) -> Duration {
        if self.nonblock { Duration::ZERO } else { self.wait }
    }

    pub(super) fn verbosity(&self) -> Verbosity {
        if self.quiet { Verbosity::Quiet } else { Verbosity::Normal }
    }

    /// What the command is held to.
    ///
    /// # Errors
    /// As for [`kill_after`](Self::kill_after).
    pub(super) fn rules(&self) -> Result<Rules, Failure> {
        let until = if self.wait_group { Until::Group } else { Until::Command };
        Ok(Rules { ttl: self.ttl, kill_after: self.kill_after()?, max_hold: self.max_hold, until })
    }

    /// The variables that the command does not get to see.
    pub(super) fn withheld(&self) -> Vec<&'static str> {
        if self.pass_credentials {
            return Vec::new();
        }
        let mut withheld = CREDENTIALS.to_vec();
        if self.store.as_deref() == Some("redis") {
            // Otherwise it is the command's own.
            withheld.push("REDIS_URL");
        }
        if std::env::var("LEASEHOLD_SERVER").is_ok_and(|url| url.contains('@')) {
            withheld.push("LEASEHOLD_SERVER");
        }
        withheld
    }

    /// How long the command may take to end.
    ///
    /// # Errors
    /// `Usage` if a heartbeat could not fail before SIGTERM would have to be sent.
    fn kill_after(&self) -> Result<Duration, Failure> {
        match self.kill_after {
            None => Ok(KILL_AFTER.min(self.ttl / 4)),
            Some(kill_after) if kill_after < self.ttl / 2 => Ok(kill_after),
            Some(_) => Err(Failure::Usage("--kill-after must be under half of --ttl".to_owned())),
        }
    }
}
