//! Tests of the lane of shares: what it takes, what it leaves to the full functions, and that what it made is found there.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::error::LockError;
use crate::key::Ttl;

const GUARD: GrantState = GrantState::Guard(TokenOrigin::Minted);
const MEMBERS: usize = 40;

fn at(secs: u64) -> Moment {
    Moment::from_nanos(secs * 1_000_000_000)
}

fn table() -> Table {
    Table::new(Limits { keys: 2, members: MEMBERS, waiters: 10, waiters_per_key: 10 }, Claim::Local, 1, at(1))
}

fn key() -> Key {
    Key::try_from("k").unwrap()
}

fn ask<R>(ttl_secs: u64, token: Option<Token>, does: impl FnOnce(&AcquireRequest<'_>) -> R) -> R {
    let terms = Terms { ttl: Ttl::new(Duration::from_secs(ttl_secs)).unwrap(), extra: None };
    let origin = token.map_or(TokenOrigin::Minted, |_| TokenOrigin::ByClient);
    let grant_state = GrantState::Guard(origin);
    does(&AcquireRequest { key: &key(), hash: 7, terms: &terms, token, origin, grant_state })
}

/// Asks the lane for a share of the one key.
fn share(table: &mut Table, ttl_secs: u64) -> Option<Grant> {
    let now = table.now;
    let granted = ask(ttl_secs, None, |request| table.grant_share(request, now));
    table.assert_invariants();
    granted
}

/// Asks for the key the full way.
fn acquire(table: &mut Table, mode: Mode, token: Option<Token>) -> AcquireOutcome {
    let now = table.now;
    let outcome = ask(10, token, |request| {
        let extra = Some(Arc::new(ExtraTerms { mode, ..ExtraTerms::default() }));
        let terms = Terms { extra, ..request.terms.clone() };
        let request = AcquireRequest { terms: &terms, grant_state: GrantState::Ticket, ..*request };
        table.acquire(&request, WaitPolicy::Until(Moment::FAR, Some(Waker::noop())), now, &mut Effects::new())
    });
    table.assert_invariants();
    outcome
}

fn release(table: &mut Table, grant: &Grant) -> Option<Release> {
    let released = table.release_share(grant, End::Released, table.now);
    table.assert_invariants();
    released
}

#[test]
fn shares_come_and_go_in_any_order_and_the_last_takes_the_key_along() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut table = table();
    let mut held = Vec::new();
    for _ in 0..3_000 {
        if held.is_empty() || (held.len() <= MEMBERS && random.bool()) {
            held.push(share(&mut table, random.u64(5..50)).expect("there is room"));
        } else {
            let grant = held.swap_remove(random.usize(..held.len()));
            assert_eq!(release(&mut table, &grant), Some(Release::Released));
            assert_eq!(release(&mut table, &grant), None, "it is over");
        }
        assert_eq!(table.held(), held.len());
    }
    let tokens: Vec<Token> = held.iter().map(|grant| table.tell_token(grant, 1)).collect();
    table.assert_invariants();
    for (grant, token) in held.iter().zip(tokens) {
        let key_slot = table.key_slot(grant.slot);
        assert_eq!(table.holder_with(key_slot, token), Some(grant.slot), "it is found by its token");
        assert_eq!(release(&mut table, grant), None, "which others know now");
    }
}

#[test]
fn a_share_is_one_more_holder_for_the_bound_but_the_first_is_not() {
    let mut table = table();
    let shares: Vec<Grant> = (0..=MEMBERS).map(|_| share(&mut table, 10).unwrap()).collect();
    assert_eq!(share(&mut table, 10), None);
    // The place of the first is free then, and takes one.
    assert!(release(&mut table, &shares[0]).is_some());
    assert!(share(&mut table, 10).is_some());
    assert_eq!(share(&mut table, 10), None);
}

#[test]
fn nobody_passes_one_who_waits_and_what_is_released_then_goes_the_full_way() {
    let mut table = table();
    let (first, second) = (share(&mut table, 10).unwrap(), share(&mut table, 10).unwrap());
    let AcquireOutcome::Queued(writer) = acquire(&mut table, Mode::Exclusive, None) else { panic!("it is shared") };
    assert_eq!(share(&mut table, 10), None);
    for grant in [first, second] {
        assert_eq!(release(&mut table, &grant), None);
        assert_eq!(table.release(&grant, End::Released, table.now, &mut Effects::new()), Release::Released);
    }
    let seen = table.poll_waiter(writer, GUARD, Waker::noop(), table.now, &mut Effects::new());
    assert!(matches!(seen, WaiterPoll::Granted(_)), "{seen:?}");
    assert_eq!(share(&mut table, 10), None, "it is one's alone");
}

