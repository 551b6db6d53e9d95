//! What requests and the answers to them look like as JSON. Times are whole milliseconds, rounded down.
//!
//! Only [`Acquired`] carries a token: a token is a capability, and whoever asks about locks must not get one. The same
//! goes for a session's id, which only [`SessionOpened`] carries. What can be seen of locks is in `shown`.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

use super::number::Number;
use crate::{LockError, Mode, Release, Token};

/// What `POST /acquire` asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "key": "order:42", "owner": "worker-7", "ttl_ms": 30000, "wait_ms": 5000 }))]
pub(super) struct Acquire<'a> {
    /// 1 to 256 bytes without control characters.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 256)]
    pub(super) key: Text<'a>,
    /// How long the lock lasts unless it gets a heartbeat; the server's default is 30000. Not with a `session`.
    #[schema(value_type = Option<u64>, minimum = 10, maximum = 86_400_000)]
    pub(super) ttl_ms: Option<Number>,
    /// How long to wait in the queue; 0 is now or never, the server's default is 5000.
    #[schema(value_type = Option<u64>, maximum = 60_000)]
    pub(super) wait_ms: Option<Number>,
    /// Who asks, for people who look.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    pub(super) owner: Option<Text<'a>>,
    /// The id of a session: the lock then lives as long as that does.
    #[serde(default, deserialize_with = "maybe_session")]
    #[schema(value_type = Option<String>, format = Uuid)]
    pub(super) session: Option<Uuid>,
    #[serde(default)]
    #[schema(value_type = Option<ModeName>)]
    pub(super) mode: ModeName,
    /// How many permits the key has; all who use it must name the same number. Only with `mode` permit.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(super) limit: Option<Number>,
    /// How many of them to take, 1 if it is left out. Only with `mode` permit.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(super) permits: Option<Number>,
    /// A fresh UUID chosen by the client: the same request may then be sent again after a lost answer.
    #[serde(default, deserialize_with = "maybe_token")]
    #[schema(value_type = Option<String>, format = Uuid)]
    pub(super) token: Option<Token>,
}

/// What `POST /release` asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "key": "order:42", "token": "0f8fad5b-d9cb-469f-a165-70867728950e" }))]
pub(super) struct ReleaseBody<'a> {
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 256)]
    pub(super) key: Text<'a>,
    /// The token that the acquire answered with.
    #[serde(deserialize_with = "token")]
    #[schema(value_type = String, format = Uuid)]
    pub(super) token: Token,
    /// That of the grant. While a server without a store starts, a lock is taken back with it, and released then: the
    /// server has forgotten it, and nobody else can have had it. The three below, as they were at the acquire, are
    /// looked at then only.
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub(super) fencing_token: Option<Number>,
    #[serde(default)]
    #[schema(value_type = Option<ModeName>)]
    pub(super) mode: ModeName,
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(super) limit: Option<Number>,
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(super) permits: Option<Number>,
}

/// What `POST /heartbeat` asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "key": "order:42", "token": "0f8fad5b-d9cb-469f-a165-70867728950e", "ttl_ms": 30000 }))]
pub(super) struct Heartbeat<'a> {
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 256)]
    pub(super) key: Text<'a>,
    /// The token that the acquire answered with.
    #[serde(deserialize_with = "token")]
    #[schema(value_type = String, format = Uuid)]
    pub(super) token: Token,
    /// From now on; the TTL of the acquire if it is left out. A deadline is never moved back.
    #[schema(value_type = Option<u64>, minimum = 10, maximum = 86_400_000)]
    pub(super) ttl_ms: Option<Number>,
    /// That of the grant. While a server without a store starts (`--start-delay`), the lock is taken back with it: the
    /// server has forgotten it, and nobody else can have had it. Of two who cannot hold a key together the higher number
    /// stays, and a number that was made up cannot be told from a true one. Send it always, with the four below as they were at the
    /// acquire; else they are not looked at.
    #[schema(value_type = Option<u64>, minimum = 1)]
    pub(super) fencing_token: Option<Number>,
    #[serde(borrow)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    pub(super) owner: Option<Text<'a>>,
    #[serde(default)]
    #[schema(value_type = Option<ModeName>)]
    pub(super) mode: ModeName,
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(super) limit: Option<Number>,
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub(super) permits: Option<Number>,
}

