//! Milliseconds in a request: any JSON number is read, so that one out of bounds can be told from one of a wrong type.
//!
//! A number that fits no integer of ours (`1e400`, `1.5`, `-3`) is the client's bad value, not a bad body.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

/// A number of milliseconds as the client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Millis {
    /// From 0 to `u64::MAX`.
    Whole(u64),
    Negative,
    Fraction,
    Huge,
}

impl Millis {
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

    /// The span, if it is one that may be held to bounds.
    pub(super) fn span(self) -> Option<Duration> {
        match self {
            Self::Whole(millis) => Some(Duration::from_millis(millis)),
            Self::Negative | Self::Fraction | Self::Huge => None,
        }
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text: serde_json itself refuses numbers beyond an f64.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::read(raw.get()).ok_or_else(|| D::Error::custom("a time in milliseconds must be a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_json_number_is_read_and_nothing_else() {
        let rows = [
            ("0", Some(Millis::Whole(0))),
            ("-0", Some(Millis::Whole(0))),
            ("30000", Some(Millis::Whole(30_000))),
            ("3e4", Some(Millis::Whole(30_000))),
            ("30000.0", Some(Millis::Whole(30_000))),
            ("18446744073709551615", Some(Millis::Whole(u64::MAX))),
            ("18446744073709551616", Some(Millis::Huge)),
            ("1e400", Some(Millis::Huge)),
            ("-1", Some(Millis::Negative)),
            ("-1e400", Some(Millis::Negative)),
            ("1.5", Some(Millis::Fraction)),
            ("\"30\"", None),
            ("true", None),
            ("[1]", None),
            ("{}", None),
        ];
        for (text, read) in rows {
            assert_eq!(serde_json::from_str::<Millis>(text).ok(), read, "{text}");
        }
        assert_eq!(serde_json::from_str::<Option<Millis>>("null").unwrap(), None);
    }
}
