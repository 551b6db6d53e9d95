//! Which nodes vote, and how they are asked: [`RedlockBuilder`].

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "test-util")]
use super::config::Quarantine;
use super::config::{Config, NodeEvent};
use super::inner::Inner;
use super::node::Node;
use super::quorum::Quorum;
use super::roll::Roll;
use super::store::RedlockStore;
use crate::store::redis::builder::Repeats;
use crate::store::redis::conn::url::Place;
use crate::store::redis::{RedisBuilder, RedisStore};
use crate::store::{KeyTemplate, StoreError, Warning};
use crate::supervise;

/// Sets up a [`RedlockStore`].
#[derive(Clone)]
#[must_use]
pub struct RedlockBuilder {
    nodes: Vec<RedisBuilder>,
    config: Config,
}

impl RedlockStore {
    /// A store with the usual settings. Nothing is connected yet.
    ///
    /// # Errors
    /// [`StoreError::Config`] if a URL cannot be read, if the nodes are even in number, or if two are the same.
    pub fn new<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Self, StoreError> {
        Self::builder(urls).build()
    }

    /// Settings for a store over the nodes behind `urls`, one server each.
    pub fn builder<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> RedlockBuilder {
        RedlockBuilder::new(urls)
    }
}

impl RedlockBuilder {
    fn new<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Self {
        let nodes = urls.into_iter().map(|url| RedisBuilder::new(url.as_ref())).collect();
        Self { nodes, config: Config::new() }
    }

    fn each(mut self, set: impl Fn(RedisBuilder) -> RedisBuilder) -> Self {
        self.nodes = self.nodes.into_iter().map(set).collect();
        self
    }

    /// How locks are named on every node; `lock:{key}` unless it is set.
    pub fn key_template(self, template: KeyTemplate) -> Self {
        self.each(|node| node.key_template(template.clone()))
    }

    /// What the keys and channels beside locks begin with, on every node; see
    /// [`RedisBuilder::side_key_prefix`](crate::store::redis::RedisBuilder::side_key_prefix).
    pub fn side_key_prefix(self, prefix: &str) -> Self {
        self.each(|node| node.side_key_prefix(prefix))
    }

