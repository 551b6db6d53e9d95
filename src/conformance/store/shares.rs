//! What a store promises that keeps keys in every mode (S15 to S17), as checks.

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use super::{Stores, acquire, acquire_free, denied, fresh, ttl, wait};
use crate::conformance::{LONG, until};
use crate::key::{Key, Token};
use crate::mode::Mode;
use crate::store::{
    AcquireRequest, Acquired, Denial, Extended, Fairness, Fences, Forced, Holder, KeyState, OnHeld, Released, Store,
    StoreError,
};

/// All of these checks.
pub(super) fn check(stores: &Stores) {
    for check in [
        shared_holders_hold_a_key_together_and_keep_others_out,
        the_same_token_shares_a_key_once,
        a_share_has_an_end_of_its_own,
        a_share_is_extended_and_released_by_its_token_alone,
        a_share_whose_future_was_dropped_is_taken_back,
        permits_are_never_more_than_there_are,
        every_share_has_a_higher_fence,
        a_shared_request_waits_behind_an_exclusive_one,
        shared_requests_next_to_each_other_are_granted_together,
        a_big_request_for_permits_is_not_passed_by_small_ones,
        a_lock_is_downgraded_in_one_step,
        a_scan_tells_what_is_shared,
        a_forced_release_ends_every_share_and_one_of_a_grant_ends_that,
        every_share_is_listed,
    ] {
        check(stores);
    }
}

fn permits(permits: u32, limit: u32) -> Mode {
    Mode::Permits { limit, permits }
}

fn share(store: &dyn Store, key: &Key, token: Token, mode: Mode, lasting: Duration, on_held: OnHeld) -> Acquired {
    wait(store.acquire(AcquireRequest { key, token, ttl: ttl(lasting), on_held, mode, note: &[] }))
}

/// Tries for long, without a place in the queue.
fn try_share(store: &dyn Store, key: &Key, token: Token, mode: Mode) -> Acquired {
    share(store, key, token, mode, LONG, OnHeld::Fail)
}

/// Takes a share that must be there; answers its fence.
#[track_caller]
fn take(store: &dyn Store, key: &Key, token: Token, mode: Mode) -> Option<u64> {
    match try_share(store, key, token, mode) {
        Acquired::Granted { fence, .. } => fence,
        answer => panic!("S15: {mode} of {key:?} can be had, and the answer was {answer:?}"),
    }
}

#[track_caller]
fn release(store: &dyn Store, key: &Key, token: Token) {
    assert_eq!(wait(store.release(key, token)), Released::Released, "S7");
}

fn is_granted(answer: &Acquired) -> bool {
    matches!(answer, Acquired::Granted { .. })
}

/// S15: any number shares a key, nobody has it for itself meanwhile; and whoever has it for itself shares it with nobody.
pub fn shared_holders_hold_a_key_together_and_keep_others_out(stores: &Stores) {
    let (key, tokens, alone) = (fresh(), [(); 5].map(|()| Token::random()), Token::random());
    for (turn, token) in tokens.iter().enumerate() {
        take(if turn % 2 == 0 { &*stores.one } else { &*stores.other }, &key, *token, Mode::Shared);
    }
    for store in [&stores.one, &stores.other] {
        assert_eq!(denied(&acquire(&**store, &key, alone, LONG, OnHeld::Fail)), Denial::Held, "S15");
        let refused = denied(&try_share(&**store, &key, alone, permits(1, 9)));
        assert!(matches!(refused, Denial::OtherMode | Denial::Held), "S15: {refused:?}");
    }
    for (turn, token) in tokens.iter().enumerate() {
        assert_eq!(denied(&acquire(&*stores.one, &key, alone, LONG, OnHeld::Fail)), Denial::Held, "S15");
        // Not the process that took it.
        release(if turn % 2 == 0 { &*stores.other } else { &*stores.one }, &key, *token);
    }
    assert_eq!(wait(stores.one.look(&key, None)), Ok(KeyState::Free));
    acquire_free(&*stores.one, &key, alone);
    assert_eq!(denied(&try_share(&*stores.other, &key, tokens[0], Mode::Shared)), Denial::Held, "S15");
    assert_eq!(denied(&try_share(&*stores.other, &key, tokens[0], permits(1, 2))), Denial::Held, "S15");
    release(&*stores.one, &key, alone);
}

