//! Locks in Redis: [`RedisStore`]. Plain `SET key token NX PX ttl` on the wire, so that other libraries' locks on the
//! same keys and ours exclude each other.
//!
//! | where | what |
//! |---|---|
//! | `ops/` | one file per operation, with its script beside it; `ops/shared` for locks that several hold at once; `ops/moving` does the same one key at a time, where the slot of a Cluster is moving |
//! | `call` | sends a script to the server that has the key, over `conn/` |
//! | `cleanup` | takes back what nobody received |
//! | `ops/board` | what processes tell each other of their waits, so that deadlocks through several of them are found |
//! | `ops/value` | what a release has left to those who waited |
//! | `release_replay` | releases again what a dying master had not passed on |
//! | `tickets` | this process's places in queues |
//! | `hand_over` | how a key goes from one process to the next without another question |
//! | `pubsub/` | what servers say without being asked |
//!
//! # Rules
//!
//! A lock's whole value is its token, its TTL is in milliseconds, everything else stands beside it (`keys`). A command
//! that a deposed master still obeys is lost with that master, as are the locks that it had not passed on. Numbers that
//! are missing here are of rules that nothing follows any more.
//!
//! | rule | what holds of locks in Redis, and of those who ask for them |
//! |---|---|
//! | R1 | An acquire is one atomic step. |
//! | R2 | It is idempotent by token: a token that holds is granted again with the same fence and the time that is left, and nothing is moved. |
//! | R3 | An extend compares the token, then moves the end, and only to a later time. It creates nothing, and an unknown answer changes nothing. |
//! | R4 | A release compares the token, deletes and calls the next process in one script, so that a late one hits no newer grant. What a client's own token holds is not released because one process saw it run out: another may have extended it. |
//! | R5 | An answer that did not come is unknown: it is neither yes nor no. What it may have done is taken back, by a task that no caller can drop. Redis may run a command long after its client gave up, so each carries a time of the server's after which it is refused, and the clean-up goes on until that has passed. Nothing is sent twice that may have run. |
//! | R6 | Refresh, repair and release of one lock go one after the other: once its release has begun, no refresh is sent. |
//! | R7 | Scripts take keys in KEYS and values in ARGV. A server that does not know a script is sent it whole; inside a pipeline it always is. |
//! | R8 | A deadline counts from before the command was sent, less 1% of the TTL and 2 ms. A grant that comes later than that is denied, and taken back. |
//! | R9 | The loss of a lock is signalled by this process's own clock at the deadline, also while a call to the store hangs. |
//! | R10 | An extend whose answer is unknown is tried again, with random pauses, until the deadline. |
//! | R11 | Redis expires by its wall clock: when that is set forward, held locks are freed early. Fences protect then. |
//! | R12 | A fence is above the stored one, above the highest that this process has seen, and not below the server's time in microseconds; so fences rise also after a FLUSHALL, an eviction or a failover. It is kept beside the lock for the retention, and for as long as it is ahead of the clock. Of a key that was given on inside a process the release keeps the last fence that was given out (`release_claim`). |
//! | R13 | A process that hands its claim on makes the fences in between itself (K2); the last one is stored with the release. |
//! | R14 | A resource can check fences itself: [`FenceGuard`](crate::fence::FenceGuard) in the process, a script for what is stored in Redis, an HTTP header between processes. |
//! | R15 | Of all who wait for a key in a process one talks to Redis, and tries again about once a second even if no message arrives. A message is a hint; only a script grants, and says so to whom it has handed a key over (H1). |
//! | R16 | Processes queue by tickets that live for about a second by the server's clock and are renewed together. A dead process holds the others up for one such life. A release hands the key over to the first in the queue, or calls it, and tells nobody else (`hand_over`, rules H). |
//! | R17 | A claim may go on to the next waiter of its process, where the store is set to that ([`ClaimReuse`](super::ClaimReuse)). A process that takes a place behind it publishes that to the claim's process, and at each renewal again; its token names the channel. |
//! | R18 | A claim may be kept while nobody holds its key, for no longer than its TTL as it is: nothing is extended or shortened for that. |
//! | R19 | A grant never outlives what the store has granted. |
//! | R20 | While Redis is away, tries fail within the operation timeout, waiters go on waiting, and locks are held until their deadline. Within a second of its return service resumes. Locks are granted without Redis only where the manager is set to that; each must win its key when Redis is back, or is lost. |
//! | R21 | After a reconnect, another master or a server that was started anew, everything that is held is verified, and what is gone is lost at once. |
//! | R22 | A server that may evict locks (`maxmemory-policy`) is warned of; a full one denies. |
//! | R23 | Timeouts are ours and bound the whole call; the client library's own, and its retries, are off. |
//! | R24 | Where replicas have to confirm, they confirm acquires and extends, on a connection that carries nothing else meanwhile. Too few confirmations: the acquire is taken back, the extend leaves the old deadline. |
//! | R25 | No error, log or `Debug` shows a password, or a value that another client stored. |
//! | R26 | A forced release deletes, raises the fence and is published to every process, whose holders are lost when the message arrives. It is sent once. |
//! | R27 | With a lock delay the key stays in Redis for longer than its holder counts on. After a loss by time it keeps everybody out for the rest, whatever client they use. |
//! | R28 | A shutdown releases nothing that somebody may still work under: such locks run out by their TTL. |
//!
//! Why the fences of one key rise (R12). Only what takes a lock, hands it over or forces it mints, each in one step with the
//! grant or its end, so two grants are minted one after the other, and the later one reads what the earlier one stored. What is stored
//! is lost by a FLUSHALL, an eviction or a failover: then the server's clock stands in for it, which no stored fence was
//! above, unless it was set back; and then the process has seen its own fences. So an inversion needs all at once: a
//! server that forgets, a clock that is set back, and another process. Several locks that are taken by one script may
//! have the same fence: they are different keys. A test walks through this.
//!
//! # Other clients on the same keys
//!
//! What takes a free key by one atomic step and releases by comparison excludes us, and we it; give both the same
//! names ([`KeyTemplate`](super::KeyTemplate)). *Tried*: a test runs it as a process of its own, for exclusion, release,
//! expiry and a kill, in both directions. *Read*: its source says so.
//!
//! | client | how we know | its lock | its key |
//! |---|---|---|---|
//! | rslock 0.10 (Rust) | tried | `SET NX PX`, 20 random bytes | as given |
//! | redis-py 8.1 `Lock` (Python) | tried | `SET NX PX`, UUID in hex | as given |
//! | verrou (AdonisJS) | read | `SET PX NX`; `SETNX` without an end if it has no TTL | as given |
//! | node-redlock 5 (Node) | tried, over several servers | `EXISTS`, then `SET PX`, in a script; 16 bytes in hex; several keys at a time | as given |
//! | redlock-universal (Node) | read | `SET PX NX` | an adapter's prefix, then as given |
//! | redsync 4 (Go) | read | `SET NX PX`, 16 bytes in base64 | as given |
//! | bsm/redislock (Go) | read | `SET NX PX`, later `MSETNX` and `PEXPIRE` in a script; 16 bytes in base64, and metadata | as given |
//! | RedLock.net (C#) | read | `SET NX PX`, UUID | `redlock:` before it, or a format |
//! | DistributedLock.Redis (C#) | read | `SET NX PX` | as given |
//! | Redisson (Java) | read | a hash; seen as held, and never touched | as given |
//!
//! They know nothing of the queue beside the key: they poll, may pass those who wait in turn, and publish no
//! release. The next of our processes sees it when its ticket is renewed, within a second (R16). They
//! have no fences; ours rise across their locks. A lock that has no end (PTTL -1) excludes us until somebody deletes
//! it: [`force_release`](Store::force_release) does.
//!
//! # Rights
//!
//! Needs Redis 6.2 or anything that speaks RESP3 and runs Lua as that does; an older one is refused when it is connected
//! to. A user needs no more than this, with the key template and the
//! [prefix](RedisBuilder::side_key_prefix) as they are unless they are set:
//!
//! ```text
//! ACL SETUSER app on >password ~lock:* ~leasehold:* &leasehold:*
//!   +@connection +@scripting +@read +@write +@pubsub -@dangerous +time +info
//! ```
//!
//! `+@all -@dangerous` will do as well, with the keys and channels. Without `+info` nobody warns of a server that evicts
//! locks, and a change of master is noticed by its role alone; Redlock needs it. In a Cluster `+cluster|slots` is needed, with
//! [`wait_for_replicas`](RedisBuilder::wait_for_replicas) `+wait`; Redlock reads `+config|get` where it may. Without rights to channels
//! locks work, and releases by other processes are seen by polling: [`Warning::NoChannels`](super::Warning::NoChannels).
//! The [health](Store::health) takes and releases the lock of the key `leasehold-probe`, once a second at most: whoever
//! uses a template without a prefix gives rights to that key too. What is missing, the server names in the log.
//!
//! # Loops that a failure can feed
//!
//! | rule | what holds of them |
//! |---|---|
//! | N1 | Each rests between two rounds, longer and longer, by a random share; the log names the cause once a minute. |
//! | N2 | What the server refuses, for want of rights, of memory, of replicas, reaches the log, the metrics by cause, and [`health`](Store::health), which tries for itself what an acquire needs. |
//!
//! | loop | at first | at most |
//! |---|---|---|
//! | `link` connects, also the links to nodes of a Cluster and to the master behind Sentinels | 30 ms | 500 ms; 30 s where the server refuses us |
//! | `listen` opens the listening connection | 30 ms | 500 ms; 30 s where the server refuses us |
//! | `cluster` asks for the map, where it cannot be had or does not change | 50 ms | 500 ms; 30 s where the nodes refuse us |
//! | `cleanup` takes back what nobody received | 10 ms | 250 ms; 10 s where the server refuses us |
//! | `call` follows redirections | at once | four of them, then it is an error |
//! | the manager asks again for a key that somebody waits for | 50 ms | 500 ms |
//! | the manager extends again while the answer is unknown | 50 ms | 500 ms, until the deadline |
//! | the manager verifies what it holds while the answer is unknown | 100 ms | 1 s, until the deadline |
//! | Redlock admits a node | 50 ms | 2 s |

