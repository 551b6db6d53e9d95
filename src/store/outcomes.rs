//! What a store answers: one enum per question, each with an unknown where there can be one (S1).

use std::sync::Arc;
use std::time::Duration;

use super::{ClaimReuse, Posts, StoreError};
use crate::key::{Key, Ttl};
use crate::mode::{Mode, Modes};

/// The answer to [`Store::acquire`](super::Store::acquire).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Acquired {
    /// The token holds the key.
    Granted {
        /// The fence of this grant; `None` where the store cannot promise one.
        fence: Option<u64>,
        /// For how long from the start of the call.
        valid_for: Duration,
        /// What the clock that fences are made by showed when the key was granted, or earlier, in the units of fences: every
        /// later grant's fence is above it. `None` where the store cannot promise that; claims are not reused then.
        clock: Option<u64>,
    },
    /// The token does not hold the key.
    Denied {
        /// When trying again may help, if the store can tell.
        retry_in: Option<Duration>,
        /// The cause.
        why: Denial,
    },
    /// The token may or may not hold the key; the store takes back what it may hold (S5).
    Unknown(StoreError),
}

/// Why a key was not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denial {
    /// Another token holds it.
    Held,
    /// It is in use as another kind of thing, by another kind of client.
    OtherKind,
    /// It is held in another [mode](Mode) that does not go together with the one that was asked for, not even in turn:
    /// by permits instead of shared, or by permits of another limit.
    OtherMode,
    /// It may be free, but another process is ahead in its queue.
    Ahead,
    /// Nobody holds it: rivals got some nodes each, and give them back. A try before the pause is over, whatever hints
    /// come, only splits the next vote.
    Split,
    /// The store has no memory left for it.
    OutOfMemory,
    /// The grant came after its own end, and was taken back.
    TooLate,
    /// Fewer replicas than asked confirmed the grant, and it was taken back.
    Unreplicated,
}

/// The answer to [`Store::extend`](super::Store::extend).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Extended {
    /// The token holds the key.
    Extended {
        /// For how long from the start of the call.
        valid_for: Duration,
    },
    /// The token does not hold the key any more.
    Lost,
    /// The end may or may not have moved; the earlier one counts.
    Unknown(StoreError),
}

/// The answer to [`Store::release`](super::Store::release).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Released {
    /// The token held the key, and no longer does.
    Released,
    /// The token did not hold the key; nothing was changed.
    AlreadyGone,
    /// The store goes on trying by itself (S7).
    Unknown(StoreError),
}

/// The answer to [`Store::force_release`](super::Store::force_release).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub enum Forced {
    /// Somebody held the key, and no longer does.
    Released,
    /// Nobody held it.
    WasFree,
    /// It was perhaps carried out. It is not tried again: it might hit a later holder.
    Unknown(StoreError),
}

/// The answer to [`Store::give_notice`](super::Store::give_notice).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Noticed {
    /// Every process that listens to the store's events gets the notice.
    Told {
        /// The fence of the grant that is meant, if it is known.
        fence: Option<u64>,
    },
    /// Nobody held the key.
    WasFree,
    /// The store has no way to reach other processes.
    CannotTell,
}

/// What [`Store::look`](super::Store::look) saw.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// Nobody holds the key.
    Free,
    /// Somebody does.
    Held {
        /// Who.
        by: Holder,
        /// How long the store will keep it; `None` if it has no end.
        ends_in: Option<Duration>,
        /// The fence of the last grant that went through this kind of store, if it is known.
        fence: Option<u64>,
    },
}

/// The answer to [`Store::scan`](super::Store::scan).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ScanPage {
    /// Keys that somebody holds.
    pub locks: Vec<Scanned>,
    /// Where to go on; `None` at the end.
    pub next: Option<String>,
}

impl ScanPage {
    /// A page.
    #[must_use]
    pub fn new(locks: Vec<Scanned>, next: Option<String>) -> Self {
        Self { locks, next }
    }
}

/// A key that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scanned {
    /// The key, as [`Store::canonical`](super::Store::canonical) spells it.
    pub key: Key,
    /// How long the store will keep it; `None` if it has no end.
    pub ends_in: Option<Duration>,
    /// Who holds it; never [`Holder::Ours`], as nobody is asked for.
    pub by: Holder,
}

impl Scanned {
    /// A key that [another](Holder::Other) holds.
    #[must_use]
    pub fn new(key: Key, ends_in: Option<Duration>) -> Self {
        Self { key, ends_in, by: Holder::Other }
    }

    /// The same key, held so.
    #[must_use]
    pub fn held_by(self, by: Holder) -> Self {
        Self { by, ..self }
    }
}

