//! Which server has which lock: [`Servers`], one link, or one per master of a Cluster.
//!
//! The map of a Cluster is asked for when the store starts, and again whenever a node says that it is wrong, or a slot is
//! nobody's. A map that does not change is asked for less and less often (N1), over the connections that there are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redis::aio::MultiplexedConnection;
use redis::{ConnectionInfo, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::batch::Batching;
use super::link::{Link, Pauses, Phase, Reconnects, Target, at, keep_failure};
use super::opener::Opener;
use super::url::Place;
use crate::backoff::Backoff;
use crate::store::StoreError;
use crate::store::redis::builder::{OnWarning, RedisBuilder};
use crate::store::redis::fault::{Fault, protocol_error};
use crate::supervise::supervise;

/// Between two looks at a map that is asked for again and again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// The links that a store has.
pub(in crate::store) enum Servers {
    One(Arc<Link>, Reconnects),
    Cluster(Arc<Cluster>),
}

pub(in crate::store) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    opener: Opener,
    on_warning: Option<OnWarning>,
    reconnects: Reconnects,
    runtime: Mutex<Option<Handle>>,
    links: Mutex<HashMap<Box<str>, Arc<Link>>>,
    map: RwLock<Map>,
    /// Rises with every map.
    version: watch::Sender<u64>,
    stale: Notify,
}

/// The ranges of slots, sorted by their end, and who has them.
type Map = Vec<(std::ops::RangeInclusive<u16>, Arc<Link>)>;

impl Servers {
    pub(in crate::store) fn new(config: &RedisBuilder, place: &Place) -> Self {
        // The locks of one batch would have to be in one slot.
        let batching = if matches!(place, Place::Cluster(_)) { Batching::Off } else { Batching::On };
        let opener = Opener::new(config, batching);
        let (on_warning, reconnects) = (config.on_warning.clone(), Reconnects::default());
        match place {
            Place::Server(info) => Self::One(
                Link::new(Target::Server(info.clone()), opener, on_warning, Arc::clone(&reconnects)),
                reconnects,
            ),
            Place::Sentinel { sentinels, master, like } => {
                let (sentinels, master, like) = (sentinels.clone(), Arc::clone(master), like.clone());
                let target = Target::Sentinel { sentinels, master, like };
                Self::One(Link::new(target, opener, on_warning, Arc::clone(&reconnects)), reconnects)
            }
            Place::Cluster(seeds) => Self::Cluster(Arc::new(Cluster {
                seeds: seeds.clone(),
                opener,
                on_warning,
                reconnects,
                runtime: Mutex::default(),
                links: Mutex::default(),
                map: RwLock::default(),
                version: watch::Sender::new(0),
                stale: Notify::new(),
            })),
        }
    }

    /// Starts what keeps the links open.
    pub(in crate::store) fn start(&self, runtime: &Handle) {
        match self {
            Self::One(link, _) => {
                let link = Arc::clone(link);
                runtime.spawn(link.run());
            }
            Self::Cluster(cluster) => {
                *cluster.runtime.lock() = Some(runtime.clone());
                let cluster = Arc::clone(cluster);
                runtime.spawn(async move { supervise("the map of a cluster", || cluster.keep_map()).await });
            }
        }
    }

    pub(in crate::store) fn end(&self) {
        for link in self.links() {
            link.end();
        }
        if let Self::Cluster(cluster) = self {
            *cluster.runtime.lock() = None;
            cluster.stale.notify_one();
        }
    }

    /// Every link that there is now.
    pub(in crate::store) fn links(&self) -> Vec<Arc<Link>> {
        match self {
            Self::One(link, _) => vec![Arc::clone(link)],
            Self::Cluster(cluster) => cluster.links.lock().values().cloned().collect(),
        }
    }

    /// Changes with every link that comes up.
    pub(in crate::store) fn reconnects(&self) -> watch::Receiver<u64> {
        match self {
            Self::One(_, reconnects) => reconnects.subscribe(),
            Self::Cluster(cluster) => cluster.reconnects.subscribe(),
        }
    }

    pub(in crate::store) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// The link that there is to all slots, where there is only one.
    pub(in crate::store) fn only(&self) -> Option<Arc<Link>> {
        match self {
            Self::One(link, _) => Some(Arc::clone(link)),
            Self::Cluster(_) => None,
        }
    }

    /// Who has the slot, as soon as that is known. `slot` is asked for only where it matters.
    pub(in crate::store) async fn of(&self, slot: impl FnOnce() -> u16) -> Result<Arc<Link>, StoreError> {
        match self {
            Self::One(link, _) => Ok(Arc::clone(link)),
            Self::Cluster(cluster) => cluster.of(slot()).await,
        }
    }

    /// The link to a node that another node named.
    pub(in crate::store) fn named(&self, address: &str) -> Option<Arc<Link>> {
        match self {
            Self::One(..) => None,
            Self::Cluster(cluster) => cluster.named(address),
        }
    }

    /// Asks for a fresh map.
    pub(in crate::store) fn rediscover(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.stale.notify_one();
        }
    }

    /// Whether Sentinels say which server has the keys.
    pub(in crate::store) fn are_behind_sentinels(&self) -> bool {
        matches!(self, Self::One(link, _) if link.address().is_none())
    }
}

impl Cluster {
    async fn of(&self, slot: u16) -> Result<Arc<Link>, StoreError> {
        let mut version = self.version.subscribe();
        loop {
            version.borrow_and_update();
            {
                let map = self.map.read();
                let at = map.partition_point(|(slots, _)| *slots.end() < slot);
                if let Some((_, link)) = map.get(at).filter(|(slots, _)| slots.contains(&slot)) {
                    return Ok(Arc::clone(link));
                }
            }
            self.stale.notify_one();
            if version.changed().await.is_err() {
                return Err(StoreError::NotRunning);
            }
        }
    }

