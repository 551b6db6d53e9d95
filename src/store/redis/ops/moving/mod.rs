//! A lock whose slot is moving between two nodes of a Cluster: each of its keys is asked for by itself.
//!
//! Until the move ends, every key of the slot is on the old node or on the new one, and one that does not exist yet is
//! made on the new one. A script of several keys is refused ([`Ran::Split`]) unless one node has them all, and so is
//! every script that finds the lock free. A script of a single key is passed on to the node that has that key. What is atomic
//! elsewhere is a row of steps here:
//!
//! | step | key | what it does | if it is the last one |
//! |---|---|---|---|
//! | `ahead` | tickets | denies while other processes have live tickets; nobody can renew them, so for a second at most | nothing was done |
//! | `reserve` | lock | sets a fresh token that is nobody's, if the lock is free; else denies | it is taken back, or runs out after [a while](acquire::life_of_reservation) |
//! | `fence` | fence | mints a fence (R12) | the same; fences skip one |
//! | `accept` | lock | compares the reserved token, and sets the one that asks in its place, for the full TTL | it is granted |
//!
//! So a token never holds a lock without a fence of its own, which a repetition (R2) would take from an earlier holder;
//! and a fence is minted while nobody else can hold the lock: `accept` denies where the reservation has ended meanwhile.
//! The grant's time is counted from before the first step (R8).
//!
//! Release, look and force do without the queue. A process that waits has no ticket, is called by nobody, and polls: turns
//! are not kept while a slot moves. An extend has one key only, and needs none of this.

pub(in crate::store) mod acquire;
mod fence;
pub(in crate::store) mod force;
pub(in crate::store) mod release;
