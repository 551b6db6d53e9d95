//! One claim on a key in the store, and how long it outlives the lock that it was taken for: [`KeptClaim`].
//!
//! Cluster lock managers have kept locks beyond their use for decades, and asked for them back: VMS (Kronenberg, Levy,
//! Strecker, "VAXclusters", 1986), GFS2. Here a claim is never extended or shortened for the sake of being kept. Where it
//! may be kept idle, it is taken for three seconds ([`IDLE_LIFE`]), and extended to the TTL of its lock only if that is held for
//! longer than a moment; then it is kept no more. So there is no order between extends and shortenings to get wrong, an
//! idle process costs the store nothing, and one that is killed while it keeps a key has it for three seconds at most.
//!
//! | state | in the store | a lock ends | another of this process asks | another process asks | in doubt, forced | its time is over |
//! |---|---|---|---|---|---|---|
//! | (none) | not ours | - | it is taken: `Acquiring` | - | - | - |
//! | `Acquiring` | perhaps | - | it queues | remembered: `Wanted` follows | remembered: `Closing` follows | - |
//! | `Held` | ours | handed on, or `Idle`, or given up | it queues | `Wanted` | `Closing` | the lock is lost |
//! | `Wanted` | ours | handed on a few times more, else given up | it queues | - | `Closing` | the lock is lost |
//! | `Closing` | perhaps not ours any more | given up | it queues | - | - | the lock is lost |
//! | `Idle` | ours | - | `Held` | given up | given up | given up |
//!
//! Given up is released in the store, for which nobody waits: an answer that does not come is the store's to settle
//! (S7), and the next claim has another token. Lost is what ran out ([`deadline`](KeptClaim::deadline)), and what ended
//! in any way but by its holder's release: nothing is handed on then.
//!
//! | rule | what holds |
//! |---|---|
//! | K1 | No lock outlives its claim (R19). One is granted under a claim only if that has half of the lock's TTL left; or, for a lock of this process's own, a second ([`SOON`]), in which it is extended. |
//! | K2 | The fences under a claim rise from lock to lock, and every later claim's is above them: they are no higher than the store's clock by `LEAD` (`fences`), nor than it will be when the claim has run out; the last one is told to the store with the release, and a forced release raises the store's by more than the lead. A key that runs out does so by the same clock. |
//! | K3 | Only the release by a holder hands a claim on or keeps it: after a loss by time, by force, by a session's end it is given up. A claim under a token that a client chose never is. |
//! | K4 | Another process that asks gets the key after 32 locks or 10 ms at most, and at once if nobody holds it. |
//! | K5 | A claim that was reused for its whole time is followed by a pause, in which no waiter of this process asks the store: a client that only polls can get the key. |
//! | K6 | Once the store may have forgotten all that it keeps, no lock is granted under a claim that it was asked for before, also while the table is looked through in slices. |
//! | K7 | A share of a key carries other requests of this process for shares (`carriers`) for two seconds after the store granted it at most, not once another process is known to wait for the key, and never beyond its own end. Who rides on it shows its fence. It is released when the last of them has ended; if the store does not keep it any more, all of them have lost the key. |

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::fences::{Fences, RanAhead, StoreGrant};
use super::reuse::Told;
use crate::claim_reuse::{ClaimReuse, KeptIdle};
use crate::clock::Moment;
use crate::key::{FencingToken, Token, Ttl};

/// How long a claim must have left for a lock of this process's own.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// The pause after a claim that was reused for its whole time is that time divided by this.
const PAUSE_SHARE: u32 = 8;

