//! What all calls of one store share: [`Inner`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::builder::RedisBuilder;
use super::conn::batch::Batching;
use super::conn::cluster::Servers;
use super::conn::link::Link;
use super::conn::opener::Opener;
use super::conn::url::Place;
use super::highest::Highest;
use super::keys::KeyNames;
use super::pubsub::listener::Listener;
use super::recent_releases::RecentReleases;
use super::shares::Shares;
use super::tickets::Tickets;
use crate::clock::{Clock, Moment};
use crate::key::{Key, Ttl};
use crate::store::pending::Cleaning;
use crate::store::time::Ticks;
use crate::store::{Capabilities, StoreError, drift};

/// The outcome of the last trial of a lock, and when it ended.
pub(super) type LastTrial = Option<(Instant, Result<(), StoreError>)>;

pub(in crate::store) struct Inner {
    pub(in crate::store) config: RedisBuilder,
    pub(super) servers: Servers,
    pub(super) opener: Opener,
    pub(in crate::store) ticks: Arc<Ticks>,
    pub(super) highest: Highest,
    pub(in crate::store) cleaning: Cleaning<KeyNames>,
    pub(super) recent_releases: RecentReleases,
    pub(super) shares: Shares,
    pub(super) tickets: Arc<Tickets>,
    pub(super) listener: Arc<Listener>,
    /// One caller of the health tries a lock for all (`health`).
    pub(super) last_trial: tokio::sync::Mutex<LastTrial>,
    /// On which all processes receive forced releases. Channels know no databases, so its name does.
    pub(super) forced_channel: Arc<str>,
    /// On which holders receive the notice that an operator will end their locks. Of one database as well.
    pub(super) notice_channel: Arc<str>,
    /// On which this process is called when it is its turn.
    pub(super) turn_channel: Arc<str>,
    /// What the tokens of this process's claims begin with, in 48 bits.
    pub(super) claim_tag: u64,
    /// On which other processes ask for what it has claims on.
    pub(super) claims_channel: Arc<str>,
    /// On which processes that want a shared lock for themselves say so to all.
    pub(super) shares_channel: Arc<str>,
    /// `Some` from the start to the stop: without it no call is sent.
    pub(super) runtime: RwLock<Option<Handle>>,
    pub(super) tasks: Mutex<Vec<AbortHandle>>,
}

impl Inner {
    /// For settings that were checked.
    pub(super) fn new(config: RedisBuilder) -> Self {
        let place = config.place.clone().expect("the builder has checked it");
        let db = match &place {
            Place::Server(info) | Place::Sentinel { like: info, .. } => info.redis_settings().db(),
            Place::Cluster(_) => 0,
        };
        let claim_tag = fastrand::u64(..) >> 16;
        Self {
            servers: Servers::new(&config, &place),
            opener: Opener::new(&config, Batching::Off),
            ticks: Ticks::new(config.operation_timeout),
            highest: Highest::default(),
            cleaning: Cleaning::default(),
            recent_releases: RecentReleases::default(),
            shares: Shares::default(),
            tickets: Arc::new(Tickets::new(Clock::system())),
            listener: Arc::default(),
            last_trial: tokio::sync::Mutex::default(),
            forced_channel: format!("{}forced:{db}", config.side_keys).into(),
            notice_channel: format!("{}notice:{db}", config.side_keys).into(),
            turn_channel: format!("{}turn:{}", config.side_keys, config.process).into(),
            claim_tag,
            // As a token's text begins.
            claims_channel: format!("{}claims:{:08x}-{:04x}", config.side_keys, claim_tag >> 16, claim_tag & 0xffff)
                .into(),
            shares_channel: format!("{}shares", config.side_keys).into(),
            runtime: RwLock::default(),
            tasks: Mutex::default(),
            config,
        }
    }

    pub(in crate::store) fn now(&self) -> Moment {
        self.ticks.now()
    }

    /// The store's own runtime, while it runs.
    pub(in crate::store) fn runtime(&self) -> Option<Handle> {
        self.runtime.read().clone()
    }

    /// Whether it was started, and has not been stopped.
    pub(super) fn is_running(&self) -> bool {
        self.runtime.read().is_some()
    }

    pub(in crate::store) fn names(&self, key: &Key) -> Result<KeyNames, StoreError> {
        KeyNames::new(&self.config.template, &self.config.side_keys, key)
    }

    /// From now on `hook` receives the calls on this process's channel, in the place of its own tickets.
    pub(in crate::store) fn pass_calls_on(&self, hook: impl Fn(Option<&str>) + Send + Sync + 'static) {
        self.tickets.pass_on(hook);
    }

    /// From now on the store listens on this process's channel.
    pub(in crate::store) fn listen_for_turns(&self) {
        self.listener.listen_for_turns();
    }

    /// A lock's key, as the manager spells it, from its name in a message.
    pub(super) fn key_of(&self, lock: &str) -> Option<Key> {
        self.config.template.canonical(&Key::new(lock).ok()?)
    }

    /// The link to a server that stands alone.
    pub(in crate::store) fn link(&self) -> Option<&Arc<Link>> {
        match &self.servers {
            Servers::One(link, _) => Some(link),
            Servers::Cluster(_) => None,
        }
    }

    /// R3: a lifetime that rounds to nothing would delete the key.
    pub(super) fn checked_ttl(&self, ttl: Ttl) -> Result<Duration, StoreError> {
        let ttl = ttl.as_duration();
        if ttl < Capabilities::new(self.config.operation_timeout).min_ttl {
            Err(StoreError::InvalidTtl)
        } else {
            Ok(ttl)
        }
    }

    /// For how long a grant is valid (R2, R8): the shorter of what was asked for and what is left (without the lock
    /// delay, R27), less the drift allowance for as long as that is.
    pub(super) fn valid_for(&self, ttl: Duration, left_ms: i64) -> Duration {
        let left = match u64::try_from(left_ms) {
            Ok(left) => Duration::from_millis(left).saturating_sub(self.config.lock_delay),
            // A key without an end: somebody took it away. It lasts at least as long as we asked.
            Err(_) => ttl,
        };
        let span = ttl.min(left);
        span.saturating_sub(drift(span))
    }
}
