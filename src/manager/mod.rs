//! The manager: the shards, which key belongs to which, and how locks are asked for.

mod builder;
pub(crate) mod events;
mod force_release;
mod info;
mod inspect;
mod list;
mod list_order;
mod readiness;
#[cfg(feature = "http")]
pub(crate) mod reclaim;
mod shutdown;
mod stats;

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use actix::Addr;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::current_owner::ManagerId;
pub use builder::Builder;
use events::Hub;
pub use events::{EventStream, Events, Heard};
pub use force_release::ForceRelease;
pub use info::{EndedLock, Explanation, HolderInfo, LockInfo, WaiterInfo, Whereabouts};
pub use list::{ListPage, ListQuery, StorePage};
pub use list_order::ListOrder;
pub use readiness::Readiness;
pub use stats::{HotKey, Stats};

use crate::clock::{Clock, Moment};
use crate::config::{BuildError, Config};
use crate::deadlock::Detector;
use crate::error::LockError;
use crate::kept::KeptSessions;
use crate::key::{Key, Token, Ttl};
use crate::lock::{Lock, Refreshed, Ticket};
use crate::request::{LockRequest, Style};
use crate::routing::Placing;
use crate::shard::actor::ShardActor;
use crate::shard::clerk::ShardClerk;
use crate::shard::crowd::Crowd;
use crate::shard::desk::Desk;
use crate::shard::runtime::Runtime;
use crate::shard::{LONGEST_SLEEP, Shard};
use crate::singleflight::Flights;
use crate::store::Released;
use crate::table::{Claim, Keeper, Mode, Owner, OwnerKind, Release, Table, TokenChoice};

/// Keyed locks for one service. Cheap to clone; every clone is the same manager.
///
/// Build it once, outside of any worker, and clone it in: two managers do not know of each other's locks.
///
/// Over a store a dropped guard's release is sent by the manager's own thread. Whoever drops the last handle (the manager
/// and all of its locks) waits for what is under way, as a rule a round trip and at most 0.6 s, so that a program may
/// just return from `main`. One that keeps its manager in a `static`, or ends by [`std::process::exit`], calls
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
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    shards: Box<[Arc<Shard>]>,
    placing: Placing,
    clock: Clock,
    config: Config,
    flights: Flights,
    detector: Detector,
    hub: Arc<Hub>,
    kept_sessions: KeptSessions,
    /// Where the store is asked, if there is one.
    desk: Option<Arc<Desk>>,
    #[cfg(feature = "http")]
    attached: crate::attached::Attached,
    running: OnceLock<(Arc<Runtime>, Vec<Addr<ShardActor>>)>,
}

impl Inner {
    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    pub(crate) fn desk(&self) -> Option<&Arc<Desk>> {
        self.desk.as_ref()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A call may keep its shard, and with it the thread, beyond this.
        if let Some((runtime, _)) = self.running.get() {
            runtime.finish_calls(drop);
        }
    }
}

impl LockManager {
    /// Starts to describe a manager; see [`Builder`] for the defaults.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Builds the shards and starts their thread.
    pub(crate) fn start(config: Config, clock: Clock) -> Result<Self, BuildError> {
        let manager = Self::without_actors(config, clock);
        let running = Runtime::start(&manager.inner, manager.inner.config.threads)?;
        if let Some(desk) = &manager.inner.desk {
            let shards = manager.shards().iter().map(Arc::downgrade).collect();
            let placing = manager.inner.placing.clone();
            desk.open(running.0.tokio(), shards, move |key| placing.of(key));
        }
        // Set here once; the cell is only there because the actors want to know the manager they belong to.
        let _ = manager.inner.running.set(running);
        let weak = Arc::downgrade(&manager.inner);
        manager.inner.clock.on_advance(move || {
            if let Some(inner) = weak.upgrade() {
                for shard in inner.shards() {
                    shard.sweep();
                }
            }
        });
        Ok(manager)
    }

