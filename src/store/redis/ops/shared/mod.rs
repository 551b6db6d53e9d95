//! Locks that several hold at once: shared, and by permits.
//!
//! A lock that one token has for itself stays what it was, its token as a plain string. While a lock is shared, its value
//! is a marker: how many permits there are (0: any number of shares), and the generation, the fence of the share that was
//! the first. So every other client's `SET NX` fails, also of those that know nothing of shares, and a value of theirs
//! makes ours answer held.
//!
//! | while | the value is | and stands for |
//! |---|---|---|
//! | there was never more than one share | `leasehold-share:<limit>:<generation>:<permits>:<token>` | all of it: its end is the lock's |
//! | a second one has come | `leasehold-share:<limit>:<generation>` | that the rest stands beside the lock, in its slot |
//!
//! So a share that nobody else wants costs what an exclusive lock costs, and both are taken and released many at once by the
//! same steps (`take_all.lua`, `end_all.lua`). What stands beside a lock is
//!
//! | key | a | what |
//! |---|---|---|
//! | `ends` | sorted set | the token of each share, by its end in microseconds of the server's clock |
//! | `holds` | hash | by token: permits and fence; `generation`; `used`: the permits of all; `last`: the last of the ends; `kept`: until when, in milliseconds, both keys are kept |
//!
//! | what happens | what holds then |
//! |---|---|
//! | the end of a share is past | whichever script comes next takes it out first: it ends no other, and keeps nobody out |
//! | the share that ends last is released | the marker's end is that of the last share that is left |
//! | the marker is deleted, evicted, or another value is there | all shares are lost: each operation asks whether the marker names the generation of `holds` |
//! | `holds` or `ends` is evicted | the same: a marker without its shares is nobody's, and the next script deletes it |
//! | a first share is taken | what an earlier generation left beside the lock is deleted |
//!
//! Each share has a fence of its own, minted as every other (R12), and is granted, extended and released by its token,
//! idempotent and not after its time, as exclusive locks are (R2 to R5). A call names no mode: `shares` guesses which
//! script it needs, and each says if it was the wrong one.
//!
//! Those who wait take tickets in the lock's one queue (R16), with odd numbers, which tells them from those who want the
//! lock for themselves. Nobody passes a ticket of another process, with one exception: a share without a limit passes
//! others for shares, up to the first that is not. So readers behind a writer wait, those at the head of the queue go
//! together, and a big request for permits is not passed by small ones. A process has one ticket for a lock, whoever in it
//! waits. Of those who want a shared lock alone, processes hear on a channel of all (`shares`): where one reuses claims, its
//! readers ride on one share until then. `model` walks through it at random.
//!
//! While a lock's slot moves between two nodes of a Cluster, its keys may be on both, and these scripts need them all: they
//! are refused, and the answers are unknown until the slot has moved. Releases are repeated after that by the clean-up.
//! A release that a dying master had not passed on is not repeated (`release_replay` knows exclusive locks alone): such a
//! share ends by its time.

pub(in crate::store) mod acquire;
pub(in crate::store) mod downgrade;
pub(in crate::store) mod extend;
pub(in crate::store) mod force;
pub(in crate::store) mod holders;
pub(in crate::store) mod look;
#[cfg(test)]
mod model;
pub(in crate::store) mod release;

use crate::store::redis::inner::Inner;
use crate::store::redis::keys::KeyNames;

/// What the scripts for exclusive locks answer where the lock is shared, and those for shares where it is not: the other
/// one is to be asked.
pub(in crate::store) const OTHER_SCRIPT: i64 = 4;
/// So often the other one is asked in a row: the lock may change while it is.
pub(in crate::store) const TURNS: usize = 4;

/// The keys of those who share a lock: `ends` and `holds`.
pub(super) fn side_keys(inner: &Inner, names: &KeyNames) -> [String; 2] {
    ["ends:", "holds:"].map(|kind| names.beside(&inner.config.side_keys, kind))
}
