//! How to reach PostgreSQL and how to lock there: [`PostgresBuilder`]. The password goes into the connections and nowhere
//! else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::names::Names;
use super::tls::{self, Proof};
use crate::store::{StoreError, Warning};
use crate::supervise;

pub(super) type OnWarning = Arc<dyn Fn(&Warning) + Send + Sync>;

/// Sets up a [`PostgresStore`](super::PostgresStore).
///
/// The URL is libpq's: `postgres://user:password@host:5432/database?sslmode=verify-full`, with several hosts for those that
/// may fail over to each other (`host1,host2`): the one that takes writes is used. `sslmode` is
///
/// | `sslmode` | encrypted | the server's certificate |
/// |---|---|---|
/// | `disable` | never | |
/// | `prefer`, unless it is set | if the server can | is not looked at |
/// | `require` | always | is not looked at; with a [root certificate](Self::root_certificate), as for `verify-ca` |
/// | `verify-ca` | always | comes from the root certificate, or from one of the system's |
/// | `verify-full` | always | the same, and names the host |
#[derive(Clone)]
#[must_use]
pub struct PostgresBuilder {
    url: String,
    listen_url: Option<String>,
    schema: String,
    table: String,
    operation_timeout: Duration,
    connect_timeout: Duration,
    fence_retention: Duration,
    connections: usize,
    root_certificate: Option<Vec<u8>>,
    listen: bool,
    on_warning: Option<OnWarning>,
}

/// The longest time a fence is kept.
const MAX_RETENTION: Duration = Duration::from_hours(24 * 365);

impl PostgresBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.trim().into(),
            listen_url: None,
            schema: "public".into(),
            table: "leasehold_locks".into(),
            operation_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(2),
            fence_retention: Duration::from_hours(24),
            connections: 2,
            root_certificate: None,
            listen: true,
            on_warning: None,
        }
    }

    /// The schema that the table is in; `public` unless it is set. 1 to 63 bytes without quotes (`'`), `@`, `$` and
    /// backslashes; it is quoted, so that its case counts.
    pub fn schema(mut self, name: &str) -> Self {
        self.schema = name.into();
        self
    }

    /// The table; `leasehold_locks` unless it is set. 1 to 40 bytes, as for the [schema](Self::schema): the names of its
    /// functions begin with it. **The same in every process that shares locks.**
    pub fn table(mut self, name: &str) -> Self {
        self.table = name.into();
        self
    }

    /// How long one call may take; 500 ms unless it is set, from 10 ms to a minute. A call is a round trip and a commit:
    /// four times the slowest of these is enough.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long a connection may take to come about, with TLS, log-in and the first question: 2 s unless it is set, from
    /// 10 ms to a minute.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How many connections carry the calls, each as many as there are; 2 unless it is set, from 1 to 64. One more listens.
    /// Statements of one connection are committed one after the other: several share the waits for the disk.
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// How long the row of an idle key stays; 24 h unless it is set, from a minute to a year. It remembers the highest
    /// fence. Forgotten fences go on from the server's clock, which is above them unless it was set back for longer.
    pub fn fence_retention(mut self, retention: Duration) -> Self {
        self.fence_retention = retention;
        self
    }

    /// Trusts this certificate authority (PEM) in the place of the system's.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into());
        self
    }

    /// Whether a connection of its own hears what other processes do (`LISTEN`); it does unless it is set. Without it,
    /// waiters learn within about a third of a second that it is their turn, and holders of a forced release when they
    /// refresh.
    pub fn listen(mut self, listen: bool) -> Self {
        self.listen = listen;
        self
    }

    /// The URL that this connection uses, where the other one leads to a proxy that pools transactions: no message comes
    /// through such a one.
    pub fn listen_url(mut self, url: &str) -> Self {
        self.listen_url = Some(url.trim().into());
        self
    }

    /// Calls `hook`, on the store's runtime, when a connection finds the set-up dangerous, when the server refuses us, or
    /// when no messages come through; the same not more often than once a minute. A hook that panics harms nothing.
    pub fn on_warning(mut self, hook: impl Fn(&Warning) + Send + Sync + 'static) -> Self {
        self.on_warning = Some(Arc::new(move |warning: &Warning| supervise::hook(|| hook(warning))));
        self
    }

    /// All settings, checked.
    pub(super) fn checked(self) -> Result<Settings, StoreError> {
        self.checked_or_why().map_err(|why| StoreError::Config(why.into()))
    }

    fn checked_or_why(self) -> Result<Settings, &'static str> {
        let spans = [
            (self.operation_timeout, "the operation timeout is between 10 ms and a minute"),
            (self.connect_timeout, "the connect timeout is between 10 ms and a minute"),
        ];
        for (span, why) in spans {
            if span < Duration::from_millis(10) || span > Duration::from_mins(1) {
                return Err(why);
            }
        }
        if self.fence_retention < Duration::from_mins(1) || self.fence_retention > MAX_RETENTION {
            return Err("the fence retention is between a minute and a year");
        }
        if !(1..=64).contains(&self.connections) {
            return Err("there are 1 to 64 connections");
        }
        let root = self.root_certificate.as_deref();
        let calls = Access::new(&self.url, root, self.connect_timeout)?;
        let listening = match (self.listen, &self.listen_url) {
            (false, None) => None,
            (false, Some(_)) => return Err("there is a URL to listen at, and listening is off"),
            (true, None) => Some(calls.clone()),
            (true, Some(url)) => Some(Access::new(url, root, self.connect_timeout)?),
        };
        Ok(Settings {
            names: Names::new(&self.schema, &self.table)?,
            server: calls.server(),
            calls,
            listening,
            operation_timeout: self.operation_timeout,
            connect_timeout: self.connect_timeout,
            fence_retention: self.fence_retention,
            connections: self.connections,
            on_warning: self.on_warning,
        })
    }
}

