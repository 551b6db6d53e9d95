//! What is in the file: a [`Row`] for each holder of a key, and the [`Meta`] of the last commit.
//!
//! A row's name is its key, a zero byte, which no key contains, and the token: so the holders of one key stand side by
//! side, and the keys in their order. Numbers are little-endian.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::line::Point;
use crate::key::{Key, Token};
use crate::mode::Mode;

/// Which holder of which key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct RowKey {
    pub(super) key: Key,
    token: u128,
}

/// What a holder has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) mode: Mode,
    pub(super) fence: u64,
    /// On the line of time.
    pub(super) end_ms: u64,
    /// What it was acquired with (S20); `None` if that is empty.
    pub(super) note: Option<Arc<[u8]>>,
}

/// Rows that have changed: what they are now, `None` if they are gone.
pub(super) type Rows = BTreeMap<RowKey, Option<Row>>;

impl RowKey {
    pub(super) fn new(key: &Key, token: Token) -> Self {
        Self { key: key.clone(), token: token.as_uuid().as_u128() }
    }

    /// In front of all rows of this key.
    pub(super) fn first_of(key: &Key) -> Self {
        Self { key: key.clone(), token: 0 }
    }

    pub(super) fn token(&self) -> Token {
        Uuid::from_u128(self.token).into()
    }

    /// Writes the row's name into `name`.
    pub(super) fn spell(&self, name: &mut Vec<u8>) {
        name.clear();
        name.extend_from_slice(self.key.as_str().as_bytes());
        name.push(0);
        name.extend_from_slice(&self.token.to_be_bytes());
    }

    pub(super) fn read(name: &[u8]) -> Option<Self> {
        let (rest, token) = name.split_last_chunk()?;
        let (0, key) = rest.split_last()? else { return None };
        let key = Key::new(std::str::from_utf8(key).ok()?).ok()?;
        Some(Self { key, token: u128::from_be_bytes(*token) })
    }
}

/// How a row says in which mode its key is held.
const EXCLUSIVE: u8 = 0;
const SHARED: u8 = 1;
const PERMITS: u8 = 2;

impl Row {
    /// Without its note, which is the rest.
    const BYTES: usize = 1 + 4 + 4 + 8 + 8;

    pub(super) fn note(&self) -> &[u8] {
        self.note.as_deref().unwrap_or_default()
    }

    /// Writes the row into `bytes`.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        let (kind, limit, permits) = match self.mode {
            Mode::Exclusive => (EXCLUSIVE, 0, 0),
            Mode::Shared => (SHARED, 0, 0),
            Mode::Permits { limit, permits } => (PERMITS, limit, permits),
        };
        bytes.clear();
        bytes.reserve(Self::BYTES + self.note().len());
        bytes.push(kind);
        bytes.extend_from_slice(&u32::to_le_bytes(limit));
        bytes.extend_from_slice(&u32::to_le_bytes(permits));
        bytes.extend_from_slice(&self.fence.to_le_bytes());
        bytes.extend_from_slice(&self.end_ms.to_le_bytes());
        bytes.extend_from_slice(self.note());
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        let (kind, limit, permits) = (u8::from_le_bytes(rest.next()?), rest.next()?, rest.next()?);
        let (limit, permits) = (u32::from_le_bytes(limit), u32::from_le_bytes(permits));
        let mode = match kind {
            EXCLUSIVE => Mode::Exclusive,
            SHARED => Mode::Shared,
            PERMITS => Mode::Permits { limit, permits },
            _ => return None,
        };
        let (fence, end_ms) = (u64::from_le_bytes(rest.next()?), u64::from_le_bytes(rest.next()?));
        Some(Self { mode, fence, end_ms, note: (!rest.0.is_empty()).then(|| rest.0.into()) })
    }
}

