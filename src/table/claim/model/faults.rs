//! What goes wrong, and that it ends.

use std::collections::BTreeMap;

use super::store::Push;
use super::world::{Event, World};
use super::{KEYS, MS};
use crate::clock::Moment;

impl World {
    pub(super) fn fail(&mut self) {
        if self.is_fair {
            return;
        }
        let of = self.random.usize(0..self.processes.len());
        match self.random.u32(0..20) {
            0..2 => self.freeze(of),
            4 if self.deaths < 2 && self.processes[of].table.is_some() => {
                self.deaths += 1;
                self.log(|_| format!("{of} dies"));
                (self.processes[of].table, self.processes[of].requests) = (None, BTreeMap::new());
                self.start_process();
            }
            5 if self.deaths < 2 && self.processes[of].table.is_some() => {
                self.deaths += 1;
                self.log(|_| format!("{of} closes"));
                self.close(of);
                self.start_process();
            }
            6..9 if self.plan.forces => {
                let (key, now) = (self.random.usize(0..KEYS), self.store_clock());
                self.log(|_| format!("key {key} is forced"));
                self.store.force(key, now);
                (0..self.processes.len()).for_each(|to| self.push(to, key, Push::Forced));
            }
            9 if self.plan.steps_back => {
                self.set_back_us += self.random.u64(0..2_000_000);
                self.log(|world| format!("the store's clock goes back to {}", world.store_clock()));
            }
            10..12 if self.processes[of].table.is_some() => {
                self.log(|_| format!("{of} is connected anew"));
                self.resumed(of);
            }
            _ => {}
        }
        let pause = self.random.u64(MS..self.plan.fault_every_ms * MS);
        self.after(0, pause, Event::Fault);
    }

    pub(super) fn freeze(&mut self, of: usize) {
        let longest = if self.random.bool() { 60 } else { 3_000 };
        let time = self.random.u64(MS..longest * MS);
        self.processes[of].frozen_until = self.now + time;
        self.log(|_| format!("{of} freezes for {} ms", time / MS));
    }

    fn close(&mut self, of: usize) {
        self.processes[of].is_closed = true;
        self.act(of, |table, _, fx| {
            table.close();
            fx.due(Moment::ZERO);
        });
        self.act(of, |table, _, fx| table.give_up_idle_claims(0, u32::MAX, fx));
        self.act(of, |table, _, fx| table.refuse_waiters(0, u32::MAX, fx));
        let grace = self.random.u64(0..500 * MS);
        self.after(of, grace, Event::EndGrants);
    }

    pub(super) fn be_fair(&mut self) {
        self.log(|_| "faults end".into());
        (self.is_fair, self.fair_since) = (true, self.now);
        for of in 0..self.processes.len() {
            self.processes[of].frozen_until = 0;
            if self.processes[of].table.is_some() {
                // Its next turn may be late.
                self.processes[of].armed = Moment::FAR;
                self.arm(of, Moment::ZERO);
                self.finish_up(of);
            }
        }
    }
}