impl fmt::Debug for PostgresBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("schema", &self.schema)
            .field("table", &self.table)
            .field("operation_timeout", &self.operation_timeout)
            .finish_non_exhaustive()
    }
}

/// Checked settings.
pub(super) struct Settings {
    pub(super) names: Names,
    /// Host and port of the first server.
    pub(super) server: String,
    calls: Access,
    /// `None`: nobody listens.
    listening: Option<Access>,
    pub(super) operation_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) fence_retention: Duration,
    pub(super) connections: usize,
    pub(super) on_warning: Option<OnWarning>,
}

/// A connection, and what drives it.
pub(super) type Connected = (Client, Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>);

impl Settings {
    /// Connects for calls.
    pub(super) async fn connect(&self) -> Result<Connected, Error> {
        self.calls.connect().await
    }

    /// Connects to listen. `None`: it is not to.
    pub(super) async fn connect_to_listen(&self) -> Option<Result<Connected, Error>> {
        Some(self.listening.as_ref()?.connect().await)
    }

    pub(super) fn listens(&self) -> bool {
        self.listening.is_some()
    }
}

/// How to connect to one server, or to the one of several that takes writes.
#[derive(Clone)]
struct Access {
    config: Config,
    tls: MakeRustlsConnect,
}

impl Access {
    /// Reads a URL. The error never repeats any of it.
    fn new(url: &str, root: Option<&[u8]>, connect_timeout: Duration) -> Result<Self, &'static str> {
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err("a URL of PostgreSQL begins with `postgres://`");
        }
        let (url, sslmode) = tls::without_sslmode(url)?;
        let mut config: Config = url.parse().map_err(|_| "it is no URL of PostgreSQL")?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("the URL names no host");
        }
        let (mode, proof) = match (sslmode.as_deref(), root) {
            (Some("disable"), _) => (SslMode::Disable, Proof::None),
            (None | Some("prefer"), None) => (SslMode::Prefer, Proof::None),
            (None | Some("prefer"), Some(_)) => {
                return Err("a root certificate goes with sslmode=require or verify-full");
            }
            (Some("require"), None) => (SslMode::Require, Proof::None),
            (Some("require" | "verify-ca"), _) => (SslMode::Require, Proof::Authority),
            (Some("verify-full"), _) => (SslMode::Require, Proof::AuthorityAndName),
            (Some(_), _) => return Err("sslmode is disable, prefer, require, verify-ca or verify-full"),
        };
        config.ssl_mode(mode).connect_timeout(connect_timeout).keepalives_idle(Duration::from_secs(15));
        config.tcp_user_timeout(Duration::from_secs(15));
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        if config.get_application_name().is_none() {
            config.application_name("leasehold");
        }
        Ok(Self { config, tls: tls::connector(proof, root)? })
    }

    async fn connect(&self) -> Result<Connected, Error> {
        self.config.connect(self.tls.clone()).await
    }

    fn server(&self) -> String {
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => format!("{host}:{port}"),
            #[cfg(unix)]
            Some(Host::Unix(path)) => format!("{}:{port}", path.display()),
            None => self.config.get_hostaddrs().first().map_or_else(String::new, |host| format!("{host}:{port}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_are_refused_without_a_word_of_the_url() {
        for url in
            ["", "redis://h", "postgres://", "postgres://u:sesame@h/d?sslmode=maybe", "postgres://u:sesame@h:x/d"]
        {
            let why = PostgresBuilder::new(url).checked().map(|_| ()).unwrap_err();
            assert!(matches!(why, StoreError::Config(_)) && !why.to_string().contains("sesame"), "{url}: {why}");
        }
        let good = || PostgresBuilder::new("postgres://u:sesame@h/d");
        assert!(good().checked().is_ok());
        let bad = [
            good().operation_timeout(Duration::ZERO),
            good().connect_timeout(Duration::from_mins(2)),
            good().fence_retention(Duration::ZERO),
            good().connections(0),
            good().schema(""),
            good().table("a'b"),
            good().root_certificate("none"),
            good().listen(false).listen_url("postgres://h/d"),
        ];
        for settings in bad {
            assert!(!format!("{settings:?}").contains("sesame"));
            assert!(matches!(settings.checked().map(|_| ()), Err(StoreError::Config(_))));
        }
    }
}
