//! Tests of what is over but not yet ended, and of grants beside others on one key, in steps that no public call takes
//! one at a time.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::key::Ttl;

fn at(secs: u64) -> Moment {
    Moment::from_nanos(secs * 1_000_000_000)
}

fn secs(n: u64) -> Ttl {
    Ttl::new(Duration::from_secs(n)).unwrap()
}

fn table() -> Table {
    Table::new(Limits { keys: 10, members: 10, waiters: 10, waiters_per_key: 10 }, Claim::Local, 1, at(1))
}

fn session(ttl: Ttl) -> Arc<Owner> {
    Arc::new(Owner::new(Some("me".into()), OwnerKind::Session(ttl), at(1), 10))
}

fn acquire(table: &mut Table, key: &Key, ttl: Ttl, owner: Option<&Arc<Owner>>, mode: Mode) -> AcquireOutcome {
    let extra = ExtraTerms { mode, owner: owner.cloned(), ..ExtraTerms::default() };
    let terms = Terms { ttl, extra: Some(Arc::new(extra)) };
    let grant_state = GrantState::Guard(TokenOrigin::Minted);
    // One that no earlier request here had.
    let request = AcquireRequest { key, hash: 7, terms: &terms, token: None, origin: TokenOrigin::Minted, grant_state };
    let (policy, now) = (WaitPolicy::Until(Moment::FAR, Some(Waker::noop())), table.now);
    let outcome = table.acquire(&request, policy, now, &mut Effects::new());
    table.assert_invariants();
    outcome
}

fn granted(outcome: AcquireOutcome) -> Grant {
    match outcome {
        AcquireOutcome::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_seen_to_be_over_gets_no_heartbeat_dated_before_its_end() {
    let (mut table, key) = (table(), Key::try_from("k").unwrap());
    let me = session(secs(10));
    let grant = granted(acquire(&mut table, &key, secs(10), Some(&me), Mode::Exclusive));
    assert_eq!(table.held_until(&grant, at(10)), Some(at(11)));
    assert_eq!(table.held_until(&grant, at(11)), None);
    assert!(me.heartbeat(secs(10), at(10)).is_err());
    assert_eq!(table.held_until(&grant, at(10)), None);
}

#[test]
fn a_lock_seen_to_be_over_gets_no_refresh_dated_before_its_end() {
    let (mut table, key) = (table(), Key::try_from("k").unwrap());
    let grant = granted(acquire(&mut table, &key, secs(10), None, Mode::Exclusive));
    assert_eq!(table.held_until(&grant, at(11)), None);
    assert!(table.refresh(&grant, RefreshRequest::To(secs(10)), at(10), &mut Effects::new()).is_err());
}

#[test]
fn a_holder_that_is_over_is_nobodys_obstacle() {
    let (mut table, key) = (table(), Key::try_from("k").unwrap());
    let (me, you) = (session(secs(10)), session(secs(20)));
    for owner in [&me, &you] {
        granted(acquire(&mut table, &key, secs(10), Some(owner), Mode::Shared));
    }
    let both = [me.id, you.id].into_iter().collect();
    let missing = |table: &mut Table| {
        let now = table.now;
        table.blocker_to(&key, 7, Mode::Exclusive, &both, now).missing
    };
    assert_eq!(missing(&mut table), 2);
    me.end(at(2)).unwrap();
    assert_eq!(missing(&mut table), 1, "it has ended, though its locks are not yet taken");
    table.advance_clock(at(21));
    assert_eq!(missing(&mut table), 0);
}

#[test]
fn whoever_releases_permits_knows_the_ttl_of_the_next_in_the_queue() {
    let (mut table, key) = (table(), Key::try_from("k").unwrap());
    let permit = |permits| Mode::Permits { limit: 2, permits };
    let one = granted(acquire(&mut table, &key, secs(10), None, permit(1)));
    let two = granted(acquire(&mut table, &key, secs(10), None, permit(1)));
    let AcquireOutcome::Queued(_) = acquire(&mut table, &key, secs(3), None, permit(2)) else { panic!("it is full") };
    assert_eq!((table.next_ttl(&one), table.next_ttl(&two)), (Some(secs(3)), Some(secs(3))));
}
