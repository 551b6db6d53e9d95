//! One shard: a table behind one mutex, shared by the handles (the fast path) and by the actor that owns its time.
//!
//! An acquire that can be answered at once, and every release, run here in the caller's own thread; only what must
//! wait for time is left to the actor, which calls [`Shard::turn`]. Effects run after the mutex is dropped. There is
//! no `await` and no user code under it, and nothing beyond O(1) amortised: longer work goes in slices of
//! [`SLICE`].
//!
//! The fast path dates by the coarse clock where an earlier deadline or a longer wait is harmless (C2), and reads the
//! exact one for a short TTL, a short wait, and before it refuses a request because the key is held.

mod acquisition;
pub(crate) mod answer;
mod by_token;
pub(crate) mod client;
mod closing;
mod degraded;
pub(crate) mod driver;
mod forked;
mod grants;
mod inbox;
mod inspect;
mod lanes;
pub(crate) mod loss;
pub(crate) mod note;
mod notice;
mod offer;
mod queue;
mod reconcile;
#[cfg(all(test, shuttle))]
mod shuttled;
#[cfg(test)]
mod stub;
pub(crate) mod timer;
#[cfg(all(test, feature = "test-util"))]
mod turns;
mod under_way;
pub(crate) mod upgrade;
pub(crate) mod waiter_budget;
mod wants;

#[cfg(feature = "test-util")]
use std::sync::atomic::AtomicBool;
#[cfg(feature = "test-util")]
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::clock::{Clock, Moment};
use crate::error::{AttemptOutcome, LockError};
use crate::key::{Key, Ttl, TtlBounds};
use crate::sync::{Mutex, MutexGuard};
use crate::table::{
    AcquireOutcome, AcquireRequest, Counters, Effects, End, Grant, Interest, Mode, NotFree, Release, Sink, Slice,
    Table, WaitPolicy, WaiterId,
};
use driver::StoreDriver;
use forked::Origin;
use offer::Offer;
use timer::Timers;
use upgrade::Host;
use waiter_budget::{WaiterBudget, WaiterPermits};

/// How much is done under the mutex at a time.
pub(crate) const SLICE: usize = 128;
/// How many chunks of sleepers one piece of work looks through for memory to give back.
const TRIMMED_AT_ONCE: usize = 8;
/// The actor looks at the clock at least this often while anything is due at all: sleeping timers do not count
/// through suspend. One shard's does so always, for the sake of the coarse clock.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// Below this TTL a tick of the coarse clock would be felt.
const SHORT_TTL_NANOS: u64 = 100_000_000;
/// From this wait on nobody feels it.
const LONG_WAIT: Duration = Duration::from_secs(1);

fn is_short(ttl: Ttl) -> bool {
    ttl.as_nanos() < SHORT_TTL_NANOS
}

/// What [`Shard::turn`] asks of the actor: sleep until this moment.
pub(crate) type WakeAt = Moment;

type Nudge = Box<dyn Fn() + Send + Sync>;

pub(crate) struct Shard {
    /// Locked by the lane as it is, and by all others by [`state`](Shard::state) or for a transition.
    mutex: CachePadded<Mutex<State>>,
    offer: CachePadded<Offer>,
    clock: Clock,
    longest_idle: Duration,
    ttls: TtlBounds,
    waiter_budget: Arc<WaiterBudget>,
    /// How many holders of shared keys and permits there may be.
    member_budget: Arc<WaiterBudget>,
    /// Carries out the table's commands to the store; `None` without a store.
    driver: Option<Arc<StoreDriver>>,
    /// Makes the actor take a turn now. Empty where no actor runs: in explored tests.
    nudge: OnceLock<Nudge>,
    /// The manager. Empty where there is none: in explored tests.
    host: OnceLock<Box<dyn Host>>,
    #[cfg(feature = "test-util")]
    panic_next: AtomicBool,
}

