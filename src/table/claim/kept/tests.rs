//! One test for each cell of the table of states that a step fills, and the bounds of what a step answers.

use super::super::fences::LEAD;
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
    KeptClaim::new(7, KeptIdle::Longer, 0)
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
}

#[test]
fn held_it_is_not_idle_once_the_store_was_asked_to_extend_it() {
    for answers in [true, false] {
        let mut claim = held();
        claim.step(ClaimEvent::Extending, LINGER, at(1));
        if answers {
            claim.step(ClaimEvent::Extended { deadline: at(2_000) }, LINGER, at(1));
        }
        gives_up(&mut claim, Next::Nobody, at(2));
    }
}

#[test]
fn held_it_is_not_idle_with_more_time_left_than_its_token_says() {
    for (kept_idle, longest) in [(KeptIdle::Briefly, 3_000), (KeptIdle::Longer, 60_000)] {
        for (left, is_kept) in [(longest, true), (longest + 1, false)] {
            let mut claim = granted(KeptClaim::new(7, kept_idle, 0), CLOCK);
            claim.deadline = at(100 + left);
            let step = claim.step(ClaimEvent::Released { next: Next::Nobody }, LINGER, at(100));
            assert_eq!(matches!(step, ClaimStep::Keep { .. }), is_kept, "{kept_idle:?} with {left} ms: {step:?}");
        }
    }
    gives_up(&mut granted(KeptClaim::new(7, KeptIdle::Never, 0), CLOCK), Next::Nobody, at(1));
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