/// What each commit says of the whole directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Meta {
    pub(super) point: Point,
    /// No fence above it was given out, unless the file says so in a later commit (D6).
    pub(super) fence: u64,
    /// Before this, locks may be held of which the file knows nothing (D7). 0 after a proper end.
    pub(super) silent_until_ms: u64,
}

impl Meta {
    /// No row is called so: a key is never empty.
    pub(super) const NAME: &'static [u8] = b"\0meta";
    const FORMAT: u8 = 1;
    const BYTES: usize = 1 + 8 + 16 + 8 + 8 + 8 + 8;

    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { point, fence, silent_until_ms } = self;
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.push(Self::FORMAT);
        bytes.extend_from_slice(&point.line_ms.to_le_bytes());
        bytes.extend_from_slice(&point.boot.to_le_bytes());
        for number in [point.boot_ms, point.wall_ms, *fence, *silent_until_ms] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// `None` if it is of a format that this version does not know.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes);
        if u8::from_le_bytes(rest.next()?) != Self::FORMAT {
            return None;
        }
        let (line_ms, boot) = (u64::from_le_bytes(rest.next()?), u128::from_le_bytes(rest.next()?));
        let mut number = || rest.next().map(u64::from_le_bytes);
        let (boot_ms, wall_ms, fence, silent_until_ms) = (number()?, number()?, number()?, number()?);
        let point = Point { line_ms, boot, boot_ms, wall_ms };
        rest.0.is_empty().then_some(Self { point, fence, silent_until_ms })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn next<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_their_names_are_read_as_they_were_written() {
        let permits = Mode::Permits { limit: u32::MAX, permits: 3 };
        let mut bytes = Vec::new();
        for (mode, note) in [(Mode::Exclusive, None), (Mode::Shared, Some([0, 0xff].into())), (permits, None)] {
            let row = Row { mode, fence: u64::MAX - 1, end_ms: 1_800_000_000_000, note };
            row.write(&mut bytes);
            assert_eq!(Row::read(&bytes), Some(row));
            assert_eq!(Row::read(&bytes[..Row::BYTES - 1]), None);
        }
        for text in ["k", "ü:ß", &"long".repeat(200)] {
            let (key, token, mut name) = (Key::new(text).unwrap(), Token::random(), Vec::new());
            let row = RowKey::new(&key, token);
            row.spell(&mut name);
            let read = RowKey::read(&name).unwrap();
            assert_eq!((&read, read.token()), (&row, token));
        }
        for wrong in [&b""[..], &[0; 17], &[b'k'; 20], Meta::NAME] {
            assert_eq!(RowKey::read(wrong), None, "{wrong:?}");
        }
        bytes[0] = 9;
        assert_eq!(Row::read(&bytes), None, "a mode of a later version");
    }

    /// A key that begins like another one has no row between that one's.
    #[test]
    fn names_are_in_the_order_of_keys() {
        let spelt = |text: &str, token: Token| {
            let mut name = Vec::new();
            RowKey::new(&Key::new(text).unwrap(), token).spell(&mut name);
            name
        };
        let (low, high) = (Uuid::from_u128(1).into(), Uuid::from_u128(u128::MAX).into());
        let names = [spelt("a", low), spelt("a", high), spelt("a b", low), spelt("ab", low), spelt("ü", low)];
        assert!(names.is_sorted());
    }

    #[test]
    fn what_a_commit_says_is_read_as_it_was_written_and_no_other_format_is() {
        let point = Point { line_ms: 1, boot: u128::MAX - 1, boot_ms: 3, wall_ms: 4 };
        let meta = Meta { point, fence: 5, silent_until_ms: 6 };
        let mut bytes = meta.bytes();
        assert_eq!(bytes.len(), Meta::BYTES);
        assert_eq!(Meta::read(&bytes), Some(meta));
        assert_eq!(Meta::read(&bytes[..bytes.len() - 1]), None);
        bytes[0] = 2;
        assert_eq!(Meta::read(&bytes), None);
    }
}
