//! How long a poller sleeps between two tries. A strategy is anything that yields `Duration`s: the four here, the
//! backoffs of `backon` (by [`from_fn`]), or an iterator of your own.
//!
//! A poller is not a waiter: it has no place in the queue, never passes one that has, and may starve (T2). Prefer the
//! queue unless you must not hold a place in it.

use std::time::Duration;

use backon::BackoffBuilder;

use crate::error::LockError;

/// The pauses of one request, in order. When they end, the request gives up with
/// [`Timeout`](LockError::Timeout).
pub type Delays = Box<dyn Iterator<Item = Duration> + Send>;

/// Something that can pace a poller.
///
/// Every `IntoIterator` over `Duration` is one that can be cloned, so that the options that hold it can be used for many
/// requests.
pub trait RetryStrategy: Clone + Send + Sync + 'static {
    /// The pauses between the tries of one request.
    ///
    /// # Errors
    /// [`LockError::InvalidOption`] if the strategy's numbers make no sense; the request answers with it.
    fn delays(self) -> Result<Delays, LockError>;
}

impl<I> RetryStrategy for I
where
    I: IntoIterator<Item = Duration> + Clone + Send + Sync + 'static,
    I::IntoIter: Send + 'static,
{
    fn delays(self) -> Result<Delays, LockError> {
        Ok(Box::new(self.into_iter()))
    }
}

/// The strategy that asks `make` for each request's pauses: for iterators that cannot be cloned.
///
/// ```
/// use backon::{BackoffBuilder, FibonacciBuilder};
/// use leasehold::{LockOptions, retry};
/// let options = LockOptions::new().retry(retry::from_fn(|| FibonacciBuilder::default().build()));
/// ```
pub fn from_fn<F, I>(make: F) -> FromFn<F>
where
    F: Fn() -> I + Clone + Send + Sync + 'static,
    I: Iterator<Item = Duration> + Send + 'static,
{
    FromFn(make)
}

/// Made by [`from_fn`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct FromFn<F>(F);

impl<F, I> RetryStrategy for FromFn<F>
where
    F: Fn() -> I + Clone + Send + Sync + 'static,
    I: Iterator<Item = Duration> + Send + 'static,
{
    fn delays(self) -> Result<Delays, LockError> {
        Ok(Box::new((self.0)()))
    }
}

/// A strategy of whichever type, that paces one request after another.
pub(crate) trait Pace: Send + Sync {
    fn pace(&self) -> Result<Delays, LockError>;
}

impl<S: RetryStrategy> Pace for S {
    fn pace(&self) -> Result<Delays, LockError> {
        self.clone().delays()
    }
}

/// What the strategies have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Shape {
    /// Tries after the first.
    retries: usize,
    jitter: Jitter,
    max_delay: Option<Duration>,
    max_total: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jitter {
    Off,
    On,
}

impl Shape {
    const fn new(retries: usize) -> Self {
        Self { retries, jitter: Jitter::Off, max_delay: None, max_total: None }
    }

    /// Bends the bare delays into shape: cap each, add jitter, count, and stop at the total.
    fn apply(self, bare: impl Iterator<Item = Duration> + Send + 'static) -> Delays {
        let mut left = self.max_total;
        let delays = bare.take(self.retries).map_while(move |delay| {
            let delay = delay.min(self.max_delay.unwrap_or(Duration::MAX));
            let delay = match self.jitter {
                Jitter::Off => delay,
                Jitter::On => delay.saturating_add(random_up_to(delay)),
            };
            if let Some(left) = left.as_mut() {
                *left = left.checked_sub(delay)?;
            }
            Some(delay)
        });
        Box::new(delays)
    }
}

fn random_up_to(limit: Duration) -> Duration {
    Duration::from_nanos(fastrand::u64(0..=u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)))
}

