//! `--store`: where the locks of the server live, and how that is reached. A store is told to the binary in [`KINDS`].

mod file;
mod postgres;
mod redis;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use file::DurabilityName;
use leasehold::Builder;
use leasehold::store::postgres::PostgresStore;
use leasehold::store::redlock::RedlockStore;
use leasehold::store::{ClaimReuse, KeyTemplate, Store, StoreError};

/// How a store is reached, beside its URL.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct StoreArgs {
    /// How long one call to the store may take; four times the slowest round trip is enough [default: 500ms, over
    /// `redlock:` 200ms for each server]
    #[arg(long, env = "LEASEHOLD_STORE_TIMEOUT", value_name = "TIME", value_parser = super::time)]
    pub(crate) store_timeout: Option<Duration>,

    /// How long a connection to the store may take to come about, with TLS and log-in [default: 2s]
    #[arg(long, env = "LEASEHOLD_STORE_CONNECT_TIMEOUT", value_name = "TIME", value_parser = super::time)]
    pub(crate) store_connect_timeout: Option<Duration>,

    /// How locks are named in the store, `{key}` being the key; the same in all processes [default: lock:{key}]
    #[arg(long, env = "LEASEHOLD_STORE_KEY_TEMPLATE", value_name = "NAME")]
    pub(crate) store_key_template: Option<String>,

    /// What the store's keys and channels beside locks begin with; the same in all processes [default: leasehold:]
    #[arg(long, env = "LEASEHOLD_STORE_SIDE_KEY_PREFIX", value_name = "PREFIX")]
    pub(crate) store_side_key_prefix: Option<String>,

    /// The number of the database, in place of the URL's
    #[arg(long, env = "LEASEHOLD_STORE_DATABASE", value_name = "N")]
    pub(crate) store_database: Option<u16>,

    /// How many replicas must have confirmed a lock (WAIT); not over `redlock:` [default: 0]
    #[arg(long, env = "LEASEHOLD_STORE_REPLICAS", value_name = "N")]
    pub(crate) store_replicas: Option<u32>,

    /// How long the fence of a key that nobody locks is remembered, 149 bytes a key; over `redlock:` at least twice
    /// --redlock-max-ttl [default: 24h]
    #[arg(long, env = "LEASEHOLD_STORE_FENCE_RETENTION", value_name = "TIME", value_parser = super::time)]
    pub(crate) store_fence_retention: Option<Duration>,

    /// What this server may do with a key of a Redis between two locks on it: `off`; `hand-off` to the next waiter of this
    /// server without asking Redis; `linger`, which also keeps it for a moment when nobody waits. Another server gets it
    /// when it asks. `off` where several servers behind one address must accept each other's tokens, which are not in
    /// Redis then [default: off]
    #[arg(long, env = "LEASEHOLD_CLAIM_REUSE", value_name = "HOW")]
    pub(crate) claim_reuse: Option<Reuse>,

    /// The schema of the table of a `postgres://` [default: public]
    #[arg(long, env = "LEASEHOLD_STORE_SCHEMA", value_name = "NAME")]
    pub(crate) store_schema: Option<String>,

    /// The table of a `postgres://`; the same in all processes [default: leasehold_locks]
    #[arg(long, env = "LEASEHOLD_STORE_TABLE", value_name = "NAME")]
    pub(crate) store_table: Option<String>,

    /// Where a `postgres://` is listened to, if --store goes through a proxy that pools transactions
    // A URL may hold a password.
    #[arg(long, env = "LEASEHOLD_STORE_LISTEN_URL", value_name = "URL", hide_env_values = true)]
    pub(crate) store_listen_url: Option<String>,

    /// Whether a `postgres://` is listened to (LISTEN): false where no connection around the proxy is possible
    #[arg(long, env = "LEASEHOLD_STORE_LISTEN", value_name = "BOOL")]
    pub(crate) store_listen: Option<bool>,

    /// When an answer of a `file:` is given: `synced`, once it is on the disk; `relaxed`, before that, and the disk has it
    /// every 50 ms, or as in relaxed:20ms. After a crash a relaxed server grants nothing until all that it may have granted
    /// is over [default: synced]
    #[arg(long, env = "LEASEHOLD_DURABILITY", value_name = "HOW", value_parser = DurabilityName::parse)]
    pub(crate) durability: Option<DurabilityName>,

    /// A PEM file with the certificate authority to trust in place of the system's, for a store over TLS
    #[arg(long, env = "LEASEHOLD_STORE_TLS_CA", value_name = "FILE")]
    pub(crate) store_tls_ca: Option<PathBuf>,

    /// A PEM file with the certificate to show to a store that asks for one, with its chain; goes with --store-tls-key
    #[arg(long, env = "LEASEHOLD_STORE_TLS_CERT", value_name = "FILE")]
    pub(crate) store_tls_cert: Option<PathBuf>,

    /// A PEM file with the key of --store-tls-cert
    #[arg(long, env = "LEASEHOLD_STORE_TLS_KEY", value_name = "FILE")]
    pub(crate) store_tls_key: Option<PathBuf>,

    /// Who we are to Sentinels; the user in the URL is the servers'
    #[arg(long, env = "LEASEHOLD_STORE_SENTINEL_USER", value_name = "NAME")]
    pub(crate) store_sentinel_user: Option<String>,

    /// The password for Sentinels; better in the environment, since others can read the list of processes
    #[arg(long, env = "LEASEHOLD_STORE_SENTINEL_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub(crate) store_sentinel_password: Option<String>,
}

