//! What all requests, sessions and lists of one manager share: the shards and which key belongs to which, the settings,
//! the clock, the deadlock check, the store, the thread, and the registries of streams, sessions and shared calls.
//!
//! [`LockManager`] is the handle to it. It is here, at the bottom, so that each room above adds its own methods to it:
//! `request` the locks, `session` the sessions, `manager` what is left. None of them is known here.

mod attached;
mod board;
mod event_hub;
mod runtime;
mod session_registry;
mod shard_actor;
mod shard_host;

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use actix::Addr;
use attached::AttachedValue;
#[cfg(feature = "http")]
use attached::AttachedValues;
pub use event_hub::CountedListener;
pub(crate) use event_hub::Hub;
use runtime::Runtime;
pub(crate) use session_registry::{SessionParts, SessionRegistry};
pub use shard_actor::ShardActor;
use uuid::Uuid;

use crate::clock::{Clock, Moment, wall_micros};
use crate::config::{BuildError, Config};
use crate::current_owner::{self, ManagerId};
use crate::deadlock::{DeadlockReach, Detector, Tells};
use crate::error::LockError;
use crate::key::Key;
use crate::routing::ShardRouter;
use crate::shard::answer::Answered;
use crate::shard::client::StoreClient;
use crate::shard::driver::StoreDriver;
use crate::shard::waiter_budget::WaiterBudget;
use crate::shard::{LONGEST_SLEEP, Shard};
use crate::store::{Capabilities, Posts, Released, Store};
use crate::table::{Claim, Mode, Owner, OwnerKind, Table};

/// Keyed locks for one service. Cheap to clone; every clone is the same manager.
///
/// Build it once, outside of any worker, and clone it in: two managers do not know of each other's locks.
///
/// Over a store a dropped guard's release is sent by the manager's own thread. Whoever drops the last handle (the
/// manager and all of its locks) waits for what is under way, as a rule a round trip and at most 0.6 s, so that a
/// program may just return from `main`. One that keeps its manager in a `static`, or ends by [`std::process::exit`],
/// calls
/// [`shutdown`](Self::shutdown) first; else the keys of its last guards run out with their TTL.
///
/// ```
/// # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use leasehold::{LockError, LockManager};
///
/// let locks = LockManager::builder().build()?;
/// let lock = locks.try_lock("order:42").await?;
/// assert_eq!(locks.try_lock("order:42").await.unwrap_err(), LockError::Held);
/// lock.unlock().await;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct LockManager {
    engine: Arc<Engine>,
}

/// What every clone of a [`LockManager`] shares.
pub(crate) struct Engine {
    shards: Box<[Arc<Shard>]>,
    router: ShardRouter,
    clock: Clock,
    config: Config,
    /// The calls that callers share; `singleflight` knows their type.
    flights: AttachedValue,
    detector: Detector,
    hub: Arc<Hub>,
    sessions: SessionRegistry,
    /// The calls to the store; `None` without a store.
    client: Option<Arc<StoreClient>>,
    #[cfg(feature = "http")]
    attached: AttachedValues,
    running: OnceLock<(Arc<Runtime>, Vec<Addr<ShardActor>>)>,
    made_at: Moment,
}

impl Engine {
    fn new(config: Config) -> Self {
        let clock = config.given.clock.clone();
        let made_at = clock.now();
        let client =
            config.given.store.clone().map(|store| StoreClient::new(store, config.given.fail_mode, clock.clone()));
        let canonical = |prefix: &str| config.canonical_prefix(prefix).into();
        let router = ShardRouter::new(config.given.shards, &config.given.namespaces, canonical);
        Self {
            shards: shards(&config, &clock, client.as_ref(), router.shards()),
            router,
            clock,
            flights: AttachedValue::default(),
            detector: Detector::new(config.given.on_deadlock, tells(&config)),
            hub: Arc::new(Hub::new(config.given.event_buffer, config.given.max_watchers)),
            sessions: SessionRegistry::new(config.given.max_sessions),
            config,
            client,
            #[cfg(feature = "http")]
            attached: AttachedValues::default(),
            running: OnceLock::new(),
            made_at,
        }
    }

    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    pub(crate) fn client(&self) -> Option<&Arc<StoreClient>> {
        self.client.as_ref()
    }
}

