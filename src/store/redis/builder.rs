//! How to reach Redis and how to lock there: [`RedisBuilder`]. What URLs it takes, `url` says. Passwords go into the
//! connections and nowhere else (R25).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::ConnectionInfo;

use super::conn::url::{self, Place};
use super::keys::SIDE_KEYS;
use crate::key::Ttl;
use crate::store::{ClaimReuse, KeyTemplate, StoreError, Warning};
use crate::supervise;

/// Sets up a [`RedisStore`](super::RedisStore).
///
/// | URL | what stands behind it |
/// |---|---|
/// | `redis://user:password@host:6379/0` | one server |
/// | `unix:///run/redis.sock?db=0&user=user&pass=password` | one server, over a socket in the file system |
/// | `redis+sentinel://host:26379,host:26379/master/0` | the master that Sentinels name |
/// | `redis+cluster://host:6379,host:6379` | a Cluster, found through any of its nodes |
///
/// `rediss` in the place of `redis` encrypts, with the feature `redis-tls`; `valkey` and `valkeys` are other words for
/// the two.
#[derive(Clone)]
#[must_use]
pub struct RedisBuilder {
    pub(in crate::store) place: Result<Place, StoreError>,
    pub(in crate::store) template: KeyTemplate,
    /// What the names beside locks begin with.
    pub(in crate::store) side_keys: Arc<str>,
    pub(in crate::store) operation_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(in crate::store) fence_retention: Duration,
    /// No key of this store lives longer.
    pub(in crate::store) longest_life: Duration,
    pub(in crate::store) repeats: Repeats,
    pub(super) lock_delay: Duration,
    pub(super) claim_reuse: ClaimReuse,
    pub(super) replicas: u32,
    pub(super) process: Arc<str>,
    root_certificate: Option<Arc<[u8]>>,
    client_certificate: Option<ClientCertificate>,
    database: Option<u16>,
    sentinel_user: Option<Arc<str>>,
    sentinel_password: Option<Arc<str>>,
    pub(super) on_warning: Option<OnWarning>,
}

pub(super) type OnWarning = Arc<dyn Fn(&Warning) + Send + Sync>;

/// What servers that ask for a certificate get, in PEM.
#[derive(Clone)]
#[cfg_attr(not(feature = "redis-tls"), expect(dead_code, reason = "there is nobody to show it to"))]
struct ClientCertificate {
    chain: Arc<[u8]>,
    key: Arc<[u8]>,
}

/// Whether the last releases are repeated whenever a connection comes up (`release_replay`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Repeats {
    On,
    /// A server that may have forgotten them grants nothing before the keys have run out.
    Off,
}

/// The longest time a fence is kept: it must not overflow Redis' own arithmetic.
const MAX_RETENTION: Duration = Duration::from_hours(24 * 365);

impl RedisBuilder {
    pub(in crate::store) fn new(url: &str) -> Self {
        Self {
            place: url::parse(url).map_err(|why| StoreError::Config(why.into())),
            template: KeyTemplate::default(),
            side_keys: SIDE_KEYS.into(),
            operation_timeout: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(2),
            fence_retention: Duration::from_hours(24),
            longest_life: Ttl::MAX,
            repeats: Repeats::On,
            lock_delay: Duration::ZERO,
            claim_reuse: ClaimReuse::Off,
            replicas: 0,
            process: uuid::Uuid::new_v4().simple().to_string().into(),
            root_certificate: None,
            client_certificate: None,
            database: None,
            sentinel_user: None,
            sentinel_password: None,
            on_warning: None,
        }
    }

    /// How locks are named; `lock:{key}` unless it is set.
    pub fn key_template(mut self, template: KeyTemplate) -> Self {
        self.template = template;
        self
    }

    /// What the keys and channels beside locks begin with (fences, queues); `leasehold:` unless it is set, 1 to 64 bytes
    /// without braces and control characters. **The same in every process that shares locks**: queues, hints and fences
    /// of one prefix mean nothing to another.
    pub fn side_key_prefix(mut self, prefix: &str) -> Self {
        self.side_keys = prefix.into();
        self
    }

    /// How long one call may take; 500 ms unless it is set, from 10 ms to a minute. A call is a round trip, two after
    /// the server has forgotten the scripts: four times the slowest round trip is enough.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long a connection may take to come about, with TLS, log-in and the first questions: 2 s unless it is set, from
    /// 10 ms to a minute. That is seven round trips, nine with TLS. An attempt that hangs for so long keeps the store
    /// from trying anew.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The number of the database, in the place of the URL's. A Cluster has 0 only.
    pub fn database(mut self, number: u16) -> Self {
        self.database = Some(number);
        self
    }

