//! The settings of the server: what they are, how a file is read, how they are printed.
//!
//! Nothing here names the rest of the binary, so that tests can take the room as it is and feed it with anything.

pub(crate) mod file;
pub(crate) mod print;
pub(crate) mod store;

use std::convert::Infallible;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use leasehold::{DeadlockReach, FailMode};

/// Durations are written as in `500ms`, `30s`, `1h 30m`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// A TOML file with settings, named as the flags are (`max-ttl = "1h"`); flags and the environment go over it
    #[arg(long, env = "LEASEHOLD_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where to listen; without a host, as in `:7420`, at all addresses. Port 0 takes any free one and prints it
    #[arg(long, env = "LEASEHOLD_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:7420")]
    pub(crate) listen: String,

    /// Allow an address that others can reach without tokens: they can all take and release locks
    #[arg(long, env = "LEASEHOLD_INSECURE")]
    pub(crate) insecure: bool,

    /// Where locks live: `memory` (they end with the process), `file:DIR` (a directory of this server's own: its locks
    /// survive a restart and a power cut), `redis://host:port` (`rediss` for TLS),
    /// `redis+sentinel://host,host/master`, `redis+cluster://host,host`, `unix:///path`, `redis` with one of these in REDIS_URL,
    /// `redlock:redis://a,redis://b,redis://c`, or `postgres://host/database`. LOCK_STORE is read as well
    // Checked by hand: a refusal by clap would print the value, and a store's URL may hold a password.
    #[arg(long, env = "LEASEHOLD_STORE", hide_env_values = true, default_value = "memory")]
    pub(crate) store: String,

    /// The same as `--store file:DIR`
    #[arg(long, env = "LEASEHOLD_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) store_settings: store::StoreArgs,

    /// While the store does not answer: `closed` grants nothing, `local` grants what excludes only this server's other
    /// clients, without a fencing token, until the store answers again
    #[arg(long, env = "LEASEHOLD_FAIL_MODE", value_enum, default_value = "closed")]
    pub(crate) fail_mode: FailModeName,

    /// How far deadlocks of sessions are looked for: `store` through all servers over the same Redis, `process` among the
    /// sessions of this server
    #[arg(long, env = "LEASEHOLD_DEADLOCK_REACH", value_enum, default_value = "store")]
    pub(crate) deadlock_reach: DeadlockReachName,

    /// Over `redlock:` the longest time that a lock lasts without a refresh, and for which a node that may have
    /// forgotten locks does not vote, a new one too; the same in all servers
    #[arg(long, env = "LEASEHOLD_REDLOCK_MAX_TTL", value_name = "TIME", default_value = "60s", value_parser = time)]
    pub(crate) redlock_max_ttl: Duration,

    /// Prefixes of keys, divided by commas, up to 32: metrics tell them apart by the label `lock_namespace` (all other keys
    /// are in `other`), and each has --max-keys of its own
    #[arg(long, env = "LEASEHOLD_NAMESPACES", value_name = "PREFIXES", value_parser = Namespaces::parse)]
    pub(crate) namespaces: Option<Namespaces>,

    /// How long a lock lasts when its request does not say
    #[arg(long, env = "LEASEHOLD_TTL", value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(crate) ttl: Duration,

    /// The longest time that a request may ask a lock to last
    #[arg(long, env = "LEASEHOLD_MAX_TTL", value_name = "TIME", default_value = "24h", value_parser = time)]
    pub(crate) max_ttl: Duration,

    /// How long a request waits when it does not say
    #[arg(long, env = "LEASEHOLD_WAIT", value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) wait: Duration,

    /// The longest time that a request may ask to wait
    #[arg(long, env = "LEASEHOLD_MAX_WAIT", value_name = "TIME", default_value = "60s", value_parser = time)]
    pub(crate) max_wait: Duration,

    /// How many keys may be locked at once
    #[arg(long, env = "LEASEHOLD_MAX_KEYS", value_name = "N", default_value_t = 4_194_304)]
    pub(crate) max_keys: usize,

    /// How many may hold shared keys and permits beside the first holder of each key
    #[arg(long, env = "LEASEHOLD_MAX_HOLDERS", value_name = "N", default_value_t = 1_048_576)]
    pub(crate) max_holders: usize,

    /// How many sessions may be open at once
    #[arg(long, env = "LEASEHOLD_MAX_SESSIONS", value_name = "N", default_value_t = 65_536)]
    pub(crate) max_sessions: usize,

    /// How many locks one session may hold and wait for
    #[arg(long, env = "LEASEHOLD_MAX_LOCKS_PER_SESSION", value_name = "N", default_value_t = 10_000)]
    pub(crate) max_locks_per_session: u32,

    /// How many clients may listen to events at once
    #[arg(long, env = "LEASEHOLD_MAX_STREAMS", value_name = "N", default_value_t = 64)]
    pub(crate) max_streams: usize,

    /// The longest list of locks that a request may ask for
    #[arg(long, env = "LEASEHOLD_MAX_LISTED", value_name = "N", default_value_t = 1000)]
    pub(crate) max_listed: usize,

    /// The longest key, in bytes (at most 1024)
    #[arg(long, env = "LEASEHOLD_MAX_KEY_BYTES", value_name = "BYTES", default_value_t = 256)]
    pub(crate) max_key_bytes: usize,

    /// How many requests may wait at once; must be below --max-connections, so that holders can still release
    #[arg(long, env = "LEASEHOLD_MAX_WAITERS", value_name = "N", default_value_t = 32_768)]
    pub(crate) max_waiters: usize,

    /// How many requests may wait for one key
    #[arg(long, env = "LEASEHOLD_MAX_WAITERS_PER_KEY", value_name = "N", default_value_t = 16_384)]
    pub(crate) max_waiters_per_key: usize,

    /// How many connections may be open at once. When all are, the one that has idled the longest gives way
    #[arg(long, env = "LEASEHOLD_MAX_CONNECTIONS", value_name = "N", default_value_t = 65_536)]
    pub(crate) max_connections: usize,

    /// How many of these one address may have (an IPv6 one: its /64), unless it is one of --trusted-proxies
    /// [default: three quarters]
    #[arg(long, env = "LEASEHOLD_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    pub(crate) max_connections_per_address: Option<usize>,

    /// The longest head of a request
    #[arg(long, env = "LEASEHOLD_MAX_HEAD_BYTES", value_name = "BYTES", default_value_t = 16_384,
        value_parser = clap::value_parser!(u32).range(1024..=131_072))]
    pub(crate) max_head_bytes: u32,

    /// The longest body of a request
    #[arg(long, env = "LEASEHOLD_MAX_BODY_BYTES", value_name = "BYTES", default_value_t = 16_384)]
    pub(crate) max_body_bytes: usize,

    /// How long a client may take to send its body
    #[arg(long, env = "LEASEHOLD_BODY_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) body_timeout: Duration,

    /// How long a client may take to send the head of a request, and for the handshake of TLS
    #[arg(long, env = "LEASEHOLD_HEAD_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) head_timeout: Duration,

    /// How long a connection may idle between requests
    #[arg(long, env = "LEASEHOLD_KEEP_ALIVE", value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(crate) keep_alive: Duration,

    /// How much longer than all of these together a connection may go without an answer before it is cut off
    #[arg(long, env = "LEASEHOLD_SLACK", value_name = "TIME", default_value = "30s", value_parser = time)]
    pub(crate) slack: Duration,

    /// Bearer tokens, as a JSON list of {name, token or token_sha256, rights, namespaces, max_locks, max_sessions,
    /// max_waiters, max_streams}; or the list itself in
    /// LEASEHOLD_TOKENS. Rights are acquire, read and force; namespaces are prefixes of keys
    #[arg(long, env = "LEASEHOLD_TOKENS_FILE", value_name = "FILE")]
    pub(crate) tokens_file: Option<PathBuf>,

    /// How many locks one token may hold and wait for, unless its entry has `max_locks` [default: three quarters of
    /// --max-keys where there are several tokens]
    #[arg(long, env = "LEASEHOLD_TOKEN_MAX_LOCKS", value_name = "N")]
    pub(crate) token_max_locks: Option<u32>,

    /// How many sessions one token may have open, unless its entry has `max_sessions` [default: three quarters of
    /// --max-sessions where there are several tokens]
    #[arg(long, env = "LEASEHOLD_TOKEN_MAX_SESSIONS", value_name = "N")]
    pub(crate) token_max_sessions: Option<u32>,

    /// How many requests of one token may wait, unless its entry has `max_waiters` [default: three quarters of
    /// --max-waiters where there are several tokens]
    #[arg(long, env = "LEASEHOLD_TOKEN_MAX_WAITERS", value_name = "N")]
    pub(crate) token_max_waiters: Option<u32>,

    /// How many streams of events one token may listen to, unless its entry has `max_streams` [default: three quarters
    /// of --max-streams where there are several tokens]
    #[arg(long, env = "LEASEHOLD_TOKEN_MAX_STREAMS", value_name = "N")]
    pub(crate) token_max_streams: Option<u32>,

    /// Let everybody read the totals of all keys without a token
    #[arg(long, env = "LEASEHOLD_OPEN_STATS")]
    pub(crate) open_stats: bool,

    /// How many requests per second each token may make (without a known one: each address); releases and heartbeats
    /// are not counted [default: no limit]
    #[arg(long, env = "LEASEHOLD_RATE_LIMIT", value_name = "N")]
    pub(crate) rate_limit: Option<NonZeroU32>,

    /// Proxies that are believed when they say in X-Forwarded-For whom they speak for: addresses and networks, with
    /// commas between them. Without it all clients of a proxy are one address
    #[arg(long, env = "LEASEHOLD_TRUSTED_PROXIES", value_name = "LIST")]
    pub(crate) trusted_proxies: Option<String>,

    /// Names of this server, with commas between them, that requests may ask by where there are no tokens; `*` is any.
    /// Addresses and `localhost` need not be named. Without it a web page whose name is made to lead here could use it
    #[arg(long, env = "LEASEHOLD_ALLOWED_HOSTS", value_name = "NAMES")]
    pub(crate) allowed_hosts: Option<String>,

    /// The certificate chain for TLS, as a PEM file
    #[arg(long, env = "LEASEHOLD_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key, as a PEM file
    #[arg(long, env = "LEASEHOLD_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Grant nothing for so long: with locks in memory, those of the last run may still be held
    #[arg(long, env = "LEASEHOLD_START_DELAY", value_name = "TIME", default_value = "0s", value_parser = time)]
    pub(crate) start_delay: Duration,

    /// How long a shutdown may take, holders being given time to release
    #[arg(long, env = "LEASEHOLD_GRACE", value_name = "TIME", default_value = "5s", value_parser = time)]
    pub(crate) grace: Duration,

    /// How many threads serve requests [default: one per core]
    #[arg(long, env = "LEASEHOLD_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) workers: Option<u16>,

    /// How log lines look; which are written is for RUST_LOG to say
    #[arg(long, env = "LEASEHOLD_LOG_FORMAT", value_enum, default_value = "pretty")]
    pub(crate) log_format: LogFormat,
}

