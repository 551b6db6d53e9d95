//! Spans of [`tracing`](https://docs.rs/tracing) for who wants to see single requests: with the feature `tracing`, at
//! the level `DEBUG`, with fields that OpenTelemetry's exporters understand.
//!
//! Which they are, and what is in them, stands in the crate's documentation. Keys are, for spans are read by few and
//! kept for days; tokens and owners never. While nobody listens a request costs the look at one number. Called by
//! `request`, `lock`, `run` and what calls the store.

#[cfg(not(feature = "tracing"))]
pub(crate) use off::{Attempt, Hold, instrument, is_on, store_failed, value_not_shared, waits_left_out};
#[cfg(feature = "tracing")]
pub(crate) use on::{Attempt, Call, Hold, instrument, is_on, store_failed, value_not_shared, waits_left_out};

#[cfg(feature = "tracing")]
mod on {
    use tracing::field::Empty;
    use tracing::level_filters::{LevelFilter, STATIC_MAX_LEVEL};
    use tracing::span::Entered;
    use tracing::{Instrument, Level, Span, debug_span};

    use crate::error::{AttemptOutcome, LockError};
    use crate::key::{FencingToken, Key};
    use crate::store::StoreError;
    use crate::table::Mode;

    /// Whether anybody may listen.
    #[inline]
    pub(crate) fn is_on() -> bool {
        Level::DEBUG <= STATIC_MAX_LEVEL && Level::DEBUG <= LevelFilter::current()
    }

    /// Has work that goes on elsewhere belong to what is done here.
    pub(crate) fn instrument<F: Future>(work: F) -> impl Future<Output = F::Output> {
        work.instrument(if is_on() { Span::current() } else { Span::none() })
    }

    /// Calls to a store fail. `times`: so often since it was said last.
    pub(crate) fn store_failed(store: &'static str, why: &StoreError, times: u64) {
        tracing::warn!(target: "leasehold", store, cause = why.cause().as_str(), %why, times, "the store cannot answer");
    }

    /// A value of a shared call stays in its process, or was left in vain. Of the value itself nothing is said.
    pub(crate) fn value_not_shared(key: &Key, why: &'static str) {
        tracing::debug!(
            name: "leasehold.value_not_shared", target: "leasehold", { lock.key = %key, why },
            "a value is not shared with other processes"
        );
    }

    /// More waits than processes tell each other: so many owners of this one, and posts of others.
    pub(crate) fn waits_left_out(owners: usize, posts: usize) {
        tracing::warn!(target: "leasehold", owners, posts, "too many wait to look for deadlocks through all of them");
    }

    /// A request under way. Dropped without an answer, it was cancelled.
    pub(crate) struct Attempt(Box<Spans>);

    struct Spans {
        mode: Mode,
        span: Span,
        waiting: Option<Span>,
    }

    impl Attempt {
        /// `None` if nobody listens to these spans.
        #[cold]
        pub(crate) fn begin(key: &Key, mode: Mode) -> Option<Self> {
            let span = debug_span!(
                "leasehold.acquire",
                otel.kind = "internal",
                otel.status_code = Empty,
                error.r#type = Empty,
                lock.key = %key,
                lock.mode = mode.label().as_str(),
                lock.outcome = Empty,
            );
            (!span.is_disabled()).then(|| Self(Box::new(Spans { mode, span, waiting: None })))
        }

        /// Does its work in the span.
        pub(crate) fn within<R>(&self, work: impl FnOnce() -> R) -> R {
            self.0.waiting.as_ref().unwrap_or(&self.0.span).in_scope(work)
        }

        /// It could not be answered at once.
        pub(crate) fn waits(&mut self, key: &Key) {
            let begin = || {
                debug_span!(parent: &self.0.span, "leasehold.wait",
                    otel.kind = "internal", lock.key = %key, lock.outcome = Empty)
            };
            if self.0.waiting.is_none() {
                self.0.waiting = Some(begin());
            }
        }

        /// It was answered; says how it was to be held.
        pub(crate) fn end(mut self, answer: Result<(), &LockError>) -> Mode {
            self.outcome(answer.map_or_else(|why| why.outcome(), |()| AttemptOutcome::Acquired));
            self.0.mode
        }

