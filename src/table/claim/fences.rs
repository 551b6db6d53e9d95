//! The fences of the locks under one claim (K2, R13): the store makes the first, this process those that follow.

use std::time::Duration;

use crate::clock::Moment;
use crate::key::FencingToken;

/// How far the fences of this process may run ahead of the store's clock, in its microseconds. A forced release raises
/// the store's fence by as much.
pub(super) const LEAD: u64 = 10_000;
/// The fences that a claim makes for the locks under it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fences {
    /// The store gives none.
    None,
    /// The store gave one, and does not say what others may follow it.
    One,
    Rising {
        last: u64,
        /// What the store's clock showed at the latest when it granted the claim, in its microseconds, and when that
        /// was known here.
        clock: u64,
        at: Moment,
    },
}

/// What the store says with its yes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoreGrant {
    pub(crate) fence: Option<FencingToken>,
    /// Its clock in microseconds.
    pub(crate) clock: Option<u64>,
}

/// No fence can be made now that every later one of the store would be above.
pub(super) struct RanAhead;

impl Fences {
    pub(super) fn after(grant: StoreGrant, now: Moment) -> Self {
        match (grant.fence, grant.clock) {
            (None, _) => Self::None,
            (Some(_), None) => Self::One,
            (Some(fence), Some(clock)) => Self::Rising { last: fence.get(), clock, at: now },
        }
    }

    /// `left`: for how long the store keeps the claim yet. When it has run out, the store's clock is above the fence.
    pub(super) fn next(&mut self, now: Moment, left: Duration) -> Result<Option<FencingToken>, RanAhead> {
        match self {
            Self::None => Ok(None),
            Self::One => Err(RanAhead),
            Self::Rising { last, clock, at } => {
                // The store's clock by this process's, were it slower by a hundredth.
                let clock = clock.saturating_add(now.nanos_since(*at) / 1_000 * 99 / 100);
                let fence = clock.max(last.saturating_add(1));
                let left = u64::try_from(left.as_micros()).unwrap_or(u64::MAX) / 100 * 99;
                if fence > clock.saturating_add(left.min(LEAD)) {
                    return Err(RanAhead);
                }
                *last = fence;
                Ok(Some(FencingToken::at_least_one(fence)))
            }
        }
    }
}
