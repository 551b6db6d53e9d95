//! D5, D6: ends and fences go on over restarts, whatever was done to the clocks.

use std::sync::Arc;

use super::super::line::Machine;
use super::*;
use crate::clock::ManualClock;

const WALL_US: u64 = 1_800_000_000_000_000;

fn builder(dir: &Dir, clock: &ManualClock, boot: u128, wall_us: u64) -> FileBuilder {
    let mut builder = dir.builder();
    builder.machine = Machine { clock: clock.clock(), boot: Some(boot), wall_us: Arc::new(move || wall_us) };
    builder
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap()
}

/// Takes a lock, ends the process, starts the next one on these clocks, and says what is left of the lock.
fn left_after(passed: Duration, boot: u128, wall_us: u64) -> Option<Duration> {
    let (dir, clock, token) = (Dir::new(), ManualClock::new(), Token::random());
    let store = started(builder(&dir, &clock, 1, WALL_US));
    let fence = take(&store, "k", token);
    block_on(store.stop());
    clock.advance(passed);
    let store = started(builder(&dir, &clock, boot, wall_us));
    let left = left(&store, "k", token);
    assert!(take(&store, "other", Token::random()) > fence, "D6");
    block_on(store.stop());
    left
}

#[test]
fn on_the_same_boot_what_passed_has_passed() {
    let quarter = LONG / 4;
    for wall_us in [WALL_US - micros(48 * LONG), WALL_US, WALL_US + micros(48 * LONG)] {
        assert_eq!(left_after(quarter, 1, wall_us), Some(LONG - quarter));
        assert_eq!(left_after(LONG, 1, wall_us), None);
    }
}

#[test]
fn after_another_boot_the_wall_clock_says_what_passed() {
    let quarter = LONG / 4;
    assert_eq!(left_after(Duration::ZERO, 2, WALL_US + micros(quarter)), Some(LONG - quarter));
    assert_eq!(left_after(Duration::ZERO, 2, WALL_US + micros(LONG)), None);
    assert_eq!(left_after(quarter, 2, WALL_US - micros(quarter)), Some(LONG), "it lasts longer, never shorter");
}

/// The line goes on while nothing is written, and the keeper ends what has run out.
#[test]
fn while_it_is_open_the_machines_own_clock_counts() {
    let (dir, clock, token) = (Dir::new(), ManualClock::new(), Token::random());
    let store = started(builder(&dir, &clock, 1, WALL_US));
    take(&store, "k", token);
    clock.advance(LONG / 2);
    assert_eq!(left(&store, "k", token), Some(LONG / 2));
    clock.advance(LONG / 2);
    assert_eq!(extend(&store, "k", token, LONG), Extended::Lost, "S6");
    assert_eq!(release(&store, "k", token), Released::AlreadyGone, "S7");
    take(&store, "k", Token::random());
    block_on(store.stop());
}

#[test]
fn who_watches_is_told_that_a_lock_has_run_out() {
    let dir = Dir::new();
    let store = started(dir.builder());
    let granted = acquire_for(&store, "k", Token::random(), Duration::from_millis(300));
    assert!(matches!(granted, Acquired::Granted { .. }), "{granted:?}");
    let mut watch = block_on(store.watch(&key("k"))).unwrap();
    assert_eq!(block_on(watch.next()), Some(crate::store::Hint::Free));
    assert_eq!(store.shared.state.lock().ledger.len(), 0, "it is not kept");
    block_on(store.stop());
    assert_eq!(block_on(watch.next()), None, "the end of the store ends its watches");
}
