//! Tests of keys that very many hold or wait for: no step under the mutex takes longer for it.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use super::*;
use crate::key::Ttl;

const CROWD: usize = 1_000;
/// No one step goes on to more holders and waiters than these.
const A_STEP: u64 = 2 * HOLDERS_AT_ONCE as u64 + 2;

fn at(secs: u64) -> Moment {
    Moment::from_nanos(secs * 1_000_000_000)
}

fn table() -> Table {
    let limits = Limits { keys: 10, members: 2 * CROWD, waiters: 2 * CROWD, waiters_per_key: 2 * CROWD };
    Table::new(limits, Claim::Local, 1, at(1))
}

fn key() -> Key {
    Key::try_from("k").unwrap()
}

fn acquire(table: &mut Table, mode: Mode, owner: Option<&Arc<Owner>>) -> AcquireOutcome {
    let ttl = Ttl::new(Duration::from_secs(10)).unwrap();
    let extra = ExtraTerms { mode, owner: owner.cloned(), reentry: Reentry::Counted, ..ExtraTerms::default() };
    let terms = Terms { ttl, extra: Some(Arc::new(extra)) };
    // One that no earlier request here had.
    let origin = TokenOrigin::Minted;
    let request = AcquireRequest {
        key: &key(),
        hash: 7,
        terms: &terms,
        token: None,
        origin,
        grant_state: GrantState::Guard(origin),
    };
    let now = table.now;
    table.acquire(&request, WaitPolicy::Until(Moment::FAR, Some(Waker::noop())), now, &mut Effects::new())
}

fn granted(outcome: AcquireOutcome) -> Grant {
    match outcome {
        AcquireOutcome::Granted(grant) => grant,
        other => panic!("{other:?}"),
    }
}

/// Does a step, and holds it to its bound.
fn step<R>(table: &mut Table, does: impl FnOnce(&mut Table, &mut Effects) -> R) -> R {
    let (mut answer, mut fx) = (None, Effects::new());
    let taken = steps::of(|| answer = Some(does(table, &mut fx)));
    assert!(taken <= A_STEP, "{taken} at once");
    answer.unwrap()
}

#[test]
fn readers_that_wait_for_a_writer_are_let_in_by_steps_and_nobody_passes_them() {
    let mut table = table();
    let writer = granted(acquire(&mut table, Mode::Exclusive, None));
    for _ in 0..CROWD {
        assert!(matches!(acquire(&mut table, Mode::Shared, None), AcquireOutcome::Queued(_)));
    }
    step(&mut table, |table, fx| {
        table.release(&writer, End::Released, table.now, fx);
        assert!(fx.earliest() <= table.now, "the actor is called to go on");
    });
    assert_eq!((table.held(), table.waiting()), (HAND_OFFS, CROWD - HAND_OFFS));
    table.assert_invariants();
    // There is room for them, but not before those who came first.
    let late = acquire(&mut table, Mode::Shared, None);
    assert!(matches!(late, AcquireOutcome::Queued(_)), "{late:?}");
    let mut ticks = 0;
    while table.next_due() == Some(table.now) {
        let before = table.waiting();
        assert!(step(&mut table, |table, fx| table.tick(table.now, 1, fx)) == Slice::More);
        assert!(before - table.waiting() <= HAND_OFFS);
        ticks += 1;
    }
    assert!(ticks >= CROWD / HAND_OFFS);
    assert_eq!((table.held(), table.waiting()), (CROWD + 1, 0));
    table.assert_invariants();
}

#[test]
fn a_wait_for_a_share_that_is_only_not_yet_let_in_is_no_deadlock() {
    let mut table = table();
    let owner = |ttl| Arc::new(Owner::new(None, OwnerKind::Session(Ttl::new(ttl).unwrap()), at(1), 10));
    let [me, you] = [10, 11].map(|secs| owner(Duration::from_secs(secs)));
    let writer = granted(acquire(&mut table, Mode::Exclusive, None));
    assert!(matches!(acquire(&mut table, Mode::Shared, Some(&me)), AcquireOutcome::Queued(_)));
    for _ in 0..HAND_OFFS {
        assert!(matches!(acquire(&mut table, Mode::Shared, None), AcquireOutcome::Queued(_)));
    }
    let AcquireOutcome::Queued(mine) = acquire(&mut table, Mode::Shared, Some(&you)) else { panic!("it is held") };
    let AcquireOutcome::Queued(alone) = acquire(&mut table, Mode::Exclusive, Some(&you)) else { panic!("it is held") };
    table.release(&writer, End::Released, table.now, &mut Effects::new());
    let blocked = [me.id, you.id].into_iter().collect();
    let missing = |table: &mut Table, id| table.blocker_of(id, &blocked, table.now).map(|found| found.missing);
    assert_eq!(missing(&mut table, mine), Some(0), "it goes in with the others");
    assert_eq!(missing(&mut table, alone), Some(1), "the first of them has to go before");
}

