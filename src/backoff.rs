//! How long a loop rests that a failure can feed: [`Backoff`] (N1).
//!
//! A loop without one asks as often as the other side can refuse: thousands of times a second. The pauses double up to
//! a cap, and are random in their upper half, so that many processes do not come back at the same moment.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The pauses of one loop. A success begins them anew.
#[derive(Debug)]
pub(crate) struct Backoff {
    shape: ExponentialBuilder,
    cap: Duration,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// About `first` after the first failure, `cap` at most.
    pub(crate) fn new(first: Duration, cap: Duration) -> Self {
        let shape = ExponentialBuilder::new().with_factor(2.0).with_min_delay(first).with_max_delay(cap);
        let shape = shape.without_max_times();
        Self { shape, cap, pauses: shape.build() }
    }

    /// The pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pauses.next().unwrap_or(self.cap).min(self.cap);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It has worked.
    pub(crate) fn reset(&mut self) {
        self.pauses = self.shape.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_begin_anew_after_a_success() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(20), ms(500));
        for most in [20, 40, 80, 160, 320, 500, 500, 500] {
            let pause = backoff.next();
            assert!((ms(most / 2)..=ms(most)).contains(&pause), "{most}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= ms(20));
        for _ in 0..10_000 {
            assert!(backoff.next() <= ms(500));
        }
    }
}