#[derive(Debug)]
pub(crate) struct KeptClaim {
    pub(super) token: Token,
    /// The table's `claims_epoch` when the store was asked for it (K6).
    pub(super) epoch: u32,
    kept_idle: KeptIdle,
    state: ClaimState,
    /// Until when the store keeps the key, as far as is known.
    deadline: Moment,
    granted_at: Moment,
    /// Whether the store was asked to extend it for a lock.
    is_extended: bool,
    /// The fence that the store gave it.
    given: Option<FencingToken>,
    /// How many locks it was handed on to.
    reused: u32,
    fences: Fences,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClaimState {
    /// The store is asked for it. What was told meanwhile may be newer than its answer.
    Acquiring { told: Option<Told> },
    /// A lock holds the key under it.
    Held,
    /// The same, and another process asks for the key: it is handed on so often at most, and until then.
    Wanted { left: u32, until: Moment },
    /// A lock holds the key under it, and is the last.
    Closing,
    /// Nobody holds the key. It is given up at that time.
    Idle { until: Moment },
}

/// Who gets the key after a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    Nobody,
    /// One who may have it under this claim, if the claim has so much left.
    Reuses(Duration),
    /// One who may not: its token is a client's, or its lock a session's.
    Asks,
}

/// What happens to a claim.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClaimEvent {
    /// The store has granted it until `deadline`.
    Granted { grant: StoreGrant, deadline: Moment },
    /// The store is asked to extend it for its lock, and may do so without an answer.
    Extending,
    /// It was extended for its lock.
    Extended { deadline: Moment },
    /// Another process asks for the key.
    Wanted,
    /// The store may not keep it any more.
    Doubted,
    /// The lock under it was released by its holder.
    Released { next: Next },
    /// It is idle, and somebody of this process asks for the key.
    Asked { next: Next },
}

/// What is to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ClaimStep {
    /// Nothing.
    Stay,
    /// The key is granted under it, with this fence, until its deadline at most.
    Grant { fence: Option<FencingToken>, deadline: Moment },
    /// It is kept until then.
    Keep { until: Moment },
    /// It is released in the store. Nobody of this process asks for the key before the pause is over.
    GiveUp { pause: Duration },
}

impl KeptClaim {
    /// A claim that the store is asked for.
    pub(super) fn new(tag: u64, kept_idle: KeptIdle, epoch: u32) -> Self {
        Self {
            token: Token::of_claim(tag, kept_idle.digit()),
            epoch,
            kept_idle,
            state: ClaimState::Acquiring { told: None },
            deadline: Moment::ZERO,
            granted_at: Moment::ZERO,
            is_extended: false,
            given: None,
            reused: 0,
            fences: Fences::None,
        }
    }

    /// The one place where its state changes.
    pub(super) fn step(&mut self, event: ClaimEvent, reuse: ClaimReuse, now: Moment) -> ClaimStep {
        match (event, self.state) {
            (ClaimEvent::Granted { grant, deadline }, ClaimState::Acquiring { told }) => {
                (self.deadline, self.granted_at) = (deadline, now);
                (self.given, self.fences) = (grant.fence, Fences::after(grant, now));
                self.state = match told {
                    None => ClaimState::Held,
                    Some(Told::Wanted) => ClaimState::wanted(now),
                    Some(Told::Doubted) => ClaimState::Closing,
                };
            }
            (ClaimEvent::Extending, _) => self.is_extended = true,
            (ClaimEvent::Extended { deadline }, _) => self.deadline = self.deadline.max(deadline),
            (ClaimEvent::Wanted, ClaimState::Acquiring { told: None }) => self.acquiring(Told::Wanted),
            (ClaimEvent::Doubted, ClaimState::Acquiring { .. }) => self.acquiring(Told::Doubted),
            (ClaimEvent::Wanted, ClaimState::Held) => self.state = ClaimState::wanted(now),
            (ClaimEvent::Doubted, ClaimState::Held | ClaimState::Wanted { .. }) => self.state = ClaimState::Closing,
            (ClaimEvent::Wanted | ClaimEvent::Doubted, ClaimState::Idle { .. }) => return ClaimStep::AT_ONCE,
            (ClaimEvent::Released { next }, ClaimState::Held) => return self.pass_on(next, reuse, now),
            (ClaimEvent::Released { next }, ClaimState::Wanted { left, until }) => {
                if next == Next::Nobody || left == 0 || now >= until {
                    return ClaimStep::AT_ONCE;
                }
                self.state = ClaimState::Wanted { left: left - 1, until };
                return self.pass_on(next, reuse, now);
            }
            (ClaimEvent::Asked { next }, ClaimState::Idle { .. }) => {
                self.state = ClaimState::Held;
                return self.pass_on(next, reuse, now);
            }
            (ClaimEvent::Released { .. } | ClaimEvent::Asked { .. }, _) => return ClaimStep::AT_ONCE,
            (ClaimEvent::Granted { .. } | ClaimEvent::Wanted | ClaimEvent::Doubted, _) => {}
        }
        ClaimStep::Stay
    }

