//! One operation a file, with its script beside it.

pub(crate) mod acquire;
pub(crate) mod extend;
pub(crate) mod force;
pub(crate) mod health;
pub(crate) mod initialise;
pub(crate) mod look;
pub(crate) mod node_states;
pub(crate) mod notice;
pub(crate) mod release;
mod repair;
pub(crate) mod watch;