/// S3, S15: a token that shares a key is granted again, with the same fence, and counts once.
pub fn the_same_token_shares_a_key_once(stores: &Stores) {
    let (key, [token, other]) = (fresh(), [(); 2].map(|()| Token::random()));
    for mode in [Mode::Shared, permits(2, 3)] {
        let fence = take(&*stores.one, &key, token, mode);
        let again = share(&*stores.other, &key, token, mode, LONG * 2, OnHeld::Fail);
        let Acquired::Granted { fence: same, valid_for, .. } = again else { panic!("S3: {again:?}") };
        assert_eq!(same, fence, "S3");
        assert!(valid_for <= LONG, "S3: {valid_for:?} is more than is left");
        if mode != Mode::Shared {
            take(&*stores.one, &key, other, permits(1, 3));
            release(&*stores.one, &key, other);
        }
        release(&*stores.one, &key, token);
        assert_eq!(wait(stores.one.release(&key, token)), Released::AlreadyGone, "S7");
        assert_eq!(wait(stores.one.look(&key, None)), Ok(KeyState::Free), "S15: it counted twice");
    }
}

/// S2, S15: a share runs out by itself, also beside one that goes on; and the last one keeps the key for no longer than it
/// lasts itself.
pub fn a_share_has_an_end_of_its_own(stores: &Stores) {
    let (key, [short, long, next]) = (fresh(), [(); 3].map(|()| Token::random()));
    let mut lasting = stores.one.capabilities().min_ttl.max(Duration::from_millis(50));
    until("S2: a grant in time", || {
        // On a loaded machine the answer may take longer than the TTL.
        lasting *= 2;
        is_granted(&share(&*stores.one, &key, short, permits(1, 2), lasting, OnHeld::Fail))
    });
    take(&*stores.other, &key, long, permits(1, 2));
    until("S15: the permit of one that ran out is free", || {
        is_granted(&try_share(&*stores.other, &key, next, permits(1, 2)))
    });
    assert_eq!(wait(stores.one.extend(&key, short, ttl(LONG))), Extended::Lost, "S6");
    assert_eq!(wait(stores.one.release(&key, short)), Released::AlreadyGone, "S7");
    release(&*stores.other, &key, next);
    until("S2: a grant in time", || {
        is_granted(&share(&*stores.one, &key, short, permits(1, 2), lasting, OnHeld::Fail))
    });
    release(&*stores.other, &key, long);
    until("S15: the key is free when the last share has run out", || {
        is_granted(&acquire(&*stores.one, &key, next, LONG, OnHeld::Fail))
    });
    release(&*stores.one, &key, next);
}

/// S6, S7, S15: what is done with one share is done to no other.
pub fn a_share_is_extended_and_released_by_its_token_alone(stores: &Stores) {
    let (key, [token, other]) = (fresh(), [(); 2].map(|()| Token::random()));
    take(&*stores.one, &key, token, Mode::Shared);
    take(&*stores.other, &key, other, Mode::Shared);
    let left = |token| match wait(stores.one.look(&key, Some(token))) {
        Ok(KeyState::Held { by: Holder::Ours, ends_in: Some(left), .. }) => left,
        seen => panic!("S15: it is shared, and seen as {seen:?}"),
    };
    let Extended::Extended { valid_for } = wait(stores.other.extend(&key, token, ttl(LONG * 2))) else {
        panic!("S6: it shares the key, and could not extend");
    };
    assert!(valid_for > LONG && left(token) > LONG && left(other) <= LONG, "S6");
    assert!(matches!(wait(stores.one.extend(&key, token, ttl(LONG / 2))), Extended::Extended { .. }));
    assert!(left(token) > LONG, "S6: it shortened");
    assert!(matches!(wait(stores.one.confirm(&key, other)), Extended::Extended { .. } | Extended::Unknown(_)));
    assert_eq!(wait(stores.one.extend(&key, Token::random(), ttl(LONG))), Extended::Lost, "S6");
    assert_eq!(wait(stores.one.release(&key, Token::random())), Released::AlreadyGone, "S7");
    release(&*stores.other, &key, token);
    assert_eq!(wait(stores.one.extend(&key, token, ttl(LONG))), Extended::Lost, "S6: it revived");
    assert_eq!(wait(stores.one.look(&key, Some(token))).map(holder), Ok(Some(Holder::Sharing)));
    left(other);
    release(&*stores.one, &key, other);
}

fn holder(state: KeyState) -> Option<Holder> {
    match state {
        KeyState::Held { by, .. } => Some(by),
        KeyState::Free => None,
    }
}