    /// Who we are to Sentinels. The user and the password in the URL are the servers'.
    pub fn sentinel_user(mut self, user: &str) -> Self {
        self.sentinel_user = Some(user.into());
        self
    }

    /// The password for Sentinels, with or without a user.
    pub fn sentinel_password(mut self, password: &str) -> Self {
        self.sentinel_password = Some(password.into());
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

    /// Whether a key that this process has let go goes on in it without the server; off unless it is set. Needs no
    /// setting in other processes, but the same version of this crate: they ask this one for the key. Releases by a
    /// token work in this process only, then.
    pub fn claim_reuse(mut self, reuse: ClaimReuse) -> Self {
        self.claim_reuse = reuse;
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

    /// Shows this certificate to servers that ask for one (PEM, with its chain), and proves it with its key (PEM).
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn client_certificate(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.client_certificate = Some(ClientCertificate { chain: certificate.into().into(), key: key.into().into() });
        self
    }

    /// Calls `hook`, on the store's runtime, when a connection finds the set-up dangerous (R22), when a server refuses
    /// us, or when rights are missing; the same not more often than once a minute. A hook that panics harms nothing.
    pub fn on_warning(mut self, hook: impl Fn(&Warning) + Send + Sync + 'static) -> Self {
        self.on_warning = Some(Arc::new(move |warning: &Warning| supervise::hook(|| hook(warning))));
        self
    }

    /// The same settings, all of them checked.
    pub(super) fn checked(mut self) -> Result<Self, StoreError> {
        let config = |why: &str| Err(StoreError::Config(why.into()));
        let place = match self.place.clone() {
            Ok(place) => self.adjusted(place).map_err(|why| StoreError::Config(why.into()))?,
            Err(wrong) => return Err(wrong),
        };
        self.place = Ok(place);
        if self.connect_timeout < Duration::from_millis(10) || self.connect_timeout > Duration::from_mins(1) {
            return config("the connect timeout is between 10 ms and a minute");
        }
        let is_odd = |prefix: char| prefix.is_control() || matches!(prefix, '{' | '}');
        if self.side_keys.is_empty() || self.side_keys.len() > 64 || self.side_keys.contains(is_odd) {
            return config("the side-key prefix has 1 to 64 bytes, no braces and no control characters");
        }
        if self.side_keys.contains("queue:") {
            return config("the side-key prefix has no `queue:` in it: the scripts find what is before that");
        }
        if self.template.fill("x").starts_with(&*self.side_keys) {
            return config("the key template begins with the side-key prefix: no key could be locked");
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
        if self.claim_reuse != ClaimReuse::Off {
            let max_time = self.claim_reuse.max_time();
            if max_time < Duration::from_millis(1) || max_time > Duration::from_mins(1) {
                return config("a claim is reused for a millisecond at least, and a minute at most");
            }
        }
        if self.process.is_empty() || self.process.len() > 128 {
            return config("the process id has 1 to 128 bytes");
        }
        Ok(self)
    }

    /// The place with the settings that do not stand in its URL, all of them checked.
    fn adjusted(&self, place: Place) -> Result<Place, &'static str> {
        let database = |info: ConnectionInfo| match self.database {
            None => info,
            Some(number) => {
                let settings = info.redis_settings().clone().set_db(number.into());
                info.set_redis_settings(settings)
            }
        };
        let sentinel = |info: ConnectionInfo| {
            let mut settings = info.redis_settings().clone();
            if let Some(user) = &self.sentinel_user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &self.sentinel_password {
                settings = settings.set_password(password);
            }
            info.set_redis_settings(settings)
        };
        let has_sentinel_access = self.sentinel_user.is_some() || self.sentinel_password.is_some();
        let place = match place {
            Place::Server(_) | Place::Cluster(_) if has_sentinel_access => {
                return Err("a user and a password of Sentinels go with `redis+sentinel`");
            }
            Place::Sentinel { .. } if self.sentinel_user.is_some() && self.sentinel_password.is_none() => {
                return Err("a user of Sentinels needs its password");
            }
            Place::Cluster(_) if self.database.is_some_and(|number| number != 0) => {
                return Err("a Cluster has no databases");
            }
            Place::Server(info) => Place::Server(self.with_certificates(database(info))?),
            Place::Cluster(nodes) => {
                Place::Cluster(nodes.into_iter().map(|info| self.with_certificates(info)).collect::<Result<_, _>>()?)
            }
            Place::Sentinel { sentinels, master, like } => {
                let each = |info| self.with_certificates(sentinel(info));
                let sentinels = sentinels.into_iter().map(each).collect::<Result<_, _>>()?;
                Place::Sentinel { sentinels, master, like: self.with_certificates(database(like))? }
            }
        };
        Ok(place)
    }

    /// The same access with our certificates, where it is encrypted.
    #[cfg(feature = "redis-tls")]
    fn with_certificates(&self, info: ConnectionInfo) -> Result<ConnectionInfo, &'static str> {
        if self.root_certificate.is_none() && self.client_certificate.is_none() {
            return Ok(info);
        }
        if !matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) {
            return Err("certificates go with `rediss`");
        }
        let holds_none = |pem: &[u8]| !String::from_utf8_lossy(pem).contains("-----BEGIN CERTIFICATE-----");
        let chain = self.client_certificate.as_ref().map(|ours| &*ours.chain);
        if [self.root_certificate.as_deref(), chain].into_iter().flatten().any(holds_none) {
            return Err("a certificate is no PEM");
        }
        let client_tls = self
            .client_certificate
            .as_ref()
            .map(|ours| redis::ClientTlsConfig { client_cert: ours.chain.to_vec(), client_key: ours.key.to_vec() });
        let root_cert = self.root_certificate.as_ref().map(|pem| pem.to_vec());
        let client = redis::Client::build_with_tls(info, redis::TlsCertificates { client_tls, root_cert });
        let client = client.map_err(|_| "a certificate or its key is no PEM, or holds nothing that can be used")?;
        Ok(client.get_connection_info().clone())
    }