/// The values of `--claim-reuse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reuse {
    Off,
    HandOff,
    Linger,
}

impl From<Reuse> for ClaimReuse {
    fn from(reuse: Reuse) -> Self {
        match reuse {
            Reuse::Off => Self::Off,
            Reuse::HandOff => Self::hand_off(),
            Reuse::Linger => Self::linger(),
        }
    }
}

/// What the `--store` of the command line names.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This process: its locks end with it.
    Memory,
    /// A majority of several Redis servers, which an operator looks after.
    Redlock(RedlockStore),
    /// A table of PostgreSQL, which an operator creates.
    Postgres(PostgresStore),
    /// A directory, which this process has alone for as long as it runs.
    Own(Box<dyn Unplugged>),
    /// Any other, which processes share.
    Shared(Box<dyn Unplugged>),
}

/// A store of whatever type, on its way to its manager.
pub(crate) trait Unplugged: fmt::Debug {
    fn under(self: Box<Self>, builder: Builder) -> Builder;
}

impl<S: Store> Unplugged for S {
    fn under(self: Box<Self>, builder: Builder) -> Builder {
        builder.store(*self)
    }
}

impl Choice {
    /// A manager's builder with this store.
    pub(crate) fn under(self, builder: Builder) -> Builder {
        match self {
            Self::Memory => builder,
            Self::Redlock(store) => builder.store(store),
            Self::Postgres(store) => builder.store(store),
            Self::Own(store) | Self::Shared(store) => store.under(builder),
        }
    }
}

/// A kind of store: all that the binary knows of it, beside its settings.
struct Kind {
    /// How it is named.
    forms: &'static str,
    is_named_by: fn(&str) -> bool,
    choose: fn(&str, Duration, &StoreArgs) -> Result<Choice, String>,
}

/// The first kind that a name is of is meant.
const KINDS: [Kind; 6] = [
    Kind { forms: "`memory`", is_named_by: |name| name == "memory", choose: memory },
    Kind { forms: "`file:DIR`", is_named_by: |name| name.starts_with(file::SCHEME), choose: file::choose },
    Kind {
        forms: "`redlock:redis://a,redis://b,redis://c`",
        is_named_by: |name| name.starts_with(redis::REDLOCK),
        choose: redis::choose_redlock,
    },
    Kind { forms: "`redis` with REDIS_URL", is_named_by: |name| name == "redis", choose: redis::choose_by_environment },
    Kind { forms: "`postgres://host/database`", is_named_by: postgres::is_named_by, choose: postgres::choose },
    Kind {
        forms: "`redis://host:port`, `redis+sentinel://host,host/master`, `redis+cluster://host,host`, `unix:///path`",
        is_named_by: |name| name.contains("://"),
        choose: redis::choose,
    },
];

/// Reads a choice; `max_ttl` is for Redlock. A URL may hold a password, so no refusal repeats it.
///
/// # Errors
/// It names no store, or one whose URL or settings make no sense.
pub(crate) fn choose(name: &str, max_ttl: Duration, args: &StoreArgs) -> Result<Choice, String> {
    match KINDS.iter().find(|kind| (kind.is_named_by)(name)) {
        Some(kind) => (kind.choose)(name, max_ttl, args),
        None => {
            let forms: Vec<_> = KINDS.iter().map(|kind| kind.forms).collect();
            Err(format!("--store (LEASEHOLD_STORE) must be one of {}", forms.join(", ")))
        }
    }
}

fn memory(_: &str, _: Duration, args: &StoreArgs) -> Result<Choice, String> {
    if args.reuses_claims() {
        return Err("--claim-reuse: locks in memory are this server's anyway; it goes with `redis`".to_owned());
    }
    Ok(Choice::Memory)
}

/// Sets what was given of these settings: `given!(builder; setter(option), …)`.
macro_rules! given {
    ($builder:expr; $($setter:ident($option:expr)),* $(,)?) => {{
        let mut builder = $builder;
        $(if let Some(value) = $option {
            builder = builder.$setter(value);
        })*
        builder
    }};
}
use given;

/// What is in the two files.
type CertificateAndKey = (Vec<u8>, Vec<u8>);

impl StoreArgs {
    fn reuses_claims(&self) -> bool {
        self.claim_reuse.is_some_and(|reuse| reuse != Reuse::Off)
    }

    fn template(&self) -> Result<Option<KeyTemplate>, String> {
        let template = self.store_key_template.as_deref().map(KeyTemplate::new).transpose();
        template.map_err(|why| format!("--store-key-template: {why}"))
    }

    fn root_certificate(&self) -> Result<Option<Vec<u8>>, String> {
        self.store_tls_ca.as_deref().map(|path| content("--store-tls-ca", path)).transpose()
    }

    fn client_certificate(&self) -> Result<Option<CertificateAndKey>, String> {
        match (&self.store_tls_cert, &self.store_tls_key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((content("--store-tls-cert", cert)?, content("--store-tls-key", key)?))),
            _ => Err("--store-tls-cert and --store-tls-key go together".to_owned()),
        }
    }
}

fn content(flag: &str, path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|why| format!("{flag}: {}: {why}", path.display()))
}

fn refusal(why: StoreError) -> String {
    format!("--store (LEASEHOLD_STORE): {why}")
}
