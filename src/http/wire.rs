//! What requests and answers look like as JSON. Times are whole milliseconds, rounded down.
//!
//! Only [`Acquired`] carries a token: a token is a capability, and whoever asks about locks must not get one.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::millis::Millis;
use crate::{FencingToken, HotKey, LockInfo, Release, Stats, Token};

/// The body of `POST /acquire`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Acquire {
    pub(super) key: String,
    pub(super) ttl_ms: Option<Millis>,
    pub(super) wait_ms: Option<Millis>,
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) mode: Mode,
    #[serde(default, deserialize_with = "maybe_token")]
    pub(super) token: Option<Token>,
}

/// The body of `POST /release`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseBody {
    pub(super) key: String,
    #[serde(deserialize_with = "token")]
    pub(super) token: Token,
}

/// The body of `POST /heartbeat`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heartbeat {
    pub(super) key: String,
    #[serde(deserialize_with = "token")]
    pub(super) token: Token,
    pub(super) ttl_ms: Option<Millis>,
}

/// The kinds of lock that can be asked for.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    #[default]
    Exclusive,
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None | Some("exclusive") => Ok(Self::Exclusive),
            Some(_) => Err(D::Error::custom("`mode` must be \"exclusive\"")),
        }
    }
}

fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
    // The text is not quoted in the error: it may be almost a token.
    Token::from_str(&String::deserialize(deserializer)?).map_err(|_| D::Error::custom("`token` is not a UUID"))
}

fn maybe_token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Token>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| Token::from_str(&text).map_err(|_| D::Error::custom("`token` is not a UUID"))).transpose()
}

/// The answer to an acquire that was granted.
///
/// The client's deadline is the time it sent the request, plus `waited_ms`, plus `remaining_ms`, less its drift.
#[derive(Serialize)]
pub(super) struct Acquired<'a> {
    pub(super) key: &'a str,
    pub(super) token: String,
    pub(super) fencing_token: Option<u64>,
    pub(super) owner: Option<Arc<str>>,
    pub(super) mode: Mode,
    pub(super) ttl_ms: u64,
    pub(super) remaining_ms: u64,
    pub(super) waited_ms: u64,
}

/// The answer to a release, by token or by force.
#[derive(Serialize)]
pub(super) struct ReleaseAnswer {
    pub(super) outcome: &'static str,
}

impl From<Release> for ReleaseAnswer {
    fn from(release: Release) -> Self {
        let outcome = match release {
            Release::Released => "released",
            Release::AlreadyGone => "already_gone",
        };
        Self { outcome }
    }
}

/// The answer to a heartbeat.
#[derive(Serialize)]
pub(super) struct HeartbeatAnswer {
    pub(super) remaining_ms: u64,
    pub(super) refresh_count: u32,
}

/// The answer of `GET /locks`.
#[derive(Serialize)]
pub(super) struct LockList {
    pub(super) locks: Vec<LockRow>,
    /// Whether there are more than the limit let in.
    pub(super) truncated: bool,
}

/// One held lock.
#[derive(Serialize)]
pub(super) struct LockRow {
    key: String,
    mode: Mode,
    holder: Holder,
    waiting: usize,
}

/// One held lock with its queue: the answer of `GET /locks/{key}`.
#[derive(Serialize)]
pub(super) struct LockDetail {
    #[serde(flatten)]
    row: LockRow,
    /// The first of those who wait; `waiting` counts them all.
    queue: Vec<WaiterRow>,
}

/// Who holds a lock.
#[derive(Debug, Serialize)]
pub(super) struct Holder {
    owner: Option<Arc<str>>,
    /// `null` where the store promises none.
    fencing_token: Option<u64>,
    /// Wall-clock time of the grant, in milliseconds since 1970.
    since_unix_ms: u64,
    age_ms: u64,
    remaining_ms: u64,
    ttl_ms: u64,
    refresh_count: u32,
}

/// One who waits.
#[derive(Serialize)]
struct WaiterRow {
    position: usize,
    owner: Option<Arc<str>>,
    waited_ms: u64,
}

impl From<&LockInfo> for Holder {
    fn from(info: &LockInfo) -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            owner: info.owner.clone(),
            fencing_token: info.fencing_token.map(FencingToken::get),
            since_unix_ms: whole_ms(wall.saturating_sub(info.age)),
            age_ms: whole_ms(info.age),
            remaining_ms: whole_ms(info.remaining),
            ttl_ms: whole_ms(info.ttl),
            refresh_count: info.refreshes,
        }
    }
}

impl From<LockInfo> for LockRow {
    fn from(info: LockInfo) -> Self {
        let holder = Holder::from(&info);
        Self { key: info.key.to_string(), mode: Mode::Exclusive, holder, waiting: info.waiting }
    }
}

impl From<LockInfo> for LockDetail {
    fn from(mut info: LockInfo) -> Self {
        let queue = std::mem::take(&mut info.queue).into_iter().map(|waiter| WaiterRow {
            position: waiter.position,
            owner: waiter.owner,
            waited_ms: whole_ms(waiter.waited),
        });
        Self { queue: queue.collect(), row: info.into() }
    }
}

/// `GET /stats`
#[derive(Serialize)]
pub(super) struct Totals {
    #[serde(flatten)]
    pub(super) stats: Stats,
    /// The most contended keys, the worst first.
    pub(super) hot_keys: Vec<HotKeyRow>,
}

#[derive(Serialize)]
pub(super) struct HotKeyRow {
    key: String,
    contentions: u64,
}

impl From<HotKey> for HotKeyRow {
    fn from(hot: HotKey) -> Self {
        Self { key: hot.key.to_string(), contentions: hot.contentions }
    }
}

/// The answer of `GET /stats?key=`.
#[derive(Serialize)]
pub(super) struct KeyStats {
    pub(super) key: String,
    /// `null` while nobody has had to wait for the key or was refused it: an uncontended key keeps no totals.
    pub(super) stats: Option<Stats>,
}

/// The answer of `GET /healthz`.
#[derive(Serialize)]
pub(super) struct Health {
    pub(super) status: &'static str,
}

pub(super) fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
