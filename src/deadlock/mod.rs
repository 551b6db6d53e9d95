//! Deadlocks among owners: the register of what each of them waits for, and what is done about a cycle.
//!
//! Exact within a process. An owner's request queues and is checked in one step, under the register's mutex, so two
//! that close a cycle from two shards cannot miss each other. A grant takes no such mutex: it is checked afterwards if
//! its owner waits for something else, which is the only way in which a grant can close a cycle. Anonymous requests
//! hold nothing that is known of them, and are never here. A key that another process holds is held by somebody who runs,
//! to this check: cycles through several processes are [`across`]'s, over a store that has a board.
//!
//! An owner that holds nothing is in nobody's way: its wait is registered, and nothing is looked at for it. So a queue
//! of any length of owners with their first locks costs each of them the same, and what a look costs is given by those
//! who hold one thing and wait for another.
//!
//! Order of mutexes: the register's, then a shard's, one at a time. Effects run when both are free. The decision is
//! `graph`'s; it is pure, and asks for what it needs to know.

pub(crate) mod across;
pub(crate) mod follow;
pub(crate) mod graph;
mod register;
pub(crate) mod signal;
pub(crate) mod told;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::error::LockError;
use crate::key::Key;
use crate::shard::Shard;
use crate::sync::Mutex;
use crate::table::{AcquireOutcome, AcquireRequest, Blocker, Effects, Grant, Owner, OwnerId, Scope, UpgradeOutcome};
use follow::Following;
use graph::{Blocked, Hold, Step, World, cycle_through};
pub(crate) use register::WaitId;
use register::{Register, Wait, WaitKind};
use signal::Signal;

/// What is done about a deadlock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum DeadlockPolicy {
    /// The request that would close the cycle is refused with [`LockError::Deadlock`]; everybody else goes on.
    #[default]
    RefuseRequest,
    /// Of the locks in the cycle the one that was granted last is taken from its holder, which gets
    /// [`Loss::Revoked`](crate::Loss::Revoked); the request queues. One that waits for its own owner's lock is refused, and
    /// so is one in a cycle through several processes: which of their locks is the youngest no process knows.
    RevokeYoungest,
}

/// How far deadlocks are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum DeadlockReach {
    /// Among the owners of one process.
    Process,
    /// As far as the locks reach, where the store has a board
    /// ([`Capabilities::posts`](crate::store::Capabilities::posts)): through all processes that use it and look so far. Of a
    /// cycle through several processes one request is refused with [`LockError::Deadlock`], as a rule within half a second.
    /// Nothing is asked of the store while no owner that holds something waits for what others hold.
    #[default]
    Store,
}

/// A wait in the register, for as long as this is kept.
pub(crate) struct RegisteredWait<'a> {
    detector: &'a Detector,
    id: WaitId,
}

impl RegisteredWait<'_> {
    /// Whether a request that polls, or follows, may go on.
    ///
    /// # Errors
    /// `Deadlock` if it has meanwhile become part of a cycle, and was chosen to break it.
    pub(crate) fn check(&self) -> Result<(), LockError> {
        self.detector.check(self.id)
    }
}

impl Drop for RegisteredWait<'_> {
    fn drop(&mut self) {
        self.detector.forget(self.id);
    }
}

/// How many cycles one step breaks; an owner with more of them at once has them broken when it waits again.
const ROUNDS: usize = 64;

#[derive(Debug)]
pub(crate) struct Detector {
    register: Mutex<Register>,
    policy: DeadlockPolicy,
    /// For whoever tells other processes; `None` where nobody does.
    signal: Option<Arc<Signal>>,
}

/// Whom a check tells of waits that it cannot settle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tells {
    Nobody,
    OtherProcesses,
}

/// A request of an owner, and where it belongs.
pub(crate) struct OwnedRequest<'a> {
    pub(crate) request: AcquireRequest<'a>,
    pub(crate) owner: &'a Arc<Owner>,
    pub(crate) shard: u32,
}

impl OwnedRequest<'_> {
    fn wait(&self, how: WaitKind) -> Wait {
        let AcquireRequest { key, hash, .. } = &self.request;
        let owner = Arc::clone(self.owner);
        Wait { owner, shard: self.shard, key: (*key).clone(), hash: *hash, how, is_suspected: false }
    }
}

/// A request of an owner to have the key of its share alone.
pub(crate) struct UpgradeRequest<'a> {
    pub(crate) key: &'a Key,
    /// The key's shard, and its hash there.
    pub(crate) place: (u32, u32),
    pub(crate) grant: &'a Grant,
    pub(crate) owner: &'a Arc<Owner>,
}

