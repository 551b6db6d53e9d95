//! A store as its manager calls it: each call is counted and timed once a reporter has asked for it (feature
//! `metrics`), and has a span if somebody listens (feature `tracing`). What kept the store from an answer is kept,
//! counted by cause, and logged once a minute for each cause (N2).
//!
//! Every manager with a store calls it through this one. The calls themselves go through unchanged (S1 to S14); a call
//! whose future is dropped before it is answered is not counted.

use std::sync::Arc;
#[cfg(feature = "metrics")]
use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[cfg(feature = "metrics")]
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::Mutex;

#[cfg(feature = "metrics")]
use super::metric_names;
use super::trace;
#[cfg(feature = "tracing")]
use super::trace::Call;
use crate::key::{Key, Token, Ttl};
use crate::store::{
    AcquireRequest, Acquired, BoxFuture, Capabilities, Denial, Events, Extended, Forced, Health, HoldInfo, KeyState,
    NodeVote, Noticed, Released, ScanPage, Store, StoreCause, StoreError, Watch,
};
use crate::supervise::hook;

/// How often a cause is logged.
const LOG_AGAIN: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct InstrumentedStore {
    store: Arc<dyn Store>,
    failures: Mutex<Failures>,
    #[cfg(feature = "metrics")]
    meter: OnceLock<Meter>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Acquire,
    Extend,
    Release,
    ForceRelease,
    Look,
    Watch,
    Health,
}

/// What a call came to (S1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CallOutcome {
    Done,
    Refused,
    Unknown,
}

