//! The manager: the shards, who owns which key, and everything that can be asked about locks without holding one.

use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use actix::Addr;

use crate::clock::{Clock, Moment};
use crate::config::{Builder, Config};
use crate::error::{BuildError, LockError};
use crate::key::{Key, Token, Ttl};
use crate::lock::{Lock, Refreshed, Ticket};
use crate::request::{LockRequest, Style};
use crate::shard::actor::ShardActor;
use crate::shard::crowd::Crowd;
use crate::shard::runtime::Runtime;
use crate::shard::{LONGEST_SLEEP, Shard};
use crate::singleflight::{Flights, Role};
use crate::stats::{HotKey, LockInfo, Stats};
use crate::table::{Claim, Counters, Keeper, Release, Table, TokenChoice};

/// How many waiters [`LockManager::inspect`] names.
const QUEUE_SHOWN: usize = 100;

/// Keyed locks for one service. Cheap to clone; every clone is the same manager.
///
/// Build it once, outside of any worker, and clone it in: two managers do not know of each other's locks.
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
#[derive(Clone, Debug)]
pub struct LockManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    /// A power of two of them.
    shards: Box<[Arc<Shard>]>,
    hasher: foldhash::fast::RandomState,
    clock: Clock,
    config: Config,
    flights: Flights,
    running: OnceLock<(Arc<Runtime>, Vec<Addr<ShardActor>>)>,
}

impl Inner {
    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
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
        let crowd = Arc::new(Crowd::new(config.max_waiters, config.shards));
        let shard = |index| {
            let table = Table::new(config.limits_per_shard(), Claim::Local, fence_floor, now);
            // One of them never sleeps for long: it keeps the coarse clock right after a suspend (C2).
            let idle = if index == 0 { config.sweep_every.min(LONGEST_SLEEP) } else { config.sweep_every };
            Arc::new(Shard::new(table, clock.clone(), idle, config.ttls, Arc::clone(&crowd)))
        };
        let inner = Inner {
            shards: (0..config.shards).map(shard).collect(),
            hasher: foldhash::fast::RandomState::default(),
            clock,
            config,
            flights: Flights::default(),
            running: OnceLock::new(),
        };
        Self { inner: Arc::new(inner) }
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
    /// [`LockRequest::block`]. Never call it in async code.
    ///
    /// # Errors
    /// As for [`LockManager::lock`].
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