        fn outcome(&mut self, outcome: AttemptOutcome) {
            let name = outcome.as_str();
            if let Some(waiting) = self.0.waiting.take() {
                waiting.record("lock.outcome", name);
            }
            let span = std::mem::replace(&mut self.0.span, Span::none());
            span.record("lock.outcome", name);
            // Contention is an outcome; the rest is a failure.
            if !matches!(outcome, AttemptOutcome::Acquired | AttemptOutcome::Busy | AttemptOutcome::Cancelled) {
                span.record("error.type", name).record("otel.status_code", "ERROR");
            }
        }
    }

    impl Drop for Attempt {
        fn drop(&mut self) {
            if !self.0.span.is_none() {
                self.outcome(AttemptOutcome::Cancelled);
            }
        }
    }

    /// The time for which a guard holds its lock.
    pub(crate) struct Hold(Option<Box<Span>>);

    impl Hold {
        pub(crate) const NONE: Self = Self(None);

        #[cold]
        pub(crate) fn begin(key: &Key, mode: Mode, fence: Option<FencingToken>) -> Self {
            let span = debug_span!(
                "leasehold.hold",
                otel.kind = "internal",
                lock.key = %key,
                lock.mode = mode.label().as_str(),
                lock.fence = fence.map(display),
                lock.end = Empty,
            );
            Self((!span.is_disabled()).then(|| Box::new(span)))
        }

        #[inline]
        pub(crate) fn end(&mut self, how: &'static str) {
            if self.0.is_some() {
                self.close(how);
            }
        }

        #[cold]
        fn close(&mut self, how: &'static str) {
            if let Some(span) = self.0.take() {
                span.record("lock.end", how);
            }
        }

        /// What is done until the answer is dropped is done under the lock.
        #[inline]
        pub(crate) fn enter(&self) -> Option<Entered<'_>> {
            self.0.as_deref().map(Span::enter)
        }
    }

    /// A call to a store.
    pub(crate) struct Call(Span);

    impl Call {
        /// `None` if nobody listens to these spans.
        pub(crate) fn begin(store: &'static str, op: &'static str, key: Option<&Key>) -> Option<Self> {
            if !is_on() {
                return None;
            }
            let span = debug_span!(
                "leasehold.store",
                otel.kind = "client",
                otel.status_code = Empty,
                db.system.name = store,
                db.operation.name = op,
                lock.key = key.map(display),
                lock.outcome = Empty,
            );
            (!span.is_disabled()).then_some(Self(span))
        }

        /// Does the call in the span, and says in it what it came to.
        pub(crate) async fn follow<T>(self, call: impl Future<Output = T>, said: impl FnOnce(&T) -> &'static str) -> T {
            let answer = call.instrument(self.0.clone()).await;
            let said = said(&answer);
            self.0.record("lock.outcome", said);
            if said == "unknown" {
                self.0.record("otel.status_code", "ERROR");
            }
            answer
        }
    }
}

/// Without the feature there are no spans.
#[cfg(not(feature = "tracing"))]
mod off {
    use crate::error::LockError;
    use crate::key::{FencingToken, Key};
    use crate::store::StoreError;
    use crate::table::Mode;

    pub(crate) fn store_failed(_: &'static str, _: &StoreError, _: u64) {}

    pub(crate) fn value_not_shared(_: &Key, _: &'static str) {}

    pub(crate) fn waits_left_out(_: usize, _: usize) {}

    #[inline]
    pub(crate) const fn is_on() -> bool {
        false
    }

    pub(crate) fn instrument<F: Future>(work: F) -> F {
        work
    }

    pub(crate) enum Attempt {}

    impl Attempt {
        pub(crate) fn begin(_: &Key, _: Mode) -> Option<Self> {
            None
        }

        pub(crate) fn within<R>(&self, _: impl FnOnce() -> R) -> R {
            match *self {}
        }

        pub(crate) fn waits(&mut self, _: &Key) {
            match *self {}
        }

        pub(crate) fn end(self, _: Result<(), &LockError>) -> Mode {
            match self {}
        }
    }

    pub(crate) struct Hold;

    impl Hold {
        pub(crate) const NONE: Self = Self;

        pub(crate) fn begin(_: &Key, _: Mode, _: Option<FencingToken>) -> Self {
            Self
        }

        #[inline]
        pub(crate) fn end(&mut self, _: &'static str) {}

        #[inline]
        pub(crate) fn enter(&self) -> Option<std::convert::Infallible> {
            None
        }
    }
}
