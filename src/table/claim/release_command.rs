//! What the store is asked when a grant ends: [`ReleaseCommand`], perhaps together with the acquire of whoever waits next.

use super::{Attempts, ClaimEnd, ClaimRequest, StoreCommand};
use crate::key::Key;
use crate::table::{End, Grant};

/// A key that is to be let go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReleaseCommand {
    pub(crate) grant: Grant,
    pub(crate) key: Key,
    pub(crate) claim: ClaimEnd,
    pub(crate) end: End,
    /// The request of this process that the key is to be taken for right afterwards.
    pub(crate) next: Option<(Grant, ClaimRequest)>,
}

impl StoreCommand {
    /// Takes up the command that follows, if the store can be asked for both at once: a release, and an acquire for
    /// whoever waits next for the same key.
    pub(crate) fn takes_up(&mut self, following: &Self) -> bool {
        match (self, following) {
            (Self::Release(release), Self::Acquire { grant, key, ask })
                if release.next.is_none()
                    && release.key == *key
                    && ask.tries == Attempts::Many
                    && ask.after.is_none() =>
            {
                release.next = Some((*grant, *ask));
                true
            }
            _ => false,
        }
    }
}
