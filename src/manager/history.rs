//! What happened lately, step by step: the totals of every two seconds of the last ten minutes, for charts that are to
//! show something before anybody has watched.
//!
//! Nothing is counted for it. A task reads the totals that [`LockManager::stats`] tells, and what happened in a step is the
//! difference of two readings. Called by the HTTP routes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::stats::Stats;
use crate::engine::{Engine, LockManager};
use crate::supervise::supervise;

/// Between two readings.
const EVERY: Duration = Duration::from_secs(2);
/// How many steps are kept.
const KEPT: usize = 300;

/// What [`LockManager::history_within`] answers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// The oldest first; at most 300. None before the first step is over, or if none are [kept](LockManager::keep_history).
    pub steps: Vec<HistoryStep>,
    /// How long ago the last of them ended; zero without one.
    pub age: Duration,
}

impl History {
    /// How long a step lasts, as a rule.
    pub const STEP: Duration = EVERY;
    /// How many steps are kept.
    pub const STEPS: usize = KEPT;
}

/// What happened in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HistoryStep {
    /// How long it lasted.
    pub length: Duration,
    /// Locks granted.
    pub granted: u64,
    /// Locks that ended, however they did.
    pub ended: u64,
    /// Requests that came to their end or began to wait.
    pub attempts: u64,
    /// Of these, requests that had to queue or were refused at once.
    pub contended: u64,
    /// Grants to a waiter at another's release.
    pub handoffs: u64,
    /// How long those waiters had waited, taken together.
    pub waited: Duration,
}

impl HistoryStep {
    fn between(from: &Counted, to: &Counted, length: Duration) -> Self {
        let since = |of: fn(&Counted) -> u64| of(to).saturating_sub(of(from));
        Self {
            length,
            granted: since(|counted| counted.granted),
            ended: since(|counted| counted.ended),
            attempts: since(|counted| counted.attempts),
            contended: since(|counted| counted.contended),
            handoffs: since(|counted| counted.handoffs),
            waited: Duration::from_secs_f64((to.waited_ms - from.waited_ms).max(0.0) / 1e3),
        }
    }

    /// The same step of other keys, added.
    fn add(&mut self, other: &Self) {
        self.granted += other.granted;
        self.ended += other.ended;
        self.attempts += other.attempts;
        self.contended += other.contended;
        self.handoffs += other.handoffs;
        self.waited += other.waited;
    }
}

/// The totals that steps are made of.
#[derive(Clone, Copy, Debug)]
struct Counted {
    granted: u64,
    ended: u64,
    attempts: u64,
    contended: u64,
    handoffs: u64,
    waited_ms: f64,
}

impl From<Stats> for Counted {
    fn from(stats: Stats) -> Self {
        Self {
            granted: stats.granted,
            ended: stats.released + stats.dropped + stats.expired + stats.forced + stats.lost + stats.shut_down,
            attempts: stats.attempts + stats.waiting,
            contended: stats.queued + stats.busy,
            handoffs: stats.handoffs,
            waited_ms: stats.average_wait_ms * stats.handoffs as f64,
        }
    }
}

/// The readings of one manager: some 17 KiB for all keys together, and as much for each namespace.
#[derive(Debug, Default)]
struct Keeper {
    has_begun: AtomicBool,
    readings: Mutex<VecDeque<Reading>>,
}

#[derive(Debug)]
struct Reading {
    at: Instant,
    /// Of all keys, then of each namespace in the order of the manager's.
    counted: Box<[Counted]>,
}

impl LockManager {
    /// Has the totals of every two seconds of the last ten minutes kept from now on, for as long as the manager lives.
    /// Calls after the first change nothing.
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    pub fn keep_history(&self) {
        let Some(runtime) = self.runtime() else { return };
        if self.attached::<Keeper>().has_begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let manager = self.downgrade();
        runtime.spawn(async move { supervise("history", || keep(Weak::clone(&manager))).await });
    }

    /// What happened lately to the keys that begin with one of these prefixes, of which none is to begin with another;
    /// `None` where [`stats_within`](Self::stats_within) counts them not apart.
    #[cfg_attr(docsrs, doc(cfg(feature = "http")))]
    #[must_use]
    pub fn history_within<S: AsRef<str>>(&self, prefixes: &[S]) -> Option<History> {
        let known = self.counted_apart();
        let place = |prefix: &S| {
            let prefix = self.canonical_prefix(prefix.as_ref());
            known.iter().position(|known| self.canonical_prefix(known) == prefix)
        };
        let places = prefixes.iter().map(place).collect::<Option<Vec<_>>>()?;
        let keeper = self.attached::<Keeper>();
        let readings = keeper.readings.lock();
        let step = |(from, to): (&Reading, &Reading)| {
            let mut step = HistoryStep { length: to.at.duration_since(from.at), ..HistoryStep::default() };
            for at in &places {
                step.add(&HistoryStep::between(&from.counted[*at], &to.counted[*at], Duration::ZERO));
            }
            step
        };
        let steps: Vec<_> = readings.iter().zip(readings.iter().skip(1)).map(step).collect();
        let last = readings.back().filter(|_| !steps.is_empty());
        Some(History { steps, age: last.map_or(Duration::ZERO, |last| last.at.elapsed()) })
    }