/// Beginning with what the lane needs, as the table does.
#[repr(C)]
struct State {
    /// The shard's: it lies with what the lane reads beside it.
    clock: Clock,
    /// Woken when nothing is held any more; set during shutdown, by each of them if there are several at once.
    when_empty: Vec<Waker>,
    table: Table,
    /// To whom the grant of which slot is offered, if the table does not know yet what became of that. If it were left out,
    /// a grant that its holder has would count as unseen.
    offered: Option<(WaiterId, u32)>,
    timers: Timers,
    /// What this shard has taken of `waiter_budget`; never less than the table has waiters.
    waiter_permits: WaiterPermits,
    /// What this shard has taken of `member_budget`; never less than the table has members.
    member_permits: WaiterPermits,
    /// When the actor takes its next turn by itself. Only the actor sets it later; a transition that waits for less
    /// sets it earlier and wakes the actor. If it were too early, the actor would sleep past a deadline.
    armed: Moment,
    /// The shortest time, since the last turn, from a grant to the turn that has to begin refreshing it. The next turn is no
    /// later: were it, the first such grant after each turn would have to wake the actor.
    keep_within: Duration,
    origin: Origin,
}

impl State {
    /// Gives memory back after a spike, a bounded piece at a time; whether there is more to be done.
    fn trim(&mut self) -> bool {
        self.table.trim() || self.timers.trim(TRIMMED_AT_ONCE)
    }

    /// Makes room before a bound refuses a request: what is over does not count (T1).
    fn make_room(&mut self, mode: Mode, members: &WaiterBudget, now: Moment, fx: &mut Effects) {
        if mode != Mode::Exclusive {
            let there = self.table.members();
            self.table.admit_members(self.member_permits.room(members, there));
        }
        if self.table.is_full() {
            // If a slice is not enough, the refusal has the actor go on.
            let _ = self.table.tick(now, SLICE, fx);
        }
    }
}

/// The state of a shard in which a key was not free, its mutex still held.
pub(crate) struct Locked<'a> {
    state: MutexGuard<'a, State>,
    /// The time that the fast path read just before.
    now: Moment,
    not_free: NotFree,
}

impl Shard {
    pub(crate) fn new(
        table: Table,
        clock: Clock,
        longest_idle: Duration,
        ttls: TtlBounds,
        (waiter_budget, member_budget): (Arc<WaiterBudget>, Arc<WaiterBudget>),
        driver: Option<Arc<StoreDriver>>,
    ) -> Self {
        let timers = Timers::new(clock.now());
        let (waiter_permits, member_permits) = (WaiterPermits::default(), WaiterPermits::default());
        let (armed, keep_within, origin) = (Moment::ZERO, Duration::MAX, Origin::new());
        let (clock_of_state, when_empty) = (clock.clone(), Vec::new());
        let state = State {
            clock: clock_of_state,
            when_empty,
            table,
            offered: None,
            timers,
            waiter_permits,
            member_permits,
            armed,
            keep_within,
            origin,
        };
        Self {
            mutex: CachePadded::new(Mutex::new(state)),
            offer: CachePadded::default(),
            clock,
            longest_idle,
            ttls,
            waiter_budget,
            member_budget,
            driver,
            nudge: OnceLock::new(),
            host: OnceLock::new(),
            #[cfg(feature = "test-util")]
            panic_next: AtomicBool::new(false),
        }
    }

    pub(crate) fn set_nudge(&self, nudge: impl Fn() + Send + Sync + 'static) {
        // Set once, by the runtime that starts the actor.
        let _ = self.nudge.set(Box::new(nudge));
    }

    pub(crate) fn set_host(&self, host: impl Host + 'static) {
        // Set once, by the manager that makes the shard.
        let _ = self.host.set(Box::new(host));
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// When a wait that is long enough for it began by the coarse clock, and how long it is from then on.
    pub(crate) fn begin_of_wait(&self, wait: Duration) -> Option<(Moment, Duration)> {
        (wait >= LONG_WAIT).then(|| (self.clock.coarse(), wait.saturating_add(self.clock.coarse_lag())))
    }

    pub(crate) fn bounds(&self) -> TtlBounds {
        self.ttls
    }

    /// The state, for whoever is not of the lane: the table knows of all grants that were taken.
    #[inline]
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.mutex.lock();
        state.settle(&self.offer);
        state
    }

    /// Runs a transition under the mutex, its effects after it, and wakes the actor if it would sleep too long.
    ///
    /// Were the transition to panic, the mutex would be free and the effects so far run: locals drop in this order.
    fn with<R>(&self, transition: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        self.finish(self.mutex.lock(), transition)
    }

