//! One lock and the token that is to hold it: [`Lock`].

use crate::key::Token;
use crate::store::redis::keys::KeyNames;

/// A key by its names on the nodes, and a token that holds it or is to hold it.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Lock {
    pub(super) names: KeyNames,
    pub(super) token: Token,
}
