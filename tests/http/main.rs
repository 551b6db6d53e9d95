//! Fears about the routes, the server that binds them, and its clients: one file each.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(all(feature = "server", unix))]
#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/http_server.rs"]
mod http_server;
#[cfg(feature = "redis")]
#[path = "../support/redis/mod.rs"]
mod kit;
#[cfg(feature = "redis")]
#[path = "../support/redis_managers.rs"]
mod redis_managers;
#[cfg(all(feature = "server", unix))]
#[path = "../support/served.rs"]
mod served;

mod access;
mod bad_input;
mod clients;
mod contract;
mod described;
mod either_way;
mod events;
mod gone_over_redis;
mod history;
mod locked_by;
mod modes;
mod mount;
mod over_redis;
mod queue;
mod restarts;
mod retry;
mod server_guarded;
mod server_process;
mod sessions;
mod slow_clients;