    /// The same where the caller holds the mutex already.
    #[inline]
    fn finish<R>(&self, locked: MutexGuard<'_, State>, transition: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        let mut fx = Effects::new();
        let answer = self.transact(locked, &mut fx, transition);
        self.run_effects(fx);
        answer
    }

    #[inline]
    fn run_effects(&self, mut fx: Effects) {
        let rechecks = fx.take_rechecks();
        drop(fx);
        if let Some(rechecks) = rechecks
            && let Some(host) = self.host.get()
        {
            host.recheck(rechecks);
        }
    }

    /// The same where the caller runs the effects: the deadlock check, which holds a mutex of its own meanwhile.
    fn with_effects<R>(&self, fx: &mut Effects, transition: impl FnOnce(&mut State, &mut Effects) -> R) -> R {
        self.transact(self.mutex.lock(), fx, transition)
    }

    #[inline]
    fn transact<R>(
        &self,
        locked: MutexGuard<'_, State>,
        fx: &mut Effects,
        transition: impl FnOnce(&mut State, &mut Effects) -> R,
    ) -> R {
        let mut state = locked;
        state.settle(&self.offer);
        let answer = transition(&mut state, fx);
        let waiting = state.table.waiting();
        state.waiter_permits.give_back(&self.waiter_budget, waiting);
        let members = state.table.members();
        state.member_permits.give_back(&self.member_budget, members);
        let early = fx.earliest() < state.armed;
        if early {
            state.armed = fx.earliest();
        }
        if !state.when_empty.is_empty() && state.table.held() == 0 {
            state.when_empty.drain(..).for_each(|waker| fx.wake(waker));
        }
        drop(state);
        if early && let Some(nudge) = self.nudge.get() {
            nudge();
        }
        answer
    }

