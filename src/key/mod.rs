//! Names and numbers that a lock is known by: [`Key`], [`Token`], [`FencingToken`], [`Ttl`].
//!
//! Each is checked once, when it is made; the rest of the crate takes them as good.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arcstr::ArcStr;

#[cfg(feature = "serde")]
mod portable;
mod token;
mod ttl;

pub use token::{FencingToken, ParseFencingTokenError, Token};
pub(crate) use ttl::TtlBounds;
pub use ttl::{Ttl, TtlFault};

/// The name of one lock: 1 to [`Key::MAX_BYTES`] bytes of UTF-8 without control characters.
///
/// Keys of up to 16 bytes live inline; cloning never copies longer ones.
///
/// ```
/// use leasehold::Key;
/// assert!(Key::new("order:42").is_ok());
/// assert!(Key::new("").is_err());
/// assert!(Key::new("two\nlines").is_err());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The bytes of a short key, filled up with zeros, which no key contains. All zeros if it is a long one.
    short: Short,
    long: Option<ArcStr>,
}

/// Aligned, and without a niche for others to hide their tags in: so that it moves in whole words, and a word that
/// was just written can be read back without a detour through the cache. Every lock moves its key a few times.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(align(8))]
struct Short([u8; Key::SHORT_BYTES]);

impl Key {
    /// The longest key that any manager takes. A manager's own limit is 256 unless its builder says otherwise.
    pub const MAX_BYTES: usize = 1024;
    const SHORT_BYTES: usize = 16;

    /// Checks `text` and makes it a key.
    ///
    /// # Errors
    /// [`KeyFault`] says what is wrong with the text.
    #[inline(always)]
    pub fn new(text: impl AsRef<str>) -> Result<Self, KeyFault> {
        let text = text.as_ref();
        match Short::of_plain(text.as_bytes()) {
            0 => Self::of_any(text),
            packed => Ok(Self { short: Short(packed.to_le_bytes()), long: None }),
        }
    }

    /// The same for a text of any length, in any letters.
    #[inline(always)]
    fn of_any(text: &str) -> Result<Self, KeyFault> {
        match AnyKey::new(text) {
            AnyKey::Short(short) => Ok(Self { short, long: None }),
            AnyKey::Long(long) => Ok(Self { short: Short::EMPTY, long: Some(long) }),
            AnyKey::Fault(why) => Err(why),
        }
    }

    /// Stands where a key is not needed any more, or was refused. It costs nothing.
    pub(crate) const fn placeholder() -> Self {
        Self { short: Short::EMPTY, long: None }
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("a key is made of a whole text")
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.long {
            Some(long) => long.as_bytes(),
            None => self.short.as_bytes(),
        }
    }
}

/// What becomes of a text. No `Key`, so that a key that is made of registers need not go through the memory in which a call
/// would answer one.
enum AnyKey {
    Short(Short),
    Long(ArcStr),
    Fault(KeyFault),
}

impl AnyKey {
    #[inline(never)]
    fn new(text: &str) -> Self {
        match (check_key(text, Key::MAX_BYTES), Short::new(text.as_bytes())) {
            (Err(why), _) => Self::Fault(why),
            (Ok(()), Some(short)) => Self::Short(short),
            (Ok(()), None) => Self::Long(text.into()),
        }
    }
}

impl Short {
    const EMPTY: Self = Self([0; Key::SHORT_BYTES]);

    /// The bytes of a key that is short and plain, in the order of their addresses; 0 for all others. They are checked as
    /// they are read, and stay in registers.
    #[inline(never)]
    fn of_plain(bytes: &[u8]) -> u128 {
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let (head, tail, odd) = match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) if bytes.len() <= Key::SHORT_BYTES => {
                let (first, last) = (word(first), word(last));
                // Of the last eight bytes those that are among the first as well are shifted out.
                let tail = if bytes.len() > 8 { last >> (8 * (Key::SHORT_BYTES - bytes.len())) } else { 0 };
                (first, tail, odd_bytes(first) | odd_bytes(last))
            }
            (None, _) => {
                let few = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
                // The bytes that are not there count as blanks.
                (few, 0, odd_bytes(few | BLANKS << (8 * bytes.len())))
            }
            _ => return 0,
        };
        if odd == 0 { u128::from(tail) << 64 | u128::from(head) } else { 0 }
    }

    /// `None` if it is too long.
    #[inline]
    fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > Key::SHORT_BYTES {
            return None;
        }
        let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let (head, tail) = match (bytes.first_chunk(), bytes.last_chunk()) {
            // The last eight bytes overlap the first; the ones that are there already are shifted out.
            (Some(first), Some(last)) if bytes.len() > 8 => (word(first), word(last) >> (8 * (16 - bytes.len()))),
            (Some(first), _) => (word(first), 0),
            _ => (bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0),
        };
        Some(Self((u128::from(tail) << 64 | u128::from(head)).to_le_bytes()))
    }

    fn as_bytes(&self) -> &[u8] {
        let unused = u128::from_le_bytes(self.0).leading_zeros() as usize / 8;
        &self.0[..Key::SHORT_BYTES - unused]
    }
}