/// Who holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// The token that was asked for.
    Ours,
    /// Another token.
    Other,
    /// The claim of another process: a lock there, or a key that it keeps between two of its locks
    /// ([`ClaimReuse`]). One of which the store can tell that it is a lock is [`Other`](Self::Other).
    Claim,
    /// Another kind of client, which keeps another kind of value there.
    OtherKind,
    /// One or more tokens, shared or by permits. [`Store::holders`](super::Store::holders) lists them.
    Sharing,
}

/// One of those who hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HoldInfo {
    /// Whether it is the token that was asked for.
    pub by: Holder,
    /// How it holds the key.
    pub mode: Mode,
    /// How long the store will keep it; `None` if it has no end.
    pub ends_in: Option<Duration>,
    /// The fence of its grant, if it is known.
    pub fence: Option<u64>,
}

impl HoldInfo {
    /// One of those who hold a key.
    #[must_use]
    pub const fn new(by: Holder, mode: Mode, ends_in: Option<Duration>, fence: Option<u64>) -> Self {
        Self { by, mode, ends_in, fence }
    }

    /// The only holder of a key that is held exclusively; nobody if it is free.
    #[must_use]
    pub fn alone(state: KeyState) -> Vec<Self> {
        match state {
            KeyState::Held { by, ends_in, fence } => vec![Self::new(by, Mode::Exclusive, ends_in, fence)],
            KeyState::Free => Vec::new(),
        }
    }
}

/// Whether a store answers, and what is wrong with its set-up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// How long the other side took to answer just now.
    pub answer: Result<Duration, StoreError>,
    /// What is wrong with its set-up.
    pub warnings: Vec<Warning>,
    /// Each server that it asked, if it knows them by name.
    pub nodes: Vec<NodeHealth>,
    /// For how long it has answered, or not answered, whenever it was asked; the manager that asks it sets this.
    pub unchanged_for: Option<Duration>,
}

impl Health {
    /// A health report.
    #[must_use]
    pub fn new(answer: Result<Duration, StoreError>, warnings: Vec<Warning>) -> Self {
        Self { answer, warnings, nodes: Vec::new(), unchanged_for: None }
    }

    /// The same with its nodes.
    #[must_use]
    pub fn with_nodes(self, nodes: Vec<NodeHealth>) -> Self {
        Self { nodes, ..self }
    }
}

/// Whether one server of a store answers, and how it has voted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeHealth {
    /// Its host and port; of a master behind Sentinels, what they call it.
    pub name: Arc<str>,
    /// How long it took to answer just now; [`StoreError::Quarantined`] if it did, and does not vote.
    pub answer: Result<Duration, StoreError>,
    /// How it has answered this process's requests for keys since the store was made.
    pub votes: Votes,
    /// For how long it has answered, been in quarantine or not answered, whenever it was asked; the manager that asks it sets
    /// this.
    pub unchanged_for: Option<Duration>,
}

impl NodeHealth {
    /// A health report of one node.
    #[must_use]
    pub fn new(name: Arc<str>, answer: Result<Duration, StoreError>, votes: Votes) -> Self {
        Self { name, answer, votes, unchanged_for: None }
    }
}

/// What one node of a store has of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeVote {
    /// Its host and port.
    pub node: Arc<str>,
    /// Whom it votes for.
    pub vote: Vote,
}

impl NodeVote {
    /// What one node has.
    #[must_use]
    pub fn new(node: Arc<str>, vote: Vote) -> Self {
        Self { node, vote }
    }
}

named! {
    /// Which holder of a key a node of a store votes for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub enum Vote {
        /// The holder of the key.
        Holder = "holder",
        /// Another one, who has no majority; or another kind of client.
        Other = "other",
        /// Nobody.
        Free = "free",
        /// It may have forgotten locks, and does not count when the key is asked for; it may have been given this one back.
        Quarantined = "quarantined",
        /// It did not answer in time, or may not vote.
        Unknown = "unknown",
    }
}

/// How often a node has given each vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Votes {
    /// It gave the key.
    pub granted: u64,
    /// The fence that was proposed was too low.
    pub refused: u64,
    /// Another holds the key.
    pub denied: u64,
    /// It was in quarantine.
    pub abstained: u64,
    /// It did not answer.
    pub unknown: u64,
}

