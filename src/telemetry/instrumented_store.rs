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
use super::steadiness::Steadiness;
use super::trace;
#[cfg(feature = "tracing")]
use super::trace::Call;
use crate::key::{Key, Token, Ttl};
use crate::store::{
    AcquireRequest, Acquired, Board, BoxFuture, Capabilities, Denial, Events, Extended, Forced, Health, HoldInfo,
    KeptHold, KeyState, LeftValue, NodeVote, Noticed, Post, Released, ScanPage, Store, StoreCause, StoreError,
    ValueToLeave, Watch,
};
use crate::supervise::hook;

/// How often a cause is logged.
const LOG_AGAIN: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct InstrumentedStore {
    store: Arc<dyn Store>,
    failures: Mutex<Failures>,
    steadiness: Mutex<Steadiness>,
    #[cfg(feature = "metrics")]
    meter: OnceLock<Meter>,
}

named! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Op {
        Acquire = "acquire",
        Extend = "extend",
        Release = "release",
        ForceRelease = "force_release",
        Look = "look",
        Watch = "watch",
        Health = "health",
        PutUp = "put_up",
    }
}

named! {
    /// What a call came to (S1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum CallOutcome {
        Done = "done",
        Refused = "refused",
        Unknown = "unknown",
    }
}

/// What an answer of the store says of its call: what it came to, and what kept the store from a yes or no.
trait Answer {
    fn read(&self) -> (CallOutcome, Option<&StoreError>);
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

#[cfg(feature = "metrics")]
struct Meter {
    ops: [([Counter; 3], Histogram); Op::ALL.len()],
    errors: [Counter; StoreCause::ALL.len()],
}

#[cfg(feature = "metrics")]
debug_of!(Meter);

impl InstrumentedStore {
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            failures: Mutex::default(),
            steadiness: Mutex::default(),
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
        self.failures.lock().last = None;
    }

