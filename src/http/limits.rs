//! What a request over HTTP may ask for, beyond the manager's own bounds.

use std::time::{Duration, Instant};

/// A century; clocks overflow somewhere beyond.
const LONGEST_DELAY: Duration = Duration::from_hours(100 * 365 * 24);

settings! {
    /// Bounds on requests over HTTP. Give a scope its own by `app_data`; without, it has the defaults.
    ///
    /// | bound | default | beyond it |
    /// |---|---|---|
    /// | `max_body_bytes` | 16 KiB | 413 `too_large` |
    /// | `body_timeout` | 5 s | 408 `body_timeout` |
    /// | `min_ttl`, `max_ttl` | 10 ms, 24 h | 422 `invalid_ttl` |
    /// | `max_wait` | 60 s | 422 `invalid_option` |
    /// | `max_listed` | 1000 | 422 `invalid_option` |
    /// | `max_streams` | 64 | 429 `too_many_streams` |
    /// | `start_delay` | none | 503 `starting` |
    ///
    /// The manager's bounds hold as well: the narrower one decides.
    ///
    /// ```
    /// use std::time::Duration;
    /// let limits = leasehold::http::Limits::new().max_wait(Duration::from_secs(10));
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[must_use]
    pub struct Limits {
        /// The longest body, in bytes.
        max_body_bytes: usize = 16 * 1024;
        /// How long a client may take to send its body.
        body_timeout: Duration = Duration::from_secs(5);
        /// The shortest `ttl_ms`.
        min_ttl: Duration = Duration::from_millis(10);
        /// The longest `ttl_ms`.
        max_ttl: Duration = Duration::from_hours(24);
        /// The longest `wait_ms`.
        max_wait: Duration = Duration::from_secs(60);
        /// The largest `limit` of a list.
        max_listed: usize = 1000;
        /// How many may listen to the events of the manager at once, however they do.
        max_streams: usize = 64;
        ..
        grants_from: Option<Instant> = None;
    }
}

impl Limits {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Grants nothing over HTTP for this long from now: a manager in memory has forgotten the locks of the process
    /// before it, and whoever holds one does not know. As long as the longest TTL in use is long enough.
    pub fn start_delay(mut self, delay: Duration) -> Self {
        // A time beyond the clock's is no reason to grant at once.
        self.grants_from = Instant::now().checked_add(delay.min(LONGEST_DELAY));
        self
    }

    /// The time until something may be granted.
    pub(super) fn still_starting(&self) -> Option<Duration> {
        let left = self.grants_from?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }
}
