//! Tests of the lane of ordinary waiters: what it leaves to the full functions, and what becomes of a slot that it leaves
//! filed as it was.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::error::{LockError, Loss};
use crate::key::Ttl;

const GUARD: GrantState = GrantState::Guard(TokenOrigin::Minted);

fn at(secs: u64) -> Moment {
    Moment::from_nanos(secs * 1_000_000_000)
}

fn table() -> Table {
    Table::new(Limits { keys: 10, members: 10, waiters: 10, waiters_per_key: 10 }, Claim::Local, 1, at(1))
}

/// Asks for the one key for so many seconds: the grant, or a place in the queue until then.
fn ask(table: &mut Table, ttl_secs: u64, until: Moment) -> Result<Grant, WaiterId> {
    let (key, ttl) = (Key::try_from("k").unwrap(), Ttl::new(Duration::from_secs(ttl_secs)).unwrap());
    let terms = Terms { ttl, extra: None };
    let origin = TokenOrigin::Minted;
    let request = AcquireRequest { key: &key, hash: 7, terms: &terms, token: None, origin, grant_state: GUARD };
    let now = table.now;
    let answer = table.grant_if_free(&request, now).map_err(|not_free| {
        let queued = table.queue_ordinary(not_free, &request, (now, until), Waker::noop());
        queued.expect("holder and request are ordinary").0
    });
    table.assert_invariants();
    answer
}

fn pass_on(table: &mut Table, grant: &Grant, now: Moment) -> Option<PassedOn> {
    let passed_on = table.pass_on(grant, End::Released, now, |_| false);
    table.assert_invariants();
    passed_on
}

fn tick(table: &mut Table, now: Moment) {
    while table.tick(now, 1, &mut Effects::new()) == Slice::More {}
    table.assert_invariants();
}

#[test]
fn a_holder_past_its_deadline_passes_nothing_on() {
    let mut table = table();
    let grant = ask(&mut table, 3, at(9)).unwrap();
    ask(&mut table, 3, at(9)).unwrap_err();
    assert!(pass_on(&mut table, &grant, at(4)).is_none());
    assert_eq!(table.release(&grant, End::Released, at(4), &mut Effects::new()), Release::AlreadyGone);
}

#[test]
fn a_stale_grant_passes_nothing_on() {
    let mut table = table();
    let grant = ask(&mut table, 3, at(9)).unwrap();
    ask(&mut table, 3, at(9)).unwrap_err();
    ask(&mut table, 3, at(9)).unwrap_err();
    assert!(pass_on(&mut table, &grant, at(2)).is_some());
    assert!(pass_on(&mut table, &grant, at(2)).is_none());
}

#[test]
fn a_wait_that_is_over_is_granted_nothing() {
    let mut table = table();
    let grant = ask(&mut table, 9, at(4)).unwrap();
    ask(&mut table, 9, at(4)).unwrap_err();
    assert!(pass_on(&mut table, &grant, at(4)).is_none());
}

#[test]
fn a_grant_past_its_deadline_is_seen_as_lost() {
    let mut table = table();
    let grant = ask(&mut table, 3, at(9)).unwrap();
    let waits = ask(&mut table, 3, at(9)).unwrap_err();
    assert!(table.see_grant(waits, GUARD, at(2)).is_none(), "it waits still");
    assert!(pass_on(&mut table, &grant, at(2)).is_some());
    assert!(table.see_grant(waits, GUARD, at(5)).is_none());
    let seen = table.poll_waiter(waits, GUARD, Waker::noop(), at(5), &mut Effects::new());
    assert_eq!(seen, WaiterPoll::Refused(LockError::Lost(Loss::Expired)));
}

#[test]
fn a_lock_that_somebody_watches_goes_the_full_way() {
    struct Deaf;
    impl Watcher for Deaf {
        fn ended(&self, _: End) {}
        fn revocation_notice(&self, _: Moment) {}
    }
    let mut table = table();
    let grant = ask(&mut table, 9, at(9)).unwrap();
    ask(&mut table, 9, at(9)).unwrap_err();
    table.watch(&grant, || Arc::new(Deaf) as Arc<dyn Watcher>, at(1), &mut Effects::new()).unwrap();
    assert!(pass_on(&mut table, &grant, at(2)).is_none());
}

#[test]
fn a_slot_left_under_its_earlier_deadline_ends_at_the_later_one() {
    let mut table = table();
    let first = ask(&mut table, 2, at(60)).unwrap();
    let second = ask(&mut table, 10, at(60)).unwrap_err();
    ask(&mut table, 10, at(60)).unwrap_err();
    assert!(pass_on(&mut table, &first, at(2)).is_some());
    let second = table.see_grant(second, GUARD, at(2)).unwrap();
    tick(&mut table, at(11));
    assert_eq!(table.deadline_of(&second), Some(at(12)), "the first one's deadline is nothing to it");
    tick(&mut table, at(12));
    assert_eq!((table.deadline_of(&second), table.waiting()), (None, 0));
}

#[test]
fn a_deadline_earlier_than_the_last_holders_is_not_missed() {
    let mut table = table();
    let first = ask(&mut table, 40, at(60)).unwrap();
    ask(&mut table, 3, at(60)).unwrap_err();
    ask(&mut table, 40, at(60)).unwrap_err();
    assert!(pass_on(&mut table, &first, at(2)).is_some());
    assert_eq!(table.next_due().map(|due| due <= at(5)), Some(true), "the actor wakes for it");
    tick(&mut table, at(5));
    assert_eq!((table.counters().expired, table.waiting()), (1, 0));
}

#[test]
fn a_wait_ends_in_time_whether_a_tick_has_filed_it_before_or_not() {
    for ticks in [&[4][..], &[2, 3, 4]] {
        let mut table = table();
        let _grant = ask(&mut table, 60, at(9)).unwrap();
        ask(&mut table, 60, at(4)).unwrap_err();
        for secs in ticks {
            assert_eq!((table.waiting(), table.counters().timed_out), (1, 0));
            tick(&mut table, at(*secs));
        }
        assert_eq!((table.waiting(), table.counters().timed_out), (0, 1), "{ticks:?}");
        assert!(table.next_due() > Some(at(4)), "nothing is left to be filed");
    }
}

#[test]
fn a_wait_that_a_tick_has_filed_is_taken_out_when_its_key_is_passed_on() {
    let mut table = table();
    let first = ask(&mut table, 60, at(9)).unwrap();
    let second = ask(&mut table, 60, at(9)).unwrap_err();
    tick(&mut table, at(2));
    assert!(pass_on(&mut table, &first, at(3)).is_some());
    assert!(table.see_grant(second, GUARD, at(3)).is_some());
    tick(&mut table, at(9));
    assert_eq!((table.held(), table.counters().timed_out), (1, 0));
}
