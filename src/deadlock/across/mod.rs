//! Deadlocks through several processes: what each tells the others, and when a cycle is believed. Pure; the register is
//! asked in [`told`](super::told), the store by the engine.
//!
//! Each process puts a post on a board that all read (S18): of its owners that hold something and wait, the waits, and
//! the holds that somebody is known to wait for. It is a snapshot under the numbers that the board gives, in the manner of
//! Chandy and Lamport (1985), and no probe along the edges (Chandy, Misra and Haas, 1983): every process sees the whole
//! cycle, so that all name the same victim without a message more.
//!
//! # Why a cycle that is told was there
//!
//! Waits and grants have names that are unique over time, so each exists for one span of time. The board's numbers rise
//! from answer to answer (S18). A post says
//!
//! * of each wait and hold, `since` which number it is known: that of the first answer to a post which named it. The
//!   process had looked at it before that answer was made, so it began before;
//! * which number its process had `seen` when it began to look: what it names had not ended when that answer was made.
//!
//! Let `e` be a number. A wait or hold with `since <= e <= seen` was there when the answer `e` was made. So all that
//! [`picture`] keeps for one `e` was there at one and the same moment, whenever the posts were written and read. Its
//! decision is that of [`graph`](super::graph), for less than there was: without what began later, or is not known.
//! Nothing that is left out makes anybody dead. A wait for a key that is held alone, or wanted alone, lacks all holders
//! that it goes not together with; those that are not told run, and count as gone. A wait for permits lacks what it wants
//! and the dead hold beyond the limit, whoever has the rest.
//!
//! A process that froze, or a post that came late, says nothing false by that: its spans are of the past. How old they
//! may be is bounded by the life of a post. A dead cycle does not move; it may yet be undone by time (a wait or a TTL
//! that ends, an operator), and one that was undone while the last posts were under way is broken all the same. A process
//! whose wait has ended says so at once. What it does not know yet it cannot say: a lock that was forced or deleted a moment
//! ago counts as held until its process has heard of it.
//!
//! # Who gives way
//!
//! The wait of the cycle with the highest [`WaitName`]: the last to be known. Each process looks for the shortest cycle
//! through each of its own waits, and refuses the one that has the highest name of its cycle. In a single cycle all see the
//! same, so one process acts. Of several that overlap the highest wait of all is the highest in whichever cycle is found
//! through it: somebody always acts.
//!
//! # What is not seen
//!
//! That a request waits behind others in a queue: a reader behind a writer of another process, one permit behind three.
//! Such a cycle is found when the first of the queue is part of one, or ends by its wait.

pub(crate) mod ledger;
#[cfg(test)]
mod model;
pub(crate) mod picture;
pub(crate) mod post;

use std::sync::Arc;

use crate::key::Key;
use crate::mode::Mode;

/// One who holds something and waits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// Unique in its process over time.
    pub(crate) owner: u64,
    pub(crate) label: Arc<str>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) holds: Vec<Hold>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wait {
    /// Unique in its process over time.
    pub(crate) id: u64,
    pub(crate) since: Since,
    pub(crate) lacks: Lacks,
    pub(crate) key: Key,
}

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// That its key can be had so.
    Key(Reach, Mode),
    /// That one grant of its own process ends. Of a wait for several there are as many.
    Grant { owner: u64, grant: u64 },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hold {
    /// Unique in its process over time.
    pub(crate) grant: u64,
    pub(crate) since: Since,
    pub(crate) reach: Reach,
    pub(crate) mode: Mode,
    pub(crate) key: Key,
}

/// Whose locks on a key exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reach {
    /// Those of all processes.
    Everywhere,
    /// Those of one.
    Process,
}

/// Since which answer of the board something is known to be there; later than all if it was not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Since(pub(crate) u64);

impl Since {
    pub(crate) const UNKNOWN: Self = Self(u64::MAX);
}

/// Names a wait among those of all processes; the last to be known is the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaitName {
    pub(crate) since: Since,
    pub(crate) process: u64,
    pub(crate) id: u64,
}
