//! The board: what processes tell each other through a store, each by one post (S18). What the posts say is the
//! callers' own; the store reads none.

use std::time::Duration;

/// Whether a store has a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posts {
    /// It has ([`put_up`](super::Store::put_up)).
    Kept,
    /// It has none.
    None,
}

/// What one process puts up.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// Names the process, or the one of its managers that speaks: a random number.
    pub process: u64,
    /// What it says, up to some 16 KiB. Nothing takes the last post down.
    pub text: &'a str,
    /// For how long it stays up, unless another replaces it. A store may bound it.
    pub life: Duration,
}

/// What is up on a board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Board {
    /// Rises from answer to answer, whoever gets it.
    pub number: u64,
    /// By process, what it says; in any order. Others may have written anything.
    pub posts: Vec<(u64, String)>,
    /// How many posts more are up than one answer takes.
    pub left_out: usize,
}

impl Board {
    /// A board with these posts, all that there are.
    #[must_use]
    pub const fn new(number: u64, posts: Vec<(u64, String)>) -> Self {
        Self { number, posts, left_out: 0 }
    }

    /// The same where so many more are up.
    #[must_use]
    pub const fn left_out(mut self, count: usize) -> Self {
        self.left_out = count;
        self
    }
}
