//! The stores in Redis: one server, Sentinels, a Cluster, and Redlock over several.

use std::time::Duration;

use leasehold::store::redis::RedisStore;
use leasehold::store::redlock::{NodeEvent, RedlockStore};

use super::{Choice, StoreArgs, given, refusal};

/// What a name of several servers begins with.
pub(super) const REDLOCK: &str = "redlock:";

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

pub(super) fn choose_by_environment(_: &str, max_ttl: Duration, args: &StoreArgs) -> Result<Choice, String> {
    match std::env::var("REDIS_URL").ok().filter(|url| !url.is_empty()) {
        Some(url) => choose(&url, max_ttl, args),
        None => Err("--store redis (LEASEHOLD_STORE): REDIS_URL must name the server".to_owned()),
    }
}

pub(super) fn choose(url: &str, _: Duration, args: &StoreArgs) -> Result<Choice, String> {
    let builder = given!(common!(RedisStore::builder(url), args);
        operation_timeout(args.store_timeout),
        wait_for_replicas(args.store_replicas),
        claim_reuse(args.claim_reuse.map(Into::into)),
        sentinel_user(args.store_sentinel_user.as_deref()),
        sentinel_password(args.store_sentinel_password.as_deref()),
    );
    builder.build().map(|store| Choice::Shared(Box::new(store))).map_err(refusal)
}

pub(super) fn choose_redlock(name: &str, max_ttl: Duration, args: &StoreArgs) -> Result<Choice, String> {
    let nodes = name.strip_prefix(REDLOCK).unwrap_or(name);
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
