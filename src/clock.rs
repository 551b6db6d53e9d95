//! The one source of time (C1): nanoseconds that count through suspend, and a way to move them by hand in tests.
//!
//! The exact reading is `CLOCK_BOOTTIME` on Linux (about 23 ns). The lane reads the coarse one (about 6 ns): the
//! kernel's monotonic tick plus a cached suspend offset. It lags by up to one tick (4 ms at 250 Hz), so what is dated
//! by it ends earlier than asked, never later (C2). Elsewhere both are the standard library's monotonic clock.

use std::time::Duration;

use crate::key::Ttl;

/// A point in time on a manager's own clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment(u64);

impl Moment {
    /// Later than everything.
    pub(crate) const FAR: Self = Self(u64::MAX);
    /// Earlier than everything.
    pub(crate) const ZERO: Self = Self(0);

    /// A moment from its nanoseconds.
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This moment moved by `span`; the end of time where that overflows.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        let nanos = span.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(span.subsec_nanos()));
        Self(self.0.saturating_add(nanos))
    }

    /// The end of a TTL that begins now.
    pub(crate) const fn after(self, ttl: Ttl) -> Self {
        Self(self.0.saturating_add(ttl.as_nanos()))
    }

    /// The nanoseconds from `earlier` to this moment; zero if it comes later. Without the divisions of a `Duration`.
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time from `earlier` to this moment; zero if it comes later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What time it is, for everything in one manager.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(&'static system::SystemClock),
    #[cfg(any(test, feature = "test-util"))]
    Manual(ManualClock),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System(system::shared()))
    }

    /// Now, exactly.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System(clock) => clock.exact(),
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.now(),
        }
    }

    /// Now, or up to one kernel tick ago; cheap (C2).
    pub(crate) fn coarse(&self) -> Moment {
        match &self.0 {
            Source::System(clock) => clock.coarse(),
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.coarse(),
        }
    }

    /// The coarse reading lags the exact one by this at most.
    pub(crate) fn coarse_lag(&self) -> Duration {
        match &self.0 {
            Source::System(_) => system::COARSE_LAG,
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.lag(),
        }
    }

    /// Registers `listener` to run after every move by hand. The machine's clock moves unheard.
    pub(crate) fn on_advance(&self, listener: impl Fn() + Send + Sync + 'static) {
        match &self.0 {
            Source::System(_) => drop(listener),
            #[cfg(any(test, feature = "test-util"))]
            Source::Manual(clock) => clock.listeners.lock().push(std::sync::Arc::new(listener)),
        }
    }
}

/// Microseconds of wall-clock time, from which a shard's fences start (T4).
pub(crate) fn wall_micros() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
mod system {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::Moment;

    /// A kernel tick at 100 Hz.
    pub(super) const COARSE_LAG: Duration = Duration::from_millis(10);
    /// Two kernel ticks at 100 Hz. A larger gap between the exact and the coarse reading means a suspend.
    const DRIFT_LIMIT_NANOS: u64 = 20_000_000;

    #[derive(Debug)]
    pub(super) struct SystemClock {
        /// Boot time minus monotonic time: how long the machine was suspended, as of the last exact reading.
        suspended_nanos: AtomicU64,
    }

    /// The process's one system clock: the suspend offset is a fact of the machine.
    pub(super) fn shared() -> &'static SystemClock {
        static CLOCK: OnceLock<SystemClock> = OnceLock::new();
        CLOCK.get_or_init(|| {
            let clock = SystemClock { suspended_nanos: AtomicU64::new(0) };
            clock.measure_suspend();
            clock
        })
    }

    impl SystemClock {
        /// Boot time. Notices a suspend by the coarse reading falling behind, and corrects the cached offset.
        pub(super) fn exact(&self) -> Moment {
            let now = read(ClockId::Boottime);
            let coarse = read(ClockId::MonotonicCoarse).saturating_add(self.suspended_nanos.load(Ordering::Relaxed));
            if now.saturating_sub(coarse) > DRIFT_LIMIT_NANOS {
                self.measure_suspend();
            }
            Moment::from_nanos(now)
        }

        pub(super) fn coarse(&self) -> Moment {
            let suspended = self.suspended_nanos.load(Ordering::Relaxed);
            Moment::from_nanos(read(ClockId::MonotonicCoarse).saturating_add(suspended))
        }

        /// Reads boot time first: the offset then errs towards an earlier coarse time.
        fn measure_suspend(&self) {
            let boot = read(ClockId::Boottime);
            let monotonic = read(ClockId::Monotonic);
            self.suspended_nanos.store(boot.saturating_sub(monotonic), Ordering::Relaxed);
        }
    }

    fn read(id: ClockId) -> u64 {
        let time = clock_gettime(id);
        // Time since boot: never negative, and 584 years short of an overflow.
        (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::sync::OnceLock;
    use std::time::{Duration, Instant};

    use super::Moment;

    pub(super) const COARSE_LAG: Duration = Duration::ZERO;

    #[derive(Debug)]
    pub(super) struct SystemClock {
        start: Instant,
    }

    pub(super) fn shared() -> &'static SystemClock {
        static CLOCK: OnceLock<SystemClock> = OnceLock::new();
        CLOCK.get_or_init(|| SystemClock { start: Instant::now() })
    }

    impl SystemClock {
        pub(super) fn exact(&self) -> Moment {
            // One second ahead of zero, so that "earlier than the start" is a moment too.
            Moment::from_nanos(1_000_000_000).saturating_add(self.start.elapsed())
        }

        pub(super) fn coarse(&self) -> Moment {
            self.exact()
        }
    }
}

