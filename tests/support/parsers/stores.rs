//! `--store`: the URLs of one server, of Sentinels, of a Cluster, and lists of servers for Redlock.

use std::time::Duration;

use leasehold::store::redis::probe;
use redis::{ConnectionAddr, ConnectionInfo};

use super::settings::room::store::{Choice, StoreArgs, choose};

pub(super) fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let choice = choose(text, Duration::from_secs(60), &StoreArgs::default());
    match &choice {
        Err(why) => {
            super::is_plain(why);
            assert!(why.starts_with("--store"), "it does not say what is wrong: {why}");
        }
        Ok(choice) => {
            let shown = format!("{choice:?}");
            // A host or the name of a master is no secret.
            let nodes = text.strip_prefix("redlock:").map_or(vec![text], |nodes| nodes.split(',').collect());
            let parts: Vec<_> = nodes.into_iter().map(access_and_rest).collect();
            let secret = parts.iter().any(|(access, _)| access.contains(super::SECRET));
            let open = parts.iter().any(|(_, rest)| rest.contains(super::SECRET));
            assert!(!secret || open || !shown.contains(super::SECRET), "it tells a secret: {shown}");
        }
    }
    match choice {
        Ok(Choice::Memory) => assert_eq!(text, "memory"),
        Ok(Choice::Postgres(_)) => assert!(text.starts_with("postgres")),
        Ok(Choice::Own(_)) => assert!(text.starts_with("file:")),
        Ok(Choice::Shared(_)) => one(text),
        Ok(Choice::Redlock(_)) => {
            let nodes = text.strip_prefix("redlock:").expect("it said so");
            assert!(nodes.split(',').count() % 2 == 1, "an even number of nodes");
            nodes.split(',').for_each(one);
        }
        Err(_) => {}
    }
}

/// User and password of a URL, and what else it has.
fn access_and_rest(url: &str) -> (&str, String) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (access, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    (access, [scheme, hosts, path].join(" "))
}

/// Written anew from what was understood, a URL means the same.
fn one(url: &str) {
    let (nodes, master) = probe::place(url).unwrap_or_else(|why| panic!("{url:?}: {why}"));
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    // Behind the Sentinels stands what the master is like, at the address of the last of them.
    let (hosts, like) = match &master {
        Some(_) => (&nodes[..nodes.len() - 1], &nodes[nodes.len() - 1]),
        None => (&nodes[..], &nodes[0]),
    };
    assert!(!hosts.is_empty(), "{url:?} names nobody");
    let Some(hosts) = hosts.iter().map(host).collect::<Option<Vec<_>>>() else { return };
    let settings = like.redis_settings();
    let coded = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let access = match (settings.username(), settings.password()) {
        (None, None) => String::new(),
        (user, password) => {
            let password = password.map(|password| format!(":{}", coded(password))).unwrap_or_default();
            format!("{}{password}@", coded(user.unwrap_or_default()))
        }
    };
    let master = master.map(|master| format!("{master}/")).unwrap_or_default();
    let db = if scheme.ends_with("+cluster") { String::new() } else { settings.db().to_string() };
    let again = format!("{scheme}://{access}{}/{master}{db}", hosts.join(","));
    let (same, _) = probe::place(&again).unwrap_or_else(|why| panic!("{url:?} as {again:?}: {why}"));
    for (one, other) in nodes.iter().zip(&same) {
        assert_eq!(one.addr().to_string(), other.addr().to_string(), "{url:?} as {again:?}");
        let parts = |info: &ConnectionInfo| {
            let settings = info.redis_settings();
            (settings.username().map(str::to_owned), settings.password().map(str::to_owned), settings.db())
        };
        assert_eq!(parts(one), parts(other), "{url:?} as {again:?}");
    }
    assert_eq!(nodes.len(), same.len(), "{url:?} as {again:?}");
}

fn host(info: &ConnectionInfo) -> Option<String> {
    let (host, port) = match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host, port),
        // A socket in the file system has no host to write anew.
        _ => return None,
    };
    Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}
