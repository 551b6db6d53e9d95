//! What holds a key: a grant that was made, or the claim of a key that the store has still to give.

use super::history::End;
use super::minted::ToldUnder;
use crate::clock::Moment;
use crate::key::{FencingToken, Ttl};

/// Who answers for a grant, and so who may still ask about its token.
///
/// The first two name the waiter that the grant is for, whose own state is written in the same step: `Claiming` by
/// `start_claim`, `Unseen` and `Granted` together by `claimed` or the hand-off. The fast paths read this one, since they
/// have the slot at hand and not the waiter.
///
/// | state    | the grant is known to                        | it ends by                              |
/// |----------|----------------------------------------------|-----------------------------------------|
/// | `Claiming` | nobody: the store has not said yes         | the store's answer, or its waiter's end |
/// | `Unseen` | nobody yet, as far as the table was told:    | expiry, force, or the future's drop     |
/// |          | its waiter has not polled                    |                                         |
/// | `Guard`  | one `Lock` in this process; if not `Minted`, | the guard's unlock or drop, or any loss |
/// |          | also to a client or to views of the lock     |                                         |
/// | `Ticket` | whoever has the token (a client, a `Ticket`) | release by token, or any loss           |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GrantState {
    /// It holds the key's place in this process for a waiter that the key is being taken for.
    Claiming(u32),
    Unseen(u32),
    Guard(TokenOrigin),
    Ticket,
}

impl GrantState {
    /// Whether nobody can ask about the token any more once the grant has ended so: that of a guard that let go by
    /// itself, or of a grant that nobody saw.
    pub(super) fn forgets(self, end: End) -> bool {
        match self {
            Self::Guard(TokenOrigin::Minted) => matches!(end, End::Released | End::Dropped),
            Self::Claiming(_) => true,
            Self::Unseen(_) => end == End::Dropped,
            Self::Guard(TokenOrigin::ByClient) | Self::Ticket => false,
        }
    }
}

/// Where a grant's token comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenOrigin {
    /// Of this process's own making; nobody can have asked with it before.
    Minted,
    /// Named by the client, maybe for the second time (T11).
    ByClient,
}

/// What a holder asked for whose slot keeps no [terms](super::slot::Terms) of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// The key alone.
    Alone,
    /// A share of it.
    Share,
}

/// Whether the manager refreshes a grant by itself from the table's next tick on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// It does not; or there is a standing order already.
    Unordered,
    /// The order is given by the tick that files the grant, which is listed for that (`unfiled`).
    FromNextTick,
}

/// A grant that holds a key now.
#[derive(Debug)]
pub(crate) struct Holder {
    /// Tells the grant from all others of its shard (T4). Private, so that no holder is made but by [`Holder::new`].
    fence: FencingToken,
    /// What the expiry wheel knows. The grant of a session may live longer: the state of its session counts.
    pub(crate) deadline: Moment,
    pub(crate) granted_at: Moment,
    pub(crate) ttl: Ttl,
    pub(crate) refreshes: u32,
    /// Of a grant whose token is not kept with it.
    pub(crate) told: ToldUnder,
    pub(crate) grant_state: GrantState,
    pub(super) asked: Asked,
    pub(super) keep: Keep,
}

impl Holder {
    /// A holder with this fence, which nobody has had before. [`Table::new_holder`](super::Table::new_holder) and the lane call
    /// this.
    pub(super) fn new(
        fence: FencingToken,
        ttl: Ttl,
        granted_at: Moment,
        deadline: Moment,
        grant_state: GrantState,
    ) -> Self {
        Self {
            fence,
            deadline,
            granted_at,
            ttl,
            refreshes: 0,
            told: ToldUnder::NOBODY,
            grant_state,
            asked: Asked::Alone,
            keep: Keep::Unordered,
        }
    }

    #[inline]
    pub(super) fn who_asked_for(mut self, asked: Asked) -> Self {
        self.asked = asked;
        self
    }

    pub(crate) fn fence(&self) -> FencingToken {
        self.fence
    }
}
