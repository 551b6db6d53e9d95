//! What a lock server answers, as far as it is read here.

use serde::Deserialize;

/// What became of a release, by token or by force.
#[derive(Deserialize)]
pub(crate) struct ReleaseReply {
    pub(crate) outcome: String,
}

/// How long a lock lasts after a heartbeat, and how many it has had.
#[derive(Deserialize)]
pub(crate) struct HeartbeatReply {
    pub(crate) remaining_ms: u64,
    pub(crate) refresh_count: u32,
}

/// One held lock.
#[derive(Deserialize)]
pub(crate) struct Row {
    pub(crate) key: String,
    mode: String,
    pub(crate) holder: HolderRow,
    pub(crate) held_by: usize,
    pub(crate) waiting: usize,
    #[serde(default)]
    claimed: bool,
}

impl Row {
    /// How it is held; of a claim of another server nobody can say that it is.
    pub(crate) fn mode(&self) -> &str {
        if self.claimed { "claimed" } else { &self.mode }
    }
}

/// One who holds a lock.
#[derive(Deserialize)]
pub(crate) struct HolderRow {
    pub(crate) owner: Option<String>,
    #[serde(default)]
    mode: String,
    limit: Option<u32>,
    permits: Option<u32>,
    pub(crate) fencing_token: Option<u64>,
    /// What is not known of a lock that another process holds, or has no end, is left out.
    pub(crate) age_ms: Option<u64>,
    pub(crate) remaining_ms: Option<u64>,
    pub(crate) ttl_ms: Option<u64>,
    pub(crate) refresh_count: Option<u32>,
}

impl HolderRow {
    /// How it holds the lock: of permits, how many of how many.
    pub(crate) fn mode(&self) -> String {
        match (self.limit, self.permits) {
            (Some(limit), Some(permits)) => format!("{} {permits}/{limit}", self.mode),
            _ => self.mode.clone(),
        }
    }
}

/// One held lock, all who hold it and its queue.
#[derive(Deserialize)]
pub(crate) struct Detail {
    #[serde(flatten)]
    pub(crate) row: Row,
    pub(crate) holders: Vec<HolderRow>,
    pub(crate) queue: Vec<WaiterRow>,
    #[serde(default)]
    pub(crate) votes: Vec<NodeVote>,
}

/// For whom a node of the store stands.
#[derive(Deserialize)]
pub(crate) struct NodeVote {
    pub(crate) node: String,
    pub(crate) vote: String,
}

/// One who waits for a lock.
#[derive(Deserialize)]
pub(crate) struct WaiterRow {
    pub(crate) position: usize,
    pub(crate) owner: Option<String>,
    pub(crate) mode: String,
    pub(crate) waited_ms: u64,
}
