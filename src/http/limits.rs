//! What a request over HTTP may ask for, beyond the manager's own bounds.

use std::time::{Duration, Instant};

/// A century; clocks overflow somewhere beyond.
const LONGEST_DELAY: Duration = Duration::from_hours(100 * 365 * 24);

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
    pub(super) max_body_bytes: usize,
    pub(super) body_timeout: Duration,
    pub(super) min_ttl: Duration,
    pub(super) max_ttl: Duration,
    pub(super) max_wait: Duration,
    pub(super) max_listed: usize,
    pub(super) max_streams: usize,
    grants_from: Option<Instant>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 16 * 1024,
            body_timeout: Duration::from_secs(5),
            min_ttl: Duration::from_millis(10),
            max_ttl: Duration::from_hours(24),
            max_wait: Duration::from_secs(60),
            max_listed: 1000,
            max_streams: 64,
            grants_from: None,
        }
    }
}

impl Limits {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The longest body, in bytes.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// How long a client may take to send its body.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// The shortest `ttl_ms`.
    pub fn min_ttl(mut self, ttl: Duration) -> Self {
        self.min_ttl = ttl;
        self
    }

    /// The longest `ttl_ms`.
    pub fn max_ttl(mut self, ttl: Duration) -> Self {
        self.max_ttl = ttl;
        self
    }

    /// The longest `wait_ms`.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// The largest `limit` of a list.
    pub fn max_listed(mut self, rows: usize) -> Self {
        self.max_listed = rows;
        self
    }

    /// How many may listen to the events of the manager at once, however they do.
    pub fn max_streams(mut self, streams: usize) -> Self {
        self.max_streams = streams;
        self
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