/// Whom the deadlock check tells of waits for what other processes hold.
fn tells(config: &Config) -> Tells {
    let has_board = |store: &Arc<dyn Store>| store.capabilities().posts == Posts::Kept;
    match config.given.deadlock_reach {
        DeadlockReach::Store if config.given.store.as_ref().is_some_and(has_board) => Tells::OtherProcesses,
        _ => Tells::Nobody,
    }
}

fn shards(config: &Config, clock: &Clock, client: Option<&Arc<StoreClient>>, count: usize) -> Box<[Arc<Shard>]> {
    let now = clock.now();
    let fence_floor = wall_micros();
    let waiters = Arc::new(WaiterBudget::new(config.given.max_waiters, count));
    let members = Arc::new(WaiterBudget::new(config.given.max_holders, count));
    let shard = |index| {
        let driver = client.cloned().map(StoreDriver::new);
        let claim = match &driver {
            Some(driver) => {
                let Capabilities { claim_reuse: reuse, claim_tag: tag, modes, why_exclusive, .. } =
                    driver.client().store.capabilities();
                Claim::Stored { commands: Arc::new(Arc::clone(driver)), reuse, tag, modes, why_exclusive }
            }
            None => Claim::Local,
        };
        let table = Table::new(config.limits_per_shard(), claim, fence_floor, now);
        // One of them never sleeps for long: it keeps the coarse clock right after a suspend (C2).
        let idle = if index == 0 { config.given.sweep_every.min(LONGEST_SLEEP) } else { config.given.sweep_every };
        let bounds = (Arc::clone(&waiters), Arc::clone(&members));
        let shard = Arc::new(Shard::new(table, clock.clone(), idle, config.ttls, bounds, driver.clone()));
        driver.iter().for_each(|driver| driver.serve(&shard));
        shard
    };
    (0..count).map(shard).collect()
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shards.iter().for_each(|shard| shard.give_up_idle_claims());
        // A call may keep its shard, and with it the thread, beyond this.
        if let Some((runtime, _)) = self.running.get() {
            runtime.finish_calls(drop);
        }
    }
}

impl LockManager {
    /// Builds the shards and starts their thread.
    pub(crate) fn start(config: Config) -> Result<Self, BuildError> {
        let manager = Self::without_actors(config);
        let running = Runtime::start(&manager.engine, manager.engine.config.given.threads)?;
        if let Some(client) = &manager.engine.client {
            let shards = manager.shards().iter().map(Arc::downgrade).collect();
            let router = manager.engine.router.clone();
            client.open(running.0.tokio(), shards, move |key| router.of(key));
            if let Some(signal) = manager.engine.detector.signal() {
                let (engine, client, signal) = (manager.downgrade(), Arc::clone(client), Arc::clone(signal));
                running.0.tokio().spawn(board::run(engine, client, signal));
            }
        }
        // Set here once; the cell is only there because the actors want to know the manager they belong to.
        let _ = manager.engine.running.set(running);
        let weak = Arc::downgrade(&manager.engine);
        manager.engine.clock.on_advance(move || {
            if let Some(engine) = weak.upgrade() {
                for shard in engine.shards() {
                    shard.sweep();
                }
            }
        });
        Ok(manager)
    }

    /// The manager without its thread: nothing happens by time alone.
    pub(crate) fn without_actors(config: Config) -> Self {
        let engine = Arc::new(Engine::new(config));
        for shard in engine.shards() {
            shard.set_host(shard_host::ManagerOfShard(Arc::downgrade(&engine)));
        }
        Self { engine }
    }

