//! Fear: a lock over a store is not the lock that it is in memory: another answer, another error, another order.
#![cfg(feature = "test-util")]

use leasehold::LockManager;
use leasehold::conformance::manager as conformance;

#[test]
fn memory_does_what_every_manager_does() {
    conformance::check(LockManager::builder);
}

#[cfg(feature = "redis")]
mod over_redis {
    use leasehold::conformance::manager as conformance;
    use leasehold::store::redis::RedisStore;
    use leasehold::{Builder, LockManager};

    use crate::kit::sentinel::NAME;
    use crate::kit::{Cluster, Sentinels, Server};
    use crate::redlock::Nodes;

    fn over(url: &str) -> Builder {
        LockManager::builder().store(RedisStore::new(url).unwrap())
    }

    #[test]
    fn one_server_does_what_memory_does() {
        let server = Server::start(&[]);
        conformance::check(|| over(&server.url()));
    }

    #[test]
    fn a_sentinels_master_does_what_memory_does() {
        let sentinels = Sentinels::start();
        conformance::check(|| over(&format!("redis+sentinel://{}/{NAME}", sentinels.hosts())));
    }

    #[test]
    fn a_cluster_does_what_memory_does() {
        let cluster = Cluster::start();
        conformance::check(|| over(&format!("redis+cluster://{}", cluster.hosts())));
    }

    #[test]
    fn five_nodes_do_what_memory_does() {
        let nodes = Nodes::start(5, &[], std::time::Duration::from_hours(3));
        conformance::check(|| LockManager::builder().store(nodes.builder().build().unwrap()));
    }
}
