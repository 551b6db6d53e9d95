//! Redlock: one lock over N independent Redis nodes, held by whoever has a majority of them (rules L1 to L5).
//!
//! Here is the half that does no I/O: [`quorum`] counts votes, [`fence`] counts what nodes said to a proposed fence.
//! Both are told what was answered and when, and say what follows. `model` walks every bounded history of both.
#![cfg_attr(not(test), expect(dead_code, reason = "the store over N nodes stands on this"))]

pub(crate) mod fence;
#[cfg(test)]
mod model;
pub(crate) mod quorum;
