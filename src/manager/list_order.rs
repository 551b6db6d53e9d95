//! In which order a list of locks comes, so that a short list can be of those that matter most.

use std::cmp::{Ordering, Reverse};

use super::info::LockInfo;
use crate::key::Key;
use crate::table::Candidate;

named! {
    /// What [`list_by`](crate::LockManager::list_by) orders locks by. Equals come in the order of their keys.
    ///
    /// Times are as of when each shard was looked at: two that are closer together than that took may be turned round.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    #[non_exhaustive]
    pub enum ListOrder {
        /// Keys, ascending, by their bytes.
        #[default]
        Key = "key",
        /// Keys, descending.
        KeyDescending = "-key",
        /// Names of holders, ascending; those without come last.
        Owner = "owner",
        /// Names of holders, descending; those without come first.
        OwnerDescending = "-owner",
        /// The longest held first.
        LongestHeld = "age",
        /// The latest grant first.
        LatestHeld = "-age",
        /// The earliest deadline first.
        EndsFirst = "remaining",
        /// The latest deadline first.
        EndsLast = "-remaining",
        /// The longest queue first.
        MostWaiting = "waiting",
        /// The shortest queue first.
        FewestWaiting = "-waiting",
        /// The one who has waited the longest first; locks that nobody waits for come last.
        LongestWait = "wait",
    }
}

impl ListOrder {
    /// Which of two locks comes first.
    #[must_use]
    pub fn compare(self, a: &LockInfo, b: &LockInfo) -> Ordering {
        self.compare_candidates(&candidate(a), &candidate(b))
    }

    pub(crate) fn compare_candidates(self, a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
        // `None` comes last so.
        let by_owner =
            |a: &Candidate<'_>, b: &Candidate<'_>| (a.owner.is_none(), a.owner).cmp(&(b.owner.is_none(), b.owner));
        let first = match self {
            Self::Key => Ordering::Equal,
            Self::KeyDescending => b.key.cmp(a.key),
            Self::Owner => by_owner(a, b),
            Self::OwnerDescending => by_owner(b, a),
            Self::LongestHeld => b.age.cmp(&a.age),
            Self::LatestHeld => a.age.cmp(&b.age),
            Self::EndsFirst => a.remaining.cmp(&b.remaining),
            Self::EndsLast => b.remaining.cmp(&a.remaining),
            Self::MostWaiting => b.waiting.cmp(&a.waiting),
            Self::FewestWaiting => a.waiting.cmp(&b.waiting),
            Self::LongestWait => Reverse(a.longest_wait).cmp(&Reverse(b.longest_wait)),
        };
        first.then_with(|| a.key.cmp(b.key))
    }

    /// Whether a key comes behind this one in an order by key.
    pub(crate) fn is_behind(self, key: &Key, other: &Key) -> bool {
        if self == Self::KeyDescending { key < other } else { key > other }
    }
}

/// A lock, as far as its place in a list goes.
pub(crate) fn candidate(info: &LockInfo) -> Candidate<'_> {
    Candidate {
        key: &info.key,
        owner: info.owner.as_deref(),
        age: info.age,
        remaining: info.remaining,
        waiting: info.waiting,
        longest_wait: info.longest_wait,
    }
}

/// A lock with the order that it is to be put into.
pub(crate) struct Ranked(pub(crate) LockInfo, pub(crate) ListOrder);

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Ranked {}
impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.1.compare(&self.0, &other.0)
    }
}