#[cfg(any(test, feature = "test-util"))]
pub use manual::ManualClock;

#[cfg(any(test, feature = "test-util"))]
mod manual {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::{Clock, Moment, Source};

    type Listener = Arc<dyn Fn() + Send + Sync>;

    /// A clock that stands still until a test moves it. Every timer that falls due runs before `advance` returns.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use leasehold::{LockManager, ManualClock};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let locks = LockManager::builder().clock(clock.clock()).build()?;
    /// let lock = locks.try_lock_now("order:42")?;
    /// clock.advance(Duration::from_secs(30));
    /// assert!(!lock.is_held());
    /// # Ok(()) }
    /// ```
    #[derive(Clone)]
    pub struct ManualClock {
        nanos: Arc<AtomicU64>,
        lag_nanos: Arc<AtomicU64>,
        pub(super) listeners: Arc<Mutex<Vec<Listener>>>,
    }

    impl ManualClock {
        /// A clock that shows an arbitrary moment.
        #[must_use]
        pub fn new() -> Self {
            Self {
                nanos: Arc::new(AtomicU64::new(1_000_000_000_000)),
                lag_nanos: Arc::default(),
                listeners: Arc::default(),
            }
        }

        /// The handle to give to a builder.
        #[must_use]
        pub fn clock(&self) -> Clock {
            Clock(Source::Manual(self.clone()))
        }

        /// What the clock shows.
        #[must_use]
        pub fn now(&self) -> Moment {
            Moment::from_nanos(self.nanos.load(Ordering::SeqCst))
        }

        /// Has the coarse reading, by which the lane dates where that is harmless, lag the exact one from now on.
        pub fn set_lag(&self, lag: Duration) {
            self.lag_nanos.store(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }

        pub(super) fn lag(&self) -> Duration {
            Duration::from_nanos(self.lag_nanos.load(Ordering::SeqCst))
        }

        pub(super) fn coarse(&self) -> Moment {
            Moment::from_nanos(self.now().as_nanos().saturating_sub(self.lag_nanos.load(Ordering::SeqCst)))
        }

        /// Moves the clock on, then runs what fell due, in the caller's thread.
        pub fn advance(&self, span: Duration) {
            self.jump(span);
            let listeners: Vec<Listener> = self.listeners.lock().clone();
            for listener in listeners {
                listener();
            }
        }

        /// Moves the clock on and runs nothing: what a thread sees that wakes from suspend before any timer does.
        pub fn jump(&self, span: Duration) {
            let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            // The closure always answers Some, so this cannot fail.
            let _ = self.nanos.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(nanos)));
        }

        /// Sets the clock back, as no good clock does; a table must not follow (C1).
        pub fn step_back(&self, span: Duration) {
            let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
            let _ = self.nanos.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_sub(nanos)));
        }
    }

    impl Default for ManualClock {
        fn default() -> Self {
            Self::new()
        }
    }

    debug_of!(ManualClock, |it| now: it.now());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_reading_never_runs_ahead_of_the_exact_one() {
        let clock = Clock::system();
        for _ in 0..10_000 {
            let coarse = clock.coarse();
            assert!(coarse <= clock.now());
        }
    }

    #[test]
    fn moments_saturate_instead_of_wrapping() {
        assert_eq!(Moment::from_nanos(5).saturating_add(Duration::MAX), Moment::FAR);
        assert_eq!(Moment::from_nanos(5).saturating_since(Moment::from_nanos(9)), Duration::ZERO);
    }
}
