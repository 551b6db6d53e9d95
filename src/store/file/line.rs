//! The store's own line of time (D5): [`Line`], in milliseconds, which goes on across restarts and never goes back.
//!
//! The machine is asked only here. While the store is open its boot time counts, which no operator sets.

use std::fmt;
use std::sync::Arc;

use crate::clock::{Clock, Moment, wall_micros};

/// Where the machine's times come from.
#[derive(Clone)]
pub(super) struct Machine {
    /// Goes on also while the machine sleeps. On Linux it counts from the start of the machine.
    pub(super) clock: Clock,
    /// Another one after each start of the machine; `None` where that cannot be told.
    pub(super) boot: Option<u128>,
    pub(super) wall_us: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Machine {
    /// The one that we run on.
    pub(super) fn own() -> Self {
        Self { clock: Clock::system(), boot: boot(), wall_us: Arc::new(wall_micros) }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("boot", &self.boot).finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
fn boot() -> Option<u128> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().parse::<uuid::Uuid>().ok()?.as_u128())
}

/// Elsewhere the clock counts from the start of the process.
#[cfg(not(target_os = "linux"))]
fn boot() -> Option<u128> {
    None
}

/// A point of the line, and what the machine's clocks showed there. Each commit has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Point {
    pub(super) line_ms: u64,
    /// 0 where it could not be told.
    pub(super) boot: u128,
    pub(super) boot_ms: u64,
    pub(super) wall_ms: u64,
}

/// Where on the line it is now.
#[derive(Debug)]
pub(super) struct Line {
    machine: Machine,
    origin: Moment,
    origin_ms: u64,
}

impl Line {
    /// Goes on from the point of the last commit; a new line begins at the wall clock's time.
    pub(super) fn resume(machine: Machine, last: Option<Point>) -> Self {
        let origin = machine.clock.now();
        let (now_ms, wall_ms) = (origin.as_nanos() / 1_000_000, (machine.wall_us)() / 1_000);
        let passed_ms = |last: Point| match machine.boot {
            Some(boot) if boot == last.boot && now_ms >= last.boot_ms => now_ms - last.boot_ms,
            // A wall clock that was set back says that no time has passed: what is held is held for longer.
            _ => wall_ms.saturating_sub(last.wall_ms),
        };
        let origin_ms = last.map_or(wall_ms, |last| last.line_ms.saturating_add(passed_ms(last)));
        Self { machine, origin, origin_ms }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.at(self.machine.clock.now())
    }

    fn at(&self, now: Moment) -> u64 {
        self.origin_ms + now.as_nanos().saturating_sub(self.origin.as_nanos()) / 1_000_000
    }

    pub(super) fn wall_us(&self) -> u64 {
        (self.machine.wall_us)()
    }

    /// For the commit that is made now.
    pub(super) fn point(&self) -> Point {
        let now = self.machine.clock.now();
        Point {
            line_ms: self.at(now),
            boot: self.machine.boot.unwrap_or_default(),
            boot_ms: now.as_nanos() / 1_000_000,
            wall_ms: self.wall_us() / 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    const BOOT: u128 = 7;
    const WALL_MS: u64 = 1_800_000_000_000;

    fn machine(clock: &ManualClock, boot: Option<u128>, wall_ms: u64) -> Machine {
        Machine { clock: clock.clock(), boot, wall_us: Arc::new(move || wall_ms * 1_000) }
    }

    #[test]
    fn a_new_line_begins_at_the_wall_clock_and_goes_on_by_the_machines_own() {
        let clock = ManualClock::new();
        let line = Line::resume(machine(&clock, Some(BOOT), WALL_MS), None);
        assert_eq!(line.now_ms(), WALL_MS);
        clock.advance(Duration::from_millis(1_234));
        assert_eq!(line.now_ms(), WALL_MS + 1_234, "the wall clock stands still");
    }

    /// D5: the wall clock may have been set meanwhile, by a day, in either direction.
    #[test]
    fn after_a_restart_on_the_same_boot_exactly_what_passed_has_passed() {
        let clock = ManualClock::new();
        let before = Line::resume(machine(&clock, Some(BOOT), WALL_MS), None).point();
        clock.advance(Duration::from_secs(5));
        for wall_ms in [WALL_MS - 86_400_000, WALL_MS, WALL_MS + 86_400_000] {
            let line = Line::resume(machine(&clock, Some(BOOT), wall_ms), Some(before));
            assert_eq!(line.now_ms(), WALL_MS + 5_000);
        }
    }

    #[test]
    fn after_another_boot_the_wall_clock_says_what_passed_and_the_line_never_goes_back() {
        let clock = ManualClock::new();
        let before = Line::resume(machine(&clock, Some(BOOT), WALL_MS), None).point();
        clock.advance(Duration::from_hours(1));
        for boot in [Some(BOOT + 1), None] {
            let now_ms = |wall_ms| Line::resume(machine(&clock, boot, wall_ms), Some(before)).now_ms();
            assert_eq!(now_ms(WALL_MS + 5_000), WALL_MS + 5_000);
            assert_eq!(now_ms(WALL_MS - 5_000), WALL_MS, "as if no time had passed");
        }
    }

    #[test]
    fn a_clock_that_is_behind_its_own_boot_is_that_of_another_machine() {
        let (early, late) = (ManualClock::new(), ManualClock::new());
        late.advance(Duration::from_hours(1));
        let before = Line::resume(machine(&late, Some(BOOT), WALL_MS), None).point();
        let line = Line::resume(machine(&early, Some(BOOT), WALL_MS + 3_000), Some(before));
        assert_eq!(line.now_ms(), WALL_MS + 3_000);
    }

    #[test]
    fn the_machine_that_we_run_on_can_be_asked() {
        let own = Machine::own();
        assert_eq!(own.boot.is_some(), cfg!(target_os = "linux"));
        assert_eq!(own.boot, Machine::own().boot);
    }
}
