//! What can be seen of locks, as JSON: rows and queues. Never a token, never a session's id.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::cursor;
use crate::http::wire::{ModeFields, ModeName, one_of, whole_ms};
use crate::store::{NodeVote, Vote};
use crate::{FencingToken, HolderInfo, Key, ListPage, Location, LockInfo, StorePage, WaiterInfo};

/// The held locks, in the order that was asked for. Where there are very many, they may be as of up to a second ago.
#[derive(Serialize, ToSchema, Default)]
pub(in crate::http) struct LockList {
    pub(in crate::http) locks: Vec<LockRow>,
    /// Whether there are more than the limit let in.
    pub(in crate::http) truncated: bool,
    /// Where the next page begins: the `cursor` of the request for it. `null` at the end, and in orders that are not by
    /// key. Pages are complete for all locks that live throughout.
    #[schema(required)]
    pub(in crate::http) next_cursor: Option<String>,
    /// Whose locks these are.
    pub(in crate::http) scope: Scope,
}

/// Whose locks a list shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Scope {
    /// All that there are: there is no store.
    #[default]
    All,
    /// Those that are held through this server. Others may hold more in the store.
    Server,
    /// All in the store, whoever holds them.
    Store,
}

impl LockList {
    pub(in crate::http) fn of(page: &ListPage, scope: Scope) -> Self {
        let locks = page.locks.iter().map(LockRow::from).collect();
        let next_cursor = page.next.as_ref().map(|key| cursor::write(key.as_str()));
        Self { locks, truncated: page.truncated, next_cursor, scope }
    }

    pub(in crate::http) fn of_store(page: &StorePage, may_see: impl Fn(&Key) -> bool) -> Self {
        let seen = page.locks.iter().filter(|lock| may_see(&lock.key));
        let next_cursor = page.next.as_deref().map(cursor::write);
        Self {
            locks: seen.map(LockRow::from).collect(),
            truncated: next_cursor.is_some(),
            next_cursor,
            scope: Scope::Store,
        }
    }
}

/// One held lock.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "key": "order:42", "mode": "exclusive", "held_by": 1, "waiting": 0,
    "holder": {
        "owner": "worker-7", "mode": "exclusive", "fencing_token": 1795229686733898_u64,
        "since_unix_ms": 1795229687371_u64, "age_ms": 6, "remaining_ms": 29993, "ttl_ms": 30000, "refresh_count": 0,
    },
}))]
pub(in crate::http) struct LockRow {
    key: String,
    /// `true` where another process, or another client of the store, holds it: then nothing is known of the holder but how
    /// long it lasts and perhaps its fencing token, and those who wait are this server's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    elsewhere: bool,
    /// `true` where another server of this kind has a claim on it: it holds the key, or keeps it between two of its locks.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    claimed: bool,
    mode: ModeName,
    /// The first of those who hold it.
    holder: HolderView,
    /// How many hold it.
    held_by: usize,
    /// How many wait for it.
    waiting: usize,
    /// For how long the first of them has waited; left out when nobody does.
    #[serde(skip_serializing_if = "Option::is_none")]
    longest_wait_ms: Option<u64>,
}

/// One held lock with those who hold it and its queue, the first 100 of each.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct LockDetail {
    #[serde(flatten)]
    row: LockRow,
    holders: Vec<HolderView>,
    queue: Vec<WaiterRow>,
    /// For whom each node of the store stands; left out unless it has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    votes: Vec<VoteRow>,
}

/// For whom one node of the store stands.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "node": "redis-1:6379", "vote": "holder" }))]
struct VoteRow {
    #[schema(value_type = String)]
    node: Arc<str>,
    #[schema(value_type = VoteName)]
    vote: &'static str,
}

/// The names of what a node can stand for.
struct VoteName;

impl ToSchema for VoteName {}

impl PartialSchema for VoteName {
    fn schema() -> RefOr<Schema> {
        one_of(Vote::ALL.map(Vote::as_str))
    }
}

