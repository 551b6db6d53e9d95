//! How to reach Redis and how to lock there: [`RedisBuilder`], and the URLs that it takes.
//!
//! | URL | what stands behind it |
//! |---|---|
//! | `redis://user:password@host:6379/0` | one server |
//! | `redis+sentinel://host:26379,host:26379/master/0` | the master that Sentinels name |
//! | `redis+cluster://host:6379,host:6379` | a Cluster, found through any of its nodes |
//!
//! `rediss` in the place of `redis` encrypts, with the feature `redis-tls`. Passwords go into the connections and
//! nowhere else (R25).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::RedisStore;
use crate::key::Ttl;
use crate::store::{KeyTemplate, StoreError, Warning};

/// Sets up a [`RedisStore`].
#[derive(Clone)]
#[must_use]
pub struct RedisBuilder {
    pub(in crate::store) place: Result<Place, StoreError>,
    pub(in crate::store) template: KeyTemplate,
    pub(in crate::store) operation_timeout: Duration,
    pub(in crate::store) fence_retention: Duration,
    /// No key of this store lives longer.
    pub(in crate::store) longest_life: Duration,
    pub(in crate::store) repeats: Repeats,
    pub(super) lock_delay: Duration,
    pub(super) replicas: u32,
    pub(super) process: Arc<str>,
    pub(super) root_certificate: Option<Arc<[u8]>>,
    pub(super) on_warning: Option<OnWarning>,
}

pub(super) type OnWarning = Arc<dyn Fn(&Warning) + Send + Sync>;

/// Whether the last releases are repeated whenever a connection comes up (`lately`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Repeats {
    On,
    /// Whoever may have forgotten them does not speak before the keys have run out.
    Off,
}

/// Where the keys are.
#[derive(Clone)]
pub(in crate::store) enum Place {
    Server(ConnectionInfo),
    Sentinel {
        sentinels: Vec<ConnectionInfo>,
        master: Arc<str>,
        /// Everything about the master but its address.
        like: ConnectionInfo,
    },
    Cluster(Vec<ConnectionInfo>),
}

/// The longest time a fence is kept: it must not overflow Redis' own arithmetic.
const MAX_RETENTION: Duration = Duration::from_hours(24 * 365);

impl RedisBuilder {
    pub(in crate::store) fn new(url: &str) -> Self {
        Self {
            place: parse(url).map_err(|why| StoreError::Config(why.into())),
            template: KeyTemplate::default(),
            operation_timeout: Duration::from_millis(500),
            fence_retention: Duration::from_hours(24),
            longest_life: Ttl::MAX,
            repeats: Repeats::On,
            lock_delay: Duration::ZERO,
            replicas: 0,
            process: uuid::Uuid::new_v4().simple().to_string().into(),
            root_certificate: None,
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

    /// Grants and extends count only when so many replicas confirmed them in time (`WAIT`, R24). Off unless it is
    /// set. It narrows the window in which a failover forgets a lock; it does not close it.
    pub fn wait_for_replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// What this process is called in queues; random unless it is set. Two processes must not share it.
    pub fn process_id(mut self, id: &str) -> Self {
        self.process = id.into();
        self
    }

    /// Trusts this certificate authority (PEM) in the place of the system's.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificate = Some(pem.into().into());
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
        if let Err(wrong) = &self.place {
            return Err(wrong.clone());
        }
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
        Ok(RedisStore::over(self))
    }
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder")
            .field("place", &self.place)
            .field("template", &self.template)
            .field("operation_timeout", &self.operation_timeout)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |infos: &[ConnectionInfo]| infos.iter().map(|i| i.addr().to_string()).collect::<Vec<_>>().join(",");
        match self {
            Self::Server(info) => write!(f, "{}", info.addr()),
            Self::Sentinel { sentinels, master, .. } => write!(f, "sentinel {} of {}", master, all(sentinels)),
            Self::Cluster(nodes) => write!(f, "cluster {}", all(nodes)),
        }
    }
}