    /// Grants a key that nobody holds: the whole way in when there is no contention. Otherwise answers the shard with
    /// its mutex still held, for the request to queue under it.
    #[inline(always)]
    pub(crate) fn grant_if_free(&self, request: &AcquireRequest<'_>) -> Result<Grant, Locked<'_>> {
        let mut state = self.mutex.lock();
        let now = if is_short(request.terms.ttl) { state.clock.now() } else { state.clock.coarse() };
        match state.table.grant_if_free(request, now) {
            Ok(grant) => Ok(grant),
            Err(not_free) => Err(Locked { state, now, not_free }),
        }
    }

    /// Answers a request as far as it can be answered now. `now` is the exact time.
    pub(crate) fn acquire(&self, request: &AcquireRequest<'_>, policy: WaitPolicy<'_>, now: Moment) -> AcquireOutcome {
        self.with_swept(request.key, request.hash, now, |state, fx| {
            // A store is asked by the manager's thread, also for a request that does not wait.
            if self.driver.is_some()
                && let Err(refused) = state.refuse_fork(request.terms.mode(), now)
            {
                return refused;
            }
            state.make_room(request.terms.mode(), &self.member_budget, now, fx);
            state.table.acquire(request, policy, now, fx)
        })
    }

    /// Runs a transition on a key once no holder past its deadline counts any more. Of many who share the key they are
    /// ended in steps, between which the mutex is free.
    fn with_swept<R>(
        &self,
        key: &Key,
        hash: u32,
        now: Moment,
        mut transition: impl FnMut(&mut State, &mut Effects) -> R,
    ) -> R {
        loop {
            let done = self.with(|state, fx| match state.table.expire_some(key, hash, now, fx) {
                Slice::Done => Some(transition(state, fx)),
                Slice::More => None,
            });
            if let Some(answer) = done {
                return answer;
            }
        }
    }

    /// Answers a request of an owner if it can be granted now; changes nothing otherwise.
    pub(crate) fn grant_now(&self, request: &AcquireRequest<'_>) -> Option<Grant> {
        let now = self.clock.now();
        self.with(|state, fx| {
            state.make_room(request.terms.mode(), &self.member_budget, now, fx);
            state.table.grant_now(request, now, fx)
        })
    }

    pub(crate) fn cancel(&self, id: WaiterId) {
        let now = self.clock.now();
        self.with(|state, fx| state.table.cancel(id, now, fx));
    }

    pub(crate) fn answer_taken(&self, request: &AcquireRequest<'_>) -> Result<Grant, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.answer_taken(request, now, fx))
    }

    #[inline]
    pub(crate) fn release(&self, grant: &Grant, end: End) -> Release {
        let mut state = self.mutex.lock();
        let coarse = state.clock.coarse();
        if state.when_empty.is_empty()
            && let Some(released) = state.table.release_if_alone(grant, end, coarse)
        {
            return released;
        }
        self.hand_on(state, grant, end, coarse)
    }

    /// Adds to the counters what the table cannot count itself.
    pub(crate) fn count(&self, add: impl FnOnce(&mut Counters)) {
        add(self.state().table.counters_mut());
    }

    /// Whether the keys of this shard are kept in a store.
    pub(crate) fn has_store(&self) -> bool {
        self.driver.is_some()
    }

    /// Counts an attempt that never came to the table, and how it ended.
    pub(crate) fn count_attempt(&self, mode: Mode, outcome: AttemptOutcome, add: impl FnOnce(&mut Counters)) {
        let mut state = self.state();
        let counters = state.table.counters_mut();
        counters.attempts += 1;
        add(counters);
        state.table.tally_mut().attempt(mode, outcome);
    }

    /// Counts that a request takes up the wait of one that has timed out.
    #[cfg(feature = "http")]
    pub(crate) fn count_continued(&self, key: &Key, hash: u32) {
        self.state().table.count_continued(key, hash);
    }

    /// Publishes what happens from now on.
    pub(crate) fn listen(&self, interest: Interest, sink: Arc<dyn Sink>) {
        self.with(|state, fx| {
            state.table.listen(interest, sink);
            // What is held already was not worth waking the actor for.
            fx.due(self.clock.now());
        });
    }

    pub(crate) fn stop_listening(&self, interest: Interest) {
        self.with(|state, _| state.table.stop_listening(interest));
    }

    /// Does everything that is due, in slices. Anybody may call it.
    pub(crate) fn sweep(&self) {
        while self.with(|state, fx| self.slice(state, fx)) == Slice::More {}
    }

    /// The actor's turn: does one slice of what is due, and answers when to come again. A moment that has passed says
    /// that there is more: the actor comes again when its neighbours have had their turns.
    ///
    /// Only the actor may call it: it notes down that somebody will come at that time.
    pub(crate) fn turn(&self) -> WakeAt {
        self.with(|state, fx| {
            if self.slice(state, fx) == Slice::More || state.trim() {
                state.armed = Moment::ZERO;
                return state.armed;
            }
            let now = self.clock.now();
            // The next grants may be dated that much before now.
            let keep_within = std::mem::replace(&mut state.keep_within, Duration::MAX);
            let keep_within = keep_within.saturating_sub(self.clock.coarse_lag());
            let armed = match [state.table.next_due(), state.timers.next()].into_iter().flatten().min() {
                Some(due) => due.min(now.saturating_add(LONGEST_SLEEP)),
                // Else each grant that comes would have to wake the actor.
                None if state.table.has_listeners() => now.saturating_add(LONGEST_SLEEP.min(self.longest_idle)),
                None => now.saturating_add(self.longest_idle),
            };
            state.armed = armed.min(now.saturating_add(keep_within));
            state.armed
        })
    }

    fn slice(&self, state: &mut State, fx: &mut Effects) -> Slice {
        let now = self.clock.now();
        let table = state.table.tick(now, SLICE, fx);
        #[cfg(feature = "test-util")]
        if self.panic_next.swap(false, Ordering::SeqCst) {
            panic!("a test asked this turn to panic");
        }
        let timers_idle = (0..SLICE).any(|_| !state.timers.step(now, fx));
        if table == Slice::Done && timers_idle { Slice::Done } else { Slice::More }
    }

    #[cfg(feature = "test-util")]
    pub(crate) fn panic_at_next_turn(&self) {
        self.panic_next.store(true, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (_, held, waiting) = self.totals();
        f.debug_struct("Shard").field("held", &held).field("waiting", &waiting).finish_non_exhaustive()
    }
}