/// Who holds a lock.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Holder)]
pub(in crate::http) struct HolderView {
    #[schema(value_type = Option<String>, required)]
    owner: Option<Arc<str>>,
    #[serde(flatten)]
    mode: ModeFields,
    /// `null` where the store promises none.
    #[schema(required)]
    fencing_token: Option<u64>,
    /// Wall-clock time of the grant, in milliseconds since 1970; `null` where it is not known, as for a lock that
    /// another process holds. So are `age_ms`, `ttl_ms` and `refresh_count`.
    #[schema(required)]
    since_unix_ms: Option<u64>,
    #[schema(required)]
    age_ms: Option<u64>,
    /// `null` where it has no end, as a key of another client in the store may have none.
    #[schema(required)]
    remaining_ms: Option<u64>,
    #[schema(required)]
    ttl_ms: Option<u64>,
    #[schema(required)]
    refresh_count: Option<u32>,
}

/// One who waits.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({ "position": 1, "owner": "worker-8", "mode": "exclusive", "waited_ms": 120 }))]
struct WaiterRow {
    /// The first is 1.
    position: usize,
    #[schema(value_type = Option<String>, required)]
    owner: Option<Arc<str>>,
    #[serde(flatten)]
    mode: ModeFields,
    waited_ms: u64,
}

fn since(age: Duration) -> u64 {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    whole_ms(wall.saturating_sub(age))
}

impl HolderView {
    pub(in crate::http) fn of(info: &HolderInfo, location: Location) -> Self {
        let is_known = location == Location::Here && !info.is_elsewhere();
        let known = |ms: u64| is_known.then_some(ms);
        Self {
            owner: info.owner.clone(),
            mode: info.mode.into(),
            fencing_token: info.fencing_token.map(FencingToken::get),
            since_unix_ms: known(since(info.age)),
            age_ms: known(whole_ms(info.age)),
            remaining_ms: (info.remaining != Duration::MAX).then(|| whole_ms(info.remaining)),
            ttl_ms: known(whole_ms(info.ttl)),
            refresh_count: is_known.then_some(info.refreshes),
        }
    }
}

impl From<WaiterInfo> for WaiterRow {
    fn from(waiter: WaiterInfo) -> Self {
        let WaiterInfo { position, owner, mode, waited, .. } = waiter;
        Self { position, owner, mode: mode.into(), waited_ms: whole_ms(waited) }
    }
}

impl From<NodeVote> for VoteRow {
    fn from(vote: NodeVote) -> Self {
        Self { node: vote.node, vote: vote.vote.as_str() }
    }
}

impl From<&LockInfo> for LockRow {
    fn from(info: &LockInfo) -> Self {
        // There is always a first.
        let (holder, mode) = (HolderView::of(&info.holders[0], info.location), ModeName::from(info.mode));
        let (elsewhere, claimed) = (info.location != Location::Here, info.location == Location::Claimed);
        let longest_wait_ms = info.longest_wait.map(whole_ms);
        let (key, held_by, waiting) = (info.key.to_string(), info.held_by, info.waiting);
        Self { key, elsewhere, claimed, mode, holder, held_by, waiting, longest_wait_ms }
    }
}

impl From<LockInfo> for LockDetail {
    fn from(mut info: LockInfo) -> Self {
        let holders = info.holders.iter().map(|holder| HolderView::of(holder, info.location)).collect();
        let queue = std::mem::take(&mut info.queue).into_iter().map(WaiterRow::from).collect();
        let votes = std::mem::take(&mut info.votes).into_iter().map(VoteRow::from).collect();
        Self { row: (&info).into(), holders, queue, votes }
    }
}

/// What `GET /locks` answers.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Listed)]
pub(in crate::http) enum LocksAnswer {
    /// Without `key`.
    List(LockList),
    /// With `key`.
    One(Box<LockDetail>),
}