    fn acquiring(&mut self, told: Told) {
        self.state = ClaimState::Acquiring { told: Some(told) };
    }

    /// Grants the key to the next one, keeps it, or gives it up.
    fn pass_on(&mut self, next: Next, reuse: ClaimReuse, now: Moment) -> ClaimStep {
        if self.is_spent(reuse, now) {
            return ClaimStep::GiveUp { pause: self.pause(reuse, now) };
        }
        let left = self.deadline.saturating_since(now);
        match (next, reuse) {
            (Next::Reuses(least), _) if left >= least => match self.fences.next(now, left) {
                Ok(fence) => {
                    self.reused += 1;
                    ClaimStep::Grant { fence, deadline: self.deadline }
                }
                Err(RanAhead) => ClaimStep::AT_ONCE,
            },
            (Next::Nobody, ClaimReuse::Linger { idle, max_time }) if self.may_idle(left) => {
                let until = now.saturating_add(idle).min(self.granted_at.saturating_add(max_time)).min(self.deadline);
                self.state = ClaimState::Idle { until };
                ClaimStep::Keep { until }
            }
            _ => ClaimStep::AT_ONCE,
        }
    }

    fn may_idle(&self, left: Duration) -> bool {
        !self.is_extended && self.kept_idle.allows(Some(left))
    }

    fn is_spent(&self, reuse: ClaimReuse, now: Moment) -> bool {
        now.saturating_since(self.granted_at) >= reuse.max_time() || self.reused >= reuse.max_count()
    }

    /// For how long nobody of this process asks for the key, were it given up now (K5).
    pub(super) fn pause(&self, reuse: ClaimReuse, now: Moment) -> Duration {
        if self.reused > 0 && self.is_spent(reuse, now) {
            now.saturating_since(self.granted_at).min(reuse.max_time()) / PAUSE_SHARE
        } else {
            Duration::ZERO
        }
    }

    /// Until when it is kept without a lock.
    pub(super) fn idle_until(&self) -> Option<Moment> {
        match self.state {
            ClaimState::Idle { until } => Some(until),
            _ => None,
        }
    }

    /// The fence that the store knows it by.
    pub(super) fn given_fence(&self) -> Option<FencingToken> {
        self.given
    }

    /// The last fence that was made here, which the store does not know.
    pub(super) fn last_fence(&self) -> Option<FencingToken> {
        match self.fences {
            Fences::Rising { last, .. } if self.reused > 0 => Some(FencingToken::at_least_one(last)),
            _ => None,
        }
    }
}

impl Next {
    /// One who may reuse a claim. `is_ticket`: a client is told the deadline of its lock at once.
    pub(super) fn reusing(ttl: Ttl, is_ticket: bool) -> Self {
        let half = ttl.as_duration() / 2;
        Self::Reuses(if is_ticket { half } else { half.min(SOON) })
    }
}

impl ClaimStep {
    const AT_ONCE: Self = Self::GiveUp { pause: Duration::ZERO };
}

impl ClaimState {
    fn wanted(now: Moment) -> Self {
        let (left, time) = ClaimReuse::WANTED;
        Self::Wanted { left, until: now.saturating_add(time) }
    }
}