    /// The prefixes whose keys are counted apart: that of all keys, and the namespaces.
    fn counted_apart(&self) -> Vec<&str> {
        let namespaces = self.config().given.namespaces.iter().map(|prefix| &**prefix);
        std::iter::once("").chain(namespaces).collect()
    }

    /// Reads the totals once.
    fn read_history(&self) {
        let of = |prefix| self.stats_within(&[prefix]).expect("each of them is counted apart");
        let counted = self.counted_apart().into_iter().map(|prefix| of(prefix).into()).collect();
        let keeper: Arc<Keeper> = self.attached();
        let mut readings = keeper.readings.lock();
        readings.push_back(Reading { at: Instant::now(), counted });
        if readings.len() > KEPT + 1 {
            readings.pop_front();
        }
    }
}

/// Reads until the manager is gone.
async fn keep(manager: Weak<Engine>) {
    let mut beat = interval(EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        let Some(engine) = manager.upgrade() else { return };
        LockManager::from_engine(engine).read_history();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn manager() -> LockManager {
        LockManager::builder().namespaces(["a:", "a:b:", "c:"]).build().unwrap()
    }

    #[actix_rt::test]
    async fn a_step_is_what_happened_between_two_readings() {
        let locks = manager();
        locks.read_history();
        assert_eq!(locks.history_within(&[""]), Some(History { steps: Vec::new(), age: Duration::ZERO }));
        let held = locks.try_lock("a:b:1").await.unwrap();
        assert!(locks.try_lock("a:b:1").await.is_err());
        locks.try_lock("a:2").await.unwrap().unlock().await;
        locks.try_lock("other").await.unwrap().unlock().await;
        locks.read_history();
        drop(held);
        locks.read_history();
        let seen = |prefixes: &[&str]| {
            let steps = locks.history_within(prefixes).unwrap().steps;
            steps.iter().map(|step| (step.granted, step.ended, step.attempts, step.contended)).collect::<Vec<_>>()
        };
        assert_eq!(seen(&[""]), [(3, 2, 4, 1), (0, 1, 0, 0)]);
        assert_eq!(seen(&["a:"]), [(2, 1, 3, 1), (0, 1, 0, 0)], "what is within a namespace is of it");
        assert_eq!(seen(&["a:b:", "c:"]), [(1, 0, 2, 1), (0, 1, 0, 0)]);
        assert_eq!(seen(&["c:"]), [(0, 0, 0, 0), (0, 0, 0, 0)]);
        assert_eq!(seen(&[]), [(0, 0, 0, 0), (0, 0, 0, 0)]);
        assert_eq!(locks.history_within(&["a:2"]), None, "it is not counted apart");
        assert_eq!(locks.history_within(&["a:", "x"]), None);
    }

    #[actix_rt::test]
    async fn a_step_has_the_time_that_its_waiters_waited() {
        let clock = ManualClock::new();
        let locks = LockManager::builder().clock(clock.clock()).build().unwrap();
        let held = locks.try_lock("a").await.unwrap();
        let mut next = std::pin::pin!(locks.lock("a").into_future());
        assert!(futures_util::poll!(&mut next).is_pending());
        locks.read_history();
        clock.advance(Duration::from_millis(30));
        drop(held);
        let _lock = next.await.unwrap();
        locks.read_history();
        let step = locks.history_within(&[""]).unwrap().steps[0];
        assert_eq!((step.handoffs, step.contended, step.waited), (1, 0, Duration::from_millis(30)));
    }

    #[test]
    fn ten_minutes_are_kept_and_no_more() {
        let locks = manager();
        (0..KEPT + 50).for_each(|_| locks.read_history());
        assert_eq!(locks.history_within(&["c:"]).unwrap().steps.len(), KEPT);
        assert_eq!(History::STEP * History::STEPS as u32, Duration::from_mins(10));
    }

    #[test]
    fn it_is_begun_once_and_does_not_keep_its_manager() {
        let locks = manager();
        let tasks = || locks.runtime().unwrap().metrics().num_alive_tasks();
        locks.keep_history();
        let once = tasks();
        locks.keep_history();
        assert_eq!(tasks(), once);
        while locks.attached::<Keeper>().readings.lock().is_empty() {
            std::thread::yield_now();
        }
        let manager = locks.downgrade();
        drop(locks);
        // The task may be reading just now.
        while manager.upgrade().is_some() {
            std::thread::yield_now();
        }
    }
}