    fn named(&self, address: &str) -> Option<Arc<Link>> {
        let (host, port) = address.rsplit_once(':')?;
        let info = at(self.seeds.first()?, host.to_owned(), port.parse().ok()?);
        let runtime = self.runtime.lock().clone()?;
        let mut links = self.links.lock();
        let link = links.entry(address.into()).or_insert_with(|| {
            let (opener, hook, reconnects) =
                (self.opener.clone(), self.on_warning.clone(), Arc::clone(&self.reconnects));
            let link = Link::new(Target::Server(info), opener, hook, reconnects);
            runtime.spawn(Arc::clone(&link).run());
            link
        });
        Some(Arc::clone(link))
    }

    /// Asks for the map whenever it is stale, until the store ends.
    async fn keep_map(&self) {
        let mut pauses = Pauses::default();
        let mut unchanged = Backoff::new(PAUSE.0, PAUSE.1);
        while self.runtime.lock().is_some() {
            match self.ask_any().await {
                Ok(map) => {
                    pauses.reset();
                    let changed = self.take(map);
                    let begun = Instant::now();
                    self.stale.notified().await;
                    if changed == Changed::Yes || begun.elapsed() > PAUSE.1 {
                        unchanged.reset();
                    }
                    // A call that found it stale has to wait: asking at once would find the same.
                    tokio::time::sleep(unchanged.next().saturating_sub(begun.elapsed())).await;
                }
                Err(why) => tokio::time::sleep(pauses.after(&why)).await,
            }
        }
    }

    /// Asks the nodes that there are connections to, then those that are known, then the seeds.
    async fn ask_any(&self) -> Result<Vec<Range>, StoreError> {
        let known: Vec<Arc<Link>> = self.links.lock().values().cloned().collect();
        for link in &known {
            if let (Phase::Up(wire), Some(node)) = (link.phase(), link.address())
                && let Ok(map) = self.ask(wire.connection(), node).await
            {
                return Ok(map);
            }
        }
        let mut failure = None;
        let mut nodes: Vec<ConnectionInfo> = known.iter().filter_map(|link| link.address().cloned()).collect();
        nodes.extend(self.seeds.iter().cloned());
        for node in nodes {
            let asked = async { self.ask(self.opener.plain(&node).await?, &node).await };
            match asked.await {
                Ok(map) => return Ok(map),
                Err(error) => keep_failure(&mut failure, error),
            }
        }
        Err(failure.unwrap_or_else(|| StoreError::Unreachable("the cluster has no nodes".into())))
    }

    async fn ask(
        &self,
        mut connection: MultiplexedConnection,
        node: &ConnectionInfo,
    ) -> Result<Vec<Range>, StoreError> {
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        let asking = tokio::time::timeout(self.opener.operation_timeout, slots.query_async::<Value>(&mut connection));
        let answer = asking.await.map_err(|_| StoreError::Timeout)?.map_err(|error| Fault::of(&error).error)?;
        // A node that does not know its own name leaves it out: it is the one we asked.
        let asked = match node.addr() {
            redis::ConnectionAddr::Tcp(host, _) | redis::ConnectionAddr::TcpTls { host, .. } => host.as_str(),
            _ => "localhost",
        };
        ranges(&answer, asked).filter(|map| !map.is_empty()).ok_or_else(|| protocol_error("no slots"))
    }

    fn take(&self, mut ranges: Vec<Range>) -> Changed {
        ranges.sort_by_key(|range| range.to);
        let links = |range: &Range| Some((range.from..=range.to, self.named(&range.master)?));
        let map: Map = ranges.iter().filter_map(links).collect();
        // Links that serve nothing any more go, but not one that a redirection has just brought: it is in the map.
        self.links.lock().retain(|_, link| {
            let serves = map.iter().any(|(_, other)| Arc::ptr_eq(link, other));
            if !serves {
                link.end();
            }
            serves
        });
        let same = |(one, other): (&(_, Arc<Link>), &(_, Arc<Link>))| one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1);
        let mut current = self.map.write();
        let is_same = current.len() == map.len() && current.iter().zip(&map).all(same);
        *current = map;
        drop(current);
        self.version.send_modify(|version| *version += 1);
        if is_same { Changed::No } else { Changed::Yes }
    }
}

/// Whether a map is another than the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changed {
    Yes,
    No,
}

/// Slots, and the address of who has them.
pub(in crate::store) struct Range {
    pub(in crate::store) from: u16,
    pub(in crate::store) to: u16,
    pub(in crate::store) master: Box<str>,
}

/// Reads `CLUSTER SLOTS`: first, last, master (host, port, ...), replicas.
pub(in crate::store) fn ranges(answer: &Value, asked: &str) -> Option<Vec<Range>> {
    let Value::Array(rows) = answer else { return None };
    let number = |value: &Value| if let Value::Int(n) = value { u16::try_from(*n).ok() } else { None };
    let row = |row: &Value| {
        let Value::Array(row) = row else { return None };
        let [from, to, Value::Array(master), ..] = row.as_slice() else { return None };
        let host = match master.first()? {
            Value::BulkString(host) if !host.is_empty() => std::str::from_utf8(host).ok()?,
            _ => asked,
        };
        let master = format!("{host}:{}", number(master.get(1)?)?).into();
        Some(Range { from: number(from)?, to: number(to)?, master })
    };
    rows.iter().map(row).collect()
}