/// S5: however far it got before it was dropped, nothing of it stays.
pub fn a_share_whose_future_was_dropped_is_taken_back(stores: &Stores) {
    for polls in 0..4 {
        let (key, [token, next]) = (fresh(), [(); 2].map(|()| Token::random()));
        let mode = permits(2, 2);
        let is_answered = {
            let request = AcquireRequest { key: &key, token, ttl: ttl(LONG), on_held: OnHeld::Fail, mode, note: &[] };
            let mut future = pin!(stores.one.acquire(request));
            let mut context = Context::from_waker(Waker::noop());
            (0..polls).any(|_| future.as_mut().poll(&mut context).is_ready())
        };
        if is_answered {
            release(&*stores.one, &key, token);
        }
        until("S5: the permits come free", || is_granted(&try_share(&*stores.other, &key, next, mode)));
        assert!(is_granted(&try_share(&*stores.other, &key, next, mode)), "S5: the clean-up hit a later holder");
        release(&*stores.other, &key, next);
    }
}

/// S15: permits are counted across processes; a key has one limit at a time.
pub fn permits_are_never_more_than_there_are(stores: &Stores) {
    let (key, [one, two, three]) = (fresh(), [(); 3].map(|()| Token::random()));
    let too_many = try_share(&*stores.one, &key, one, permits(4, 3));
    assert!(matches!(too_many, Acquired::Unknown(StoreError::Config(_))), "S15: {too_many:?}");
    take(&*stores.one, &key, one, permits(2, 3));
    assert_eq!(denied(&try_share(&*stores.other, &key, two, permits(2, 3))), Denial::Held, "S15");
    take(&*stores.other, &key, two, permits(1, 3));
    assert_eq!(denied(&try_share(&*stores.one, &key, three, permits(1, 3))), Denial::Held, "S15");
    for mode in [permits(1, 4), Mode::Shared] {
        assert_eq!(denied(&try_share(&*stores.one, &key, three, mode)), Denial::OtherMode, "S15: {mode}");
    }
    assert!(!is_granted(&acquire(&*stores.one, &key, three, LONG, OnHeld::Fail)), "S15");
    release(&*stores.one, &key, one);
    take(&*stores.one, &key, three, permits(2, 3));
    release(&*stores.other, &key, two);
    release(&*stores.other, &key, three);
    // Nobody holds it: another limit will do.
    take(&*stores.other, &key, one, permits(5, 5));
    release(&*stores.other, &key, one);
}

/// S8, S15: the fences of all who hold a key rise, whatever their modes.
pub fn every_share_has_a_higher_fence(stores: &Stores) {
    if stores.one.capabilities().fences == Fences::None {
        return;
    }
    let (key, mut last) = (fresh(), 0);
    let mut rises = |fence: Option<u64>| {
        let fence = fence.expect("S8: its terms promise fences");
        assert!(fence > last, "S8: {fence} after {last}");
        last = fence;
    };
    for _ in 0..3 {
        let tokens = [(); 3].map(|()| Token::random());
        rises(acquire_free(&*stores.one, &key, tokens[0]));
        release(&*stores.one, &key, tokens[0]);
        for (token, store) in tokens.iter().zip([&stores.one, &stores.other, &stores.one]) {
            rises(take(&**store, &key, *token, Mode::Shared));
        }
        for token in tokens {
            release(&*stores.other, &key, token);
        }
    }
}

/// S16: once somebody waits to have the key for itself, who comes later to share it waits too.
pub fn a_shared_request_waits_behind_an_exclusive_one(stores: &Stores) {
    if stores.one.capabilities().fairness == Fairness::None {
        return;
    }
    let (key, [reader, writer, late]) = (fresh(), [(); 3].map(|()| Token::random()));
    take(&*stores.one, &key, reader, Mode::Shared);
    denied(&acquire(&*stores.other, &key, writer, LONG, OnHeld::Queue));
    let tried = try_share(&*stores.one, &key, late, Mode::Shared);
    assert_eq!(denied(&tried), Denial::Ahead, "S16: it passed who waits");
    denied(&share(&*stores.one, &key, late, Mode::Shared, LONG, OnHeld::Queue));
    release(&*stores.one, &key, reader);
    let tried = share(&*stores.one, &key, late, Mode::Shared, LONG, OnHeld::Queue);
    assert_eq!(denied(&tried), Denial::Ahead, "S16: not its turn");
    assert!(is_granted(&acquire(&*stores.other, &key, writer, LONG, OnHeld::Queue)), "S9");
    let tried = share(&*stores.one, &key, late, Mode::Shared, LONG, OnHeld::Queue);
    assert_eq!(denied(&tried), Denial::Held, "S15");
    release(&*stores.other, &key, writer);
    assert!(is_granted(&share(&*stores.one, &key, late, Mode::Shared, LONG, OnHeld::Queue)), "S16");
    // Who waited and left is not waited for.
    denied(&acquire(&*stores.other, &key, writer, LONG, OnHeld::Queue));
    stores.other.leave(&key);
    until("S16: the way is free", || is_granted(&try_share(&*stores.one, &key, reader, Mode::Shared)));
    release(&*stores.one, &key, late);
    release(&*stores.one, &key, reader);
}