impl Detector {
    pub(crate) fn new(policy: DeadlockPolicy, tells: Tells) -> Self {
        let signal = (tells == Tells::OtherProcesses).then(Arc::default);
        Self { register: Mutex::new(Register::default()), policy, signal }
    }

    /// What wakes the one who tells other processes; `None` where nothing is told.
    pub(crate) fn signal(&self) -> Option<&Arc<Signal>> {
        self.signal.as_ref()
    }

    /// Queues a request, and breaks the cycle that it closes, if it closes one. What is queued is in the register.
    pub(crate) fn queue(
        &self,
        shards: &[Arc<Shard>],
        asked: &OwnedRequest<'_>,
        wait: Duration,
        waker: &Waker,
    ) -> (AcquireOutcome, Option<RegisteredWait<'_>>) {
        let OwnedRequest { request, owner, shard } = asked;
        let mut fx = Effects::new();
        // Counted before anything is looked at: a grant that the look does not see will see the count.
        owner.add_wait();
        let mut register = self.register.lock();
        let outcome = shards[*shard as usize].queue_owned(request, wait, waker, &mut fx);
        let AcquireOutcome::Queued(id) = outcome else {
            drop(register);
            owner.drop_wait();
            self.finish(shards, fx);
            return (outcome, None);
        };
        let id = register.add(asked.wait(WaitKind::Queued(id)));
        self.look_at(shards, &mut register, owner, &mut fx);
        drop(register);
        let wait = RegisteredWait { detector: self, id };
        self.finish(shards, fx);
        (outcome, Some(wait))
    }

    /// Registers a request that polls.
    ///
    /// # Errors
    /// `Deadlock` if it would close a cycle; it is not registered then.
    pub(crate) fn poll(
        &self,
        shards: &[Arc<Shard>],
        asked: &OwnedRequest<'_>,
    ) -> Result<RegisteredWait<'_>, LockError> {
        let terms = asked.request.terms;
        let scope = if terms.needs_claim() { Scope::Everywhere } else { Scope::Process };
        self.register(shards, asked.wait(WaitKind::Polling(terms.mode(), scope)))
    }

    /// Registers an owner's wait for the value of a call that another makes.
    ///
    /// # Errors
    /// `Deadlock` if it would close a cycle; it is not registered then.
    pub(crate) fn follow(
        &self,
        shards: &[Arc<Shard>],
        owner: &Arc<Owner>,
        key: &Key,
        (shard, hash): (u32, u32),
        following: Arc<Following>,
    ) -> Result<RegisteredWait<'_>, LockError> {
        let (owner, how) = (Arc::clone(owner), WaitKind::Following(following));
        self.register(shards, Wait { owner, shard, key: key.clone(), hash, how, is_suspected: false })
    }

    /// Has an upgrade begin, and breaks the cycle that it closes, if it waits and closes one. One that waits is in the
    /// register until it is forgotten.
    pub(crate) fn upgrade(
        &self,
        shards: &[Arc<Shard>],
        asked: &UpgradeRequest<'_>,
        waker: &Waker,
    ) -> (UpgradeOutcome, Option<WaitId>) {
        let UpgradeRequest { key, place: (shard, hash), grant, owner } = *asked;
        let mut fx = Effects::new();
        let mut register = self.register.lock();
        let outcome = shards[shard as usize].upgrade(grant, Some(waker), &mut fx);
        let id = if let UpgradeOutcome::Waits(seat) = outcome {
            // Counted before the look: a grant that this does not see will see the count.
            owner.add_wait();
            let how = WaitKind::Upgrading(*grant, seat);
            let (owner, key) = (Arc::clone(owner), key.clone());
            let id = register.add(Wait { owner, shard, key, hash, how, is_suspected: false });
            self.look_at(shards, &mut register, asked.owner, &mut fx);
            Some(id)
        } else {
            None
        };
        drop(register);
        self.finish(shards, fx);
        (outcome, id)
    }

    /// Whether a wait that stands in no queue may go on.
    ///
    /// # Errors
    /// `Deadlock` if it has meanwhile become part of a cycle, and was chosen to break it.
    pub(crate) fn check(&self, id: WaitId) -> Result<(), LockError> {
        let refused = self.register.lock().refusal(id);
        refused.map_or(Ok(()), |cycle| Err(LockError::Deadlock { cycle }))
    }

    /// Takes a wait out of the register.
    pub(crate) fn forget(&self, id: WaitId) {
        let forgotten = self.register.lock().remove(id);
        if let Some(wait) = forgotten {
            wait.owner.drop_wait();
            if wait.is_suspected {
                self.signal.iter().for_each(|signal| signal.suspect_ended());
            }
        }
    }

    /// Registers a wait that stands in no queue.
    fn register(&self, shards: &[Arc<Shard>], wait: Wait) -> Result<RegisteredWait<'_>, LockError> {
        let mut fx = Effects::new();
        let owner = Arc::clone(&wait.owner);
        owner.add_wait();
        let mut register = self.register.lock();
        let id = register.add(wait);
        self.look_at(shards, &mut register, &owner, &mut fx);
        drop(register);
        let wait = RegisteredWait { detector: self, id };
        self.finish(shards, fx);
        wait.check().map(|()| wait)
    }

    /// Looks at owners that were granted something while they wait for something else.
    pub(crate) fn recheck(&self, shards: &[Arc<Shard>], owners: Vec<Arc<Owner>>) {
        let mut fx = Effects::new();
        let mut register = self.register.lock();
        for owner in owners {
            self.look_at(shards, &mut register, &owner, &mut fx);
        }
        drop(register);
        self.finish(shards, fx);
    }

    /// Runs effects, with the mutex free, and looks again at owners that they name.
    fn finish(&self, shards: &[Arc<Shard>], mut fx: Effects) {
        let again = fx.take_rechecks();
        drop(fx);
        if let Some(again) = again {
            self.recheck(shards, again);
        }
    }

    /// Breaks the cycles through an owner that waits, if it holds anything that others may wait for.
    fn look_at(&self, shards: &[Arc<Shard>], register: &mut Register, owner: &Arc<Owner>, fx: &mut Effects) {
        if !owner.holds_nothing() && register.by_owner.contains_key(&owner.id) {
            register.blocked.insert(owner.id);
            if owner.holds_something() {
                self.signal.iter().for_each(|signal| signal.wait_begun());
            }
            self.break_cycles(shards, register, owner, fx);
        }
    }

    /// Breaks the cycles through an owner.
    fn break_cycles(&self, shards: &[Arc<Shard>], register: &mut Register, owner: &Arc<Owner>, fx: &mut Effects) {
        for _ in 0..ROUNDS {
            let (steps, edges, youngest) = {
                let world = Shards { shards, register, grants: RefCell::default() };
                let Some(steps) = cycle_through(&world, owner.id) else { return };
                let edges = register.edges(&steps);
                // Nobody takes a lock from itself: the work under it would go on without.
                let youngest = if steps.len() > 1 { world.youngest(&steps) } else { None };
                (steps, edges, youngest)
            };
            match (self.policy, youngest) {
                (DeadlockPolicy::RevokeYoungest, Some((shard, grant))) => {
                    shards[shard as usize].revoke(&grant, edges, fx);
                }
                _ => register.refuse(shards, steps[0].wait, edges, fx),
            }
        }
    }
}

