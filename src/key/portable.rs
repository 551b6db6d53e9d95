//! How keys, tokens and fencing tokens are written and read (feature `serde`): as the text or number that they are,
//! checked when they are read.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use super::{FencingToken, Key, Token};

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(from: D) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::try_from(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// In the clear: it is the proof of holding.
impl Serialize for Token {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

impl Serialize for FencingToken {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.get())
    }
}

impl<'de> Deserialize<'de> for FencingToken {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        u64::deserialize(from)?.try_into().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::Ticket;

    #[test]
    fn a_ticket_is_read_as_it_was_written_and_checked() {
        let ticket = Ticket::from_parts("k".try_into().unwrap(), Token::random(), FencingToken::try_from(7).ok());
        let text = serde_json::to_string(&ticket).unwrap();
        assert_eq!(text, format!(r#"{{"key":"k","token":"{}","fencing_token":7}}"#, ticket.token()));
        assert_eq!(serde_json::from_str::<Ticket>(&text).unwrap(), ticket);
        for (good, bad) in [(r#""k""#, r#""two\nlines""#), (":7", ":0"), (r#""token":""#, r#""token":"no "#)] {
            let text = text.replace(good, bad);
            assert!(serde_json::from_str::<Ticket>(&text).is_err(), "{text}");
        }
    }
}