/// Declares a strategy: its fields, which `new` is given, and what all strategies have.
macro_rules! strategies {
    ($($(#[$doc:meta])* $strategy:ident { $($field:ident: $type:ty),* } $(#[$new_doc:meta])* new;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $strategy {
            $($field: $type,)*
            shape: Shape,
        }

        impl $strategy {
            $(#[$new_doc])*
            #[must_use]
            pub const fn new($($field: $type,)* retries: usize) -> Self {
                Self { $($field,)* shape: Shape::new(retries) }
            }

            /// Adds to each pause a random time of up to the pause itself, so that pollers do not march in step.
            #[must_use]
            pub const fn jitter(mut self) -> Self {
                self.shape.jitter = Jitter::On;
                self
            }

            /// Caps each pause, before jitter.
            #[must_use]
            pub const fn max_delay(mut self, cap: Duration) -> Self {
                self.shape.max_delay = Some(cap);
                self
            }

            /// Stops before the pauses add up to more than this.
            #[must_use]
            pub const fn max_total(mut self, cap: Duration) -> Self {
                self.shape.max_total = Some(cap);
                self
            }
        }
    )*};
}

strategies! {
    /// The same pause every time: `delay, delay, delay, ...`
    FixedInterval { delay: Duration }
    /// `retries` further tries, `delay` apart.
    new;

    /// Pauses that grow by the same step: `first, first + step, first + 2 step, ...`
    LinearBackoff { first: Duration, step: Duration }
    /// `retries` further tries, the first after `first`.
    new;

    /// Pauses that grow by a factor: `first, first x factor, first x factor^2, ...`
    ExponentialBackoff { first: Duration, factor: f32 }
    /// `retries` further tries. The factor must be a finite number of at least 1, else the request answers
    /// [`LockError::InvalidOption`].
    new;

    /// Pauses drawn evenly from a range.
    RandomBackoff { min: Duration, max: Duration }
    /// `retries` further tries. `min` must not be above `max`, else the request answers
    /// [`LockError::InvalidOption`].
    new;
}

/// Every 100 ms, without end: set a wait on the request, or it polls for ever.
impl Default for FixedInterval {
    fn default() -> Self {
        Self::new(Duration::from_millis(100), usize::MAX)
    }
}

impl RetryStrategy for FixedInterval {
    fn delays(self) -> Result<Delays, LockError> {
        let bare = backon::ConstantBuilder::default().with_delay(self.delay).without_max_times();
        Ok(self.shape.apply(bare.build()))
    }
}

impl RetryStrategy for LinearBackoff {
    fn delays(self) -> Result<Delays, LockError> {
        let bare = std::iter::successors(Some(self.first), move |last| Some(last.saturating_add(self.step)));
        Ok(self.shape.apply(bare))
    }
}

impl RetryStrategy for ExponentialBackoff {
    fn delays(self) -> Result<Delays, LockError> {
        if !self.factor.is_finite() || self.factor < 1.0 {
            return Err(LockError::InvalidOption { option: "retry", why: "the factor must be a number of at least 1" });
        }
        let bare = backon::ExponentialBuilder::default()
            .with_min_delay(self.first)
            .without_max_delay()
            .with_factor(self.factor)
            .without_max_times();
        Ok(self.shape.apply(bare.build()))
    }
}

impl RetryStrategy for RandomBackoff {
    fn delays(self) -> Result<Delays, LockError> {
        let Some(span) = self.max.checked_sub(self.min) else {
            return Err(LockError::InvalidOption { option: "retry", why: "the shortest pause is above the longest" });
        };
        let bare = std::iter::repeat_with(move || self.min.saturating_add(random_up_to(span)));
        Ok(self.shape.apply(bare))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn delays(strategy: impl RetryStrategy) -> Vec<Duration> {
        strategy.delays().unwrap().take(20).collect()
    }

    #[test]
    fn each_strategy_yields_its_own_pauses() {
        assert_eq!(delays(FixedInterval::new(ms(10), 3)), [ms(10), ms(10), ms(10)]);
        assert_eq!(delays(LinearBackoff::new(ms(10), ms(5), 4)), [ms(10), ms(15), ms(20), ms(25)]);
        let exponential = delays(ExponentialBackoff::new(ms(100), 2.0, 5)).into_iter().map(|delay| delay.as_millis());
        assert!(exponential.eq([100, 200, 400, 800, 1600]));
        let random = delays(RandomBackoff::new(ms(5), ms(9), 20));
        assert_eq!(random.len(), 20);
        assert!(random.iter().all(|delay| (ms(5)..=ms(9)).contains(delay)), "{random:?}");
        assert!(random.iter().any(|delay| *delay != random[0]), "twenty equal draws are no draws");
        assert_eq!(delays([ms(1), ms(2)]), [ms(1), ms(2)]);
        assert_eq!(
            delays(from_fn(|| backon::ConstantBuilder::default().with_delay(ms(4)).with_max_times(2).build())),
            [ms(4); 2]
        );
    }

    #[test]
    fn caps_hold_for_each_pause_and_for_their_sum() {
        let capped = delays(ExponentialBackoff::new(ms(1), 10.0, 4).max_delay(ms(50)));
        assert!(capped.into_iter().map(|delay| delay.as_millis()).eq([1, 10, 50, 50]));
        assert_eq!(delays(FixedInterval::new(ms(10), 9).max_total(ms(35))), [ms(10); 3]);
        assert_eq!(delays(FixedInterval::default()).len(), 20);
        assert_eq!(delays(LinearBackoff::new(Duration::MAX, Duration::MAX, 2)), [Duration::MAX; 2], "no overflow");
        assert_eq!(delays(ExponentialBackoff::new(ms(1), f32::MAX, 5)).len(), 5, "no overflow");
    }

    #[test]
    fn jitter_adds_up_to_the_pause_itself() {
        let jittered = delays(FixedInterval::new(ms(10), 20).jitter());
        assert!(jittered.iter().all(|delay| (ms(10)..=ms(20)).contains(delay)), "{jittered:?}");
        assert!(jittered.iter().any(|delay| *delay != jittered[0]));
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for factor in [0.5, 0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(ExponentialBackoff::new(ms(1), factor, 3).delays().is_err(), "{factor}");
        }
        assert!(RandomBackoff::new(ms(2), ms(1), 3).delays().is_err());
    }
}
