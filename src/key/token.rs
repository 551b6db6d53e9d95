//! What a grant is proved by: the [`Token`] to its manager, the [`FencingToken`] to the resource.

use std::fmt;
use std::num::NonZeroU64;

use uuid::Uuid;

/// The proof of holding: a UUID that belongs to one grant.
///
/// Whoever knows it may refresh and release the lock, so `Debug` hides it and only `Display` (which you must ask
/// for) writes it out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(align(8))]
pub struct Token(Uuid);

impl Token {
    /// Stands for a token that there is not.
    pub(crate) const NIL: Self = Self(Uuid::nil());

    /// A fresh random token (UUID version 4, from a cryptographic generator).
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The same of bits that are as good as random.
    pub(crate) fn from_random_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// A token for a claim: random as well, but for its first 48 bits, which name the process, its version (8), and the
    /// digit behind that, which says whether it may be kept idle.
    pub(crate) fn of_claim(tag: u64, kept_idle: u8) -> Self {
        let mut bytes = *Uuid::new_v4().as_bytes();
        bytes[..6].copy_from_slice(&tag.to_be_bytes()[2..]);
        bytes[6] = kept_idle;
        Self(uuid::Builder::from_bytes(bytes).with_version(uuid::Version::Custom).into_uuid())
    }

    /// The token as a UUID.
    #[must_use]
    pub fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for Token {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl std::str::FromStr for Token {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// A number that rises with every grant of a key (invariant T4), for the protected resource to compare.
///
/// A resource that remembers the highest number it has seen, and refuses lower ones, is safe even from a holder
/// that slept past its deadline (Kleppmann, "How to do distributed locking", 2016).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FencingToken(NonZeroU64);

impl FencingToken {
    /// The number itself.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The number that follows, for the next grant.
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// `value`, or 1 where it is 0.
    pub(crate) fn at_least_one(value: u64) -> Self {
        Self(NonZeroU64::new(value).unwrap_or(NonZeroU64::MIN))
    }
}

/// A number or text that is no fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fencing token is a whole number from 1 to 2^64 - 1")]
pub struct ParseFencingTokenError;

impl TryFrom<u64> for FencingToken {
    type Error = ParseFencingTokenError;
    fn try_from(number: u64) -> Result<Self, ParseFencingTokenError> {
        NonZeroU64::new(number).map(Self).ok_or(ParseFencingTokenError)
    }
}

/// From decimal digits, as a holder sends them.
impl std::str::FromStr for FencingToken {
    type Err = ParseFencingTokenError;
    fn from_str(text: &str) -> Result<Self, ParseFencingTokenError> {
        // The standard parser also takes a plus sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseFencingTokenError);
        }
        text.parse().map(Self).map_err(|_| ParseFencingTokenError)
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FencingToken({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fencing_token_is_read_as_it_is_written() {
        for number in [1, 42, (1 << 53) + 1, u64::MAX] {
            let fence = FencingToken::try_from(number).unwrap();
            assert_eq!(fence.to_string().parse(), Ok(fence));
            assert_eq!(fence.get(), number);
        }
        for text in ["", "0", "00", "-1", "+1", "1.0", " 1", "1e3", "18446744073709551616", "x"] {
            assert_eq!(text.parse::<FencingToken>(), Err(ParseFencingTokenError), "{text:?}");
        }
        assert_eq!(FencingToken::try_from(0), Err(ParseFencingTokenError));
    }

    #[test]
    fn debug_of_a_token_does_not_show_it() {
        let token = Token::random();
        assert!(!format!("{token:?}").contains(&token.to_string()));
    }
}
