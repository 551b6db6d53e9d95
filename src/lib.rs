//! Keyed locks for services: each with a TTL, a fencing token and a place in a fair queue.
//!
//! ```
//! use leasehold::{LockError, LockManager};
//! use std::time::Duration;
//!
//! # #[actix_rt::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let locks = LockManager::builder().build()?; // once per process; clones share its locks
//! let lock = locks.lock("order:42").ttl(Duration::from_secs(30)).wait(Duration::from_secs(5)).await?;
//! assert_eq!(locks.try_lock("order:42").await.unwrap_err(), LockError::Held);
//! lock.unlock().await; // dropping it releases it, too
//!
//! // Lock, call, release; the lock refreshes itself as long as the callback runs.
//! let ran = locks.run("order:42", async |held| held.fencing_token()).await?;
//! assert!(ran.value.is_some());
//! # Ok(()) }
//! ```
//!
//! [`LockManager`] has everything that can be asked for, [`LockRequest`] the options of one request, [`Lock`] what can be
//! done with a held lock. The [`guide`] goes on from there: [a tour](guide::tour), [where locks live](guide::choosing_a_store),
//! [fencing](guide::fencing), [sessions and deadlocks](guide::sessions_and_deadlocks), [fairness](guide::fairness),
//! [what can go wrong](guide::failure_modes), [tuning](guide::tuning), [coming from another lock](guide::migrating).
//!
//! # The map
//!
//! From the top down. A room imports only rooms in lines below its own (a test of the house rules reads this table), so
//! that each can be read, and tested, with what is below it.
//!
//! | room | what it does |
//! |---|---|
//! | [`guide`] | pages of documentation, without code |
//! | `http`, `conformance` | the same locks over HTTP, to mount into any actix-web app; the suites that stores and managers are held to |
//! | `metrics` | what operators see: counts and times for a recorder, the text for Prometheus |
//! | `actor` | the public [`messages`], for callers who are actors themselves |
//! | [`manager`](LockManager) | the face: build a manager, [list](LockManager::list) and [inspect](LockManager::inspect) its locks, listen to its [events](LockManager::events), [end](LockManager::shutdown) it |
//! | [`singleflight`](LockManager::singleflight) | one call, or one lock, for many callers, in one process or in several |
//! | [`run`](LockManager::run), [`lock_many`](LockManager::lock_many), [`semaphore`](LockManager::semaphore) | what people write around a lock: lock-call-release, several keys, several holders |
//! | [`request`](LockRequest) | one request: its terms, and the future that brings the lock |
//! | [`session`](Session) | owners that span locks, their heartbeats, and where they are found again |
//! | `engine` | what all of the above share: the shards, the settings, the thread with its actors, the registries; [`LockManager`] is a handle to it |
//! | [`lock`](Lock) | a held lock: guard, view, ticket, refresh, the signal that it is lost |
//! | `config` | a manager's settings, checked |
//! | `deadlock` | who waits for whom: refuses the request that would close a cycle |
//! | `shard` | one mutex, one table, and the ways to ask the store for it |
//! | `telemetry` | the names of the metrics, the spans, the calls to the store counted and timed |
//! | [`fence`] | the check on the other side: a resource that refuses a holder whose lock has passed on |
//! | [`store`] | may this process hold a key at all: the seam to Redis, PostgreSQL and other stores |
//! | `current_owner`, `routing` | on whose behalf code runs; which shard a key belongs to, and of which namespace |
//! | `table` | who is next: a pure state machine of holders, queues and deadlines |
//! | [`retry`], `supervise`, `wakes`, [`account`](Account) | how long a poller sleeps; tasks that outlive a panic; wakes that are given together; whom locks are charged to |
//! | [`error`](LockError), [`clock`](Clock), `backoff`, `quota`, [`claim_reuse`](store::ClaimReuse) | what can go wrong; time; loops that a failure can feed; how many there may be; what becomes of a key between two locks |
//! | [`key`](Key), [`mode`](Mode), `sync`, [`readable`](readable()), `macros` | names; how a key is held; the one mutex; keys and names as people should see them; what several rooms declare alike |
//!
//! # Traces
//!
//! With the feature `tracing` there are spans of [`tracing`](https://docs.rs/tracing) at the level `DEBUG`, with fields
//! that OpenTelemetry's exporters understand:
//!
//! | span | from, to | fields besides `otel.kind`, `lock.key` |
//! |---|---|---|
//! | `leasehold.acquire` | the first poll of a request to its answer | `lock.mode`, `lock.outcome`, `error.type`, `otel.status_code` |
//! | `leasehold.wait` | in it: from when it could not be answered at once | `lock.outcome` |
//! | `leasehold.hold` | the guard of a lock; what the callback of a `run` does is in it | `lock.mode`, `lock.fence`, `lock.end` |
//! | `leasehold.store` | a call to the store | `db.system.name`, `db.operation.name`, `lock.outcome`, `otel.status_code` |
//!
//! Keys are in them; tokens and owners never are. The hold of a ticket has no span: nothing in this process holds it.
//! While nobody listens at that level, a request costs the look at one number.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

#[macro_use]
mod macros;

mod account;
mod actor;
mod backoff;
mod claim_reuse;
mod clock;
mod config;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
mod current_owner;
mod deadlock;
mod engine;
mod error;
pub mod fence;
pub mod guide;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
mod key;
mod lock;
mod lock_many;
mod manager;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod mode;
mod quota;
mod readable;
mod request;
pub mod retry;
mod routing;
mod run;
mod semaphore;
mod session;
mod shard;
mod singleflight;
pub mod store;
mod supervise;
mod sync;
mod table;
mod telemetry;
mod wakes;

pub use account::Account;
pub use actor::messages;
#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use clock::{Clock, Moment};
pub use config::{BuildError, Builder};
pub use deadlock::{DeadlockPolicy, DeadlockReach};
pub use engine::{CountedListener, LockManager, ShardActor};
pub use error::{AttemptOutcome, LockError, Loss, WaitEdge};
pub use key::{FencingToken, Key, KeyFault, ParseFencingTokenError, Token, Ttl, TtlFault};
pub use lock::{AutoRefresh, Held, Lock, RefreshOutcome, Refreshed, Ticket, Upgrade, UpgradeFuture};
pub use lock_many::{LockMany, LockManyRequest};
pub use manager::{
    EndedLock, EventStream, Events, Explanation, ForceRelease, Heard, HotKey, ListOrder, ListPage, ListQuery, Location,
    LockInfo, Readiness, Stats, StorePage, TakenOver,
};
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub use manager::{History, HistoryStep, ReclaimProof, Reclaimed};
pub use mode::{Mode, ModeConflict};
pub use readable::readable;
pub use request::{LockFuture, LockOptions, LockRequest, OwnedLockRequest, TicketFuture, TicketRequest, WaitPlace};
pub use run::{Outcome, Ran, RunFuture, RunRequest, TryRunFuture, TryRunRequest, operation_key, resource_key};
pub use semaphore::{OwnedSemaphore, Semaphore};
pub use session::{Session, SessionInfo};
#[cfg(feature = "serde")]
#[cfg_attr(docsrs, doc(cfg(feature = "serde")))]
pub use singleflight::JsonCodec;
pub use singleflight::{
    Codec, CodecError, DetachedFuture, DetachedSingleflight, SharedLock, SharedLockFuture, SharedLockRequest,
    SingleflightFuture, SingleflightRequest,
};
pub use store::FailMode;
pub use table::{Event, EventKind, HolderInfo, Release, WaiterInfo};

/// The README's Rust blocks, as doc tests.
#[cfg(all(doctest, feature = "http", feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