/// The world as the graph asks for it: the register, and the shards one at a time.
struct Shards<'a> {
    shards: &'a [Arc<Shard>],
    register: &'a Register,
    /// The grants that were seen, by their names in the graph.
    grants: RefCell<HashMap<u64, (u32, Grant)>>,
}

impl Shards<'_> {
    /// The grant in a cycle that was made last.
    fn youngest(&self, steps: &[Step<WaitId>]) -> Option<(u32, Grant)> {
        let grants = self.grants.borrow();
        let seen = steps.iter().filter_map(|step| grants.get(&step.grant)).copied();
        let age = |(shard, grant): &(u32, Grant)| self.shards[*shard as usize].age_of(grant);
        seen.filter_map(|found| Some((age(&found)?, found))).min_by_key(|(age, _)| *age).map(|(_, found)| found)
    }
}

impl World for Shards<'_> {
    type Wait = WaitId;

    fn waits_of(&self, owner: OwnerId) -> Vec<WaitId> {
        self.register.by_owner.get(&owner).map_or_else(Vec::new, |waits| waits.iter().copied().collect())
    }

    fn look(&self, id: WaitId) -> Option<Blocked> {
        let wait = self.register.waits.get(&id)?;
        let shard = &self.shards[wait.shard as usize];
        // A poller whose session has ended is refused at its next try; it waits for nothing.
        wait.owner.settle(shard.now()).ok()?;
        let Blocker { missing, holders } = match &wait.how {
            WaitKind::Queued(waiter) => shard.blocker_of(*waiter, &self.register.blocked)?,
            WaitKind::Polling(mode, _) => shard.blocker_to(&wait.key, wait.hash, *mode, &self.register.blocked),
            WaitKind::Following(following) => return following.blocker(),
            WaitKind::Upgrading(grant, seat) => shard.blocker_of_upgrade((grant, *seat), &self.register.blocked)?,
            WaitKind::Refused(_) => return None,
        };
        let mut grants = self.grants.borrow_mut();
        let hold = |(owner, weight, grant): (Arc<Owner>, u32, Grant)| {
            let name = name_of(&grant, wait.shard);
            grants.insert(name, (wait.shard, grant));
            Hold { owner: owner.id, weight, grant: name }
        };
        let holders = holders.into_iter().map(hold).collect();
        Some(Blocked { missing: u32::try_from(missing).unwrap_or(u32::MAX), holders })
    }
}

