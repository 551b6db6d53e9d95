//! Under which token the store keeps a key: its holder's own, or that of a claim that may be reused.

use crate::key::Token;
use crate::table::{Grant, Table};

/// Why a grant of the store has a token.
pub(super) const GIVEN: &str = "who asks for a key of the store brings the token that the store is given";

impl Table {
    /// What the store keeps the key of what holds a slot under.
    pub(in crate::table) fn store_token(&self, index: u32) -> Option<Token> {
        let claim = self.slots[index].extras.as_ref().and_then(|extras| extras.claim.as_ref());
        let carrier = || self.carrier_of(index).map(|carrier| carrier.token);
        claim.map(|claim| claim.token).or_else(carrier).or_else(|| self.slots[index].kept_token())
    }

    /// The token of what holds a slot by the store's leave.
    pub(in crate::table) fn own_token(&self, index: u32) -> Token {
        self.slots[index].kept_token().expect(GIVEN)
    }

    /// Whether what a grant holds its key by in the store is its own alone.
    pub(crate) fn has_own_claim(&self, grant: &Grant) -> bool {
        self.holder_of(grant).is_some() && self.store_token(grant.slot) == self.slots[grant.slot].kept_token()
    }
}