/// Something in the set-up of a store that endangers locks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A full server would evict held locks. Set `maxmemory-policy` to `noeviction` (R22).
    #[error("maxmemory-policy is `{policy}`: a full server evicts held locks; set it to `noeviction`")]
    Eviction {
        /// The policy that is set.
        policy: String,
    },
    /// A server refuses us, and will until an operator changes something: the password, the rights, the version. Reported
    /// about once a minute while it lasts.
    #[error("{server} refuses us: {why}")]
    Refused {
        /// Its host and port, or what Sentinels call it.
        server: String,
        /// The cause.
        why: StoreError,
    },
    /// The user has no rights to channels: releases by other processes are seen by polling, within a second, and
    /// holders learn late of a forced release. Grant `&leasehold:*` (or the prefix that is set), and `+@pubsub`.
    #[error("no rights to channels, so releases are seen by polling: {why}")]
    NoChannels {
        /// The cause.
        why: StoreError,
    },
    /// A server that is started anew after a crash may have forgotten the last grants. Set `synchronous_commit` to `on`
    /// for the user of the locks, and `fsync` for the server (PostgreSQL).
    #[error("{setting}: a crash of the server forgets the last grants; set it to `on`")]
    Volatile {
        /// What is set, and to what.
        setting: String,
    },
    /// No message of other processes comes, so that releases are seen by polling, and holders learn late of a forced
    /// release. Let the store listen past the proxy, or not at all (PostgreSQL).
    #[error("messages of other processes do not come, so releases are seen by polling: {why}")]
    Unheard {
        /// The cause.
        why: StoreError,
    },
}

impl Warning {
    /// All names.
    pub const NAMES: [&'static str; 5] = ["eviction", "refused", "no_channels", "volatile", "unheard"];

    /// One lower-case word, the same in every interface.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Eviction { .. } => Self::NAMES[0],
            Self::Refused { .. } => Self::NAMES[1],
            Self::NoChannels { .. } => Self::NAMES[2],
            Self::Volatile { .. } => Self::NAMES[3],
            Self::Unheard { .. } => Self::NAMES[4],
        }
    }
}

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The shortest TTL that it keeps; shorter ones are refused with [`StoreError::InvalidTtl`].
    pub min_ttl: Duration,
    /// The longest; longer ones are refused too.
    pub max_ttl: Duration,
    /// How long a call takes at most (S12).
    pub operation_timeout: Duration,
    /// Whether its grants carry fences.
    pub fences: Fences,
    /// What becomes of a key whose holder ran out of time.
    pub on_expiry: OnExpiry,
    /// Whether it keeps queues between processes.
    pub fairness: Fairness,
    /// Whether it reports what happens to keys.
    pub hints: Hints,
    /// Whether one call ends a grant and tries for the next ([`Store::exchange`](super::Store::exchange)).
    pub exchange: Exchange,
    /// How a key goes on in a process whose holder has released it. A store that sets this gives fences by a clock in
    /// microseconds, keeps the last fence of a [released claim](super::Store::release_claim), and sends
    /// [`Event::Wanted`](super::Event::Wanted).
    pub claim_reuse: ClaimReuse,
    /// What the tokens of this process's claims begin with (their first 48 bits), for other processes to find it.
    pub claim_tag: u64,
    /// How keys can be held.
    pub modes: Modes,
    /// Why it keeps exclusive locks alone, if it does: half a sentence for those who are refused another mode.
    pub why_exclusive: Option<&'static str>,
    /// How many bytes a value that a release leaves may have (S19). 0: it keeps none.
    pub max_value: usize,
    /// Whether processes can tell each other something through it ([`Store::put_up`](super::Store::put_up)): deadlocks
    /// through several of them are found only where they can.
    pub posts: Posts,
    /// Whether it keeps what a grant was acquired with for the process that comes next (S20).
    pub keeps_notes: bool,
}

impl Capabilities {
    /// What a store can do that does everything for exclusive locks, keeps TTLs from 10 ms and wants expired keys released.
    #[must_use]
    pub const fn new(operation_timeout: Duration) -> Self {
        let min_ttl = Duration::from_millis(10);
        let (fences, on_expiry) = (Fences::Rising, OnExpiry::Release);
        Self {
            min_ttl,
            max_ttl: Ttl::MAX,
            operation_timeout,
            fences,
            on_expiry,
            fairness: Fairness::Queue,
            hints: Hints::Given,
            exchange: Exchange::TwoCalls,
            claim_reuse: ClaimReuse::Off,
            claim_tag: 0,
            modes: Modes::Exclusive,
            why_exclusive: None,
            max_value: 0,
            posts: Posts::None,
            keeps_notes: false,
        }
    }
}

/// Whether a store's grants carry fences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fences {
    /// Each grant of a key has a higher one than the last (S8).
    Rising,
    /// There are none.
    None,
}

/// How a store ends a grant and tries for the next one of the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// In one step.
    OneCall,
    /// By a release and an acquire. They are made side by side, so that the first to be answered waits for no other.
    TwoCalls,
}

/// What the caller does with a key whose holder ran out of local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpiry {
    /// It releases it (R4).
    Release,
    /// It leaves it alone: the store blocks the key for a while, so that a stale holder can stop (R27).
    Leave,
}

/// Whether processes take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fairness {
    /// In the order in which they began to wait (S9).
    Queue,
    /// The first that tries after a release is granted.
    None,
}

/// Whether a store reports what happens to keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// It does (S10, S11).
    Given,
    /// Its watches and events never yield anything.
    None,
}