/// What `POST /sessions` asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "name": "worker-7", "ttl_ms": 10000 }))]
pub(super) struct OpenSession<'a> {
    /// The owner of its locks, for people who look.
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 128)]
    pub(super) name: Text<'a>,
    /// How long it lives from now and from each heartbeat; the server's default is 30000.
    #[schema(value_type = Option<u64>, minimum = 10, maximum = 86_400_000)]
    pub(super) ttl_ms: Option<Number>,
}

/// What `POST /sessions/heartbeat` and `POST /sessions/end` ask for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "session": "7c9e6679-7425-40de-944b-e07fc1f90ae7" }))]
pub(super) struct NamedSession {
    /// The `id` that the opening answered with.
    #[serde(deserialize_with = "session")]
    #[schema(value_type = String, format = Uuid)]
    pub(super) session: Uuid,
}

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

/// The size of a semaphore and the permits taken of it, where a lock is of permits.
pub(super) fn permits_of(mode: Mode) -> (Option<u32>, Option<u32>) {
    match mode {
        Mode::Permits { limit, permits } => (Some(limit), Some(permits)),
        Mode::Exclusive | Mode::Shared => (None, None),
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

fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
    uuid(&Text::deserialize(deserializer)?, "token")
}

fn maybe_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Token>, D::Error> {
    Option::<Text<'de>>::deserialize(deserializer)?.map(|text| uuid(&text, "token")).transpose()
}

fn session<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    uuid(&Text::deserialize(deserializer)?, "session")
}

fn maybe_session<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    Option::<Text<'de>>::deserialize(deserializer)?.map(|text| uuid(&text, "session")).transpose()
}

/// A token written out, for the one who was granted the lock.
pub(super) struct Written(pub(super) Token);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_uuid().hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }
}

/// A lock that was granted.
///
/// The client's deadline is the time at which it sent the request, plus `waited_ms`, plus `remaining_ms`, less its own
/// clock's drift.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "key": "order:42", "token": "0f8fad5b-d9cb-469f-a165-70867728950e", "fencing_token": 1795229686733898_u64,
    "owner": "worker-7", "mode": "exclusive", "ttl_ms": 30000, "remaining_ms": 29999, "waited_ms": 0,
}))]
pub(super) struct Acquired<'a> {
    pub(super) key: &'a str,
    /// The proof of holding: whoever has it may release the lock. It belongs into bodies, never into a URL or a log.
    #[schema(value_type = String, format = Uuid)]
    pub(super) token: Written,
    /// For the protected resource: it should refuse one that is lower than the highest it has seen. `null` where the
    /// store cannot promise one.
    #[schema(required)]
    pub(super) fencing_token: Option<u64>,
    #[schema(value_type = Option<String>, required)]
    pub(super) owner: Option<Arc<str>>,
    pub(super) mode: ModeName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) permits: Option<u32>,
    pub(super) ttl_ms: u64,
    pub(super) remaining_ms: u64,
    pub(super) waited_ms: u64,
}

/// What became of a release, by token or by force, or of the end of a session.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "outcome": "released" }))]
pub(super) struct ReleaseAnswer {
    pub(super) outcome: Outcome,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Released,
    /// There was nothing to release any more: it was done before, or time ran out.
    AlreadyGone,
}

impl TryFrom<Release> for ReleaseAnswer {
    type Error = LockError;

    /// S1: where the store has not said, nothing is told but that.
    fn try_from(release: Release) -> Result<Self, LockError> {
        let outcome = match release {
            Release::Released => Outcome::Released,
            Release::AlreadyGone => Outcome::AlreadyGone,
            Release::Unknown => return Err(LockError::StoreUnavailable),
        };
        Ok(Self { outcome })
    }
}

/// A lock that lasts longer now.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "remaining_ms": 29999, "refresh_count": 1 }))]
pub(super) struct HeartbeatAnswer {
    pub(super) remaining_ms: u64,
    pub(super) refresh_count: u32,
}

/// A session that was opened.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "name": "worker-7", "ttl_ms": 10000, "remaining_ms": 9999,
}))]
pub(super) struct SessionOpened {
    /// Whoever has it (and the bearer token that opened the session, where there are tokens) may use and end the session:
    /// keep it as you keep a token.
    #[schema(format = Uuid)]
    pub(super) id: String,
    #[schema(value_type = String)]
    pub(super) name: Arc<str>,
    pub(super) ttl_ms: u64,
    pub(super) remaining_ms: u64,
}

/// A session that lives longer now, and all of its locks with it.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "remaining_ms": 9999, "locks": 3 }))]
pub(super) struct SessionBeat {
    pub(super) remaining_ms: u64,
    /// How many locks it holds and waits for.
    pub(super) locks: usize,
}

pub(super) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