    /// Releases a lock by its token.
    ///
    /// # Errors
    /// [`LockError::NotHeld`] if another grant holds the key and the token is not remembered as one that ended;
    /// [`LockError::InvalidKey`].
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
        self.shard_at(shard).release_token(&key, hash, token)
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
        shard.refresh_token(&key, hash, token, Shard::refresh_ask(ttl)).map(|done| Refreshed::new(done, shard.now()))
    }

    /// Whether somebody holds the key now.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn is_locked<K>(&self, key: K) -> Result<bool, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        let key = self.good_key(key)?;
        let (shard, hash) = self.place(&key);
        Ok(self.shard_at(shard).look(&key, hash, 0).is_some())
    }

    /// Who holds the key and who waits for it (the first 100); `None` if it is free.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn inspect<K>(&self, key: K) -> Result<Option<LockInfo>, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        let key = self.good_key(key)?;
        let (shard, hash) = self.place(&key);
        Ok(self.shard_at(shard).look(&key, hash, QUEUE_SHOWN).map(LockInfo::from))
    }

    /// What is known of the lock that a ticket stands for, and nothing of the queue but its length.
    ///
    /// # Errors
    /// [`LockError::Lost`] if that grant has ended, whoever holds the key now.
    pub fn inspect_ticket(&self, ticket: &Ticket) -> Result<LockInfo, LockError> {
        let (shard, hash) = self.place(ticket.key());
        self.shard_at(shard).look_ticket(ticket.key(), hash, ticket.fence()).map(LockInfo::from)
    }

    /// The held locks whose keys begin with `prefix`: the first `limit` in the order of their keys.
    ///
    /// Looked at in slices while others go on locking: a lock that comes or goes meanwhile may be in it or not.
    #[must_use]
    pub fn list(&self, prefix: &str, limit: usize) -> Vec<LockInfo> {
        let mut smallest: BinaryHeap<ByKey> = BinaryHeap::new();
        for shard in self.inner.shards() {
            shard.scan(prefix, |row| {
                smallest.push(ByKey(row.into()));
                if smallest.len() > limit {
                    smallest.pop();
                }
            });
        }
        smallest.into_sorted_vec().into_iter().map(|ByKey(info)| info).collect()
    }

    /// Ends whatever holds the key; its holder is told by [`Held::lost`](crate::Held::lost), the next waiter gets the key.
    ///
    /// The holder may still be at work: only the fencing token keeps it from the resource.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`].
    ///
    /// # Cancel safety
    /// In memory mode it is done by the first poll.
    pub async fn force_release<K>(&self, key: K) -> Result<Release, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        let key = self.good_key(key)?;
        let (shard, hash) = self.place(&key);
        Ok(self.shard_at(shard).force_release(&key, hash))
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

    /// The totals of all shards.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut counters = Counters::default();
        let (mut active, mut waiting) = (0, 0);
        for shard in self.inner.shards() {
            // What is over but not yet noticed is not active (T1).
            shard.sweep();
            let (of_shard, held, queued) = shard.totals();
            counters.add(&of_shard);
            active += held as u64;
            waiting += queued as u64;
        }
        Stats::new(&counters, active, waiting)
    }

    /// The most contended keys, the worst first, at most `limit` (and 16 per shard).
    ///
    /// Counted in bounded space (Space-Saving, 2005): a key that is among the worst is never missed, and a count may be
    /// too high by what the key inherited from one that it displaced, never too low.
    #[must_use]
    pub fn hot_keys(&self, limit: usize) -> Vec<HotKey> {
        let counted = self.inner.shards().iter().flat_map(|shard| shard.hot_keys());
        let mut hot: Vec<HotKey> = counted.map(|(key, contentions)| HotKey { key, contentions }).collect();
        hot.sort_unstable_by(|a, b| b.contentions.cmp(&a.contentions).then_with(|| a.key.cmp(&b.key)));
        hot.truncate(limit);
        hot
    }

    /// The totals of one key, if it is held and was contended since it came into the table.
    ///
    /// # Errors
    /// [`LockError::InvalidKey`].
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn key_stats<K>(&self, key: K) -> Result<Option<Stats>, LockError>
    where
        K: TryInto<Key>,
        K::Error: Into<LockError>,
    {
        let key = self.good_key(key)?;
        let (shard, hash) = self.place(&key);
        Ok(self.shard_at(shard).look(&key, hash, 0).and_then(|row| LockInfo::from(row).stats))
    }

    /// Ends the manager: refuses all who wait and all who come, gives the holders `grace` to release, then ends the
    /// locks that are left (their holders hear [`Loss::ShutDown`](crate::Loss::ShutDown)) and stops the thread.
    ///
    /// Answers how many locks were left. Calling it again is harmless.
    ///
    /// # Cancel safety
    /// Dropped early, the manager stays closed to new requests; call again to finish.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        for shard in self.inner.shards() {
            shard.close();
        }
        self.released_within(grace).await;
        let left = self.inner.shards().iter().map(|shard| shard.end_grants()).sum();
        if let Some((runtime, _)) = self.inner.running.get() {
            runtime.stop();
            runtime.ended().await;
        }
        left
    }

    /// The actor that owns this key's shard, for callers who are actors themselves. See [`messages`](crate::messages).
    #[must_use]
    pub fn shard(&self, key: &Key) -> Addr<ShardActor> {
        let (_, addresses) = self.inner.running.get().expect("a built manager has its actors");
        addresses[self.place(key).0 as usize].clone()
    }

    /// Waits until nothing is held, at most for `grace`.
    fn released_within(&self, grace: Duration) -> impl Future<Output = ()> {
        struct Sleep<'a>(&'a Shard, Option<u32>);
        impl Drop for Sleep<'_> {
            fn drop(&mut self) {
                if let Some(timer) = self.1 {
                    self.0.stop_sleep(timer);
                }
            }
        }
        let due = self.now().saturating_add(grace);
        let mut sleep = Sleep(self.shard_at(0), None);
        poll_fn(move |cx| {
            if self.inner.shards().iter().all(|shard| shard.is_empty(cx.waker())) {
                return Poll::Ready(());
            }
            if sleep.1.is_some_and(|timer| sleep.0.still_sleeps(timer, cx.waker())) {
                return Poll::Pending;
            }
            if let Some(timer) = sleep.1.take() {
                sleep.0.stop_sleep(timer);
            }
            if sleep.0.now() >= due {
                return Poll::Ready(());
            }
            // Another shutdown's `close` wakes all sleepers: sleep on.
            sleep.1 = Some(sleep.0.sleep_closed(due, cx.waker()));
            Poll::Pending
        })
    }

    /// Which shard a key belongs to, and its hash there.
    #[inline]
    pub(crate) fn place(&self, key: &Key) -> (u32, u32) {
        let hash = self.inner.hasher.hash_one(key);
        // The shard from the high half, the slot from the low one: they must not depend on each other.
        let shard = (hash >> 32) as u32 & (self.inner.shards.len() as u32 - 1);
        (shard, hash as u32)
    }

    pub(crate) fn shard_at(&self, index: u32) -> &Arc<Shard> {
        &self.inner.shards[index as usize]
    }

    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn now(&self) -> Moment {
        self.inner.clock.now()
    }

    /// Counts a request that failed before it came to a shard.
    pub(crate) fn count_invalid(&self) {
        self.shard_at(0).count(|c| {
            c.attempts += 1;
            c.rejected += 1;
        });
    }

    /// Counts a caller of a flight that came to its end.
    pub(crate) fn count_flight(&self, role: Role) {
        self.shard_at(0).count(|c| match role {
            Role::Leader => c.flights_led += 1,
            Role::Follower => c.flights_shared += 1,
        });
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
        Ok(key)
    }
}

/// Orders lock infos by key alone.
struct ByKey(LockInfo);

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}
impl Eq for ByKey {}
impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.key.cmp(&other.0.key)
    }
}
