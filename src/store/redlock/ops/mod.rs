//! One operation a file, with its script beside it.

pub(super) mod acquire;
pub(super) mod extend;
pub(super) mod force;
pub(super) mod health;
pub(super) mod initialise;
pub(super) mod leave;
pub(super) mod look;
pub(super) mod node_states;
pub(super) mod notice;
pub(super) mod release;
mod repair;
pub(super) mod watch;