/// Names a grant in the process. Fences are unique in a shard; with its number they are in the process. There are at most
/// 2^12 shards, and the other 51 bits tell fences apart that are made within 70 years of each other, as they count
/// microseconds. The highest bit is not set.
fn name_of(grant: &Grant, shard: u32) -> u64 {
    (grant.fence.get() << 12 | u64::from(shard)) & !(1 << 63)
}

#[cfg(test)]
mod tests {
    use std::future::{Future, IntoFuture};
    use std::pin::Pin;
    use std::task::Context;

    use super::*;
    use crate::table::steps;
    use crate::{LockFuture, LockManager, LockRequest, Session};

    /// Begins to wait.
    fn begun(request: LockRequest<'_>) -> Pin<Box<LockFuture<'_>>> {
        let mut waits = Box::pin(request.wait_forever().into_future());
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        waits
    }

    fn sessions(locks: &LockManager, count: usize) -> Vec<Session> {
        (0..count).map(|n| locks.session(n.to_string())).collect()
    }

    fn pool(session: &Session, permits: u32) -> LockRequest<'_> {
        session.semaphore("pool", 10).permits(permits)
    }

    #[test]
    fn an_owner_that_holds_nothing_queues_without_a_look_at_the_queue_or_at_those_who_hold_the_key() {
        let locks = LockManager::builder().build().unwrap();
        let (readers, writers) = (sessions(&locks, 300), sessions(&locks, 300));
        let shares: Vec<_> = readers.iter().map(|reader| reader.read("k").now().unwrap()).collect();
        let mut waits = Vec::new();
        let taken = steps::of(|| waits.extend(writers.iter().map(|writer| begun(writer.lock("k")))));
        assert_eq!(taken, 0);
        drop((waits, shares));
    }

    #[test]
    fn an_owner_that_holds_something_looks_only_at_those_who_wait_and_hold() {
        let locks = LockManager::builder().build().unwrap();
        let (readers, writers) = (sessions(&locks, 300), sessions(&locks, 300));
        let [me, you] = ["me", "you"].map(|name| locks.session(name));
        let mut shares: Vec<_> = readers.iter().map(|reader| reader.read("k").now().unwrap()).collect();
        shares.push(you.read("k").now().unwrap());
        let mut waits: Vec<_> = writers.iter().map(|writer| begun(writer.lock("k"))).collect();
        let mine = me.lock("mine").now().unwrap();
        waits.push(begun(you.lock("mine")));
        let closing = me.lock("k").wait_forever().into_future();
        let mut closing = Box::pin(closing);
        let mut answer = None;
        let taken = steps::of(|| answer = Some(closing.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
        assert!(format!("{answer:?}").contains("Deadlock"), "{answer:?}");
        assert!(taken < 20, "{taken} steps for a cycle of two");
        drop((waits, shares, mine));
    }

    #[test]
    fn the_most_permits_ahead_is_known_without_a_walk_through_the_queue() {
        let locks = LockManager::builder().build().unwrap();
        let [me, you] = ["me", "you"].map(|name| locks.session(name));
        let anybody = sessions(&locks, 300);
        let (taken, mine) = (pool(&you, 9).now().unwrap(), me.lock("mine").now().unwrap());
        let mut waits = vec![begun(you.lock("mine"))];
        waits.push(begun(pool(&anybody[0], 8)));
        waits.extend(anybody.iter().skip(1).map(|session| begun(pool(session, 2))));
        let mut closing = Box::pin(pool(&me, 1).wait_forever().into_future());
        let mut answer = None;
        let walked = steps::of(|| answer = Some(closing.as_mut().poll(&mut Context::from_waker(Waker::noop()))));
        assert!(format!("{answer:?}").contains("Deadlock"), "{answer:?}");
        assert!(walked < 20, "{walked} steps behind 300 waiters");
        drop((waits, taken, mine));
    }
}
