//! One end of a grant: the reason for it, and what is written down of it.

use std::time::Duration;

use crate::clock::Moment;
use crate::error::Loss;
use crate::key::FencingToken;

/// How a grant ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Unlocked by its guard.
    Released,
    /// Released with its token.
    ByToken,
    /// Its guard was dropped, or the future that it had been granted to.
    Dropped,
    /// Its deadline passed.
    Expired,
    /// Released by an operator.
    Forced,
    /// Taken from its holder to break a deadlock.
    Revoked,
    /// Its session was ended.
    SessionEnded,
    /// The store does not keep it any more.
    Vanished,
    /// The manager shut down.
    ShutDown,
}

impl End {
    /// The loss that a late request with the token is answered with.
    pub(crate) fn as_loss(self) -> Loss {
        match self {
            Self::Released | Self::ByToken | Self::Dropped => Loss::Released,
            Self::Expired => Loss::Expired,
            Self::Forced => Loss::Forced,
            Self::Revoked => Loss::Revoked,
            Self::SessionEnded => Loss::SessionEnded,
            Self::Vanished => Loss::Vanished,
            Self::ShutDown => Loss::ShutDown,
        }
    }
}

/// One grant that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndRecord {
    pub(crate) key_hash: u32,
    pub(crate) end: End,
    pub(crate) fence: FencingToken,
    /// What its resource was shown, if anything.
    pub(crate) proof: Option<FencingToken>,
    pub(crate) granted_at: Moment,
    pub(crate) ended_at: Moment,
}

impl EndRecord {
    pub(crate) fn held(&self) -> Duration {
        self.ended_at.saturating_since(self.granted_at)
    }
}
