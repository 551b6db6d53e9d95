//! The verbs, each in a file of its own with its flags and what it does, and how a command line is read.

pub(crate) mod args;
pub(crate) mod config;

pub(crate) mod acquire;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod force_release;
pub(crate) mod health;
pub(crate) mod heartbeat;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod postgres;
pub(crate) mod redlock;
pub(crate) mod release;
pub(crate) mod show;
pub(crate) mod stats;
pub(crate) mod token;
pub(crate) mod watch;