/// S16: of those who wait to share a key none waits for another.
pub fn shared_requests_next_to_each_other_are_granted_together(stores: &Stores) {
    if stores.one.capabilities().fairness == Fairness::None {
        return;
    }
    let (key, [writer, first, second]) = (fresh(), [(); 3].map(|()| Token::random()));
    let asking = |store: &dyn Store, token| share(store, &key, token, Mode::Shared, LONG, OnHeld::Queue);
    acquire_free(&*stores.one, &key, writer);
    denied(&asking(&*stores.one, first));
    denied(&asking(&*stores.other, second));
    let turn = stores.other.turn(&key);
    release(&*stores.one, &key, writer);
    if let Some(mut turn) = turn {
        until("S16: it is called although it is the second", || {
            assert!(wait(turn.next()).is_some(), "S10: the store runs");
            is_granted(&asking(&*stores.other, second))
        });
    } else {
        until("S16: it need not wait for the first", || is_granted(&asking(&*stores.other, second)));
    }
    assert!(is_granted(&asking(&*stores.one, first)), "S16");
    release(&*stores.one, &key, first);
    release(&*stores.one, &key, second);
}

/// S16: who waits for many permits gets them, however many want one.
pub fn a_big_request_for_permits_is_not_passed_by_small_ones(stores: &Stores) {
    if stores.one.capabilities().fairness == Fairness::None {
        return;
    }
    let (key, [one, two, big, late]) = (fresh(), [(); 4].map(|()| Token::random()));
    take(&*stores.one, &key, one, permits(1, 3));
    take(&*stores.one, &key, two, permits(1, 3));
    let asking = || share(&*stores.other, &key, big, permits(3, 3), LONG, OnHeld::Queue);
    assert_eq!(denied(&asking()), Denial::Held, "S15");
    let tried = try_share(&*stores.one, &key, late, permits(1, 3));
    assert_eq!(denied(&tried), Denial::Ahead, "S16: it passed who waits");
    let mut turn = stores.other.turn(&key);
    release(&*stores.one, &key, one);
    assert!(!is_granted(&asking()), "S15");
    release(&*stores.one, &key, two);
    until("S16: the big one's turn", || {
        if let Some(turn) = &mut turn {
            assert!(wait(turn.next()).is_some(), "S10: the store runs");
        }
        is_granted(&asking())
    });
    assert_eq!(denied(&try_share(&*stores.one, &key, late, permits(1, 3))), Denial::Held, "S15");
    release(&*stores.other, &key, big);
}

/// S17: a lock becomes a shared one with all that it was.
pub fn a_lock_is_downgraded_in_one_step(stores: &Stores) {
    let (key, [token, other, alone]) = (fresh(), [(); 3].map(|()| Token::random()));
    assert_eq!(wait(stores.one.downgrade(&key, token)), Extended::Lost, "S17: nobody holds it");
    let fence = acquire_free(&*stores.one, &key, token);
    assert_eq!(wait(stores.other.downgrade(&key, other)), Extended::Lost, "S17: it is another's");
    for _ in 0..2 {
        let Extended::Extended { valid_for } = wait(stores.one.downgrade(&key, token)) else {
            panic!("S17: it holds the key, and could not downgrade");
        };
        assert!(valid_for <= LONG, "S17: its end moved");
    }
    let Ok(KeyState::Held { by: Holder::Ours, fence: same, .. }) = wait(stores.other.look(&key, Some(token))) else {
        panic!("S17: it is held by the same token");
    };
    assert!(same == fence || same.is_none(), "S17: {same:?} after {fence:?}");
    let fence_beside = take(&*stores.other, &key, other, Mode::Shared);
    assert!(fence_beside > fence || fence.is_none(), "S8");
    assert_eq!(denied(&acquire(&*stores.other, &key, alone, LONG, OnHeld::Fail)), Denial::Held, "S15");
    // The other process was not told that it is shared now.
    release(&*stores.other, &key, token);
    release(&*stores.one, &key, other);
    assert_eq!(wait(stores.one.look(&key, None)), Ok(KeyState::Free));
}

