//! Several servers that vote together, and stores over them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use leasehold::conformance::store::{Stores, wait};
use leasehold::store::Store;
use leasehold::store::redlock::{RedlockBuilder, RedlockStore};

use crate::kit::{Proxy, Server, until};

/// A longest TTL, and so a quarantine, that a test can wait for.
pub(crate) const MAX_TTL: Duration = Duration::from_secs(3);

/// Servers, initialised: nobody is in quarantine.
pub(crate) struct Nodes {
    pub(crate) servers: Vec<Server>,
    pub(crate) max_ttl: Duration,
}

impl Nodes {
    pub(crate) fn start(count: usize, args: &[&str], max_ttl: Duration) -> Self {
        let nodes = Self { servers: (0..count).map(|_| Server::start(args)).collect(), max_ttl };
        initialise(&nodes.builder());
        nodes
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.servers.iter().map(Server::url).collect()
    }

    pub(crate) fn builder(&self) -> RedlockBuilder {
        RedlockStore::builder(self.urls()).max_ttl(self.max_ttl)
    }

    pub(crate) fn proxies(&self) -> Vec<Proxy> {
        self.servers.iter().map(|server| Proxy::start(server.address())).collect()
    }

    pub(crate) fn stores(&self) -> Stores {
        stores(|| self.builder())
    }

    /// How many scripts each server has run.
    pub(crate) fn scripts(&self) -> Vec<u64> {
        let calls = |line: &str| line.strip_prefix("cmdstat_eval")?.split(&['=', ','][..]).nth(1)?.parse::<u64>().ok();
        let of = |server: &Server| server.ask::<String>("INFO commandstats").lines().filter_map(calls).sum();
        self.servers.iter().map(of).collect()
    }

    /// Waits until nothing of a lock is left on any server that runs.
    #[track_caller]
    pub(crate) fn until_free(&self, name: &str) {
        until(&format!("the end of {name} everywhere"), || self.holders(name) == 0);
    }

    /// On how many servers a lock exists.
    pub(crate) fn holders(&self, name: &str) -> usize {
        let exists = |server: &&Server| {
            server.is_running() && server.try_ask::<i64>(&format!("EXISTS lock:{name}")).is_ok_and(|count| count == 1)
        };
        self.servers.iter().filter(exists).count()
    }

    /// On how many servers a lock has this value.
    pub(crate) fn with_value(&self, name: &str, value: &str) -> usize {
        let has = |server: &&Server| {
            server.is_running()
                && server
                    .try_ask::<Option<String>>(&format!("GET lock:{name}"))
                    .is_ok_and(|found| found.as_deref() == Some(value))
        };
        self.servers.iter().filter(has).count()
    }
}

/// Says that nothing is held on the nodes that a builder names. The test may have a runtime of its own.
pub(crate) fn initialise(builder: &RedlockBuilder) {
    let store = builder.clone().build().unwrap();
    let initialising = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            store.start().await.unwrap();
            store.initialise().await.unwrap();
            store.stop().await;
        });
    });
    initialising.join().unwrap();
}

/// Two stores, as two processes would have them, that have met their nodes.
pub(crate) fn stores(builder: impl Fn() -> RedlockBuilder) -> Stores {
    let stores = Stores::start(&|| Arc::new(builder().build().unwrap()) as Arc<dyn Store>);
    for store in [&stores.one, &stores.other] {
        until("the nodes", || wait(store.health()).nodes.iter().all(|node| node.answer.is_ok()));
    }
    stores
}
