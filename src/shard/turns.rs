//! Tests of the actor's turns, taken one at a time: without actors, nothing else does what is due.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use super::{SLICE, Shard};
use crate::clock::{ManualClock, Moment};
use crate::engine::LockManager;

fn manager() -> (LockManager, ManualClock) {
    let clock = ManualClock::new();
    let config = LockManager::builder().shards(1).clock(clock.clock()).check().expect("good settings");
    (LockManager::without_actors(config), clock)
}

/// Takes turns until nothing is left to be done now; answers how many it took, and when to come again.
fn turns(shard: &Shard) -> (usize, Moment) {
    for taken in 1.. {
        let before = shard.totals().1;
        let wake_at = shard.turn();
        let now = shard.totals().1;
        assert!(before - now <= SLICE, "one turn ended {} locks", before - now);
        if wake_at > shard.now() {
            return (taken, wake_at);
        }
    }
    unreachable!("it comes to its end")
}

#[test]
fn a_turn_is_short_however_much_is_due_and_is_taken_again_until_nothing_is() {
    let (locks, clock) = manager();
    let shard = locks.shard_at(0);
    let ttl = Duration::from_secs(1);
    let held: Vec<_> = (0..10_000).map(|n| locks.try_lock(format!("k{n}")).ttl(ttl).now().unwrap()).collect();
    assert!(turns(shard).1 <= shard.now().saturating_add(ttl));
    clock.advance(ttl);
    let (taken, _) = turns(shard);
    assert!(taken >= held.len() / SLICE && shard.totals().1 == 0);
}

#[test]
fn sessions_whose_orders_are_replaced_or_that_are_dropped_leave_no_timer_behind() {
    let (locks, _) = manager();
    let hour = Duration::from_hours(1);
    let me = locks.session("me").ttl(2 * hour);
    for _ in 0..10_000 {
        me.auto_heartbeat(hour).unwrap();
        locks.session("you").ttl(2 * hour).auto_heartbeat(hour).unwrap();
    }
    assert_eq!(locks.shard_at(0).sleepers(), 1);
    drop(me);
    assert_eq!(locks.shard_at(0).sleepers(), 0);
}

#[test]
fn the_turn_that_begins_to_refresh_comes_in_time_and_one_that_came_wakes_nobody_for_the_next_lock() {
    let (locks, clock) = manager();
    // Less than this shard sleeps for anyway.
    let (shard, third) = (locks.shard_at(0), Duration::from_millis(500));
    clock.set_lag(Duration::from_millis(5));
    let nudges = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&nudges);
    shard.set_nudge(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let work = || locks.run("k", |_| std::future::pending::<()>()).ttl(3 * third);
    turns(shard);
    for _ in 0..3 {
        let mut work = Box::pin(work().into_future());
        assert!((&mut work).now_or_never().is_none(), "it holds its lock");
        assert_eq!(nudges.load(Ordering::SeqCst), 1, "the first of them, and no other");
        drop(work);
        let wake_at = turns(shard).1;
        assert!(wake_at <= shard.now().saturating_add(third));
    }
    // What is held still is refreshed from then on.
    let mut work = Box::pin(work().into_future());
    assert!((&mut work).now_or_never().is_none());
    for _ in 0..100 {
        clock.advance(third / 5);
        turns(shard);
    }
    assert_eq!(shard.totals().1, 1);
}
