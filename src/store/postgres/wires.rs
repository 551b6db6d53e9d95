//! The connections: [`Wires`]. Some that stay, each with a task that keeps it up; statements go out on one of them, all
//! of a key on the same, one behind the other, without waiting for answers. So a few connections carry any number of calls, and
//! there is none to be waited for, as in a pool.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::fault::unconnected;
use super::inner::Inner;
use crate::backoff::Backoff;
use crate::store::time::ServerClock;
use crate::store::{Event, StoreError, Warning};

/// Between two tries to connect, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(500));
/// The same while the server refuses us.
const REFUSED: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A connection that lasted for less is no success.
const STEADY: Duration = Duration::from_secs(1);
/// The least time in which a doubted connection has to answer.
const PROOF: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Wire {
    pub(super) id: u64,
    pub(super) client: Client,
    pub(super) clock: ServerClock,
    pub(super) under_way: AtomicUsize,
    doubted: AtomicBool,
    doubt: Notify,
    useless: Notify,
}

impl Wire {
    /// A call had no answer in time: the connection has to show that it lives, and gets no others until then.
    pub(super) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
        self.doubt.notify_one();
    }

    /// It is of no further use.
    pub(super) fn close(&self) {
        self.useless.notify_one();
    }
}

/// Over which connection a statement goes.
#[derive(Clone, Copy)]
pub(super) enum Route {
    /// The one for the key with this hash: what is done with a key goes out in the order in which it was asked for, and no
    /// two connections of ours wait for each other at its row.
    Key(u64),
    /// The one with this number, while it is up; else the one for the key.
    Same(u64, u64),
    /// The one that has least to do.
    Any,
}

impl Route {
    pub(super) fn of(key: &str) -> Self {
        Self::Key(hash(key))
    }

    /// The one with this number, if there is one.
    pub(super) fn same(id: Option<u64>, key: &str) -> Self {
        id.map_or_else(|| Self::of(key), |id| Self::Same(id, hash(key)))
    }
}

fn hash(key: &str) -> u64 {
    foldhash::fast::FixedState::default().hash_one(key)
}

/// Which server it is, as far as it says.
#[derive(Clone, PartialEq, Eq)]
struct Identity(String);

pub(super) struct Wires {
    up: RwLock<Vec<Arc<Wire>>>,
    /// Changes when one comes up, and when the store is stopped.
    came_up: watch::Sender<()>,
    next: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Why there is none.
    why: StoreError,
    /// The server that was last connected to.
    known: Option<Identity>,
    /// All were down since.
    outage: bool,
    warnings: Vec<Warning>,
}

impl Default for Wires {
    fn default() -> Self {
        let why = StoreError::Unreachable("no connection has come about yet".into());
        Self {
            up: RwLock::default(),
            came_up: watch::Sender::new(()),
            next: AtomicU64::new(1),
            state: Mutex::new(State { why, known: None, outage: false, warnings: Vec::new() }),
        }
    }
}

impl Wires {
    /// The connection that is meant, if one is up.
    fn now(&self, route: Route) -> Option<Arc<Wire>> {
        let up = self.up.read();
        let is_good = |wire: &&Arc<Wire>| !wire.doubted.load(Ordering::Relaxed);
        let of_key = |hash: u64| {
            let at = usize::try_from(hash % up.len().max(1) as u64).unwrap_or(0);
            up.get(at).filter(is_good).or_else(|| up.iter().find(is_good)).or(up.first())
        };
        let found = match route {
            Route::Same(id, hash) => up.iter().find(|wire| wire.id == id).or_else(|| of_key(hash)),
            Route::Key(hash) => of_key(hash),
            Route::Any => {
                let good = up.iter().filter(is_good);
                good.min_by_key(|wire| wire.under_way.load(Ordering::Relaxed)).or(up.first())
            }
        };
        found.map(Arc::clone)
    }

