//! Keyed locks for services.
//!
//! The map of the house:
//!
//! | room | what it does | who calls it |
//! |---|---|---|
//! | [`manager`](LockManager), [`config`](Builder) | the face: build a manager, ask it for locks | you |
//! | [`inspect`](LockManager::inspect), [`info`](LockInfo), [`stats`](Stats), [`event`](Events), [`force`](ForceRelease) | ask about locks, listen to them, take them | you |
//! | [`readable`](readable()) | keys and names as people should see them | `info`, the `leasehold` binary |
//! | [`readiness`](LockManager::readiness) | can it grant locks just now | `http`, you |
//! | [`request`](LockRequest) | one request: its terms, and the future that brings the lock | `manager` |
//! | [`lock`](Lock) | a held lock: guard, view, ticket, refresh, the signal that it is lost | you |
//! | [`session`](Session), [`kept`](Session::keep), `caller` | owners that span locks: sessions, and the callbacks of `run` | you, `run` |
//! | [`run`](LockManager::run), [`many`](LockManager::lock_many), [`semaphore`](Semaphore), [`singleflight`](LockManager::singleflight) | what people write around a lock: lock-call-release, several keys, several holders, one call for many callers | you |
//! | [`fence`] | the check on the other side: a resource that refuses a holder whose lock has passed on | you |
//! | `deadlock` | who waits for whom: refuses the request that would close a cycle | `request`, `shard` |
//! | `shard` | one mutex, one table, one actor that owns the shard's time | `request`, `lock`, `manager` |
//! | [`store`] | may this process hold a key at all: the seam to Redis and other stores | `shard` |
//! | `table` | who is next: a pure state machine of holders, queues and deadlines | `shard` |
//! | [`retry`] | how long a poller sleeps | `request` |
//! | [`error`](LockError) | what can go wrong | everybody |
//! | [`key`](Key), [`clock`](Clock), `sync` | names, time, the one mutex | everybody |
//! | [`shutdown`](LockManager::shutdown) | the orderly end of a manager | you |
//! | [`listing`](ListQuery), [`order`](ListOrder) | the held locks, page by page | you, `http` |
//! | `attached` | what rooms above keep with a manager | `http` |
//! | `backoff`, `supervise` | loops that a failure can feed, and tasks that outlive a panic | `shard`, `store`, `metrics` |
//! | `namespace` | which shard a key belongs to, and of which namespace | `manager` |
//! | `observed`, `trace` | calls to the store, counted and in spans; the spans of requests and holds | `shard`, `request`, `lock` |
//! | `metrics` | what operators see: counts and times for a recorder, the text for Prometheus | the `leasehold` binary, you |
//! | `http` | the same locks over HTTP, to mount into any actix-web app | the `leasehold` binary, you |
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

mod account;
#[cfg(feature = "http")]
mod attached;
mod backoff;
mod clock;
mod config;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod conformance;
mod current_owner;
mod deadlock;
mod error;
pub mod fence;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
mod kept;
mod key;
mod lock;
mod lock_many;
mod manager;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
mod readable;
mod request;
pub mod retry;
mod routing;
mod run;
mod semaphore;
mod session;
mod shard;
mod shares;
mod singleflight;
pub mod store;
mod supervise;
mod sync;
mod table;
mod telemetry;

pub use account::Account;
#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use clock::{Clock, Moment};
pub use config::BuildError;
pub use deadlock::DeadlockPolicy;
pub use error::{AttemptOutcome, Face, LockError, Loss, WaitEdge};
pub use key::{FencingToken, Key, KeyFault, NoFence, Token, Ttl, TtlFault};
pub use lock::{AutoRefresh, Held, Lock, RefreshOutcome, Refreshed, Ticket};
pub use lock_many::{LockMany, LockManyRequest};
pub use manager::{
    Builder, EndedLock, EventStream, Events, Explanation, ForceRelease, Heard, HolderInfo, HotKey, ListOrder, ListPage,
    ListQuery, LockInfo, LockManager, Readiness, Stats, StorePage, WaiterInfo, Whereabouts,
};
pub use readable::readable;
pub use request::{LockFuture, LockOptions, LockRequest, OwnedLockRequest, TicketFuture, TicketRequest, WaitPlace};
pub use run::{Outcome, Ran, RunFuture, RunRequest, TryRunFuture, TryRunRequest, operation_key, resource_key};
pub use semaphore::{OwnedSemaphore, Semaphore};
pub use session::Session;
pub use shard::actor::ShardActor;
pub use shard::message as messages;
pub use singleflight::{
    DetachedFuture, DetachedSingleflight, SharedLock, SharedLockFuture, SharedLockRequest, SingleflightFuture,
    SingleflightRequest,
};
pub use store::FailMode;
pub use table::{Event, EventKind, Mode, Release};

/// The README's Rust blocks, as doc tests.
#[cfg(all(doctest, feature = "http", feature = "redis"))]
#[doc = include_str!("../README.md")]
struct Readme;
