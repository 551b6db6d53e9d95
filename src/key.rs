//! Names and numbers that a lock is known by: [`Key`], [`Token`], [`FencingToken`], [`Ttl`].
//!
//! Each is checked once, when it is made; the rest of the crate takes them as good.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use arcstr::ArcStr;
use uuid::Uuid;

use crate::error::{KeyFault, TtlFault};

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
    pub fn new(text: impl AsRef<str>) -> Result<Self, KeyFault> {
        let text = text.as_ref();
        check_key(text, Self::MAX_BYTES)?;
        Ok(match Short::new(text.as_bytes()) {
            Some(short) => Self { short, long: None },
            None => Self { short: Short::EMPTY, long: Some(text.into()) },
        })
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

impl Short {
    const EMPTY: Self = Self([0; Key::SHORT_BYTES]);

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
    #[inline]
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
    const ONES: u64 = u64::MAX / 255;
    // The high bit of a byte is set in `word` by 0x80 and above, in the sum by 0x7f, in the difference by what is
    // below 0x20. Carries and borrows start only at bytes that have set theirs already.
    let odd = |word: u64| (word | word.wrapping_add(ONES) | word.wrapping_sub(ONES * 0x20)) & (ONES * 0x80);
    let (words, rest) = bytes.as_chunks::<8>();
    let odd_words = words.iter().fold(0, |all, word| all | odd(u64::from_le_bytes(*word)));
    let odd_rest = match bytes.last_chunk::<8>() {
        Some(last) => odd(u64::from_le_bytes(*last)),
        None => u64::from(rest.iter().any(|byte| !(0x20..0x7f).contains(byte))),
    };
    odd_words | odd_rest == 0
}

macro_rules! key_from {
    ($($text:ty),*) => {$(
        impl TryFrom<$text> for Key {
            type Error = KeyFault;
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

/// The proof of holding: a UUID that belongs to one grant.
///
/// Whoever knows it may refresh and release the lock, so `Debug` hides it and only `Display` (which you must ask
/// for) writes it out.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(align(8))]
pub struct Token(Uuid);

impl Token {
    /// A fresh random token (UUID version 4, from a cryptographic generator).
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
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
pub struct NoFence;

impl TryFrom<u64> for FencingToken {
    type Error = NoFence;
    fn try_from(number: u64) -> Result<Self, NoFence> {
        NonZeroU64::new(number).map(Self).ok_or(NoFence)
    }
}

/// From decimal digits, as a holder sends them.
impl std::str::FromStr for FencingToken {
    type Err = NoFence;
    fn from_str(text: &str) -> Result<Self, NoFence> {
        // The standard parser also takes a plus sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NoFence);
        }
        text.parse().map(Self).map_err(|_| NoFence)
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

/// How long a grant lasts unless it is refreshed: whole milliseconds, from 1 ms to [`Ttl::MAX`].
///
/// Fractions of a millisecond are cut, which errs towards an earlier deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Ttl(u32);

impl Ttl {
    /// The longest TTL that any manager takes: 45 days. A manager's own limit is 24 h unless its builder says otherwise.
    pub const MAX: Duration = Duration::from_hours(24 * 45);
    /// The shortest.
    pub const MIN: Duration = Duration::from_millis(1);

    /// Checks `ttl` against the bounds of the type.
    ///
    /// # Errors
    /// [`TtlFault`] if it is zero, below a millisecond or above [`Ttl::MAX`].
    pub fn new(ttl: Duration) -> Result<Self, TtlFault> {
        if ttl.is_zero() {
            return Err(TtlFault::Zero);
        }
        if ttl < Self::MIN {
            return Err(TtlFault::TooShort { min: Self::MIN });
        }
        if ttl > Self::MAX {
            return Err(TtlFault::TooLong { max: Self::MAX });
        }
        u32::try_from(ttl.as_millis()).map(Self).map_err(|_| TtlFault::TooLong { max: Self::MAX })
    }

    /// Checks a number of seconds, as configuration files and other languages give it.
    ///
    /// # Errors
    /// [`TtlFault`] also for negative numbers, infinities and NaN.
    pub fn from_secs_f64(secs: f64) -> Result<Self, TtlFault> {
        if secs.is_nan() {
            return Err(TtlFault::NotANumber);
        }
        if secs < 0.0 {
            return Err(TtlFault::Negative);
        }
        Self::new(Duration::try_from_secs_f64(secs).map_err(|_| TtlFault::TooLong { max: Self::MAX })?)
    }

    /// The TTL in nanoseconds.
    pub(crate) const fn as_nanos(self) -> u64 {
        self.0 as u64 * 1_000_000
    }

    /// The TTL as a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0))
    }
}

/// The TTLs that a manager takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TtlBounds {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl TtlBounds {
    pub(crate) fn check(self, ttl: Ttl) -> Result<(), TtlFault> {
        match ttl.as_duration() {
            ttl if ttl > self.max => Err(TtlFault::TooLong { max: self.max }),
            ttl if ttl < self.min => Err(TtlFault::TooShort { min: self.min }),
            _ => Ok(()),
        }
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

    #[test]
    fn ttls_of_zero_below_a_millisecond_negative_or_huge_are_refused() {
        assert_eq!(Ttl::new(Duration::ZERO), Err(TtlFault::Zero));
        assert_eq!(Ttl::new(Duration::from_micros(999)), Err(TtlFault::TooShort { min: Ttl::MIN }));
        assert_eq!(Ttl::new(Duration::MAX), Err(TtlFault::TooLong { max: Ttl::MAX }));
        assert_eq!(Ttl::new(Duration::from_millis(u64::MAX)), Err(TtlFault::TooLong { max: Ttl::MAX }));
        assert_eq!(Ttl::from_secs_f64(-1.0), Err(TtlFault::Negative));
        assert_eq!(Ttl::from_secs_f64(f64::NAN), Err(TtlFault::NotANumber));
        assert_eq!(Ttl::from_secs_f64(f64::INFINITY), Err(TtlFault::TooLong { max: Ttl::MAX }));
        assert_eq!(Ttl::from_secs_f64(0.0004), Err(TtlFault::TooShort { min: Ttl::MIN }));
        assert_eq!(Ttl::from_secs_f64(0.0), Err(TtlFault::Zero));
        assert_eq!(Ttl::new(Duration::from_micros(1_999)).unwrap().as_duration(), Duration::from_millis(1));
        assert_eq!(Ttl::new(Ttl::MAX).unwrap().as_duration(), Ttl::MAX);
    }

    #[test]
    fn a_fencing_token_is_read_as_it_is_written() {
        for number in [1, 42, (1 << 53) + 1, u64::MAX] {
            let fence = FencingToken::try_from(number).unwrap();
            assert_eq!(fence.to_string().parse(), Ok(fence));
            assert_eq!(fence.get(), number);
        }
        for text in ["", "0", "00", "-1", "+1", "1.0", " 1", "1e3", "18446744073709551616", "x"] {
            assert_eq!(text.parse::<FencingToken>(), Err(NoFence), "{text:?}");
        }
        assert_eq!(FencingToken::try_from(0), Err(NoFence));
    }

    #[test]
    fn debug_of_a_token_does_not_show_it() {
        let token = Token::random();
        assert!(!format!("{token:?}").contains(&token.to_string()));
    }
}
