//! One claim on a key in the store, and how long it outlives the lock that it was taken for: [`KeptClaim`].
//!
//! Cluster lock managers have kept locks beyond their use for decades, and asked for them back: VMS (Kronenberg, Levy,
//! Strecker, "VAXclusters", 1986), GFS2. Here a claim is never extended or shortened for the sake of being kept. Where it
//! may be kept idle, it is taken for three seconds ([`LIFE`]), and extended to the TTL of its lock only if that is held for
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
//! | K2 | The fences under a claim rise from lock to lock, and every later claim's is above them: they are no higher than the store's clock by [`LEAD`], nor than it will be when the claim has run out; the last one is told to the store with the release, and a forced release raises the store's by more than the lead. A key that runs out does so by the same clock. |
//! | K3 | Only the release by a holder hands a claim on or keeps it: after a loss by time, by force, by a session's end it is given up. A claim under a token that a client chose never is. |
//! | K4 | Another process that asks gets the key after 32 locks or 10 ms at most, and at once if nobody holds it. |
//! | K5 | A claim that was reused for its whole time is followed by a pause, in which no waiter of this process asks the store: a client that only polls can get the key. |

use std::time::Duration;

use super::reuse::Told;
use crate::claim_reuse::ClaimReuse;
use crate::clock::Moment;
use crate::key::{FencingToken, Token, Ttl};

/// How far the fences of this process may run ahead of the store's clock, in its microseconds. A forced release raises
/// the store's fence by as much.
pub(super) const LEAD: u64 = 10_000;
/// How long a claim that may be kept idle is taken for.
pub(super) const LIFE: Duration = Duration::from_secs(3);
/// How long a claim must have left for a lock of this process's own.
pub(super) const SOON: Duration = Duration::from_secs(1);
/// A claim that would keep the key for longer, were this process killed, is not kept idle: one for a client, who is told
/// the whole TTL at once.
const LONGEST_IDLE_LIFE: Duration = Duration::from_mins(1);
/// The pause after a claim that was reused for its whole time is that time divided by this.
const PAUSE_SHARE: u32 = 8;