    /// The manager without its thread: nothing happens by time alone.
    pub(crate) fn without_actors(config: Config, clock: Clock) -> Self {
        let now = clock.now();
        let fence_floor = crate::clock::wall_micros();
        let desk = config.store.clone().map(|store| Desk::new(store, config.fail_mode, clock.clone()));
        let keep = |prefix: &str| config.canonical_prefix(prefix).into();
        let placing = Placing::new(config.shards, &config.namespaces, keep);
        let waiters = Arc::new(Crowd::new(config.max_waiters, placing.shards()));
        let members = Arc::new(Crowd::new(config.max_holders, placing.shards()));
        let shard = |index| {
            let clerk = desk.clone().map(ShardClerk::new);
            let claim = match &clerk {
                Some(clerk) => Claim::Stored(Arc::new(Arc::clone(clerk))),
                None => Claim::Local,
            };
            let table = Table::new(config.limits_per_shard(), claim, fence_floor, now);
            // One of them never sleeps for long: it keeps the coarse clock right after a suspend (C2).
            let idle = if index == 0 { config.sweep_every.min(LONGEST_SLEEP) } else { config.sweep_every };
            let bounds = (Arc::clone(&waiters), Arc::clone(&members));
            let shard = Shard::new(table, clock.clone(), idle, config.ttls, bounds, clerk.clone());
            let shard = Arc::new(shard);
            clerk.iter().for_each(|clerk| clerk.serve(&shard));
            shard
        };
        let (detector, hub) =
            (Detector::new(config.on_deadlock), Arc::new(Hub::new(config.event_buffer, config.max_watchers)));
        let kept_sessions = KeptSessions::new(config.max_sessions);
        let inner = Inner {
            shards: (0..placing.shards()).map(shard).collect(),
            placing,
            clock,
            config,
            flights: Flights::default(),
            detector,
            hub,
            kept_sessions,
            desk,
            #[cfg(feature = "http")]
            attached: crate::attached::Attached::default(),
            running: OnceLock::new(),
        };
        let inner = Arc::new(inner);
        for shard in inner.shards() {
            let inner = Arc::downgrade(&inner);
            shard.set_recheck(move |owners| {
                if let Some(inner) = inner.upgrade() {
                    inner.detector.recheck(&inner.shards, owners);
                }
            });
        }
        Self { inner }
    }

    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    pub(crate) fn id(&self) -> ManagerId {
        ManagerId(Arc::as_ptr(&self.inner).addr())
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Asks for the lock now: it is granted at once, or the answer is [`LockError::Held`].
    ///
    /// # Errors
    /// Awaiting the request answers `Held`, [`InvalidKey`](LockError::InvalidKey),
    /// [`InvalidTtl`](LockError::InvalidTtl), [`InvalidOption`](LockError::InvalidOption),
    /// [`TooManyKeys`](LockError::TooManyKeys), [`ShuttingDown`](LockError::ShuttingDown); with
    /// [`retry`](LockRequest::retry) `Timeout` in place of `Held`; with a chosen [`token`](LockRequest::token) also
    /// [`Lost`](LockError::Lost) and [`TokenReused`](LockError::TokenReused).
    pub fn try_lock<K>(&self, key: K) -> LockRequest<'_>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        LockRequest::new(self, key.try_into(), Style::Try)
    }

