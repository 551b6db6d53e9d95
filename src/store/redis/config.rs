//! How to reach Redis and how to lock there: [`RedisBuilder`], and the URL that it takes.
//!
//! `redis://user:password@host:6379/0` names one server. Sentinel, Cluster and TLS are refused by name. The password
//! goes into the connections and nowhere else (R25).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::RedisStore;
use crate::store::{KeyTemplate, StoreError, Warning};

/// Sets up a [`RedisStore`].
#[derive(Clone)]
#[must_use]
pub struct RedisBuilder {
    server: Result<ConnectionInfo, StoreError>,
    template: KeyTemplate,
    operation_timeout: Duration,
    fence_retention: Duration,
    lock_delay: Duration,
    process: Arc<str>,
    on_warning: Option<OnWarning>,
}

pub(super) type OnWarning = Arc<dyn Fn(&Warning) + Send + Sync>;

/// A builder's settings, checked.
pub(super) struct Settings {
    pub(super) server: ConnectionInfo,
    pub(super) template: KeyTemplate,
    pub(super) operation_timeout: Duration,
    pub(super) fence_retention: Duration,
    pub(super) lock_delay: Duration,
    pub(super) process: Arc<str>,
    pub(super) on_warning: Option<OnWarning>,
}

/// The longest time a fence is kept: it must not overflow Redis' own arithmetic.
const MAX_RETENTION: Duration = Duration::from_hours(24 * 365);

impl RedisBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            server: parse(url).map_err(|why| StoreError::Config(why.into())),
            template: KeyTemplate::default(),
            operation_timeout: Duration::from_millis(500),
            fence_retention: Duration::from_hours(24),
            lock_delay: Duration::ZERO,
            process: uuid::Uuid::new_v4().simple().to_string().into(),
            on_warning: None,
        }
    }

    /// How locks are named; `lock:{key}` unless it is set.
    pub fn key_template(mut self, template: KeyTemplate) -> Self {
        self.template = template;
        self
    }

    /// How long one call may take; 500 ms unless it is set, at least 10 ms. Longer than a minute helps nobody.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long the fence of an idle key is remembered; 24 h unless it is set, at most a year. Forgotten fences go on
    /// from the server's clock, which is above them unless it was set back.
    pub fn fence_retention(mut self, retention: Duration) -> Self {
        self.fence_retention = retention;
        self
    }

    /// Keeps a key blocked for so long after its holder ran out of time, for every client (R27). Off unless it is set.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = delay;
        self
    }

    /// What this process is called in queues; random unless it is set. Two processes must not share it.
    pub fn process_id(mut self, id: &str) -> Self {
        self.process = id.into();
        self
    }

    /// Calls `hook`, on the store's runtime, when a connection finds the set-up dangerous (R22).
    pub fn on_warning(mut self, hook: impl Fn(&Warning) + Send + Sync + 'static) -> Self {
        self.on_warning = Some(Arc::new(hook));
        self
    }

    /// Checks everything and makes the store. Nothing is connected before it is started.
    ///
    /// # Errors
    /// [`StoreError::Config`] says what is wrong.
    pub fn build(self) -> Result<RedisStore, StoreError> {
        let config = |why: &str| Err(StoreError::Config(why.into()));
        let server = self.server?;
        if self.operation_timeout < Duration::from_millis(10) || self.operation_timeout > Duration::from_mins(1) {
            return config("the operation timeout is between 10 ms and a minute");
        }
        if self.fence_retention.is_zero() || self.fence_retention > MAX_RETENTION {
            return config("the fence retention is above zero and at most a year");
        }
        if self.lock_delay > Duration::from_hours(24) {
            return config("the lock delay is at most 24 h");
        }
        if self.process.is_empty() || self.process.len() > 128 {
            return config("the process id has 1 to 128 bytes");
        }
        Ok(RedisStore::over(Settings {
            server,
            template: self.template,
            operation_timeout: self.operation_timeout,
            fence_retention: self.fence_retention,
            lock_delay: self.lock_delay,
            process: self.process,
            on_warning: self.on_warning,
        }))
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("server", &self.server.as_ref().map(|server| server.addr().to_string()))
            .field("template", &self.template)
            .field("operation_timeout", &self.operation_timeout)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

/// Reads a URL. The error never repeats any of it.
fn parse(url: &str) -> Result<ConnectionInfo, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("a Redis URL begins with `redis://`")?;
    match scheme {
        "redis" => {}
        "rediss" => return Err("TLS (`rediss://`) is not supported"),
        _ if scheme.contains("sentinel") => return Err("Sentinel is not supported: name one server, `redis://host`"),
        _ if scheme.contains("cluster") => return Err("Cluster is not supported: name one server, `redis://host`"),
        _ => return Err("a Redis URL begins with `redis://`"),
    }
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    if hosts.contains(',') {
        return Err("a Redis URL names one host: Sentinel and Cluster are not supported");
    }
    let info = url.into_connection_info().map_err(|_| "the Redis URL cannot be read")?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings.set_lib_name("leasehold", env!("CARGO_PKG_VERSION"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_one_server() {
        let shown = |url| parse(url).unwrap().addr().to_string();
        assert_eq!(shown("redis://h"), "h:6379");
        assert_eq!(shown("redis://u:p@h:1/3"), "h:1");
        let info = parse("redis://u:p%40@a/2").unwrap();
        assert_eq!((info.redis_settings().password(), info.redis_settings().db()), (Some("p@"), 2));
    }

    #[test]
    fn urls_that_cannot_be_meant_are_refused_without_repeating_them() {
        for url in [
            "",
            "h",
            "http://:secret@h",
            "redis://",
            "redis://:secret@a,b",
            "rediss://:secret@a",
            "redis+sentinel://:secret@a,b/m",
            "redis+cluster://:secret@a,b",
            "redis+ring://:secret@a",
            "redis://:secret@h/x",
        ] {
            let error = RedisBuilder::new(url).build().unwrap_err();
            assert!(matches!(error, StoreError::Config(_)), "{url}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }

    #[test]
    fn no_debug_output_shows_the_password() {
        let builder = RedisBuilder::new("redis://u:secret@h");
        assert!(!format!("{builder:?} {:?}", builder.clone().build().unwrap()).contains("secret"));
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        let builder = || RedisBuilder::new("redis://h");
        assert!(builder().operation_timeout(Duration::ZERO).build().is_err());
        assert!(builder().operation_timeout(Duration::MAX).build().is_err());
        assert!(builder().fence_retention(Duration::ZERO).build().is_err());
        assert!(builder().fence_retention(Duration::MAX).build().is_err());
        assert!(builder().lock_delay(Duration::MAX).build().is_err());
        assert!(builder().process_id("").build().is_err());
        assert!(builder().build().is_ok());
    }
}