    #[cfg(not(feature = "redis-tls"))]
    fn with_certificates(&self, info: ConnectionInfo) -> Result<ConnectionInfo, &'static str> {
        let _ = (&self.root_certificate, &self.client_certificate);
        Ok(info)
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

#[cfg(test)]
mod tests {
    use redis::ProtocolVersion;

    use super::*;

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
            "unix://secret",
            "unix+cluster:///secret",
            "rediss+unix:///secret",
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
        assert!(builder().connect_timeout(Duration::ZERO).build().is_err());
        assert!(builder().connect_timeout(Duration::MAX).build().is_err());
        for prefix in ["", "jobqueue:", "{a}:", "a\n", &"x".repeat(65), "lock:", "l"] {
            assert!(builder().side_key_prefix(prefix).build().is_err(), "{prefix}");
        }
        assert!(builder().sentinel_password("p").build().is_err(), "there are no Sentinels");
        assert!(RedisBuilder::new("redis+sentinel://h/m").sentinel_user("u").build().is_err(), "it has no password");
        assert!(RedisBuilder::new("redis+cluster://h").database(1).build().is_err());
        assert!(builder().build().is_ok());
    }

    #[test]
    fn settings_outside_the_url_are_those_of_the_connections() {
        let builder = RedisBuilder::new("redis+sentinel://u:p@h/m/1").sentinel_user("s").sentinel_password("secret");
        let store = builder.database(5).build().unwrap();
        assert!(!format!("{store:?}").contains("secret"));
        let Ok(Place::Sentinel { sentinels, like, .. }) = &store.0.config.place else { panic!() };
        let sentinel = sentinels[0].redis_settings();
        assert_eq!((sentinel.username(), sentinel.password(), sentinel.db()), (Some("s"), Some("secret"), 0));
        assert_eq!((like.redis_settings().username(), like.redis_settings().db()), (Some("u"), 5));
        let store = RedisBuilder::new("unix:///run/redis.sock?db=3&user=u&pass=p").build().unwrap();
        let Ok(Place::Server(info)) = &store.0.config.place else { panic!() };
        assert_eq!((info.redis_settings().username(), info.redis_settings().db()), (Some("u"), 3));
        assert_eq!(info.redis_settings().protocol(), ProtocolVersion::RESP3);
    }

    #[cfg(feature = "redis-tls")]
    #[test]
    fn certificates_that_cannot_be_used_are_refused_at_once() {
        let tls = || RedisBuilder::new("rediss://h");
        assert!(tls().root_certificate("none").build().is_err());
        assert!(tls().client_certificate("none", "none").build().is_err());
        assert!(RedisBuilder::new("redis://h").client_certificate("c", "k").build().is_err(), "nothing is encrypted");
    }
}