    /// Queues for the lock: first come, first served, until [`wait`](LockRequest::wait) ends (5 s by default).
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`], but [`Timeout`](LockError::Timeout) in place of `Held`, and
    /// [`QueueFull`](LockError::QueueFull). A lock that was granted and ran out before its future was polled answers
    /// [`Lost`](LockError::Lost).
    ///
    /// # Cancel safety
    /// See [`LockFuture`](crate::LockFuture).
    pub fn lock<K>(&self, key: K) -> LockRequest<'_>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        LockRequest::new(self, key.try_into(), Style::Wait)
    }

    /// `try_lock` for synchronous code.
    ///
    /// # Errors
    /// As for [`LockManager::try_lock`].
    pub fn try_lock_now<K>(&self, key: K) -> Result<Lock, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        self.try_lock(key).now()
    }

    /// `lock` for synchronous code: blocks the calling thread. For other terms use
    /// [`LockRequest::block`].
    ///
    /// # Errors
    /// As for [`LockManager::lock`].
    ///
    /// # Panics
    /// In async code; see [`LockRequest::block`].
    #[track_caller]
    pub fn blocking_lock<K>(&self, key: K) -> Result<Lock, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        self.lock(key).block()
    }

    /// Gives a lock that was [detached](Lock::detach) a guard again.
    ///
    /// # Errors
    /// [`LockError::Lost`] or [`LockError::NotHeld`] if it has ended, [`LockError::TokenReused`] if it has a guard in
    /// this process already.
    pub fn restore(&self, ticket: &Ticket) -> Result<Lock, LockError> {
        let (shard, hash) = self.place(ticket.key());
        let shard = self.shard_at(shard);
        let grant = shard.adopt(ticket.key(), hash, ticket.token(), Keeper::Guard(TokenChoice::ByClient))?;
        Ok(Lock::new(Arc::clone(shard), ticket.key().clone(), grant))
    }

    /// Releases a lock by its token. The answer is never [`Release::Unknown`].
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if another grant holds the key and the token is not remembered as one that ended;
    /// [`LockError::InvalidKey`]; [`LockError::StoreUnavailable`] if there is a store and it has not answered: the lock
    /// is let go here, and the store goes on releasing it until it is answered or the key has run out.
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll.
    pub async fn release<K>(&self, key: K, token: Token) -> Result<Release, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        let key = self.good_key(key)?;
        let (shard, hash) = self.place(&key);
        self.shard_at(shard).release_token(&key, hash, token).await
    }

    /// Refreshes a lock by its token: to now plus `ttl`, or plus the TTL it was granted with.
    ///
    /// # Errors
    /// [`LockError::Lost`] if the grant has ended, [`LockError::NotHeld`] if another holds the key and the token is
    /// not remembered; [`LockError::InvalidKey`], [`LockError::InvalidTtl`].
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll.
    pub async fn refresh<K>(&self, key: K, token: Token, ttl: Option<Duration>) -> Result<Refreshed, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        let key = self.good_key(key)?;
        let ttl = ttl.map(Ttl::new).transpose()?;
        self.config().check(&key, ttl)?;
        let (shard, hash) = self.place(&key);
        let shard = self.shard_at(shard);
        let done = shard.refresh_token(&key, hash, token, Shard::refresh_ask(ttl)).await?;
        Ok(Refreshed::new(done, shard.now()))
    }

    /// Ends every lock whose deadline has passed, and answers how many that were. Timers do the same by themselves,
    /// within a second where somebody waits and at every sweep elsewhere.
    #[must_use = "the count is the answer"]
    pub fn clean_expired_locks(&self) -> u64 {
        let mut cleaned = 0;
        for shard in self.inner.shards() {
            let (before, ..) = shard.totals();
            shard.sweep();
            let (after, ..) = shard.totals();
            cleaned += after.expired - before.expired;
        }
        cleaned
    }

    /// The actor that owns this key's shard, for callers who are actors themselves. See [`messages`](crate::messages).
    #[must_use]
    pub fn shard(&self, key: &Key) -> Addr<ShardActor> {
        let (_, addresses) = self.inner.running.get().expect("a built manager has its actors");
        addresses[self.place(key).0 as usize].clone()
    }

    /// Which shard a key belongs to, and its hash there.
    #[inline]
    pub(crate) fn place(&self, key: &Key) -> (u32, u32) {
        self.inner.placing.of(key)
    }

    /// The namespaces that metrics tell apart, with their shards.
    #[cfg(feature = "metrics")]
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (&str, &[Arc<Shard>])> {
        self.inner.placing.namespaces().map(|(label, shards)| (label, &self.inner.shards[shards]))
    }

    /// The shards of the keys with a prefix, if they are of no others.
    pub(crate) fn shards_within(&self, prefix: &str) -> Option<Vec<&Arc<Shard>>> {
        let ranges = self.inner.placing.shards_of(prefix)?;
        Some(ranges.into_iter().flat_map(|shards| &self.inner.shards[shards]).collect())
    }

    pub(crate) fn shard_at(&self, index: u32) -> &Arc<Shard> {
        &self.inner.shards[index as usize]
    }

    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.inner.shards
    }

    /// The shard that keeps a session's timer.
    pub(crate) fn shard_of_session(&self, id: Uuid) -> &Arc<Shard> {
        self.shard_at(self.inner.placing.of_number(id.as_u128() as u32))
    }

    /// Ends what an owner that has ended holds and waits for. Answers what will tell that the store has let go.
    pub(crate) fn end_owner(&self, owner: &Owner) -> Vec<oneshot::Receiver<Released>> {
        self.inner.shards.iter().flat_map(|shard| shard.end_owner_anywhere(owner)).collect()
    }

    /// An owner for the callback of one `run`.
    pub(crate) fn new_call(&self) -> Arc<Owner> {
        Arc::new(Owner::new(None, OwnerKind::Call, self.now(), self.config().max_locks_per_session))
    }

    pub(crate) fn desk(&self) -> Option<&Arc<Desk>> {
        self.inner.desk.as_ref()
    }

    /// The manager's own thread.
    pub(crate) fn thread(&self) -> Option<&Arc<Runtime>> {
        self.inner.running.get().map(|(runtime, _)| runtime)
    }

    /// The runtime of the manager's own thread.
    #[cfg(feature = "metrics")]
    pub(crate) fn runtime(&self) -> Option<tokio::runtime::Handle> {
        self.inner.running.get().map(|(runtime, _)| runtime.tokio())
    }

    pub(crate) fn detector(&self) -> &Detector {
        &self.inner.detector
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.inner.hub
    }

    #[cfg(feature = "http")]
    pub(crate) fn attached_values(&self) -> &crate::attached::Attached {
        &self.inner.attached
    }

    pub(crate) fn kept_sessions(&self) -> &KeptSessions {
        &self.inner.kept_sessions
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn now(&self) -> Moment {
        self.inner.clock.now()
    }

    /// Counts a request that failed before it came to a shard.
    pub(crate) fn count_refused(&self, key: &Key, mode: Mode, why: &LockError) {
        let shard = self.config().canonical(key.clone()).map_or(0, |key| self.place(&key).0);
        self.shard_at(shard).count_attempt(mode, why.face().outcome, |c| c.rejected += 1);
    }

    pub(crate) fn flights(&self) -> &Flights {
        &self.inner.flights
    }

    pub(crate) fn good_key<K>(&self, key: K) -> Result<Key, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        let key = key.try_into().map_err(Into::into)?;
        self.config().check(&key, None)?;
        self.config().canonical(key)
    }
}