pub(super) mod builder;
pub(super) mod call;
pub(super) mod cleanup;
pub(super) mod conn;
pub(super) mod fault;
mod hand_over;
mod highest;
mod inner;
pub(super) mod keys;
#[cfg(test)]
mod model;
mod ops;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod probe;
mod pubsub;
mod recent_releases;
mod release_replay;
mod replicas;
pub(super) mod script;
mod shares;
mod tickets;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

pub use self::builder::RedisBuilder;
pub(super) use self::inner::Inner;
pub(crate) use self::keys::beside;
use self::keys::check_name;
use self::ops::shared::{downgrade, holders};
use self::ops::{
    acquire, board, exchange, extend, force, health, leave, look, notice, release::GuardedRelease, renew, scan, value,
};
use self::pubsub::listen;
use self::pubsub::listener::Releases;
pub(super) use self::script::millis;
use super::{
    AcquireRequest, Acquired, Board, BoxFuture, Capabilities, Events, Exchange, Extended, Forced, Health, HoldInfo,
    KeyState, LeftValue, Modes, Noticed, OnExpiry, Post, Posts, Released, ScanPage, Store, StoreError, ValueToLeave,
    Watch,
};
use crate::key::{Key, Token, Ttl};
use crate::supervise::supervise;

/// The longest value that a release may leave: a server does nothing else while it takes one in.
const MAX_VALUE: usize = 1 << 20;

