//! HTTP requests, counted and timed by route, method and status: none of which a client can make up.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use metrics::{Counter, Histogram, counter, histogram};

use super::metric_names;

/// Counts the requests of the HTTP routes of every app that has it in its `app_data`.
///
/// Make it after the process's recorder is installed.
#[derive(Clone, Default)]
pub struct HttpMetrics {
    seen: Arc<DashMap<Kind, RequestCounter>>,
}

/// The codes of 401, 403 and 429. Each is there from the start, so that its first is a rise.
const REASONS: [&str; 14] = [
    "unauthenticated",
    "forbidden",
    "forbidden_host",
    "cross_site",
    "rate_limited",
    "queue_full",
    "too_many_keys",
    "too_many_locks",
    "too_many_sessions",
    "too_many_streams",
    "lock_quota",
    "session_quota",
    "waiter_quota",
    "stream_quota",
];

#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    route: String,
    method: &'static str,
    code: u16,
}

impl HttpMetrics {
    /// Counts nothing yet.
    #[must_use]
    pub fn new() -> Self {
        for reason in REASONS {
            counter!(metric_names::HTTP_REFUSALS, "reason" => reason).absolute(0);
        }
        Self::default()
    }

    /// Counts a request that was refused, by the code of its problem.
    #[expect(clippy::unused_self, reason = "who has these metrics counts")]
    pub(crate) fn refused(&self, reason: &'static str) {
        counter!(metric_names::HTTP_REFUSALS, "reason" => reason).increment(1);
    }

    /// What requests of one kind are counted by. `route` is the pattern that was matched, if any was.
    pub(crate) fn counter(&self, route: Option<String>, method: &str, code: u16) -> RequestCounter {
        let kind = Kind { route: route.unwrap_or_else(|| "unknown".to_owned()), method: known(method), code };
        if let Some(counter) = self.seen.get(&kind) {
            return counter.clone();
        }
        let labels =
            [("route", kind.route.clone()), ("method", kind.method.to_owned()), ("code", kind.code.to_string())];
        let count = counter!(metric_names::HTTP_REQUESTS, &labels);
        // Without the code: each would have all the buckets anew.
        let times = histogram!(metric_names::HTTP_SECONDS, &labels[..2]);
        let counter = RequestCounter { count, times };
        self.seen.insert(kind, counter.clone());
        counter
    }
}

/// Counts requests of one kind.
#[derive(Clone)]
pub(crate) struct RequestCounter {
    count: Counter,
    times: Histogram,
}

impl RequestCounter {
    pub(crate) fn count(&self, took: Duration) {
        self.count.increment(1);
        self.times.record(took);
    }
}

/// A client may name any method.
fn known(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("other")
}

debug_of!(HttpMetrics, |it| kinds: it.seen.len());