#[derive(Debug)]
pub(crate) struct KeptClaim {
    pub(super) token: Token,
    state: ClaimState,
    /// Until when the store keeps the key, as far as is known.
    deadline: Moment,
    granted_at: Moment,
    /// Whether it was extended for a lock.
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

/// The fences that a claim makes for the locks under it.
#[derive(Clone, Copy, Debug)]
enum Fences {
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
    pub(super) fn new(token: Token) -> Self {
        Self {
            token,
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
            (ClaimEvent::Extended { deadline }, _) => {
                (self.deadline, self.is_extended) = (self.deadline.max(deadline), true);
            }
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
        !self.is_extended && left <= LONGEST_IDLE_LIFE
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

/// No fence can be made now that every later one of the store would be above.
struct RanAhead;

impl Fences {
    fn after(grant: StoreGrant, now: Moment) -> Self {
        match (grant.fence, grant.clock) {
            (None, _) => Self::None,
            (Some(_), None) => Self::One,
            (Some(fence), Some(clock)) => Self::Rising { last: fence.get(), clock, at: now },
        }
    }

    /// `left`: for how long the store keeps the claim yet. When it has run out, the store's clock is above the fence.
    fn next(&mut self, now: Moment, left: Duration) -> Result<Option<FencingToken>, RanAhead> {
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

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: ClaimReuse = ClaimReuse::linger();
    const HAND_OFF: ClaimReuse = ClaimReuse::hand_off();
    const CLOCK: u64 = 1 << 50;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(millis: u64) -> Moment {
        Moment::ZERO.saturating_add(ms(1_000 + millis))
    }

    fn reuses(ttl: u64) -> Next {
        Next::reusing(Ttl::new(ms(ttl)).unwrap(), true)
    }

    fn acquiring() -> KeptClaim {
        KeptClaim::new(Token::from(uuid::Uuid::from_u128(7)))
    }

    /// Granted by the store at the moment 0, for a second, with this fence.
    fn granted(mut claim: KeptClaim, fence: u64) -> KeptClaim {
        let grant = StoreGrant { fence: Some(FencingToken::at_least_one(fence)), clock: Some(CLOCK) };
        let step = claim.step(ClaimEvent::Granted { grant, deadline: at(1_000) }, LINGER, at(0));
        assert_eq!(step, ClaimStep::Stay);
        claim
    }

    fn held() -> KeptClaim {
        granted(acquiring(), CLOCK)
    }

    fn wanted() -> KeptClaim {
        let mut claim = held();
        assert_eq!(claim.step(ClaimEvent::Wanted, LINGER, at(0)), ClaimStep::Stay);
        claim
    }

    fn idle() -> KeptClaim {
        let mut claim = held();
        let kept = claim.step(ClaimEvent::Released { next: Next::Nobody }, LINGER, at(100));
        assert_eq!(kept, ClaimStep::Keep { until: at(350) });
        claim
    }

    #[track_caller]
    fn hands_on(claim: &mut KeptClaim, reuse: ClaimReuse, now: Moment) -> u64 {
        match claim.step(ClaimEvent::Released { next: reuses(100) }, reuse, now) {
            ClaimStep::Grant { fence: Some(fence), deadline } if deadline == claim.deadline => fence.get(),
            other => panic!("it is handed on: {other:?}"),
        }
    }

    #[track_caller]
    fn gives_up(claim: &mut KeptClaim, next: Next, now: Moment) {
        assert_eq!(claim.step(ClaimEvent::Released { next }, LINGER, now), ClaimStep::AT_ONCE);
    }

    #[test]
    fn acquiring_it_is_remembered_that_another_process_asks() {
        let mut claim = acquiring();
        assert_eq!(claim.step(ClaimEvent::Wanted, LINGER, at(0)), ClaimStep::Stay);
        gives_up(&mut granted(claim, CLOCK), Next::Nobody, at(1));
    }

    #[test]
    fn acquiring_a_doubt_is_remembered_also_if_another_process_asks() {
        for events in [[ClaimEvent::Doubted, ClaimEvent::Wanted], [ClaimEvent::Wanted, ClaimEvent::Doubted]] {
            let mut claim = acquiring();
            for event in events {
                assert_eq!(claim.step(event, LINGER, at(0)), ClaimStep::Stay);
            }
            gives_up(&mut granted(claim, CLOCK), reuses(100), at(1));
        }
    }

    #[test]
    fn held_it_is_handed_on_to_one_who_may_have_it() {
        let mut claim = held();
        let fences: Vec<u64> = (0..3).map(|n| hands_on(&mut claim, HAND_OFF, at(n))).collect();
        assert!(fences[0] > CLOCK && fences.is_sorted_by(|one, next| one < next), "K2: {fences:?}");
        assert_eq!(claim.last_fence().map(FencingToken::get), fences.last().copied());
    }

    #[test]
    fn held_it_is_given_up_before_one_who_may_not_have_it() {
        gives_up(&mut held(), Next::Asks, at(1));
    }

    #[test]
    fn held_it_is_idle_if_nobody_wants_it_and_it_may_linger() {
        assert_eq!(idle().idle_until(), Some(at(350)));
        let mut claim = held();
        assert_eq!(claim.step(ClaimEvent::Released { next: Next::Nobody }, HAND_OFF, at(1)), ClaimStep::AT_ONCE);
    }

    #[test]
    fn held_it_is_not_idle_for_longer_than_it_is_kept_or_may_be_reused() {
        for (reuse, until) in [
            (ClaimReuse::Linger { idle: ms(5_000), max_time: ms(5_000) }, at(1_000)),
            (ClaimReuse::Linger { idle: ms(5_000), max_time: ms(300) }, at(300)),
        ] {
            let step = held().step(ClaimEvent::Released { next: Next::Nobody }, reuse, at(100));
            assert_eq!(step, ClaimStep::Keep { until });
        }
        let mut claim = held();
        claim.step(ClaimEvent::Extended { deadline: at(90_000) }, LINGER, at(1));
        gives_up(&mut claim, Next::Nobody, at(2));
    }

    #[test]
    fn held_it_is_given_up_if_less_than_half_of_the_next_ttl_is_left() {
        let mut claim = held();
        gives_up(&mut claim, reuses(2_000), at(1));
        claim.step(ClaimEvent::Extended { deadline: at(1_001) }, LINGER, at(1));
        claim.step(ClaimEvent::Extended { deadline: at(500) }, LINGER, at(1));
        let step = claim.step(ClaimEvent::Released { next: reuses(2_000) }, LINGER, at(1));
        assert!(matches!(step, ClaimStep::Grant { deadline, .. } if deadline == at(1_001)), "{step:?}");
    }

    #[test]
    fn held_it_is_handed_on_to_a_guard_while_a_second_is_left() {
        let next = Next::reusing(Ttl::new(ms(30_000)).unwrap(), false);
        let mut claim = held();
        claim.deadline = at(1_500);
        let step = claim.step(ClaimEvent::Released { next }, LINGER, at(500));
        assert!(matches!(step, ClaimStep::Grant { deadline, .. } if deadline == at(1_500)), "{step:?}");
        gives_up(&mut claim, next, at(501));
    }

    #[test]
    fn held_it_is_given_up_with_a_pause_when_its_time_or_its_count_is_spent() {
        let once = ClaimReuse::HandOff { max_count: 1, max_time: ms(80) };
        let mut claim = held();
        hands_on(&mut claim, once, at(40));
        let step = claim.step(ClaimEvent::Released { next: reuses(100) }, once, at(48));
        assert_eq!(step, ClaimStep::GiveUp { pause: ms(6) });
        let step = claim.step(ClaimEvent::Released { next: reuses(100) }, once, at(800));
        assert_eq!(step, ClaimStep::GiveUp { pause: ms(10) });
        // One that was never reused kept nobody away.
        let step = held().step(ClaimEvent::Released { next: Next::Nobody }, LINGER, at(1_000));
        assert_eq!(step, ClaimStep::AT_ONCE);
    }

    #[test]
    fn wanted_it_is_handed_on_so_often_and_for_so_long() {
        let (left, time) = ClaimReuse::WANTED;
        let mut claim = wanted();
        for _ in 0..left {
            hands_on(&mut claim, LINGER, at(1));
        }
        gives_up(&mut claim, reuses(100), at(1));
        let mut claim = wanted();
        // Asking again gives no more.
        claim.step(ClaimEvent::Wanted, LINGER, at(5));
        gives_up(&mut claim, reuses(100), at(0).saturating_add(time));
        gives_up(&mut wanted(), Next::Nobody, at(1));
    }

    #[test]
    fn in_doubt_it_is_given_up_whoever_is_next() {
        for mut claim in [held(), wanted()] {
            assert_eq!(claim.step(ClaimEvent::Doubted, LINGER, at(1)), ClaimStep::Stay);
            claim.step(ClaimEvent::Wanted, LINGER, at(1));
            claim.step(ClaimEvent::Extended { deadline: at(2_000) }, LINGER, at(1));
            for next in [reuses(100), Next::Asks, Next::Nobody] {
                gives_up(&mut claim, next, at(1));
            }
        }
    }

    #[test]
    fn idle_it_is_held_again_by_one_who_asks() {
        let mut claim = idle();
        let step = claim.step(ClaimEvent::Asked { next: reuses(100) }, LINGER, at(200));
        assert!(matches!(step, ClaimStep::Grant { fence: Some(_), .. }), "{step:?}");
        assert_eq!(claim.idle_until(), None);
        hands_on(&mut claim, LINGER, at(201));
    }

    #[test]
    fn idle_it_is_given_up_at_once_if_another_process_asks_or_it_is_in_doubt() {
        for event in [ClaimEvent::Wanted, ClaimEvent::Doubted, ClaimEvent::Asked { next: Next::Asks }] {
            assert_eq!(idle().step(event, LINGER, at(200)), ClaimStep::AT_ONCE);
        }
    }

    #[test]
    fn no_fence_is_further_ahead_than_the_store_allows_or_will_be_when_the_claim_has_run_out() {
        for (fence, now, is_handed_on) in [
            (CLOCK + LEAD - 1, at(0), true),
            (CLOCK + LEAD, at(0), false),
            (CLOCK + LEAD, at(1), true),
            // It ends at 1000, when the store's clock shows 990,000 more at the least.
            (CLOCK + 989_999, at(994), true),
            (CLOCK + 990_000, at(994), false),
        ] {
            let mut claim = granted(acquiring(), fence);
            let step = claim.step(ClaimEvent::Released { next: reuses(10) }, ClaimReuse::linger(), now);
            let is_granted = matches!(step, ClaimStep::Grant { .. });
            assert_eq!(is_granted, is_handed_on, "{} at {now:?}", fence - CLOCK);
        }
    }

    #[test]
    fn without_the_clock_of_the_store_no_fence_follows_and_without_fences_none_is_needed() {
        for (fence, is_handed_on) in [(None, true), (Some(FencingToken::at_least_one(CLOCK)), false)] {
            let mut claim = acquiring();
            let grant = StoreGrant { fence, clock: None };
            claim.step(ClaimEvent::Granted { grant, deadline: at(1_000) }, LINGER, at(0));
            let step = claim.step(ClaimEvent::Released { next: reuses(10) }, LINGER, at(1));
            assert_eq!(matches!(step, ClaimStep::Grant { fence: None, .. }), is_handed_on, "{step:?}");
            assert_eq!(claim.last_fence(), None);
        }
    }
}