    /// Counts from now on. The first reporter's label stays.
    #[cfg(feature = "metrics")]
    pub(crate) fn meter(&self, manager: &str) {
        let store = self.name();
        let _ = self.meter.set(Meter {
            ops: Op::ALL.map(|op| {
                let op = op.as_str();
                let counts = CallOutcome::ALL.map(|outcome| {
                    counter!(metric_names::STORE_OPERATIONS,
                        "manager" => manager.to_owned(), "store" => store, "op" => op, "outcome" => outcome.as_str())
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

    /// Counts, times and traces a call, of whose answer `part` says how it went. It is handed in as a future: some calls
    /// begin when they are made, before they are polled.
    fn observed_part<'a, T: Send + 'a, A: Answer + 'a>(
        &'a self,
        op: Op,
        key: Option<&Key>,
        call: BoxFuture<'a, T>,
        part: fn(&T) -> &A,
    ) -> BoxFuture<'a, T> {
        #[cfg(feature = "metrics")]
        let metered = self.meter.get().map(|meter| (meter, Instant::now()));
        #[cfg(feature = "tracing")]
        let call = match Call::begin(self.name(), op.as_str(), key) {
            Some(span) => Box::pin(span.follow(call, move |answer| outcome(op, part(answer)).as_str())),
            None => call,
        };
        #[cfg(not(feature = "tracing"))]
        let _ = key;
        Box::pin(async move {
            let answer = call.await;
            #[cfg(feature = "metrics")]
            if let Some((meter, began)) = metered {
                let (counts, times) = &meter.ops[op as usize];
                counts[outcome(op, part(&answer)) as usize].increment(1);
                times.record(began.elapsed());
            }
            match (part(&answer).read().1, op) {
                // A request that the store will never take is no failure of the store's.
                (Some(StoreError::InvalidKey { .. } | StoreError::InvalidTtl), _) => {}
                (Some(why), _) => self.failed(why),
                (None, Op::Acquire) => self.answered(),
                (None, _) => {}
            }
            answer
        })
    }

    fn observed<'a, A: Answer + Send + 'a>(&'a self, op: Op, key: &Key, call: BoxFuture<'a, A>) -> BoxFuture<'a, A> {
        self.observed_part(op, Some(key), call, |answer| answer)
    }
}

/// What a call came to. One that only looks is done also when the answer is no.
#[cfg(any(feature = "metrics", feature = "tracing"))]
fn outcome(op: Op, answer: &impl Answer) -> CallOutcome {
    match (op, answer.read().0) {
        (Op::Look, CallOutcome::Refused) => CallOutcome::Done,
        (_, outcome) => outcome,
    }
}

impl<T> Answer for Result<T, StoreError> {
    fn read(&self) -> (CallOutcome, Option<&StoreError>) {
        match self {
            Ok(_) => (CallOutcome::Done, None),
            Err(why) => (CallOutcome::Unknown, Some(why)),
        }
    }
}

impl Answer for Acquired {
    fn read(&self) -> (CallOutcome, Option<&StoreError>) {
        match self {
            Self::Granted { .. } => (CallOutcome::Done, None),
            // These two are not about the key.
            Self::Denied { why: Denial::OutOfMemory, .. } => (CallOutcome::Refused, Some(&StoreError::OutOfMemory)),
            Self::Denied { why: Denial::Unreplicated, .. } => (CallOutcome::Refused, Some(&StoreError::TooFewReplicas)),
            Self::Denied { .. } => (CallOutcome::Refused, None),
            Self::Unknown(why) => (CallOutcome::Unknown, Some(why)),
        }
    }
}

/// An answer whose patterns for yes and no are these.
macro_rules! yes_no_unknown {
    ($($answer:ident { $yes:pat => Done, $no:pat => Refused, })*) => {$(
        impl Answer for $answer {
            fn read(&self) -> (CallOutcome, Option<&StoreError>) {
                match self {
                    $yes => (CallOutcome::Done, None),
                    $no => (CallOutcome::Refused, None),
                    Self::Unknown(why) => (CallOutcome::Unknown, Some(why)),
                }
            }
        }
    )*};
}

yes_no_unknown! {
    Extended { Self::Extended { .. } => Done, Self::Lost => Refused, }
    Released { Self::Released => Done, Self::AlreadyGone => Refused, }
    Forced { Self::Released => Done, Self::WasFree => Refused, }
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
        self.observed(Op::Acquire, ask.key, self.store.acquire(ask))
    }

    fn leave(&self, key: &Key) {
        self.store.leave(key);
    }

    fn turn(&self, key: &Key) -> Option<Watch> {
        self.store.turn(key)
    }

    fn extend<'a>(&'a self, key: &'a Key, token: Token, ttl: Ttl) -> BoxFuture<'a, Extended> {
        self.observed(Op::Extend, key, self.store.extend(key, token, ttl))
    }

    fn confirm<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        self.observed(Op::Look, key, self.store.confirm(key, token))
    }

    fn downgrade<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Extended> {
        self.observed(Op::Extend, key, self.store.downgrade(key, token))
    }

    fn downgrade_claim<'a>(&'a self, key: &'a Key, token: Token, last_fence: u64) -> BoxFuture<'a, Extended> {
        self.observed(Op::Extend, key, self.store.downgrade_claim(key, token, last_fence))
    }

    fn release<'a>(&'a self, key: &'a Key, token: Token) -> BoxFuture<'a, Released> {
        self.observed(Op::Release, key, self.store.release(key, token))
    }

    fn release_claim<'a>(&'a self, key: &'a Key, token: Token, last_fence: u64) -> BoxFuture<'a, Released> {
        self.observed(Op::Release, key, self.store.release_claim(key, token, last_fence))
    }

    fn release_with_value<'a>(&'a self, key: &'a Key, token: Token, value: ValueToLeave) -> BoxFuture<'a, Released> {
        self.observed(Op::Release, key, self.store.release_with_value(key, token, value))
    }

    fn value<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Option<LeftValue>, StoreError>> {
        self.observed(Op::Look, key, self.store.value(key, within))
    }

    fn exchange<'a>(&'a self, token: Token, next: AcquireRequest<'a>) -> BoxFuture<'a, (Released, Acquired)> {
        let call = self.store.exchange(token, next);
        let call = self.observed_part(Op::Release, Some(next.key), call, |(released, _)| released);
        self.observed_part(Op::Acquire, Some(next.key), call, |(_, acquired)| acquired)
    }

    fn force_release<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Forced> {
        self.observed(Op::ForceRelease, key, self.store.force_release(key))
    }

    fn force_release_grant<'a>(&'a self, key: &'a Key, fence: u64) -> BoxFuture<'a, Forced> {
        self.observed(Op::ForceRelease, key, self.store.force_release_grant(key, fence))
    }

    fn give_notice<'a>(&'a self, key: &'a Key, within: Duration) -> BoxFuture<'a, Result<Noticed, StoreError>> {
        self.store.give_notice(key, within)
    }

    fn look<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<KeyState, StoreError>> {
        self.observed(Op::Look, key, self.store.look(key, token))
    }

    fn holders<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Result<Vec<HoldInfo>, StoreError>> {
        self.observed(Op::Look, key, self.store.holders(key, token))
    }

    fn scan<'a>(
        &'a self,
        prefix: &'a str,
        cursor: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Option<ScanPage>, StoreError>> {
        self.store.scan(prefix, cursor, limit)
    }

    fn kept_holds(&self) -> BoxFuture<'_, Result<Vec<KeptHold>, StoreError>> {
        self.store.kept_holds()
    }

    fn put_up<'a>(&'a self, post: Post<'a>) -> BoxFuture<'a, Result<Board, StoreError>> {
        self.observed_part(Op::PutUp, None, self.store.put_up(post), |answer| answer)
    }

    fn votes<'a>(&'a self, key: &'a Key, token: Option<Token>) -> BoxFuture<'a, Vec<NodeVote>> {
        self.store.votes(key, token)
    }

    fn watch<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Watch, StoreError>> {
        self.observed(Op::Watch, key, self.store.watch(key))
    }

    fn events(&self) -> BoxFuture<'_, Result<Events, StoreError>> {
        self.store.events()
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        let asked = self.observed_part(Op::Health, None, self.store.health(), |health| &health.answer);
        Box::pin(async move {
            let mut health = asked.await;
            self.steadiness.lock().note(&mut health, Instant::now());
            health
        })
    }
}