    /// The same, as soon as one is up.
    pub(super) async fn get(&self, route: Route) -> Arc<Wire> {
        if let Some(wire) = self.now(route) {
            return wire;
        }
        let mut came_up = self.came_up.subscribe();
        loop {
            if let Some(wire) = self.now(route) {
                return wire;
            }
            if came_up.changed().await.is_err() {
                // The sender is a field of ours.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until one is up, or until it is over.
    pub(super) async fn until_up_or(&self, is_over: impl Fn() -> bool) {
        let mut changes = self.came_up.subscribe();
        while self.now(Route::Any).is_none() && !is_over() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Why there is no connection; `None`: there is one.
    pub(super) fn why_none(&self) -> Option<StoreError> {
        self.up.read().is_empty().then(|| self.state.lock().why.clone())
    }

    /// What is wrong with the set-up of the server, or with what it thinks of us.
    pub(super) fn warnings(&self) -> Vec<Warning> {
        self.state.lock().warnings.clone()
    }

    /// Puts a connection up. Answers whether the server may have changed or forgotten since the last one (R21).
    fn put_up(&self, wire: &Arc<Wire>, server: Identity, warnings: Vec<Warning>) -> bool {
        let mut state = self.state.lock();
        let is_other = state.known.replace(server.clone()).is_some_and(|known| known != server);
        state.warnings = warnings;
        let was_away = std::mem::take(&mut state.outage);
        self.up.write().push(Arc::clone(wire));
        drop(state);
        self.came_up.send_replace(());
        is_other || was_away
    }

    fn take_down(&self, id: u64, why: StoreError) {
        let mut state = self.state.lock();
        let mut up = self.up.write();
        up.retain(|wire| wire.id != id);
        state.outage |= up.is_empty();
        state.why = why;
    }

    /// The store was stopped.
    pub(super) fn end(&self) {
        self.up.write().clear();
        self.state.lock().why = StoreError::NotRunning;
        self.came_up.send_replace(());
    }

    fn failed(&self, server: &str, why: &StoreError) -> Option<Warning> {
        let mut state = self.state.lock();
        state.why = why.clone();
        let refusal = why.is_refusal().then(|| Warning::Refused { server: server.into(), why: why.clone() })?;
        state.warnings = vec![refusal.clone()];
        Some(refusal)
    }
}

/// The task that drives a connection; it ends with this.
struct Driver {
    task: AbortHandle,
    ended: tokio::sync::oneshot::Receiver<StoreError>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps one connection up, until the store stops.
pub(super) async fn keep(inner: Arc<Inner>) {
    let (mut broken, mut refused) = (Backoff::new(PAUSE.0, PAUSE.1), Backoff::new(REFUSED.0, REFUSED.1));
    loop {
        let limit = inner.settings.connect_timeout;
        let opened = tokio::time::timeout(limit, open(&inner)).await;
        let pause = match opened.unwrap_or(Err(StoreError::Unreachable("it did not connect in time".into()))) {
            Ok((wire, driver)) => {
                let begun = Instant::now();
                let why = last(&inner, &wire, driver).await;
                inner.wires.take_down(wire.id, why);
                if begun.elapsed() > STEADY {
                    (broken, refused) = (Backoff::new(PAUSE.0, PAUSE.1), Backoff::new(REFUSED.0, REFUSED.1));
                }
                broken.next()
            }
            Err(why) => {
                if let Some(warning) = inner.wires.failed(&inner.settings.server, &why) {
                    inner.warn(&warning);
                }
                if why.is_refusal() { refused.next() } else { broken.next() }
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Connects, and asks what has to be known of the server.
async fn open(inner: &Arc<Inner>) -> Result<(Arc<Wire>, Driver), StoreError> {
    let (client, connection) = inner.settings.connect().await.map_err(|error| unconnected(&error))?;
    let (end, ended) = tokio::sync::oneshot::channel();
    let driving = async move {
        let why = match connection.await {
            Ok(()) => StoreError::Io("it was closed".into()),
            Err(error) => super::fault::Fault::of(&error).error,
        };
        // Nobody may wait for it any more.
        let _ = end.send(why);
    };
    let driver = Driver { task: tokio::spawn(driving).abort_handle(), ended };
    let sent = inner.now();
    let rows =
        client.query_typed(inner.statements.server(), &[] as &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)]);
    let rows = rows.await.map_err(|error| unconnected(&error))?;
    let nonsense = || StoreError::Protocol("not what the statement answers".into());
    let row = rows.first().ok_or_else(nonsense)?;
    let (Ok(server_us), Ok(identity)) = (row.try_get::<_, i64>(0), row.try_get::<_, String>(1)) else {
        return Err(nonsense());
    };
    let setting = |at: usize| row.try_get::<_, String>(at).unwrap_or_default();
    let warnings: Vec<_> = [("synchronous_commit", setting(2)), ("fsync", setting(3))]
        .into_iter()
        .filter(|(_, value)| value == "off")
        .map(|(name, value)| Warning::Volatile { setting: format!("{name} = {value}") })
        .collect();
    let wire = Arc::new(Wire {
        id: inner.wires.next.fetch_add(1, Ordering::Relaxed),
        client,
        clock: ServerClock::new(sent, server_us),
        under_way: AtomicUsize::new(0),
        doubted: AtomicBool::new(false),
        doubt: Notify::new(),
        useless: Notify::new(),
    });
    warnings.iter().for_each(|warning| inner.warn(warning));
    if inner.wires.put_up(&wire, Identity(identity), warnings) {
        inner.ears.publish(&Event::Resumed);
        inner.places.hint_all();
    }
    Ok((wire, driver))
}

/// Waits until the connection ends, or is of no use; answers why.
async fn last(inner: &Inner, wire: &Wire, mut driver: Driver) -> StoreError {
    loop {
        tokio::select! {
            why = &mut driver.ended => return why.unwrap_or(StoreError::NotRunning),
            () = wire.useless.notified() => return StoreError::Io("it led to a server that is of no use".into()),
            () = wire.doubt.notified() => {
                let proof = inner.settings.operation_timeout.max(PROOF);
                if !matches!(tokio::time::timeout(proof, wire.client.simple_query("")).await, Ok(Ok(_))) {
                    return StoreError::Timeout;
                }
                wire.doubted.store(false, Ordering::Relaxed);
            }
        }
    }
}
