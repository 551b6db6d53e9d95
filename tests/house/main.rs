//! Fears about the repository itself: one file each.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[cfg(all(feature = "server", feature = "test-util"))]
#[path = "../support/parsers/mod.rs"]
mod parsers;

mod corpora;
mod numbers;
mod peer_bugs;
mod rules;
mod sources;
