//! [`ClaimReuse`]: what a process may do with a key that it has let go itself.

use std::time::Duration;

/// What a process may do with a key of the store between two of its own holders.
///
/// A process that takes a key from the store has a *claim* on it. Mostly the claim ends with the lock that it was taken
/// for. Reused, it outlives that: the next lock of the same process on the same key costs nothing in the store.
///
/// | | the key goes to the next waiter of this process | it is kept when nobody of this process waits |
/// |---|---|---|
/// | [`Off`](Self::Off) | through the store | no |
/// | [`HandOff`](Self::HandOff) | at once | no |
/// | [`Linger`](Self::Linger) | at once | for a while |
///
/// Another process of this kind that wants the key asks for it, and gets it after [32 locks or 10 ms](Self::WANTED) at
/// most; at once if nobody holds it. A client of another kind only tries again and again: for its sake a claim that was
/// reused for `max_time` is given up, and those who come next in this process hold back for an eighth of the time
/// that the claim lasted.
///
/// Off unless it is set, because a lock's own token is then not what the store keeps: another process cannot release,
/// refresh or look up a lock by a token that this one made. Tokens that a client chose, and locks of sessions, never
/// reuse a claim, and are in the store under their own tokens as ever.
///
/// The `unlock` of a lock whose claim goes on asks nobody: that somebody has deleted the key meanwhile shows when the claim
/// is given up, extended or verified.
///
/// The same goes for shares ([`LockManager::read`](crate::LockManager::read)): where this is set, those who come while
/// their process holds a share of the key already hold it under that one, with its fencing token, for up to two seconds
/// after it was granted, and only while no other process is known to wait for the key alone. It ends with the last of
/// them.
///
/// Other processes tell a key that is only kept from a lock where its time left says so
/// ([`Location::Claimed`](crate::Location::Claimed)); else they say of both that there is a claim.
///
/// Where a key may be kept, a lock by a guard is at first valid for three seconds, and extended to its TTL when it has been
/// held for a moment: so long the key of a process that is killed, or frozen, stays taken. A claim is good for a million
/// locks a second, since fences are microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ClaimReuse {
    /// Every lock goes through the store.
    #[default]
    Off,
    /// A key goes from a lock to the next waiter of the same process without the store.
    HandOff {
        /// So often at most.
        max_count: u32,
        /// For so long at most since the store granted it.
        max_time: Duration,
    },
    /// The same as often as it takes; and a key that nobody wants is kept.
    Linger {
        /// So long at most after its last lock.
        idle: Duration,
        /// For so long at most since the store granted it.
        max_time: Duration,
    },
}

impl ClaimReuse {
    /// How often, and for how long, a key may still be handed on in its process once another process asks for it.
    pub const WANTED: (u32, Duration) = (32, Duration::from_millis(10));

    /// Hand-off with the usual bounds: 1,000 times, within 20 ms.
    #[must_use]
    pub const fn hand_off() -> Self {
        Self::HandOff { max_count: 1_000, max_time: Duration::from_millis(20) }
    }

    /// Lingering with the usual bounds: 250 ms after the last lock, a second in all.
    #[must_use]
    pub const fn linger() -> Self {
        Self::Linger { idle: Duration::from_millis(250), max_time: Duration::from_secs(1) }
    }

    /// Since when it was granted a claim may not be reused any more.
    pub(crate) const fn max_time(self) -> Duration {
        match self {
            Self::Off => Duration::ZERO,
            Self::HandOff { max_time, .. } | Self::Linger { max_time, .. } => max_time,
        }
    }

    /// How often it may be.
    pub(crate) const fn max_count(self) -> u32 {
        match self {
            Self::Off => 0,
            Self::HandOff { max_count, .. } => max_count,
            Self::Linger { .. } => u32::MAX,
        }
    }
}

/// How long a claim that may be kept idle is taken for, by a lock of its own process.
pub(crate) const IDLE_LIFE: Duration = Duration::from_secs(3);
/// A claim that would keep the key for longer, were its process killed, is not kept idle: one for a client, who is told
/// the whole TTL at once.
const LONGEST_IDLE_LIFE: Duration = Duration::from_mins(1);

/// Whether a claim may be kept while nobody holds its key, and with how much time left in the store at most. Its token
/// says so to other processes, which cannot tell more without asking its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeptIdle {
    /// Somebody holds the key for as long as it is in the store, but for the moment of a hand-off.
    Never,
    /// With [`IDLE_LIFE`] at most.
    Briefly,
    /// With [`LONGEST_IDLE_LIFE`] at most.
    Longer,
}

impl KeptIdle {
    /// What a claim may be that is asked for with this TTL. `is_for_client`: its lock is told the whole of it at once.
    pub(crate) fn of(reuse: ClaimReuse, ttl: Duration, is_for_client: bool) -> Self {
        match reuse {
            ClaimReuse::Linger { .. } if !is_for_client => Self::Briefly,
            ClaimReuse::Linger { .. } if ttl <= LONGEST_IDLE_LIFE => Self::Longer,
            _ => Self::Never,
        }
    }

    /// Whether a claim that has so much time left may be idle; `None`: it has no end.
    pub(crate) fn allows(self, left: Option<Duration>) -> bool {
        let longest = match self {
            Self::Never => return false,
            Self::Briefly => IDLE_LIFE,
            Self::Longer => LONGEST_IDLE_LIFE,
        };
        left.is_some_and(|left| left <= longest)
    }

    /// The digit that stands for it in a token.
    pub(crate) const fn digit(self) -> u8 {
        match self {
            Self::Never => 0,
            Self::Briefly => 1,
            Self::Longer => 2,
        }
    }

    /// What a digit stands for; of one that it does not know, the least that can be said.
    #[cfg(any(test, feature = "redis"))]
    pub(crate) const fn of_digit(digit: u8) -> Self {
        match digit {
            0 => Self::Never,
            1 => Self::Briefly,
            _ => Self::Longer,
        }
    }
}