/// The prefixes of `--namespaces`.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces(pub(crate) Vec<String>);

impl Namespaces {
    fn parse(text: &str) -> Result<Self, Infallible> {
        let prefixes = text.split(',').map(str::trim).filter(|prefix| !prefix.is_empty());
        Ok(Self(prefixes.map(str::to_owned).collect()))
    }
}

/// The longest time that can be asked for anywhere. Clocks overflow when far longer ones are added to them.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// Reads a time: `500ms`, `30s`, `1h 30m`.
///
/// # Errors
/// It makes no sense, or is longer than a year.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time > LONGEST => Err("longer than a year".to_owned()),
        Ok(time) => Ok(time),
        Err(why) => Err(why.to_string()),
    }
}

impl ServeArgs {
    /// Whether what is held when the server ends is held in the next one.
    pub(crate) fn outlives_itself(&self) -> bool {
        self.data.is_some() || self.store.starts_with("file:")
    }

    /// What `--store` or `--data` names.
    ///
    /// # Errors
    /// Both name something, or the directory cannot be written as text.
    pub(crate) fn store_name(&self) -> Result<String, String> {
        match &self.data {
            None => Ok(self.store.clone()),
            Some(_) if self.store != "memory" => {
                Err("--data and --store name a store each; give one of them".to_owned())
            }
            Some(dir) => {
                let dir = dir.to_str().ok_or("--data: the directory's name is not UTF-8")?;
                Ok(format!("file:{dir}"))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FailModeName {
    /// Nothing is granted without the store
    Closed,
    /// Locks are granted for this server alone
    Local,
}

impl From<FailModeName> for FailMode {
    fn from(name: FailModeName) -> Self {
        match name {
            FailModeName::Closed => Self::Closed,
            FailModeName::Local => Self::Local,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DeadlockReachName {
    /// Through all servers that share the store, where it can
    Store,
    /// Within this server
    Process,
}

impl From<DeadlockReachName> for DeadlockReach {
    fn from(name: DeadlockReachName) -> Self {
        match name {
            DeadlockReachName::Store => Self::Store,
            DeadlockReachName::Process => Self::Process,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Pretty,
    /// One JSON object per line
    Json,
}