#[test]
fn many_who_are_over_at_once_are_ended_by_steps() {
    let mut table = table();
    for _ in 0..CROWD {
        granted(acquire(&mut table, Mode::Shared, None));
    }
    table.advance_clock(at(20));
    let one = step(&mut table, |table, fx| table.expire_some(&key(), 7, table.now, fx));
    assert_eq!((one, table.held()), (Slice::More, CROWD - HOLDERS_AT_ONCE));
    // One that waits is not held up by the rest, and not refused for them.
    let waits = acquire(&mut table, Mode::Exclusive, None);
    assert!(matches!(waits, AcquireOutcome::Queued(_)), "{waits:?}");
    while step(&mut table, |table, fx| table.expire_some(&key(), 7, table.now, fx)) == Slice::More {}
    assert_eq!((table.held(), table.waiting()), (1, 0));
    table.assert_invariants();
}

#[test]
fn whoever_forces_a_key_from_many_takes_it_by_steps_and_from_none_who_come_later() {
    let mut table = table();
    let permit = Mode::Permits { limit: CROWD as u32, permits: 1 };
    for _ in 0..CROWD {
        granted(acquire(&mut table, permit, None));
    }
    for _ in 0..10 {
        assert!(matches!(acquire(&mut table, permit, None), AcquireOutcome::Queued(_)));
    }
    let (mut cursor, mut forced) = (Some(HoldersCursor::default()), 0);
    while let Some(from) = cursor {
        let now = table.now;
        let (grants, next) = step(&mut table, |table, fx| table.grants_on(&key(), 7, from, now, fx));
        forced += grants.len();
        for grant in &grants {
            step(&mut table, |table, fx| table.end_grant(grant, End::Forced, now, fx));
        }
        cursor = next;
    }
    assert_eq!((forced, table.held()), (CROWD, 10));
    table.assert_invariants();
}

#[test]
fn an_owner_asks_again_for_its_share_at_no_cost_for_the_others() {
    let mut table = table();
    let me = Arc::new(Owner::new(None, OwnerKind::Call, at(1), 10));
    for _ in 0..CROWD {
        granted(acquire(&mut table, Mode::Shared, None));
    }
    let first = granted(acquire(&mut table, Mode::Shared, Some(&me)));
    let again = step(&mut table, |table, _| granted(acquire(table, Mode::Shared, Some(&me))));
    assert_eq!(again, first);
    assert_eq!(table.slots[table.key_slot(first.slot)].group().unwrap().members_of(me.id).count(), 1);
}

/// A key that nobody waits for.
fn hold(table: &mut Table, key: &str, hash: u32, ttl: Duration) -> Grant {
    let terms = Terms { ttl: Ttl::new(ttl).unwrap(), extra: None };
    let (key, origin) = (Key::try_from(key).unwrap(), TokenOrigin::Minted);
    let request =
        AcquireRequest { key: &key, hash, terms: &terms, token: None, origin, grant_state: GrantState::Guard(origin) };
    let now = table.now;
    table.grant_if_free(&request, now).unwrap()
}

#[test]
fn of_very_many_that_end_at_once_those_that_somebody_waits_for_or_refreshes_come_first() {
    const MANY: u32 = 300_000;
    let limits = Limits { keys: 2 * MANY as usize, members: 10, waiters: 10, waiters_per_key: 10 };
    let mut table = Table::new(limits, Claim::Local, 1, at(1));
    let (before, after) = (Duration::from_millis(900), Duration::from_millis(1_100));
    let mut fx = Effects::new();
    // All are due in the same turn; half of them are filed after those that matter.
    for n in 0..MANY / 2 {
        hold(&mut table, &n.to_string(), n, before);
    }
    let refreshed = hold(&mut table, "refreshed", MANY, after);
    table.auto_refresh(&refreshed, Duration::from_millis(300), Duration::MAX, at(1), &mut fx).unwrap();
    let watched = hold(&mut table, "watched", MANY + 1, before);
    let heard = Arc::new(Heard::default());
    table.watch(&watched, || Arc::clone(&heard) as Arc<dyn Watcher>, at(1), &mut fx).unwrap();
    let _first = hold(&mut table, "k", 7, before);
    let AcquireOutcome::Queued(waits) = acquire(&mut table, Mode::Exclusive, None) else { panic!("it is held") };
    for n in MANY / 2..MANY {
        hold(&mut table, &n.to_string(), n, before);
    }
    drop(fx);
    let now = at(2);
    let slice = step(&mut table, |table, fx| table.tick(now, 128, fx));
    assert_eq!((slice, table.counters().refreshed), (Slice::More, 1));
    assert!(heard.ended.load(std::sync::atomic::Ordering::SeqCst));
    let seen = table.poll_waiter(waits, GrantState::Ticket, Waker::noop(), now, &mut Effects::new());
    assert!(matches!(seen, WaiterPoll::Granted(_)), "{seen:?}");
    assert!(table.held() > MANY as usize / 2);
    while table.tick(now, 128, &mut Effects::new()) == Slice::More {}
    assert_eq!(table.held(), 2);
    table.assert_invariants();
    // What they took is given back, a little at a time.
    let mut steps = 0;
    while table.trim() {
        steps += 1;
    }
    assert!(steps >= MANY as usize / 64 / CHUNKS_AT_ONCE);
    assert!(table.slots.bound() < MANY && table.index.capacity() < 1_024, "{}", table.index.capacity());
    table.assert_invariants();
}

#[derive(Default)]
struct Heard {
    ended: std::sync::atomic::AtomicBool,
}

impl Watcher for Heard {
    fn ended(&self, _: End) {
        self.ended.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn revocation_notice(&self, _: Moment) {}
}