/// S14: a list says of a key that several share that they do, if the store can list its keys.
pub fn a_scan_tells_what_is_shared(stores: &Stores) {
    let prefix = format!("conformance:shared:{}:", Token::random());
    let key = Key::new(format!("{prefix}k")).expect("a good key");
    let tokens = [(); 2].map(|()| Token::random());
    for token in tokens {
        take(&*stores.other, &key, token, Mode::Shared);
    }
    let (mut found, mut cursor) = (None, None);
    while let Ok(Some(page)) = wait(stores.one.scan(&prefix, cursor.as_deref(), 20)) {
        found = found.or(page.locks.first().map(|lock| lock.by));
        cursor = page.next;
        if cursor.is_none() {
            assert_eq!(found, Some(Holder::Sharing), "S14: it is shared");
            break;
        }
    }
    tokens.into_iter().for_each(|token| release(&*stores.other, &key, token));
}

/// S11, S15: a forced release ends all who share a key; that of one grant ends that grant.
pub fn a_forced_release_ends_every_share_and_one_of_a_grant_ends_that(stores: &Stores) {
    let (key, [one, two, three]) = (fresh(), [(); 3].map(|()| Token::random()));
    take(&*stores.one, &key, one, Mode::Shared);
    let fence = take(&*stores.one, &key, two, Mode::Shared);
    take(&*stores.other, &key, three, Mode::Shared);
    if let Some(fence) = fence {
        assert_eq!(wait(stores.other.force_release_grant(&key, fence)), Forced::Released, "S11");
        assert_eq!(wait(stores.one.extend(&key, two, ttl(LONG))), Extended::Lost, "S11");
        assert_eq!(wait(stores.other.force_release_grant(&key, fence)), Forced::WasFree, "S11");
    }
    assert!(matches!(wait(stores.one.extend(&key, one, ttl(LONG))), Extended::Extended { .. }), "S11: another's ended");
    assert_eq!(wait(stores.one.force_release(&key)), Forced::Released, "S11");
    for token in [one, three] {
        assert_eq!(wait(stores.other.extend(&key, token, ttl(LONG))), Extended::Lost, "S11");
    }
    assert_eq!(wait(stores.one.look(&key, None)), Ok(KeyState::Free));
    let next = acquire_free(&*stores.one, &key, Token::random());
    assert!(next > fence || fence.is_none(), "S8");
    assert_eq!(wait(stores.one.force_release(&key)), Forced::Released);
}

/// S14, S15: all who share a key are listed, with their modes, fences and ends, and without their tokens.
pub fn every_share_is_listed(stores: &Stores) {
    let (key, [one, two]) = (fresh(), [(); 2].map(|()| Token::random()));
    let first = take(&*stores.one, &key, one, permits(2, 5));
    let second = share(&*stores.other, &key, two, permits(3, 5), LONG * 2, OnHeld::Fail);
    let Acquired::Granted { fence: second, .. } = second else { panic!("S15: {second:?}") };
    let holders = wait(stores.other.holders(&key, Some(two))).expect("the store answers");
    let seen: Vec<_> = holders.iter().map(|hold| (hold.by, hold.mode, hold.fence)).collect();
    assert_eq!(seen, [(Holder::Other, permits(2, 5), first), (Holder::Ours, permits(3, 5), second)]);
    assert!(holders.iter().all(|hold| hold.ends_in.is_some_and(|left| left <= LONG * 2)), "S2");
    let seen = wait(stores.one.look(&key, None)).map(holder);
    assert_eq!(seen, Ok(Some(Holder::Sharing)));
    release(&*stores.one, &key, one);
    release(&*stores.one, &key, two);
}

/// Who holds a key alone is its only holder.
pub fn every_holder_is_listed(stores: &Stores) {
    let (key, token) = (fresh(), Token::random());
    let holders = |token| wait(stores.other.holders(&key, token)).expect("the store answers");
    assert_eq!(holders(Some(token)), Vec::new());
    acquire_free(&*stores.one, &key, token);
    for (asked, by) in [(Some(token), Holder::Ours), (None, Holder::Other)] {
        let found: Vec<_> = holders(asked).iter().map(|hold| (hold.by, hold.mode)).collect();
        assert_eq!(found, [(by, Mode::Exclusive)]);
    }
    assert_eq!(wait(stores.one.release(&key, token)), Released::Released);
}