/// A [`Store`] over Redis: one server, the master behind Sentinels, or a Cluster.
///
/// ```no_run
/// use leasehold::store::redis::RedisStore;
/// let store = RedisStore::new("redis://127.0.0.1/")?;
/// # Ok::<(), leasehold::store::StoreError>(())
/// ```
#[derive(Clone)]
pub struct RedisStore(pub(super) Arc<Inner>);

impl RedisStore {
    /// A store with the usual settings. Nothing is connected yet.
    ///
    /// # Errors
    /// [`StoreError::Config`] if the URL cannot be read. The error does not repeat it.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        Self::builder(url).build()
    }

    /// Settings for a store behind `url`.
    pub fn builder(url: &str) -> RedisBuilder {
        RedisBuilder::new(url)
    }
}

impl RedisBuilder {
    /// Checks everything and makes the store. Nothing is connected before it is started.
    ///
    /// # Errors
    /// [`StoreError::Config`] says what is wrong.
    pub fn build(self) -> Result<RedisStore, StoreError> {
        Ok(RedisStore(Arc::new(Inner::new(self.checked()?))))
    }
}

impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.0.config.operation_timeout);
        (capabilities.claim_reuse, capabilities.claim_tag) = (self.0.config.claim_reuse, self.0.claim_tag);
        (capabilities.modes, capabilities.max_value) = (Modes::All, MAX_VALUE);
        capabilities.posts = Posts::Kept;
        if self.0.config.replicas == 0 {
            capabilities.exchange = Exchange::OneCall;
        }
        if !self.0.config.lock_delay.is_zero() {
            capabilities.on_expiry = OnExpiry::Leave;
        }
        capabilities
    }

    fn canonical(&self, key: &Key) -> Result<Key, StoreError> {
        check_name(&self.0.config.template, &self.0.config.side_keys, key)?;
        let too_long = || StoreError::InvalidKey { key: key.clone(), why: "its name is too long" };
        self.0.config.template.canonical(key).ok_or_else(too_long)
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let inner = &self.0;
            let runtime =
                Handle::try_current().map_err(|_| StoreError::Config("start needs a tokio runtime".into()))?;
            {
                let mut running = inner.runtime.write();
                if running.is_some() {
                    return Err(StoreError::Config("the store was started already".into()));
                }
                *running = Some(runtime.clone());
            }
            inner.servers.start(&runtime);
            let [ticks, tickets, listening, repeating] = std::array::from_fn(|_| Arc::clone(inner));
            let tasks = [
                runtime.spawn(supervise("timeouts", move || {
                    let ticks = Arc::clone(&ticks.ticks);
                    async move { ticks.run().await }
                })),
                runtime.spawn(supervise("places in queues", move || renew::run(Arc::clone(&tickets)))),
                runtime.spawn(supervise("listening", move || listen::run(Arc::clone(&listening)))),
                runtime.spawn(supervise("repeated releases", move || release_replay::run(Arc::clone(&repeating)))),
            ];
            inner.tasks.lock().extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // However it ends, the tasks do.
            let _ended = End(&self.0);
            self.0.cleaning.wait_for_all().await;
        })
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        Box::pin(acquire::acquire(&self.0, ask))
    }

    fn leave(&self, key: &Key) {
        if let Ok(names) = self.0.names(key) {
            leave::leave(&self.0, names);
        }
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        Box::pin(extend::extend(&self.0, key, token, ttl))
    }

    fn confirm<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        Box::pin(look::confirm(&self.0, key, token))
    }

    fn downgrade<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        Box::pin(downgrade::downgrade(&self.0, key, token, 0))
    }

    fn downgrade_claim<'a>(&'a self, key: &'a Key, token: Token, last_fence: u64) -> BoxFuture<'a, Extended> {
        Box::pin(downgrade::downgrade(&self.0, key, token, last_fence))
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        match GuardedRelease::new(&self.0, key, token) {
            Ok(release) => Box::pin(release.run(&self.0)),
            Err(error) => Box::pin(std::future::ready(Released::Unknown(error))),
        }
    }

    fn release_claim<'a>(&'a self, key: &'a Key, token: Token, last_fence: u64) -> BoxFuture<'a, Released> {
        match GuardedRelease::of_claim(&self.0, key, token, last_fence) {
            Ok(release) => Box::pin(release.run(&self.0)),
            Err(error) => Box::pin(std::future::ready(Released::Unknown(error))),
        }
    }

    fn release_with_value<'a>(&'a self, key: &'a Key, token: Token, value: ValueToLeave) -> BoxFuture<'a, Released> {
        match GuardedRelease::new(&self.0, key, token) {
            Ok(release) => Box::pin(release.run_leaving(&self.0, value)),
            Err(error) => Box::pin(std::future::ready(Released::Unknown(error))),
        }
    }

    fn value<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Option<LeftValue>, StoreError>> {
        Box::pin(value::value(&self.0, key, within))
    }

    fn exchange<'a>(&'a self, token: Token, next: AcquireRequest<'a>) -> BoxFuture<'a, (Released, Acquired)> {
        match GuardedRelease::new(&self.0, next.key, token) {
            Ok(release) => Box::pin(exchange::exchange(&self.0, release, next)),
            Err(error) => Box::pin(std::future::ready((Released::Unknown(error.clone()), Acquired::Unknown(error)))),
        }
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        Box::pin(force::force(&self.0, key, None))
    }

    fn force_release_grant<'a>(&'a self, key: &'a Key, fence: u64) -> BoxFuture<'a, Forced> {
        Box::pin(force::force(&self.0, key, Some(fence)))
    }

    fn give_notice<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Noticed, StoreError>> {
        Box::pin(notice::give(&self.0, key, within))
    }

    fn holders<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<Vec<HoldInfo>, StoreError>> {
        Box::pin(holders::holders(&self.0, key, token))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        cursor: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<ScanPage>, StoreError>> {
        Box::pin(async move { scan::scan(&self.0, prefix, cursor, limit).await.map(Some) })
    }

    fn put_up<'a>(&'a self, post: Post<'a>) -> BoxFuture<'a, Result<Board, StoreError>> {
        Box::pin(board::put_up(&self.0, post))
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        Box::pin(look::look(&self.0, key, token))
    }

    fn turn(&self, key: &Key) -> Option<Watch> {
        let names = self.0.names(key).ok()?;
        self.0.runtime()?;
        let turn = self.0.tickets.turn(names);
        self.0.listen_for_turns();
        Some(turn)
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        Box::pin(async move { listen::watch(&self.0, self.0.names(key)?, Releases::IfMarked).await })
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        Box::pin(listen::events(&self.0))
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(health::health(&self.0))
    }
}

struct End<'a>(&'a Inner);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.runtime.write() = None;
        self.0.servers.end();
        self.0.tasks.lock().drain(..).for_each(|task| task.abort());
        self.0.listener.end();
        self.0.tickets.end();
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Watches a key whose releases are published whether or not it is marked as watched.
    pub(super) async fn watch_unmarked(&self, key: &Key) -> Result<Watch, StoreError> {
        listen::watch(&self.0, self.0.names(key)?, Releases::Always).await
    }
}