/// The calls that the store did not answer.
#[derive(Debug, Default)]
struct Failures {
    /// Why the last of them had no answer; `None` once a request for a key was answered since.
    last: Option<StoreError>,
    by_cause: [Cause; StoreCause::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Cause {
    /// When it was logged last.
    logged: Option<Instant>,
    /// How many there were since then.
    times: u64,
}

#[cfg(any(feature = "metrics", feature = "tracing"))]
const OPS: [(Op, &str); 7] = [
    (Op::Acquire, "acquire"),
    (Op::Extend, "extend"),
    (Op::Release, "release"),
    (Op::ForceRelease, "force_release"),
    (Op::Look, "look"),
    (Op::Watch, "watch"),
    (Op::Health, "health"),
];
#[cfg(any(feature = "metrics", feature = "tracing"))]
const CALL_OUTCOMES: [(CallOutcome, &str); 3] =
    [(CallOutcome::Done, "done"), (CallOutcome::Refused, "refused"), (CallOutcome::Unknown, "unknown")];

#[cfg(feature = "metrics")]
struct Meter {
    ops: [([Counter; 3], Histogram); OPS.len()],
    errors: [Counter; StoreCause::ALL.len()],
}

#[cfg(feature = "metrics")]
debug_of!(Meter);

impl InstrumentedStore {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            failures: Mutex::default(),
            #[cfg(feature = "metrics")]
            meter: OnceLock::new(),
        })
    }

    /// What kept the store from its last answer, unless it has said yes or no to a request for a key since.
    pub(crate) fn last_error(&self) -> Option<StoreError> {
        self.failures.lock().last.clone()
    }

    /// A call has ended without an answer.
    fn failed(&self, why: &StoreError) {
        let cause = why.cause();
        #[cfg(feature = "metrics")]
        if let Some(meter) = self.meter.get() {
            meter.errors[cause as usize].increment(1);
        }
        let mut failures = self.failures.lock();
        failures.last = Some(why.clone());
        let Cause { logged, times } = &mut failures.by_cause[cause as usize];
        *times += 1;
        // A store that is shut down answers nothing, and that is right.
        if cause != StoreCause::NotRunning && logged.is_none_or(|at| at.elapsed() >= LOG_AGAIN) {
            *logged = Some(Instant::now());
            let times = std::mem::take(times);
            drop(failures);
            hook(|| trace::store_failed(self.store.name(), why, times));
        }
    }

    /// The store has granted or refused a key.
    fn answered(&self) {
        // Mostly nothing is to be forgotten.
        let mut failures = self.failures.lock();
        if failures.last.is_some() {
            failures.last = None;
        }
    }

    /// Counts from now on. The first reporter's label stays.
    #[cfg(feature = "metrics")]
    pub(crate) fn meter(&self, manager: &str) {
        let store = self.name();
        let _ = self.meter.set(Meter {
            ops: OPS.map(|(_, op)| {
                let counts = CALL_OUTCOMES.map(|(_, outcome)| {
                    counter!(metric_names::STORE_OPERATIONS,
                        "manager" => manager.to_owned(), "store" => store, "op" => op, "outcome" => outcome)
                });
                let times =
                    histogram!(metric_names::STORE_SECONDS, "manager" => manager.to_owned(), "store" => store, "op" => op);
                (counts, times)
            }),
            errors: StoreCause::ALL.map(|cause| {
                counter!(metric_names::STORE_ERRORS,
                    "manager" => manager.to_owned(), "store" => store, "cause" => cause.as_str())
            }),
        });
    }

    /// Counts, times and traces a call. It is handed in as a future: some calls begin when they are made, before they
    /// are polled.
    fn observed<'a, T: Send + 'a>(
        &'a self,
        op: Op,
        key: Option<&Key>,
        call: BoxFuture<'a, T>,
        outcome: impl Fn(&T) -> CallOutcome + Copy + Send + 'a,
        failure: impl Fn(&T) -> Option<&StoreError> + Send + 'a,
    ) -> BoxFuture<'a, T> {
        #[cfg(feature = "tracing")]
        let call = self.traced(op, key, call, outcome);
        #[cfg(not(feature = "tracing"))]
        let _ = key;
        #[cfg(not(any(feature = "metrics", feature = "tracing")))]
        let _ = outcome;
        #[cfg(feature = "metrics")]
        let call = self.timed(op, call, outcome);
        Box::pin(async move {
            let answer = call.await;
            match (failure(&answer), op) {
                (Some(why), _) => self.failed(why),
                (None, Op::Acquire) => self.answered(),
                (None, _) => {}
            }
            answer
        })
    }

    fn forced<'a>(&'a self, key: &Key, call: BoxFuture<'a, Forced>) -> BoxFuture<'a, Forced> {
        self.observed(
            Op::ForceRelease,
            Some(key),
            call,
            |answer| match answer {
                Forced::Released => CallOutcome::Done,
                Forced::WasFree => CallOutcome::Refused,
                Forced::Unknown(_) => CallOutcome::Unknown,
            },
            |answer| if let Forced::Unknown(why) = answer { Some(why) } else { None },
        )
    }

    #[cfg(feature = "tracing")]
    fn traced<'a, T: Send + 'a>(
        &'a self,
        op: Op,
        key: Option<&Key>,
        call: BoxFuture<'a, T>,
        outcome: impl Fn(&T) -> CallOutcome + Send + 'a,
    ) -> BoxFuture<'a, T> {
        match Call::begin(self.name(), OPS[op as usize].1, key) {
            Some(span) => Box::pin(span.follow(call, move |answer| CALL_OUTCOMES[outcome(answer) as usize].1)),
            None => call,
        }
    }

    #[cfg(feature = "metrics")]
    fn timed<'a, T: Send + 'a>(
        &'a self,
        op: Op,
        call: BoxFuture<'a, T>,
        outcome: impl Fn(&T) -> CallOutcome + Send + 'a,
    ) -> BoxFuture<'a, T> {
        let Some(meter) = self.meter.get() else { return call };
        let began = Instant::now();
        Box::pin(async move {
            let answer = call.await;
            let (counts, times) = &meter.ops[op as usize];
            counts[outcome(&answer) as usize].increment(1);
            times.record(began.elapsed());
            answer
        })
    }

    fn observed_extend<'a>(&'a self, key: &'a Key, call: BoxFuture<'a, Extended>) -> BoxFuture<'a, Extended> {
        self.observed(
            Op::Extend,
            Some(key),
            call,
            |answer| match answer {
                Extended::Extended { .. } => CallOutcome::Done,
                Extended::Lost => CallOutcome::Refused,
                Extended::Unknown(_) => CallOutcome::Unknown,
            },
            |answer| if let Extended::Unknown(why) = answer { Some(why) } else { None },
        )
    }

    fn observed_release<'a>(&'a self, key: &'a Key, call: BoxFuture<'a, Released>) -> BoxFuture<'a, Released> {
        self.observed(Op::Release, Some(key), call, released, unreleased)
    }
}

fn known<T>(answer: &Result<T, StoreError>) -> CallOutcome {
    if answer.is_ok() { CallOutcome::Done } else { CallOutcome::Unknown }
}

/// A request that the store will never take is no failure of the store's.
fn failure<T>(answer: &Result<T, StoreError>) -> Option<&StoreError> {
    answer.as_ref().err().filter(|why| !matches!(why, StoreError::InvalidKey { .. } | StoreError::InvalidTtl))
}

