//! The URLs that name where the keys are. The table of them stands at [`RedisBuilder`](crate::store::redis::RedisBuilder).

use std::fmt;
use std::sync::Arc;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

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

/// Reads a URL. The error never repeats any of it.
pub(in crate::store) fn parse(url: &str) -> Result<Place, &'static str> {
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
    let single = match single {
        "valkey" => "redis",
        "valkeys" => "rediss",
        other => other,
    };
    if matches!((single, kind), ("unix", None) | ("redis", Some("unix"))) {
        return Ok(Place::Server(info(&format!("unix://{rest}"))?));
    }
    check_scheme(single)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains(['?', '#']) {
        // They end the authority where they stand: what was meant as a user would be taken for the host.
        return Err("in a user or a password `?` is written as `%3F`, and `#` as `%23`");
    }
    let (access, names) = authority.rsplit_once('@').unwrap_or(("", authority));
    let hosts = Hosts { scheme: single, access, names };
    match kind {
        None => hosts.server(path),
        Some("sentinel") => hosts.sentinel(path),
        Some("cluster") => hosts.cluster(path),
        Some(_) => Err("after `redis+` comes `sentinel` or `cluster`"),
    }
}

fn check_scheme(scheme: &str) -> Result<(), &'static str> {
    match scheme {
        "rediss" if !cfg!(feature = "redis-tls") => Err("`rediss` needs the feature `redis-tls`"),
        "redis" | "rediss" => Ok(()),
        _ => Err(
            "a Redis URL begins with `redis`, `rediss`, `valkey`, `valkeys` or `unix`, the first four perhaps with \
                    `+sentinel` or `+cluster`",
        ),
    }
}

/// The hosts that a URL names, and what is said of all of them.
struct Hosts<'a> {
    scheme: &'a str,
    /// The user and the password.
    access: &'a str,
    names: &'a str,
}

impl Hosts<'_> {
    fn server(&self, db: &str) -> Result<Place, &'static str> {
        if self.names.contains(',') {
            return Err("several hosts need `+sentinel` or `+cluster`");
        }
        let server = self.connections(self.access, 6379, db)?.pop();
        Ok(Place::Server(server.ok_or("a Redis URL names a host")?))
    }

    fn sentinel(&self, path: &str) -> Result<Place, &'static str> {
        let (master, db) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err("a Sentinel URL ends with the name of the master");
        }
        // The user and the password are the servers'; Sentinels usually have none.
        let like = self.connections(self.access, 26379, db)?.pop().ok_or("a Sentinel URL names hosts")?;
        Ok(Place::Sentinel { sentinels: self.connections("", 26379, "")?, master: master.into(), like })
    }

    fn cluster(&self, db: &str) -> Result<Place, &'static str> {
        match db {
            "" | "0" => Ok(Place::Cluster(self.connections(self.access, 6379, "")?)),
            _ => Err("a Cluster has no databases"),
        }
    }

    /// A connection to each host.
    fn connections(&self, access: &str, default_port: u16, db: &str) -> Result<Vec<ConnectionInfo>, &'static str> {
        let at = if access.is_empty() { "" } else { "@" };
        let one = |host: &str| {
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let port = if has_port { String::new() } else { format!(":{default_port}") };
            info(&format!("{}://{access}{at}{host}{port}/{db}", self.scheme))
        };
        self.names.split(',').map(one).collect()
    }
}

fn info(url: &str) -> Result<ConnectionInfo, &'static str> {
    let info = url.into_connection_info().map_err(|_| "the Redis URL cannot be read")?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    // Else the kernel would keep a command until the one before it is answered.
    let tcp = TcpSettings::default().set_nodelay(true);
    Ok(info.set_tcp_settings(tcp).set_redis_settings(settings.set_lib_name("leasehold", env!("CARGO_PKG_VERSION"))))
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
        assert_eq!(shown("valkey://h/2"), "h:6379");
        assert_eq!(shown("valkey+sentinel://a/mine"), "sentinel mine of a:26379");
        assert_eq!(shown("unix:///run/redis.sock?db=3"), "/run/redis.sock");
        assert_eq!(shown("redis+unix:///run/redis.sock"), "/run/redis.sock");
        if cfg!(feature = "redis-tls") {
            assert_eq!(shown("valkeys+cluster://a,b"), "cluster a:6379,b:6379");
        }
        assert_eq!(shown("redis+sentinel://a/mine\n"), "sentinel mine of a:26379");
        let Place::Sentinel { like, sentinels, .. } = parse("redis+sentinel://u:p%40@a/m/2").unwrap() else { panic!() };
        assert_eq!((like.redis_settings().password(), like.redis_settings().db()), (Some("p@"), 2));
        assert_eq!(sentinels[0].redis_settings().password(), None);
    }
}