/// Reads a URL. The error never repeats any of it.
fn parse(url: &str) -> Result<Place, &'static str> {
    // A variable or a file often ends with a line break, which would become a part of a master's name.
    let url = url.trim();
    if url.chars().any(char::is_control) {
        return Err("a Redis URL has no control characters");
    }
    let (scheme, rest) = url.split_once("://").ok_or("a Redis URL begins with `redis://`")?;
    let (single, kind) = match scheme.split_once('+') {
        None => (scheme, None),
        Some((single, kind)) => (single, Some(kind)),
    };
    if single == "rediss" && !cfg!(feature = "redis-tls") {
        return Err("`rediss` needs the feature `redis-tls`");
    }
    if !["redis", "rediss"].contains(&single) {
        return Err("a Redis URL begins with `redis` or `rediss`, perhaps with `+sentinel` or `+cluster`");
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains(['?', '#']) {
        // They end the authority where they stand: what was meant as a user would be taken for the host.
        return Err("in a user or a password `?` is written as `%3F`, and `#` as `%23`");
    }
    let (access, hosts) = authority.rsplit_once('@').map_or(("", authority), |(access, hosts)| (access, hosts));
    let each = |access: &str, default_port: u16, db: &str| -> Result<Vec<ConnectionInfo>, &'static str> {
        let at = if access.is_empty() { "" } else { "@" };
        let one = |host: &str| {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let port = if has_port { String::new() } else { format!(":{default_port}") };
            info(&format!("{single}://{access}{at}{host}{port}/{db}"))
        };
        hosts.split(',').map(one).collect()
    };
    match kind {
        None if !hosts.contains(',') => {
            Ok(Place::Server(each(access, 6379, path)?.pop().ok_or("a Redis URL names a host")?))
        }
        None => Err("several hosts need `+sentinel` or `+cluster`"),
        Some("sentinel") => {
            let (master, db) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err("a Sentinel URL ends with the name of the master");
            }
            // The user and the password are the servers'; Sentinels usually have none.
            let like = each(access, 26379, db)?.pop().ok_or("a Sentinel URL names hosts")?;
            Ok(Place::Sentinel { sentinels: each("", 26379, "")?, master: master.into(), like })
        }
        Some("cluster") if matches!(path, "" | "0") => Ok(Place::Cluster(each(access, 6379, "")?)),
        Some("cluster") => Err("a Cluster has no databases"),
        Some(_) => Err("after `redis+` comes `sentinel` or `cluster`"),
    }
}

fn info(url: &str) -> Result<ConnectionInfo, &'static str> {
    let info = url.into_connection_info().map_err(|_| "the Redis URL cannot be read")?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings.set_lib_name("leasehold", env!("CARGO_PKG_VERSION"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        format!("{:?}", parse(url).unwrap())
    }

    #[test]
    fn urls_name_one_server_sentinels_or_a_cluster() {
        assert_eq!(shown("redis://h"), "h:6379");
        assert_eq!(shown("redis://u:p@h:1/3"), "h:1");
        assert_eq!(shown("redis+sentinel://a,b:7/mine/2"), "sentinel mine of a:26379,b:7");
        assert_eq!(shown("redis+cluster://p@a:1,b"), "cluster a:1,b:6379");
        assert_eq!(shown("redis+sentinel://a/mine\n"), "sentinel mine of a:26379");
        let Place::Sentinel { like, sentinels, .. } = parse("redis+sentinel://u:p%40@a/m/2").unwrap() else { panic!() };
        assert_eq!((like.redis_settings().password(), like.redis_settings().db()), (Some("p@"), 2));
        assert_eq!(sentinels[0].redis_settings().password(), None);
    }

    #[test]
    fn urls_that_cannot_be_meant_are_refused_without_repeating_them() {
        for url in [
            "",
            "h",
            "http://:secret@h",
            "redis://",
            "redis://:secret@a,b",
            "redis+sentinel://:secret@a",
            "redis+cluster://:secret@a/1",
            "redis+ring://:secret@a",
            "redis://:secret@h/x",
            "redis://secret?x@h",
            "redis+sentinel://:secret@a/m\ny",
            "redis+sentinel://secret#x@h/m",
        ] {
            let error = RedisBuilder::new(url).build().unwrap_err();
            assert!(matches!(error, StoreError::Config(_)), "{url}: {error:?}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }

    #[test]
    fn no_debug_output_shows_the_password() {
        for url in ["redis://u:secret@h", "redis+sentinel://:secret@a/m", "redis+cluster://:secret@a"] {
            let builder = RedisBuilder::new(url);
            assert!(!format!("{builder:?} {:?}", builder.clone().build().unwrap()).contains("secret"));
        }
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
