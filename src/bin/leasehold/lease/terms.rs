//! What is asked for: the terms of a lock, and the flags that they have in common.

use std::time::Duration;

use clap::Args;
use leasehold::Token;
use serde_json::{Value, json};

use super::whole_ms;

/// Who else may hold the lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseKind {
    /// Nobody.
    Exclusive,
    /// All who ask for it so.
    Shared,
    /// As many as there are permits for.
    Permit { limit: u32, permits: u32 },
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct LeaseTerms {
    pub(crate) key: String,
    pub(crate) kind: LeaseKind,
    pub(crate) ttl: Duration,
    pub(crate) owner: String,
    /// Chosen here, so that a lock whose answer was lost can be given back.
    pub(crate) token: Token,
}

/// How a lock is held, and by whom: flags of the verbs that acquire.
#[derive(Args, Debug)]
pub(crate) struct HolderArgs {
    /// Share the lock with all who ask for it so
    #[arg(long, conflicts_with = "limit")]
    shared: bool,

    /// Let so many hold the lock at once; all must name the same number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// How many of them it takes
    #[arg(long, value_name = "K", requires = "limit", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    permits: u32,

    /// Who holds the lock, for people who look [default: host and process]
    #[arg(long)]
    owner: Option<String>,
}

impl HolderArgs {
    pub(crate) fn kind(&self) -> LeaseKind {
        match (self.shared, self.limit) {
            (true, _) => LeaseKind::Shared,
            (false, Some(limit)) => LeaseKind::Permit { limit, permits: self.permits },
            (false, None) => LeaseKind::Exclusive,
        }
    }

    pub(crate) fn owner(&self) -> String {
        self.owner.clone().unwrap_or_else(this_process)
    }
}

impl LeaseTerms {
    /// The body of `POST /acquire`, for a wait of this length.
    pub(crate) fn body(&self, wait: Duration) -> Value {
        let mut body = self.kind_and_owner();
        body["key"] = self.key.as_str().into();
        body["ttl_ms"] = whole_ms(self.ttl).into();
        body["wait_ms"] = whole_ms(wait).into();
        body["token"] = self.token.to_string().into();
        body
    }

    /// What a server has to be told again that has forgotten the lock.
    pub(super) fn kind_and_owner(&self) -> Value {
        match self.kind {
            LeaseKind::Exclusive => json!({ "owner": self.owner, "mode": "exclusive" }),
            LeaseKind::Shared => json!({ "owner": self.owner, "mode": "shared" }),
            LeaseKind::Permit { limit, permits } => {
                json!({ "owner": self.owner, "mode": "permit", "limit": limit, "permits": permits })
            }
        }
    }
}

/// Who asks, for people who look.
fn this_process() -> String {
    let process = std::process::id();
    #[cfg(unix)]
    if let Ok(host) = nix::unistd::gethostname() {
        // An owner has 128 bytes at most; no host name that is in use has that many.
        let host: String = host.to_string_lossy().chars().filter(char::is_ascii_graphic).take(100).collect();
        return format!("{host}:{process}");
    }
    format!("process {process}")
}
