//! What is done with a grant, or to one: under the mutex, by the exact clock.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::lost::LostSignal;
use super::{SLICE, Shard, State};
use crate::clock::Moment;
use crate::error::{LockError, Loss, WaitEdge};
use crate::key::{Key, Token};
use crate::table::{
    Effects, End, Grant, Keeper, Mode, Obstacle, Order, Owner, RefreshAsk, Refreshed, Release, Slice, WaiterId, Watcher,
};

impl Shard {
    /// Releases by token, for callers without a guard.
    pub(crate) fn release_token(&self, key: &Key, hash: u32, token: Token) -> Result<Release, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| match state.table.grant_of(key, hash, token, now, fx) {
            Ok(grant) => Ok(state.table.release(&grant, End::ByToken, now, fx)),
            Err(LockError::Lost(_)) => Ok(Release::AlreadyGone),
            Err(other) => Err(other),
        })
    }

    pub(crate) fn refresh(&self, grant: &Grant, ask: RefreshAsk) -> Result<Refreshed, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.refresh(grant, ask, now, fx)).map_err(LockError::Lost)
    }

    /// Refreshes by token; also answers what is left and how often it was refreshed.
    pub(crate) fn refresh_token(
        &self,
        key: &Key,
        hash: u32,
        token: Token,
        ask: RefreshAsk,
    ) -> Result<Refreshed, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| {
            let grant = state.table.grant_of(key, hash, token, now, fx)?;
            state.table.refresh(&grant, ask, now, fx).map_err(LockError::Lost)
        })
    }

    pub(crate) fn auto_refresh(&self, grant: &Grant, every: Duration, timeout: Duration) -> Result<(), LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.auto_refresh(grant, every, timeout, now, fx)).map_err(LockError::Lost)
    }

    pub(crate) fn keep_refreshed(&self, grant: &Grant) -> Result<Order, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.keep_refreshed(grant, now, fx)).map_err(LockError::Lost)
    }

    pub(crate) fn stop_auto_refresh(&self, grant: &Grant) {
        self.with(|state, _| state.table.stop_auto_refresh(grant));
    }

    pub(crate) fn cap_hold(&self, grant: &Grant, max_hold: Duration) -> Result<(), LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.cap_hold(grant, max_hold, now, fx)).map_err(LockError::Lost)
    }

    /// The signal of a grant's end; already given if it has ended.
    pub(crate) fn lost_signal(&self, grant: &Grant) -> Arc<LostSignal> {
        let now = self.clock.now();
        let watched = self.with(|state, fx| state.table.watch(grant, || Arc::new(LostSignal::default()), now, fx));
        match watched {
            Ok(watcher) => {
                let watcher: Arc<dyn Any + Send + Sync> = watcher;
                watcher.downcast().expect("a shard's watchers are all lost signals")
            }
            Err(end) => {
                let signal = LostSignal::default();
                match end {
                    Some(end) => signal.ended(end),
                    None => signal.lose(Loss::Unknown),
                }
                Arc::new(signal)
            }
        }
    }

    /// The same signal, for the notice that comes before the end: given already if it was.
    pub(crate) fn notice_signal(&self, grant: &Grant) -> Arc<LostSignal> {
        let signal = self.lost_signal(grant);
        if let Some(at) = self.state.lock().table.notice_of(grant) {
            signal.ask_back(at);
        }
        signal
    }

    /// Turns a live grant over to a guard or a ticket.
    pub(crate) fn set_keeper(&self, grant: &Grant, keeper: Keeper) {
        self.with(|state, _| state.table.set_keeper(grant, keeper));
    }

    /// Gives a grant that travelled by its token a guard again (T10).
    pub(crate) fn adopt(&self, key: &Key, hash: u32, token: Token, guard: Keeper) -> Result<Grant, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| {
            let grant = state.table.grant_of(key, hash, token, now, fx)?;
            if state.table.keeper(&grant) != Some(Keeper::Ticket) {
                return Err(LockError::TokenReused);
            }
            state.table.set_keeper(&grant, guard);
            Ok(grant)
        })
    }

    /// Until when a grant holds its key, if it does (exact time).
    pub(crate) fn held_until(&self, grant: &Grant) -> Option<Moment> {
        let now = self.clock.now();
        self.state.lock().table.held_until(grant, now)
    }

    /// The deadline of a grant that is still good, or why it is not.
    pub(crate) fn check(&self, grant: &Grant) -> Result<Moment, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.check(grant, now, fx)).map_err(LockError::Lost)
    }

    /// Ends whatever holds the key: the first of them at once, the rest in slices.
    pub(crate) fn force_release(&self, key: &Key, hash: u32) -> Release {
        let now = self.clock.now();
        let mut forced = Release::AlreadyGone;
        let mut force = |state: &mut State, grants: &[Grant], fx: &mut Effects| {
            for grant in grants {
                if state.table.end_grant(grant, End::Forced, now, fx) == Release::Released {
                    forced = Release::Released;
                }
            }
        };
        let left = self.with(|state, fx| {
            let mut grants = state.table.grants_on(key, hash, now, fx);
            let rest = grants.split_off(grants.len().min(SLICE));
            force(state, &grants, fx);
            rest
        });
        for slice in left.chunks(SLICE) {
            self.with(|state, fx| force(state, slice, fx));
        }
        forced
    }

    /// Asks whoever holds the key for it, and takes it at `at`; answers what was asked for.
    pub(crate) fn give_notice(&self, key: &Key, hash: u32, at: Moment) -> Vec<Grant> {
        let now = self.clock.now();
        let grants = self.with(|state, fx| state.table.grants_on(key, hash, now, fx));
        for slice in grants.chunks(SLICE) {
            self.with(|state, fx| slice.iter().for_each(|grant| state.table.give_notice(grant, at, now, fx)));
        }
        grants
    }

    /// Makes an exclusive lock a shared one.
    pub(crate) fn downgrade(&self, grant: &Grant) -> Result<(), LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.downgrade(grant, now, fx))
    }

    /// Ends what an owner holds and waits for here, in slices. It has ended itself before.
    pub(crate) fn end_owner(&self, owner: &Owner) {
        let now = self.clock.now();
        while self.with(|state, fx| state.table.end_owner(owner, SLICE, now, fx)) == Slice::More {}
    }

    /// What keeps a queued request from its key; `None` if it is not queued any more, or its wait is over.
    pub(crate) fn obstacle_of(&self, id: WaiterId) -> Option<Obstacle> {
        let now = self.clock.now();
        self.state.lock().table.obstacle_of(id, now)
    }

    /// What keeps a request that polls from its key.
    pub(crate) fn obstacle_to(&self, key: &Key, hash: u32, mode: Mode) -> Obstacle {
        let now = self.clock.now();
        self.state.lock().table.obstacle_to(key, hash, mode, now)
    }

    /// Turns a queued request away to break a deadlock, if it is still queued. Its effects are the caller's to run.
    pub(crate) fn break_wait(&self, id: WaiterId, cycle: Arc<[WaitEdge]>, fx: &mut Effects) {
        let now = self.clock.now();
        self.with_effects(fx, |state, fx| {
            // If it was granted or left meanwhile, there is nothing to break.
            let _ = state.table.break_wait(id, LockError::Deadlock { cycle }, now, fx);
        });
    }

    /// Takes a lock from its holder to break a deadlock. Its effects are the caller's to run.
    pub(crate) fn revoke(&self, grant: &Grant, cycle: Arc<[WaitEdge]>, fx: &mut Effects) {
        let now = self.clock.now();
        self.with_effects(fx, |state, fx| state.table.revoke(grant, cycle, now, fx));
    }
}
