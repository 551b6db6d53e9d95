//! The deepest queue of the last minute: kept in steps of ten seconds, so that it is forgotten ten later at most.

use crate::clock::Moment;

const STEP_NANOS: u64 = 10_000_000_000;
/// A whole minute, and the step under way.
const STEPS: usize = 7;

/// What queues were seen, by when.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentDepths {
    deepest: [u32; STEPS],
    /// The step under way, counted since the clock's beginning.
    step: u64,
    /// When it ends, in the clock's nanoseconds.
    ends: u64,
}

impl RecentDepths {
    /// A queue was so deep.
    pub(super) fn saw(&mut self, depth: u32, now: Moment) {
        self.turn(now);
        let deepest = &mut self.deepest[(self.step % STEPS as u64) as usize];
        *deepest = depth.max(*deepest);
    }

    /// The deepest that was seen within the last minute.
    pub(super) fn deepest(&mut self, now: Moment) -> u32 {
        self.turn(now);
        self.deepest.iter().copied().max().unwrap_or(0)
    }

    #[inline]
    fn turn(&mut self, now: Moment) {
        if now.as_nanos() >= self.ends {
            self.turn_to(now.as_nanos() / STEP_NANOS);
        }
    }

    #[cold]
    fn turn_to(&mut self, step: u64) {
        let passed = step.saturating_sub(self.step);
        for at in 1..=passed.min(STEPS as u64) {
            self.deepest[((self.step + at) % STEPS as u64) as usize] = 0;
        }
        self.step += passed;
        self.ends = (self.step + 1).saturating_mul(STEP_NANOS);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deep_queue_is_remembered_for_a_minute_and_no_longer_than_ten_seconds_more() {
        let at = |secs| Moment::ZERO.saturating_add(Duration::from_secs(secs));
        for began in 100..120 {
            let mut depths = RecentDepths::default();
            depths.saw(7, at(began));
            depths.saw(3, at(began + 40));
            for later in 0..=60 {
                assert_eq!(depths.deepest(at(began + later)), 7, "{began} {later}");
            }
            assert_eq!(depths.deepest(at(began + 70)), 3, "{began}");
            assert_eq!(depths.deepest(at(began + 110)), 0, "{began}");
            depths.saw(2, at(began + 4000));
            assert_eq!(depths.deepest(at(began + 4000)), 2, "{began}");
        }
    }
}
