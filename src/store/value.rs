//! A value that a release leaves to those who wait for its key (S19): what [`Store::release_with_value`] is given, and what
//! [`Store::value`] answers.
//!
//! [`Store::release_with_value`]: super::Store::release_with_value
//! [`Store::value`]: super::Store::value

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The bytes of a value, which clones share. Its `Debug` shows how many they are and nothing else (S14).
#[derive(Clone, PartialEq, Eq)]
pub struct ValueBytes(Arc<[u8]>);

impl From<Vec<u8>> for ValueBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Deref for ValueBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ValueBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueBytes({} bytes)", self.0.len())
    }
}

/// What a release is to leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ValueToLeave {
    /// The value; at most as long as [`Capabilities::max_value`](super::Capabilities::max_value) says.
    pub bytes: ValueBytes,
    /// For how long it can be had.
    pub life: Duration,
}

/// What a release has left.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LeftValue {
    /// The value.
    pub bytes: ValueBytes,
    /// How long before the call that asked it was left, by the store's own clock; or longer: what the store does not know
    /// better, it has from the time of its answer.
    pub age: Duration,
}

impl LeftValue {
    /// A value that was left so long ago.
    #[must_use]
    pub fn new(bytes: ValueBytes, age: Duration) -> Self {
        Self { bytes, age }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_debug_shows_a_value() {
        let left = LeftValue::new(b"secret".to_vec().into(), Duration::from_millis(3));
        assert_eq!(format!("{left:?}"), "LeftValue { bytes: ValueBytes(6 bytes), age: 3ms }");
        assert_eq!(&*left.bytes, b"secret");
    }
}