    /// How long a connection to a node may take to come about; 2 s unless it is set, from 10 ms to a minute.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        self.each(|node| node.connect_timeout(timeout))
    }

    /// The number of the database on every node, in the place of the URLs'.
    pub fn database(self, number: u16) -> Self {
        self.each(|node| node.database(number))
    }

    /// How long a round waits for the nodes; 200 ms unless it is set, from 5 ms to 10 s. It is waited for only where
    /// the nodes that have answered decide nothing.
    pub fn node_timeout(mut self, timeout: Duration) -> Self {
        self.config.node_timeout = timeout;
        self
    }

    /// The longest TTL that may be asked for, and the time for which a node that may have forgotten locks does not
    /// vote; one minute unless it is set. **It is the same in every process that uses these nodes**: one with another
    /// value is refused by the nodes. To change it, stop them all, and [initialise](RedlockStore::initialise).
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.config.max_ttl = ttl;
        self
    }

    /// How long the fence of an idle key is remembered; 24 h unless it is set, at least twice `max_ttl`.
    pub fn fence_retention(mut self, retention: Duration) -> Self {
        self.config.fence_retention = retention;
        self
    }

    /// Trusts this certificate authority (PEM) in the place of the system's.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn root_certificate(self, pem: impl Into<Vec<u8>>) -> Self {
        let pem = pem.into();
        self.each(|node| node.root_certificate(pem.clone()))
    }

    /// Shows this certificate to nodes that ask for one (PEM, with its chain), and proves it with its key (PEM).
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn client_certificate(self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let (certificate, key) = (certificate.into(), key.into());
        self.each(|node| node.client_certificate(certificate.clone(), key.clone()))
    }

    /// Calls `hook`, on the store's runtime, when a connection finds a node's set-up dangerous (R22), or a node refuses us;
    /// the same not more often than once a minute for each node. A hook that panics harms nothing.
    pub fn on_warning(self, hook: impl Fn(&Warning) + Send + Sync + 'static) -> Self {
        let hook = Arc::new(hook);
        self.each(|node| {
            let hook = Arc::clone(&hook);
            node.on_warning(move |warning| hook(warning))
        })
    }

    /// Calls `hook`, on the store's runtime, when a node comes, goes, or begins to vote: for logs. A hook that panics
    /// harms nothing.
    pub fn on_node_event(mut self, hook: impl Fn(&NodeEvent) + Send + Sync + 'static) -> Self {
        self.config.on_event = Some(Arc::new(move |event: &NodeEvent| supervise::hook(|| hook(event))));
        self
    }

    /// Lets nodes vote that may have forgotten locks. Shows what the quarantine is for; nothing else is good for it.
    #[cfg(feature = "test-util")]
    #[doc(hidden)]
    pub fn without_quarantine(mut self) -> Self {
        self.config.quarantine = Quarantine::Off;
        self
    }

    /// Checks everything and makes the store. Nothing is connected before it is started.
    ///
    /// # Errors
    /// [`StoreError::Config`] says what is wrong. It shows no URL.
    pub fn build(mut self) -> Result<RedlockStore, StoreError> {
        let names = self.names()?;
        let quorum = Quorum::over(&names).map_err(|why| StoreError::Config(format!("redlock: {why}").into()))?;
        self.config.check()?;
        self.config.marker = format!("{}quarantine", self.nodes[0].side_keys).into();
        let (stores, config) = (self.stores()?, Arc::new(self.config));
        let roll = Arc::new(Roll::new(names.into_iter().map(Arc::from).collect()));
        let node = |(index, store)| Arc::new(Node::new(index, store, Arc::clone(&config), Arc::clone(&roll)));
        let nodes = stores.into_iter().enumerate().map(node).collect();
        Ok(RedlockStore::over(Inner::new(config, quorum, nodes)))
    }

    /// Host and port of each node.
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let name = |node: &RedisBuilder| match &node.place {
            Ok(Place::Server(info)) => Ok(info.addr().to_string().to_lowercase()),
            Ok(_) => Err(StoreError::Config("a node of Redlock is one server: neither Sentinel nor a Cluster".into())),
            Err(error) => Err(error.clone()),
        };
        self.nodes.iter().map(name).collect()
    }

    /// A store of its own for each node.
    fn stores(&mut self) -> Result<Vec<RedisStore>, StoreError> {
        let config = &self.config;
        // A slow node is waited for during two rounds, within the bounds of a single server's timeout.
        let timeout = (config.node_timeout * 2).max(Duration::from_millis(100));
        let store = |node: RedisBuilder| {
            let node = node.operation_timeout(timeout).fence_retention(config.fence_retention);
            let mut node = node.process_id(&config.process);
            // L4: by the time that a node votes which forgot a release, the key has run out there.
            (node.longest_life, node.repeats) = (config.max_ttl, Repeats::Off);
            node.build()
        };
        std::mem::take(&mut self.nodes).into_iter().map(store).collect()
    }
}

debug_of!(RedlockBuilder, |it| nodes: it.nodes, node_timeout: it.config.node_timeout, max_ttl: it.config.max_ttl);

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(urls: &[&str]) -> String {
        RedlockStore::new(urls).unwrap_err().to_string()
    }

    #[test]
    fn even_numbers_and_duplicates_are_refused_with_the_reason() {
        assert!(refusal(&["redis://a", "redis://b"]).contains("even"));
        assert!(refusal(&[]).contains("no nodes"));
        assert!(refusal(&["redis://a", "redis://B:1", "redis://b:1/0"]).contains("nodes 1 and 2 are the same"));
        assert!(refusal(&["redis://u:secret@a", "redis://A:6379", "redis://c"]).contains("same"));
        assert!(RedlockStore::new(["redis://a"]).is_ok(), "one node votes alone");
        assert!(RedlockStore::new(["redis://a", "redis://a:1", "redis://a:2"]).is_ok());
    }

    #[test]
    fn what_is_no_single_server_is_refused_without_its_url() {
        for url in ["redis+cluster://:secret@a", "redis+sentinel://:secret@a/m", "http://:secret@a"] {
            let said = refusal(&[url, "redis://b", "redis://c"]);
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        let builder = || RedlockStore::builder(["redis://a"]);
        assert!(builder().node_timeout(Duration::ZERO).build().is_err());
        assert!(builder().max_ttl(Duration::ZERO).build().is_err());
        assert!(builder().max_ttl(Duration::from_hours(13)).build().is_err(), "fences would be forgotten too early");
        assert!(builder().max_ttl(Duration::from_hours(12)).build().is_ok());
    }
}
