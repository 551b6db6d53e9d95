//! Keyed locks for services.
//!
//! The map of the house:
//!
//! | room | what it does | who calls it |
//! |---|---|---|
//! | [`manager`](LockManager), [`config`](Builder) | the face: build a manager, ask it for locks, ask it about locks | you |
//! | [`request`](LockRequest) | one request: its terms, and the future that brings the lock | `manager` |
//! | [`lock`](Lock) | a held lock: guard, view, ticket, refresh, the signal that it is lost | you |
//! | [`run`](LockManager::run), [`many`](LockManager::lock_many), [`singleflight`](LockManager::singleflight) | what people write around a lock: lock-call-release, several keys, one call for many callers | you |
//! | `shard` | one mutex, one table, one actor that owns the shard's time | `request`, `lock`, `manager` |
//! | `table` | who is next: a pure state machine of holders, queues and deadlines | `shard` |
//! | [`retry`] | how long a poller sleeps | `request` |
//! | [`stats`](Stats), [`error`](LockError) | what can be asked, and what can go wrong | everybody |
//! | [`key`](Key), [`clock`](Clock), `sync` | names, time, the one mutex | everybody |
//! | `http` | the same locks over HTTP, to mount into any actix-web app | the `leasehold` binary, you |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::unwrap_used)]

mod clock;
mod config;
mod error;
#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
mod key;
mod lock;
mod manager;
mod many;
mod request;
pub mod retry;
mod run;
mod shard;
mod singleflight;
mod stats;
pub mod store;
mod sync;
mod table;

#[cfg(any(test, feature = "test-util"))]
pub use clock::ManualClock;
pub use clock::{Clock, Moment};
pub use config::Builder;
pub use error::{AttemptOutcome, BuildError, Face, KeyFault, LockError, Loss, TtlFault, WaitEdge};
pub use key::{FencingToken, Key, Token, Ttl};
pub use lock::{AutoRefresh, Held, Lock, RefreshOutcome, Refreshed, Ticket};
pub use manager::LockManager;
pub use many::{LockMany, LockManyRequest};
pub use request::{LockFuture, LockOptions, LockRequest, TicketFuture, TicketRequest};
pub use run::{Outcome, Ran, RunFuture, RunRequest, TryRunFuture, TryRunRequest, operation_key, resource_key};
pub use shard::actor::ShardActor;
pub use shard::message as messages;
pub use stats::{HotKey, LockInfo, Stats, WaiterInfo};
pub use table::Release;

/// The README's Rust blocks, as doc tests.
#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../README.md")]
struct Readme;
