//! `--store`: where the locks of the server live, and how that is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use leasehold::Builder;
use leasehold::store::redis::RedisStore;
use leasehold::store::redlock::{NodeEvent, RedlockStore};
use leasehold::store::{ClaimReuse, KeyTemplate, StoreError};

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
    /// A Redis server, the master behind Sentinels, or a Cluster, which other processes share.
    Redis(RedisStore),
    /// A majority of several.
    Redlock(RedlockStore),
}

impl Choice {
    /// A manager's builder with this store.
    pub(crate) fn under(self, builder: Builder) -> Builder {
        match self {
            Self::Memory => builder,
            Self::Redis(store) => builder.store(store),
            Self::Redlock(store) => builder.store(store),
        }
    }
}

/// Reads a choice; `max_ttl` is for Redlock. A URL may hold a password, so no refusal repeats it.
///
/// # Errors
/// It names no store, or one whose URL or settings make no sense.
pub(crate) fn choose(name: &str, max_ttl: Duration, args: &StoreArgs) -> Result<Choice, String> {
    if let Some(nodes) = name.strip_prefix("redlock:") {
        return redlock(nodes, max_ttl, args);
    }
    match name {
        "memory" if args.reuses_claims() => {
            Err("--claim-reuse: locks in memory are this server's anyway; it goes with `redis`".to_owned())
        }
        "memory" => Ok(Choice::Memory),
        "redis" => match std::env::var("REDIS_URL").ok().filter(|url| !url.is_empty()) {
            Some(url) => redis(&url, args),
            None => Err("--store redis (LEASEHOLD_STORE): REDIS_URL must name the server".to_owned()),
        },
        url if url.contains("://") => redis(url, args),
        _ => Err(
            "--store (LEASEHOLD_STORE) must be `memory`, `redis://host:port`, `redis+sentinel://host,host/master`, \
             `redis+cluster://host,host`, `unix:///path`, `redis` with REDIS_URL, or \
             `redlock:redis://a,redis://b,redis://c`"
                .to_owned(),
        ),
    }
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

/// Sets what both kinds of builder have.
macro_rules! common {
    ($builder:expr, $args:expr) => {{
        let builder = given!($builder;
            key_template($args.template()?),
            side_key_prefix($args.store_side_key_prefix.as_deref()),
            connect_timeout($args.store_connect_timeout),
            database($args.store_database),
            fence_retention($args.store_fence_retention),
            root_certificate($args.root_certificate()?),
        );
        let builder = builder.on_warning(|warning| tracing::warn!(%warning, "store"));
        match $args.client_certificate()? {
            Some((certificate, key)) => builder.client_certificate(certificate, key),
            None => builder,
        }
    }};
}

fn redis(url: &str, args: &StoreArgs) -> Result<Choice, String> {
    let builder = given!(common!(RedisStore::builder(url), args);
        operation_timeout(args.store_timeout),
        wait_for_replicas(args.store_replicas),
        claim_reuse(args.claim_reuse.map(Into::into)),
        sentinel_user(args.store_sentinel_user.as_deref()),
        sentinel_password(args.store_sentinel_password.as_deref()),
    );
    builder.build().map(Choice::Redis).map_err(refusal)
}

fn redlock(nodes: &str, max_ttl: Duration, args: &StoreArgs) -> Result<Choice, String> {
    if args.store_replicas.is_some_and(|replicas| replicas > 0) {
        return Err("--store-replicas: the servers of a `redlock:` have no replicas that count".to_owned());
    }
    if args.reuses_claims() {
        return Err(
            "--claim-reuse: over a `redlock:` every lock is asked of the servers; it goes with `redis`".to_owned()
        );
    }
    if args.store_sentinel_user.is_some() || args.store_sentinel_password.is_some() {
        return Err("--store-sentinel-user and --store-sentinel-password go with `redis+sentinel`".to_owned());
    }
    let builder = RedlockStore::builder(nodes.split(',')).max_ttl(max_ttl).on_node_event(log);
    let builder = given!(common!(builder, args); node_timeout(args.store_timeout));
    builder.build().map(Choice::Redlock).map_err(refusal)
}

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

/// Tells what becomes of a node.
fn log(event: &NodeEvent) {
    match event {
        NodeEvent::Votes { node } => tracing::info!(%node, "the node votes"),
        NodeEvent::Quarantined { node, left } => {
            tracing::warn!(%node, ?left, "the node may have forgotten locks, and does not vote until they have run out");
        }
        NodeEvent::Refused { node, why } => tracing::error!(%node, %why, "the node may not vote"),
        NodeEvent::Away { node, why } => tracing::warn!(%node, %why, "the node is away"),
        event => tracing::info!(?event, "a node"),
    }
}
