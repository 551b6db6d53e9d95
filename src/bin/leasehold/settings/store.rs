//! `--store`: where the locks of the server live.

use std::time::Duration;

use leasehold::store::StoreError;
use leasehold::store::redis::RedisStore;
use leasehold::store::redlock::{NodeEvent, RedlockStore};

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

/// Reads a choice; `max_ttl` is for Redlock. A URL may hold a password, so no refusal repeats it.
///
/// # Errors
/// It names no store, or one whose URL makes no sense.
pub(crate) fn choose(name: &str, max_ttl: Duration) -> Result<Choice, String> {
    if let Some(nodes) = name.strip_prefix("redlock:") {
        return redlock(nodes, max_ttl);
    }
    match name {
        "memory" => Ok(Choice::Memory),
        "redis" => match std::env::var("REDIS_URL").ok().filter(|url| !url.is_empty()) {
            Some(url) => redis(&url),
            None => Err("--store redis (LEASEHOLD_STORE): REDIS_URL must name the server".to_owned()),
        },
        url if url.contains("://") => redis(url),
        _ => Err(
            "--store (LEASEHOLD_STORE) must be `memory`, `redis://host:port`, `redis+sentinel://host,host/master`, \
             `redis+cluster://host,host`, `redis` with REDIS_URL, or `redlock:redis://a,redis://b,redis://c`"
                .to_owned(),
        ),
    }
}

fn redis(url: &str) -> Result<Choice, String> {
    let builder = RedisStore::builder(url).on_warning(|warning| tracing::warn!(%warning, "store"));
    builder.build().map(Choice::Redis).map_err(refusal)
}

fn redlock(nodes: &str, max_ttl: Duration) -> Result<Choice, String> {
    let builder = RedlockStore::builder(nodes.split(',')).max_ttl(max_ttl);
    let store = builder.on_warning(|warning| tracing::warn!(%warning, "store")).on_node_event(log).build();
    store.map(Choice::Redlock).map_err(refusal)
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
