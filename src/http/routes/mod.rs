//! The routes: one resource a file, with the bodies that it reads and the answers that it writes.
//!
//! A handler reads its request, asks the manager, and answers. Whatever is refused is a
//! [`Problem`](super::problem::Problem). What several handlers check is in `checks`, what several bodies have in
//! `wire`.

pub(super) mod acquire;
mod checks;
pub(super) mod events;
pub(super) mod force_release;
pub(super) mod health;
pub(super) mod heartbeat;
pub(super) mod history;
pub(super) mod locks;
#[cfg(feature = "prometheus")]
pub(super) mod metrics;
mod reclaim;
pub(super) mod release;
pub(super) mod server;
pub(super) mod session_list;
pub(super) mod sessions;
pub(super) mod stats;
pub(super) mod whoami;