/// Denials that are not about the key.
static OUT_OF_MEMORY: StoreError = StoreError::OutOfMemory;
static TOO_FEW_REPLICAS: StoreError = StoreError::TooFewReplicas;

fn acquired(answer: &Acquired) -> CallOutcome {
    match answer {
        Acquired::Granted { .. } => CallOutcome::Done,
        Acquired::Denied { .. } => CallOutcome::Refused,
        Acquired::Unknown(_) => CallOutcome::Unknown,
    }
}

/// What kept the store from an answer about the key.
fn unacquired(answer: &Acquired) -> Option<&StoreError> {
    match answer {
        Acquired::Denied { why: Denial::OutOfMemory, .. } => Some(&OUT_OF_MEMORY),
        Acquired::Denied { why: Denial::Unreplicated, .. } => Some(&TOO_FEW_REPLICAS),
        Acquired::Unknown(StoreError::InvalidKey { .. } | StoreError::InvalidTtl) => None,
        Acquired::Unknown(why) => Some(why),
        _ => None,
    }
}

fn released(answer: &Released) -> CallOutcome {
    match answer {
        Released::Released => CallOutcome::Done,
        Released::AlreadyGone => CallOutcome::Refused,
        Released::Unknown(_) => CallOutcome::Unknown,
    }
}

/// The same of a release.
fn unreleased(answer: &Released) -> Option<&StoreError> {
    if let Released::Unknown(why) = answer { Some(why) } else { None }
}

impl Store for InstrumentedStore {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn canonical(&self, key: &Key) -> Result<Key, StoreError> {
        self.store.canonical(key)
    }

    fn start(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.start()
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.store.stop()
    }

    fn acquire<'a>(&'a self, ask: AcquireRequest<'a>) -> BoxFuture<'a, Acquired> {
        self.observed(Op::Acquire, Some(ask.key), self.store.acquire(ask), acquired, unacquired)
    }

    fn leave(&self, key: &Key) {
        self.store.leave(key);
    }

    fn turn(&self, key: &Key) -> Option<Watch> {
        self.store.turn(key)
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        self.observed_extend(key, self.store.extend(key, token, ttl))
    }

    fn confirm<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        self.observed(
            Op::Look,
            Some(key),
            self.store.confirm(key, token),
            |answer| match answer {
                Extended::Extended { .. } | Extended::Lost => CallOutcome::Done,
                Extended::Unknown(_) => CallOutcome::Unknown,
            },
            |answer| if let Extended::Unknown(why) = answer { Some(why) } else { None },
        )
    }

    fn downgrade<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        self.observed_extend(key, self.store.downgrade(key, token))
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        self.observed_release(key, self.store.release(key, token))
    }

    fn release_claim<'a>(&'a self, key: &'a Key, token: Token, last_fence: u64) -> BoxFuture<'a, Released> {
        self.observed_release(key, self.store.release_claim(key, token, last_fence))
    }

    fn exchange<'a>(&'a self, token: Token, next: AcquireRequest<'a>) -> BoxFuture<'a, (Released, Acquired)> {
        let call = self.store.exchange(token, next);
        let call =
            self.observed(Op::Release, Some(next.key), call, |(one, _)| released(one), |(one, _)| unreleased(one));
        self.observed(Op::Acquire, Some(next.key), call, |(_, one)| acquired(one), |(_, one)| unacquired(one))
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        self.forced(key, self.store.force_release(key))
    }

    fn force_release_grant<'a>(&'a self, key: &'a Key, fence: u64) -> BoxFuture<'a, Forced> {
        self.forced(key, self.store.force_release_grant(key, fence))
    }

    fn give_notice<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Noticed, StoreError>> {
        self.store.give_notice(key, within)
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        self.observed(Op::Look, Some(key), self.store.look(key, token), known, failure)
    }

    fn holders<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<Vec<HoldInfo>, StoreError>> {
        self.observed(Op::Look, Some(key), self.store.holders(key, token), known, failure)
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        cursor: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<ScanPage>, StoreError>> {
        self.store.scan(prefix, cursor, limit)
    }

    fn votes<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Vec<NodeVote>> {
        self.store.votes(key, token)
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        self.observed(Op::Watch, Some(key), self.store.watch(key), known, failure)
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        self.store.events()
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        self.observed(
            Op::Health,
            None,
            self.store.health(),
            |health| known(&health.answer),
            |health| failure(&health.answer),
        )
    }
}