impl Hash for Key {
    #[inline(always)]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.long {
            Some(long) => state.write(long.as_bytes()),
            None => {
                let (words, _) = self.short.0.as_chunks::<8>();
                words.iter().for_each(|word| state.write_u64(u64::from_le_bytes(*word)));
            }
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// There is no text.
    #[error("it is empty")]
    Empty,
    /// It has more bytes than the manager takes.
    #[error("it has {bytes} bytes, the limit is {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The store cannot keep it.
    #[error("the store cannot keep it: {why}")]
    Store {
        /// What is wrong with it.
        why: &'static str,
    },
    /// It holds a control character.
    #[error("it has a control character at byte {at}")]
    ControlCharacter {
        /// The byte offset of the first one.
        at: usize,
    },
}

/// Holds `text` to the rules of a key. Control characters would forge log lines and break line protocols.
pub(crate) fn check_key(text: &str, max: usize) -> Result<(), KeyFault> {
    if text.is_empty() {
        return Err(KeyFault::Empty);
    }
    if text.len() > max {
        return Err(KeyFault::TooLong { bytes: text.len(), max });
    }
    // Without branches for plain ASCII; `is_control` also knows U+0080 to U+009F.
    if !is_plain(text.as_bytes())
        && let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control())
    {
        return Err(KeyFault::ControlCharacter { at });
    }
    Ok(())
}

/// Whether all bytes are in `0x20..0x7f`.
fn is_plain(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let odd_words = words.iter().fold(0, |all, word| all | odd_bytes(u64::from_le_bytes(*word)));
    let odd_rest = match bytes.last_chunk::<8>() {
        Some(last) => odd_bytes(u64::from_le_bytes(*last)),
        None => u64::from(rest.iter().any(|byte| !(0x20..0x7f).contains(byte))),
    };
    odd_words | odd_rest == 0
}

const ONES: u64 = u64::MAX / 255;
/// Eight of them.
const BLANKS: u64 = ONES * 0x20;

/// Not 0 if any of eight bytes is not in `0x20..0x7f`.
#[inline]
const fn odd_bytes(word: u64) -> u64 {
    // The high bit of a byte is set in `word` by 0x80 and above, in the sum by 0x7f, in the difference by what is
    // below 0x20. Carries and borrows start only at bytes that have set theirs already.
    (word | word.wrapping_add(ONES) | word.wrapping_sub(BLANKS)) & (ONES * 0x80)
}

macro_rules! key_from {
    ($($text:ty),*) => {$(
        impl TryFrom<$text> for Key {
            type Error = KeyFault;
            #[inline(always)]
            fn try_from(text: $text) -> Result<Self, KeyFault> {
                Self::new(text)
            }
        }
    )*};
}
key_from!(&str, &&str, String, &String, Box<str>, &Box<str>, Arc<str>, &Arc<str>, Cow<'_, str>, &Cow<'_, str>);

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn keys_without_text_too_long_or_with_control_characters_are_refused() {
        assert_eq!(Key::new(""), Err(KeyFault::Empty));
        assert_eq!(Key::new("k".repeat(1025)), Err(KeyFault::TooLong { bytes: 1025, max: 1024 }));
        for (text, at) in [("\0", 0), ("a\tb", 1), ("ab\u{7f}", 2), ("é\u{85}", 2), ("a\r\n", 1)] {
            assert_eq!(Key::new(text), Err(KeyFault::ControlCharacter { at }), "{text:?}");
        }
        for good in ["a", "order:42", "größe", "日本", "with space", &"k".repeat(1024)] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_byte_that_is_not_plain_is_found_wherever_it_is() {
        for len in 1..40 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'~'; len];
                    bytes[at] = byte;
                    assert_eq!(is_plain(&bytes), (0x20..0x7f).contains(&byte), "{byte:#x} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn a_plain_key_is_packed_as_any_other_is_and_nothing_else_is_plain() {
        for len in 0..20 {
            let text = &"abcdefghijklmnopqrst"[..len];
            let short = Short::new(text.as_bytes()).map_or(0, |short| u128::from_le_bytes(short.0));
            assert_eq!(Short::of_plain(text.as_bytes()), short, "{len}");
            for (at, byte) in (0..len).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = byte;
                let plain = len <= 16 && (0x20..0x7f).contains(&byte);
                assert_eq!(Short::of_plain(&bytes) != 0, plain, "{byte:#x} at {at} of {len}");
            }
        }
    }

    #[test]
    fn short_and_long_keys_read_compare_and_hash_as_their_text() {
        let texts: Vec<String> = (1..40).flat_map(|len| ["a".repeat(len), "ab".repeat(len), "ü".repeat(len)]).collect();
        let hasher = foldhash::fast::RandomState::default();
        for one in &texts {
            let key = Key::new(one).unwrap();
            assert_eq!((key.as_str(), key.clone()), (one.as_str(), key.clone()));
            for other in &texts {
                let other_key = Key::new(other).unwrap();
                assert_eq!(key.cmp(&other_key), one.cmp(other), "{one} and {other}");
                assert_eq!(key == other_key, one == other, "{one} and {other}");
                assert_eq!(hasher.hash_one(&key) == hasher.hash_one(&other_key), one == other, "{one} and {other}");
            }
        }
    }
}
