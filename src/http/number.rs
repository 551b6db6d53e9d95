//! Whole numbers in a request: any JSON number is read, so that one out of bounds can be told from one of a wrong type.
//!
//! A number that fits no integer of ours (`1e400`, `1.5`, `-3`) is the client's bad value, not a bad body.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

/// A number of milliseconds or of permits as the client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// From 0 to `u64::MAX`.
    Whole(u64),
    Negative,
    Fraction,
    Huge,
}

impl Number {
    /// `None` if `text`, a JSON value, is not a number.
    fn read(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            return None;
        }
        let number: f64 = text.parse().ok()?;
        Some(match number {
            _ if number < 0.0 => Self::Negative,
            _ if number >= u64::MAX as f64 => Self::Huge,
            _ if number.fract() != 0.0 => Self::Fraction,
            _ => Self::Whole(number as u64),
        })
    }

    /// The span in milliseconds, if it is one that may be held to bounds.
    pub(super) fn span(self) -> Option<Duration> {
        self.whole().map(Duration::from_millis)
    }

    /// The number as it is, if it is one.
    pub(super) fn whole(self) -> Option<u64> {
        match self {
            Self::Whole(number) => Some(number),
            Self::Negative | Self::Fraction | Self::Huge => None,
        }
    }

    /// The count, if it is one that may be held to bounds.
    pub(super) fn count(self) -> Option<u32> {
        u32::try_from(self.whole()?).ok()
    }
}

/// The bytes of a text in hexadecimal digits, two for each.
pub(super) fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let byte = |pair: &[u8]| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?);
    text.as_bytes().chunks(2).map(byte).collect()
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text: serde_json itself refuses numbers beyond an f64.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::read(raw.get()).ok_or_else(|| D::Error::custom("not a number where one is due"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_json_number_is_read_and_nothing_else() {
        let rows = [
            ("0", Some(Number::Whole(0))),
            ("-0", Some(Number::Whole(0))),
            ("30000", Some(Number::Whole(30_000))),
            ("3e4", Some(Number::Whole(30_000))),
            ("30000.0", Some(Number::Whole(30_000))),
            ("18446744073709551615", Some(Number::Whole(u64::MAX))),
            ("18446744073709551616", Some(Number::Huge)),
            ("1e400", Some(Number::Huge)),
            ("-1", Some(Number::Negative)),
            ("-1e400", Some(Number::Negative)),
            ("1.5", Some(Number::Fraction)),
            ("\"30\"", None),
            ("true", None),
            ("[1]", None),
            ("{}", None),
        ];
        for (text, read) in rows {
            assert_eq!(serde_json::from_str::<Number>(text).ok(), read, "{text}");
        }
        assert_eq!(serde_json::from_str::<Option<Number>>("null").unwrap(), None);
    }
}
