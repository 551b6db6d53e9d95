//! A grant that its waiter may take without the shard's mutex.
//!
//! Whoever passes a key on has the mutex, and writes here what the next holder needs. The woken task takes it from here by
//! one exchange. The table learns that later: for it the grant is an unseen one until [`State::settle`] is called, which is
//! done before anything but the lane looks at the table. An offer that nobody has taken by then is called back, and its
//! waiter has to ask the table (T3).
//!
//! | `to`                  | the offer                                              | next          |
//! |-----------------------|--------------------------------------------------------|---------------|
//! | a waiter's number     | stands; the table has it as `offered`                  | `NOBODY`      |
//! | `NOBODY`              | was taken, if the table still has it as `offered`; else there is none | a number |
//!
//! Numbers of waiters are not used twice in a shard, so that an exchange which succeeds has read what belongs to it.

#[cfg(all(test, feature = "test-util"))]
mod tests;

use super::{Shard, State};
use crate::clock::Moment;
use crate::key::FencingToken;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::table::{Grant, Offered, WaiterId};

/// No waiter has this number.
const NOBODY: u64 = 0;

/// The last grant of a shard that was made to a waiter of the lane.
#[derive(Debug, Default)]
pub(super) struct Offer {
    to: AtomicU64,
    slot: AtomicU64,
    fence: AtomicU64,
    deadline: AtomicU64,
}

impl Offer {
    /// Offers a grant; the mutex is held, and the last offer is settled.
    #[inline]
    fn make(&self, offered: &Offered) {
        // Release, each: who reads one of these reads also that the last offer is gone, and fails to take that.
        self.slot.store(u64::from(offered.slot), Ordering::Release);
        self.fence.store(offered.fence.get(), Ordering::Release);
        self.deadline.store(offered.deadline.as_nanos(), Ordering::Release);
        self.to.store(offered.to.seq, Ordering::Release);
    }

    /// Takes what is offered to this waiter, unless its deadline has passed: the table says then that it is lost.
    #[inline]
    fn take(&self, to: WaiterId, now: impl FnOnce() -> Moment) -> Option<Grant> {
        if self.to.load(Ordering::Acquire) != to.seq {
            return None;
        }
        let slot = self.slot.load(Ordering::Acquire) as u32;
        let fence = FencingToken::at_least_one(self.fence.load(Ordering::Acquire));
        let is_over = self.deadline.load(Ordering::Acquire) <= now().as_nanos();
        (!is_over && self.remove(to)).then_some(Grant { slot, fence, proof: Some(fence) })
    }

    /// Ends an offer; `false` if it has been taken, or called back, before.
    fn remove(&self, to: WaiterId) -> bool {
        self.to.compare_exchange(to.seq, NOBODY, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether an offer that was made, and not settled since, has been taken.
    #[inline]
    fn is_taken(&self) -> bool {
        self.to.load(Ordering::Acquire) == NOBODY
    }
}

impl Shard {
    /// Takes what a waiter is offered, for its guard. `None` leaves it to [`see_waiter`](Shard::see_waiter).
    #[inline]
    pub(crate) fn take_offered(&self, to: WaiterId) -> Option<Grant> {
        // What has a short TTL is not offered, so that the coarse clock will do (C2).
        self.offer.take(to, || self.clock.coarse())
    }
}

impl State {
    /// Offers a grant that was just made; the mutex is held until the caller has noted down all else.
    #[inline]
    pub(super) fn offer(&mut self, offer: &Offer, offered: Option<&Offered>) {
        if let Some(offered) = offered {
            offer.make(offered);
            self.offered = Some((offered.to, offered.slot));
        }
    }

    /// Has the table know whether the last offer was taken. From then on it cannot be any more.
    #[inline]
    pub(super) fn settle(&mut self, offer: &Offer) {
        if let Some((to, slot)) = self.offered.take()
            && (offer.is_taken() || !offer.remove(to))
        {
            self.table.note_seen(to, slot);
        }
    }
}
