//! Fears about locks in memory, and about what every manager promises wherever its locks are: one file each.

#[cfg(unix)]
#[path = "../support/alone.rs"]
mod alone;
#[cfg(feature = "redis")]
#[path = "../support/redis/mod.rs"]
mod kit;
#[cfg(all(feature = "redis", feature = "test-util"))]
#[path = "../support/redlock.rs"]
mod redlock;

mod auto_refresh;
mod bad_input;
mod bounds;
mod cancellation;
mod coarse_clock;
mod conformance;
mod events;
mod exclusion;
mod expiry;
mod explaining;
mod fairness;
mod fences;
mod hosts;
mod idempotence;
mod inspect;
mod loss_signal;
mod many_keys;
mod messages;
mod run_callbacks;
mod shared_and_permits;
mod shutdown;
mod stealing;
mod sweeping;
mod thread_end;
mod upgrading;
