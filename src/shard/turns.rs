//! Tests of the actor's turns, taken one at a time: without actors, nothing else does what is due.

use std::time::Duration;

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