    pub(crate) fn downgrade(&self) -> Weak<Engine> {
        Arc::downgrade(&self.engine)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.engine, &other.engine)
    }

    pub(crate) fn id(&self) -> ManagerId {
        ManagerId(Arc::as_ptr(&self.engine).addr())
    }

    pub(crate) fn from_engine(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Which shard a key belongs to, and its hash there.
    #[inline(always)]
    pub(crate) fn place(&self, key: &Key) -> (u32, u32) {
        self.engine.router.of(key)
    }

    /// The namespaces that metrics tell apart, with their shards.
    #[cfg(feature = "metrics")]
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&str, &[Arc<Shard>])> {
        self.engine.router.namespaces().map(|(label, shards)| (label, &self.engine.shards[shards]))
    }

    /// The shards of the keys with a prefix, if they are of no others.
    pub(crate) fn shards_within(&self, prefix: &str) -> Option<Vec<&Arc<Shard>>> {
        let ranges = self.engine.router.shards_of(prefix)?;
        Some(ranges.into_iter().flat_map(|shards| &self.engine.shards[shards]).collect())
    }

    pub(crate) fn shard_at(&self, index: u32) -> &Arc<Shard> {
        &self.engine.shards[index as usize]
    }

    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.engine.shards
    }

    /// The shard that keeps a session's timer.
    pub(crate) fn shard_of_session(&self, id: Uuid) -> &Arc<Shard> {
        self.shard_at(self.engine.router.of_number(id.as_u128() as u32))
    }

    /// Ends what an owner that has ended holds and waits for. Answers what the store will find when it releases the
    /// keys.
    pub(crate) fn end_owner(&self, owner: &Owner) -> Vec<Answered<Released>> {
        let end = || self.engine.shards.iter().flat_map(|shard| shard.end_owner_anywhere(owner)).collect();
        self.client().map_or_else(end, |client| client.together(end))
    }

    /// An owner for the callback of one `run`.
    pub(crate) fn new_call(&self) -> Arc<Owner> {
        Arc::new(Owner::new(None, OwnerKind::Call, self.now(), self.config().given.max_locks_per_session))
    }

    /// Whose the requests are that are made here and now: the callback's, if this is within one.
    #[inline]
    pub(crate) fn caller(&self) -> Option<Arc<Owner>> {
        if current_owner::is_there() { self.caller_of_callback() } else { None }
    }

    #[inline(never)]
    fn caller_of_callback(&self) -> Option<Arc<Owner>> {
        current_owner::current(self.id(), |shard, grant| {
            let owner = self.new_call();
            self.shard_at(shard).give_owner(grant, &owner);
            owner
        })
    }

    pub(crate) fn client(&self) -> Option<&Arc<StoreClient>> {
        self.engine.client.as_ref()
    }

    /// The actor that owns a shard.
    pub(crate) fn actor_at(&self, shard: u32) -> &Addr<ShardActor> {
        let (_, addresses) = self.engine.running.get().expect("a built manager has its actors");
        &addresses[shard as usize]
    }

    /// The manager's own thread.
    pub(crate) fn thread(&self) -> Option<&Arc<Runtime>> {
        self.engine.running.get().map(|(runtime, _)| runtime)
    }

    /// The runtime of the manager's own thread.
    #[cfg(any(feature = "metrics", feature = "http"))]
    pub(crate) fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.engine.running.get().map(|(runtime, _)| runtime.tokio())
    }

    pub(crate) fn detector(&self) -> &Detector {
        &self.engine.detector
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.engine.hub
    }

    /// This manager's value of a type, for rooms above. It must not keep the manager alive.
    #[cfg(feature = "http")]
    pub(crate) fn attached<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        self.engine.attached.get()
    }

    pub(crate) fn sessions(&self) -> &SessionRegistry {
        &self.engine.sessions
    }

    pub(crate) fn config(&self) -> &Config {
        &self.engine.config
    }

    pub(crate) fn now(&self) -> Moment {
        self.engine.clock.now()
    }

    /// How long ago it was built.
    pub(crate) fn age(&self) -> Duration {
        self.now().saturating_since(self.engine.made_at)
    }

    /// Counts a request that failed before it came to a shard.
    pub(crate) fn count_refused(&self, key: &Key, mode: Mode, why: &LockError) {
        let shard = self.config().canonical(key.clone()).map_or(0, |key| self.place(&key).0);
        self.shard_at(shard).count_attempt(mode, why.outcome(), |c| c.rejected += 1);
    }

    /// Counts that a request takes up the wait of an earlier one that has timed out.
    #[cfg(feature = "http")]
    pub(crate) fn count_continued(&self, key: &Key) {
        if let Ok(key) = self.config().canonical(key.clone()) {
            let (shard, hash) = self.place(&key);
            self.shard_at(shard).count_continued(&key, hash);
        }
    }

    /// What `singleflight` keeps with the manager: one value of one type. It must not keep the manager alive.
    pub(crate) fn attached_flights<T: Any + Default + Send + Sync>(&self) -> &T {
        self.engine.flights.get()
    }

    pub(crate) fn good_key<K: TryInto<Key, Error: Into<LockError>>>(&self, key: K) -> Result<Key, LockError> {
        let key = key.try_into().map_err(Into::into)?;
        self.config().check(&key, None)?;
        self.config().canonical(key)
    }
}
