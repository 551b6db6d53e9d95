//! What the bodies of several routes have in common, as JSON. Times are whole milliseconds, rounded down.
//!
//! The rest of a body is written with its route. Of all answers only that to an acquire carries a token: a token is a
//! capability, and whoever asks about locks must not get one. The same goes for a session's id, which only the answer
//! to its opening carries.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use uuid::Uuid;

use crate::{Mode, Token, WaitEdge};

/// The kinds of lock that can be asked for.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ModeName {
    /// One holder at a time.
    #[default]
    Exclusive,
    /// Any number of holders that all asked for it so.
    Shared,
    /// As many holders as there are permits for.
    Permit,
}

impl<'de> Deserialize<'de> for ModeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<Text<'de>>::deserialize(deserializer)?.as_deref() {
            None | Some("exclusive") => Ok(Self::Exclusive),
            Some("shared") => Ok(Self::Shared),
            Some("permit") => Ok(Self::Permit),
            Some(_) => Err(D::Error::custom("`mode` must be \"exclusive\", \"shared\" or \"permit\"")),
        }
    }
}

impl From<Mode> for ModeName {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Exclusive,
            Mode::Shared => Self::Shared,
            Mode::Permits { .. } => Self::Permit,
        }
    }
}

/// How a lock is held or asked for, in an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModeFields {
    mode: ModeName,
    /// How many permits the key has; left out unless the mode is permit, and so is `permits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permits: Option<u32>,
}

impl From<Mode> for ModeFields {
    fn from(mode: Mode) -> Self {
        let (limit, permits) = match mode {
            Mode::Permits { limit, permits } => (Some(limit), Some(permits)),
            Mode::Exclusive | Mode::Shared => (None, None),
        };
        Self { mode: mode.into(), limit, permits }
    }
}

/// A text, which is copied only if it has escapes in it.
pub(super) struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(text.into()))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// A UUID out of a text. That is not quoted in the error: it may be almost a token.
fn uuid<T: FromStr, E: Error>(text: &Text<'_>, what: &str) -> Result<T, E> {
    T::from_str(text).map_err(|_| E::custom(format_args!("`{what}` is not a UUID")))
}

pub(super) fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
    uuid(&Text::deserialize(deserializer)?, "token")
}

pub(super) fn maybe_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Token>, D::Error> {
    Option::<Text<'de>>::deserialize(deserializer)?.map(|text| uuid(&text, "token")).transpose()
}

pub(super) fn session<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    uuid(&Text::deserialize(deserializer)?, "session")
}

pub(super) fn maybe_session<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    Option::<Text<'de>>::deserialize(deserializer)?.map(|text| uuid(&text, "session")).transpose()
}

/// A token written out, for the one who was granted the lock.
pub(super) struct GrantedToken(pub(super) Token);

impl Serialize for GrantedToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_uuid().hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

/// The schema of a text that is one of these.
pub(super) fn one_of<const N: usize>(names: [&'static str; N]) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
}

pub(super) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// One step of a deadlock: who waits for which key. The next step's owner holds it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "owner": "worker-7", "key": "account:3" }))]
pub(super) struct Edge {
    owner: String,
    key: String,
}

impl From<&WaitEdge> for Edge {
    fn from(edge: &WaitEdge) -> Self {
        Self { owner: edge.owner.to_string(), key: edge.key.to_string() }
    }
}