#[test]
fn a_share_past_its_deadline_is_ended_before_one_more_is_granted_and_is_nobodys_to_release() {
    let mut table = table();
    // The first of the key, and a member.
    for (ttl, other) in [(2, 30), (30, 2)] {
        let (one, _other) = (share(&mut table, ttl).unwrap(), share(&mut table, other).unwrap());
        table.advance_clock(table.now.saturating_add(Duration::from_secs(2)));
        assert_eq!(share(&mut table, 30), None);
        let over = if ttl == 2 { one } else { _other };
        assert_eq!(release(&mut table, &over), None);
        let before = table.counters().expired;
        let third = acquire(&mut table, Mode::Shared, None);
        assert!(matches!(third, AcquireOutcome::Granted(_)), "{third:?}");
        assert_eq!((table.counters().expired, table.held()), (before + 1, 2));
        assert!(share(&mut table, 30).is_some(), "and the lane goes on");
        table.advance_clock(table.now.saturating_add(Duration::from_secs(60)));
        while table.tick(table.now, 1, &mut Effects::new()) == Slice::More {}
        assert_eq!(table.held(), 0);
        table.assert_invariants();
    }
}

#[test]
fn the_next_tick_files_what_the_lane_let_in() {
    let mut table = table();
    let grants: Vec<Grant> = (0..5).map(|_| share(&mut table, 3).unwrap()).collect();
    assert_eq!(table.next_due(), Some(table.now));
    while table.tick(table.now, 1, &mut Effects::new()) == Slice::More {}
    assert_eq!(table.next_due().map(|due| due <= at(4)), Some(true));
    assert!(release(&mut table, &grants[2]).is_some());
    while table.tick(at(5), 1, &mut Effects::new()) == Slice::More {}
    assert_eq!((table.held(), table.counters().expired), (0, 4));
}

#[test]
fn who_asks_again_by_the_token_of_a_share_is_asked_for_the_same_terms() {
    let mut table = table();
    for _ in 0..2 {
        let grant = share(&mut table, 10).unwrap();
        table.set_grant_state(&grant, GrantState::Ticket);
        let token = Some(table.tell_token(&grant, 1));
        let alone = acquire(&mut table, Mode::Exclusive, token);
        assert_eq!(alone, AcquireOutcome::Refused(LockError::TokenReused));
        assert_eq!(acquire(&mut table, Mode::Shared, token), AcquireOutcome::Granted(grant));
    }
}

#[test]
fn what_was_watched_refreshed_by_order_or_upgraded_goes_the_full_way() {
    struct Deaf;
    impl Watcher for Deaf {
        fn ended(&self, _: End) {}
        fn revocation_notice(&self, _: Moment) {}
    }
    let changes: [fn(&mut Table, &Grant, &mut Effects); 4] = [
        |table, grant, fx| drop(table.watch(grant, || Arc::new(Deaf), table.now, fx).unwrap()),
        |table, grant, fx| assert!(table.keep_refreshed(grant, table.now, fx).is_ok()),
        |table, grant, fx| table.cap_hold(grant, Duration::from_secs(20), table.now, fx).unwrap(),
        |table, grant, _| table.remember_end(grant),
    ];
    for change in changes {
        let mut table = table();
        let shares = [share(&mut table, 10).unwrap(), share(&mut table, 10).unwrap()];
        for grant in &shares {
            change(&mut table, grant, &mut Effects::new());
            table.assert_invariants();
            assert_eq!(release(&mut table, grant), None);
        }
    }
    let mut table = table();
    let only = share(&mut table, 10).unwrap();
    let alone = table.upgrade(&only, None, table.now, &mut Effects::new());
    assert!(matches!(alone, UpgradeOutcome::Alone(_)), "{alone:?}");
    assert_eq!(share(&mut table, 10), None);
    assert_eq!(release(&mut table, &only), None);
    assert_eq!(table.downgrade(&only, table.now, &mut Effects::new()), Ok(Downgrade::Done));
    assert!(share(&mut table, 10).is_some());
    assert_eq!(release(&mut table, &only), None, "its proof is not its fence");
}
