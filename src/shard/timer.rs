//! Sleeps on the manager's own clock, for futures that come back later: pollers between two tries, a shutdown during
//! its grace. They need no runtime of the caller's, and a test's clock moves them.

use std::task::Waker;

use super::Shard;
use crate::clock::Moment;
use crate::table::{Effects, Links, Slab, Step, Timed, Wheel};

#[derive(Debug)]
struct Sleeper {
    due: Moment,
    links: Links,
    /// `None` once it has slept.
    waker: Option<Waker>,
}

impl Timed for Slab<Sleeper> {
    fn timed(&mut self, id: u32) -> (Moment, &mut Links) {
        let sleeper = &mut self[id];
        (sleeper.due, &mut sleeper.links)
    }
}

/// The sleepers of one shard. Each belongs to one live future or session, which bounds them (T9).
#[derive(Debug)]
pub(crate) struct Timers {
    sleepers: Slab<Sleeper>,
    wheel: Wheel,
}

impl Timers {
    pub(crate) fn new(now: Moment) -> Self {
        Self { sleepers: Slab::new(), wheel: Wheel::new(now) }
    }

    /// Wakes `waker` at `due`. The sleeper stays until [`Timers::remove`].
    pub(crate) fn sleep(&mut self, due: Moment, waker: &Waker, fx: &mut Effects) -> u32 {
        let id = self.sleepers.insert(Sleeper { due, links: Links::NEW, waker: Some(waker.clone()) });
        self.wheel.insert(&mut self.sleepers, id);
        fx.due(due);
        id
    }

    /// Whether it still sleeps; if so, it will wake `waker` instead.
    pub(crate) fn still_sleeps(&mut self, id: u32, waker: &Waker, fx: &mut Effects) -> bool {
        match self.sleepers.get_mut(id).and_then(|sleeper| sleeper.waker.as_mut()) {
            Some(old) => {
                if !old.will_wake(waker) {
                    fx.discard([std::mem::replace(old, waker.clone())]);
                }
                true
            }
            None => false,
        }
    }

    pub(crate) fn remove(&mut self, id: u32, fx: &mut Effects) {
        if let Some(sleeper) = self.sleepers.get_mut(id) {
            fx.discard(sleeper.waker.take());
            self.wheel.remove(&mut self.sleepers, id);
            self.sleepers.remove(id);
        }
    }

    /// Wakes the sleepers among `budget` entries from `cursor` on before their time; answers where to go on.
    pub(crate) fn wake_some(&mut self, cursor: u32, budget: u32, fx: &mut Effects) -> Option<u32> {
        let window = self.sleepers.window(cursor, budget);
        let end = window.end;
        for id in window {
            if let Some(waker) = self.sleepers.get_mut(id).and_then(|sleeper| sleeper.waker.take()) {
                fx.wake(waker);
            }
        }
        (end < self.sleepers.bound()).then_some(end)
    }

    /// Does one piece of what is due; `false` if nothing is.
    pub(crate) fn step(&mut self, now: Moment, fx: &mut Effects) -> bool {
        match self.wheel.step(&mut self.sleepers, now) {
            Step::Due(id) => {
                self.sleepers[id].waker.take().into_iter().for_each(|waker| fx.wake(waker));
                true
            }
            Step::Moved => true,
            Step::Idle => false,
        }
    }

    #[cfg(all(test, feature = "test-util"))]
    pub(crate) fn len(&self) -> usize {
        self.sleepers.len()
    }

    /// Gives memory back after many have slept; whether there is more to be done.
    pub(crate) fn trim(&mut self, chunks: usize) -> bool {
        self.sleepers.trim(chunks)
    }

    pub(crate) fn next(&self) -> Option<Moment> {
        self.wheel.next()
    }
}

impl Shard {
    /// Wakes `waker` at `due`, or when the shard is closed; `None` if it is closed already.
    pub(crate) fn sleep(&self, due: Moment, waker: &Waker) -> Option<u32> {
        self.with(|state, fx| (!state.table.is_closed()).then(|| state.timers.sleep(due, waker, fx)))
    }

    /// The same for a shutdown, which sleeps in a closed shard.
    pub(crate) fn sleep_closed(&self, due: Moment, waker: &Waker) -> u32 {
        self.with(|state, fx| state.timers.sleep(due, waker, fx))
    }

    pub(crate) fn still_sleeps(&self, id: u32, waker: &Waker) -> bool {
        self.with(|state, fx| state.timers.still_sleeps(id, waker, fx))
    }

    pub(crate) fn stop_sleep(&self, id: u32) {
        self.with(|state, fx| state.timers.remove(id, fx));
    }

    #[cfg(all(test, feature = "test-util"))]
    pub(crate) fn sleepers(&self) -> usize {
        self.state().timers.len()
    }
}
