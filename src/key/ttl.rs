//! How long a grant lasts: [`Ttl`], and what may be wrong with one.

use std::num::NonZeroU32;
use std::time::Duration;

/// How long a grant lasts unless it is refreshed: whole milliseconds, from 1 ms to [`Ttl::MAX`].
///
/// Fractions of a millisecond are cut, which errs towards an earlier deadline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Ttl(NonZeroU32);

impl Ttl {
    /// The longest TTL that any manager takes: 45 days. A manager's own limit is 24 h unless its builder says
    /// otherwise.
    pub const MAX: Duration = Duration::from_hours(24 * 45);
    /// The shortest.
    pub const MIN: Duration = Duration::from_millis(1);

    /// Checks `ttl` against the bounds of the type.
    ///
    /// # Errors
    /// [`TtlFault`] if it is zero, below a millisecond or above [`Ttl::MAX`].
    pub fn new(ttl: Duration) -> Result<Self, TtlFault> {
        if ttl.is_zero() {
            return Err(TtlFault::Zero);
        }
        if ttl < Self::MIN {
            return Err(TtlFault::TooShort { min: Self::MIN });
        }
        if ttl > Self::MAX {
            return Err(TtlFault::TooLong { max: Self::MAX });
        }
        u32::try_from(ttl.as_millis())
            .ok()
            .and_then(NonZeroU32::new)
            .map(Self)
            .ok_or(TtlFault::TooLong { max: Self::MAX })
    }

    /// Checks a number of seconds, as configuration files and other languages give it.
    ///
    /// # Errors
    /// [`TtlFault`] also for negative numbers, infinities and NaN.
    pub fn from_secs_f64(secs: f64) -> Result<Self, TtlFault> {
        if secs.is_nan() {
            return Err(TtlFault::NotANumber);
        }
        if secs < 0.0 {
            return Err(TtlFault::Negative);
        }
        Self::new(Duration::try_from_secs_f64(secs).map_err(|_| TtlFault::TooLong { max: Self::MAX })?)
    }

    /// The TTL as a number that is not 0.
    pub(crate) fn as_word(self) -> u64 {
        self.0.get().into()
    }

    /// The TTL of such a number; none if it is 0.
    #[inline]
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        NonZeroU32::new(word as u32).map(Self)
    }

    /// The TTL in nanoseconds.
    pub(crate) const fn as_nanos(self) -> u64 {
        self.0.get() as u64 * 1_000_000
    }

    /// The TTL as a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(u64::from(self.0.get()))
    }
}

/// The TTLs that a manager takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TtlBounds {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl TtlBounds {
    pub(crate) fn check(self, ttl: Ttl) -> Result<(), TtlFault> {
        match ttl.as_duration() {
            ttl if ttl > self.max => Err(TtlFault::TooLong { max: self.max }),
            ttl if ttl < self.min => Err(TtlFault::TooShort { min: self.min }),
            _ => Ok(()),
        }
    }
}

/// What is wrong with a TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TtlFault {
    /// Zero would mean a lock that is never held.
    #[error("it is zero")]
    Zero,
    /// Negative time.
    #[error("it is negative")]
    Negative,
    /// Not a number at all.
    #[error("it is not a number")]
    NotANumber,
    /// Below what the manager takes.
    #[error("it is shorter than {min:?}")]
    TooShort {
        /// The limit.
        min: Duration,
    },
    /// Above what the manager takes. "No expiry" is a lock that refreshes itself.
    #[error("it is longer than {max:?}")]
    TooLong {
        /// The limit.
        max: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttls_of_zero_below_a_millisecond_negative_or_huge_are_refused() {
        assert_eq!(Ttl::new(Duration::ZERO), Err(TtlFault::Zero));
        assert_eq!(Ttl::new(Duration::from_micros(999)), Err(TtlFault::TooShort { min: Ttl::MIN }));
        assert_eq!(Ttl::new(Duration::MAX), Err(TtlFault::TooLong { max: Ttl::MAX }));
        assert_eq!(Ttl::new(Duration::from_millis(u64::MAX)), Err(TtlFault::TooLong { max: Ttl::MAX }));
        assert_eq!(Ttl::from_secs_f64(-1.0), Err(TtlFault::Negative));
        assert_eq!(Ttl::from_secs_f64(f64::NAN), Err(TtlFault::NotANumber));
        assert_eq!(Ttl::from_secs_f64(f64::INFINITY), Err(TtlFault::TooLong { max: Ttl::MAX }));
        assert_eq!(Ttl::from_secs_f64(0.0004), Err(TtlFault::TooShort { min: Ttl::MIN }));
        assert_eq!(Ttl::from_secs_f64(0.0), Err(TtlFault::Zero));
        assert_eq!(Ttl::new(Duration::from_micros(1_999)).unwrap().as_duration(), Duration::from_millis(1));
        assert_eq!(Ttl::new(Ttl::MAX).unwrap().as_duration(), Ttl::MAX);
    }
}
