//! What is done with a grant, or to one: under the mutex, by the exact clock.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use super::answer::Answered;
use super::loss::LossSignal;
use super::{SLICE, Shard, State};
use crate::clock::Moment;
use crate::error::{LockError, Loss, WaitEdge};
#[cfg(feature = "http")]
use crate::key::FencingToken;
use crate::key::{Key, Token, Ttl};
use crate::store::{Released, ValueToLeave};
#[cfg(feature = "http")]
use crate::table::AcquireRequest;
use crate::table::{
    AutoRefreshId, AutoRefreshStart, Blocker, ClaimFilter, ClaimOutcome, ClaimSource, Downgrade, Effects, End, Grant,
    GrantState, HoldersCursor, Mode, Owner, OwnerSet, RefreshRequest, Refreshed, Release, ReleaseCommand, Slice, Table,
    Told, WaiterId, Watcher,
};

impl Shard {
    /// Grants a key under the token and fence of an earlier process; answers also how many others it put out.
    #[cfg(feature = "http")]
    pub(crate) fn reclaim(
        &self,
        request: &AcquireRequest<'_>,
        fence: FencingToken,
    ) -> Result<(Refreshed, usize), LockError> {
        let now = self.clock.now();
        self.with(|state, fx| {
            state.make_room(request.terms.mode(), &self.member_budget, now, fx);
            let done = state.table.reclaim(request, fence, now, fx)?;
            let deadline = state.table.check(&done.grant, now, fx).map_err(LockError::Lost)?;
            Ok((Refreshed { deadline, written: true, count: 0 }, done.put_out))
        })
    }

    /// The TTL that a refresh without one asks for.
    pub(crate) fn refresh_ask(ttl: Option<Ttl>) -> RefreshRequest {
        ttl.map_or(RefreshRequest::IfDue, RefreshRequest::To)
    }

    pub(crate) fn refresh(&self, grant: &Grant, request: RefreshRequest) -> Result<Refreshed, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.refresh(grant, request, now, fx)).map_err(LockError::Lost)
    }

    pub(crate) fn auto_refresh(
        &self,
        grant: &Grant,
        every: Duration,
        timeout: Duration,
    ) -> Result<AutoRefreshId, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.auto_refresh(grant, every, timeout, now, fx)).map_err(LockError::Lost)
    }

    pub(crate) fn keep_refreshed(&self, grant: &Grant) -> Result<AutoRefreshStart, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.keep_refreshed(grant, now, fx)).map_err(LockError::Lost)
    }

    pub(crate) fn stop_order(&self, grant: &Grant, order: AutoRefreshId) {
        self.with(|state, fx| state.table.stop_order(grant, order, fx));
    }

    pub(crate) fn stop_auto_refresh(&self, grant: &Grant) {
        self.with(|state, fx| state.table.stop_auto_refresh(grant, fx));
    }

    pub(crate) fn cap_hold(&self, grant: &Grant, max_hold: Duration) -> Result<(), LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.cap_hold(grant, max_hold, now, fx)).map_err(LockError::Lost)
    }

    /// The signal of a grant's end; already given if it has ended.
    pub(crate) fn lost_signal(&self, grant: &Grant) -> Arc<LossSignal> {
        let now = self.clock.now();
        let watched = self.with(|state, fx| state.table.watch(grant, || Arc::new(LossSignal::default()), now, fx));
        match watched {
            Ok(watcher) => {
                let watcher: Arc<dyn Any + Send + Sync> = watcher;
                watcher.downcast().expect("a shard's watchers are all lost signals")
            }
            Err(end) => {
                let signal = LossSignal::default();
                match end {
                    Some(end) => signal.ended(end),
                    None => signal.lose(Loss::Unknown),
                }
                Arc::new(signal)
            }
        }
    }

    /// The same signal, for the notice that comes before the end: given already if it was.
    pub(crate) fn notice_signal(&self, grant: &Grant) -> Arc<LossSignal> {
        let signal = self.lost_signal(grant);
        if let Some(at) = self.state().table.notice_of(grant) {
            signal.give_notice(at);
        }
        signal
    }

    /// Sets whether a guard or a ticket stands for a live grant.
    pub(crate) fn set_keeper(&self, grant: &Grant, keeper: GrantState) {
        self.with(|state, _| state.table.set_grant_state(grant, keeper));
    }

    /// Has the table remember how a grant ends, for the views of it.
    pub(crate) fn remember_end(&self, grant: &Grant) {
        self.with(|state, _| state.table.remember_end(grant));
    }

    /// Whether a grant was made while the store did not answer, and the store does not keep it yet.
    pub(crate) fn is_degraded(&self, grant: &Grant) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.is_degraded(grant))
    }

    /// Whether the request of a grant that the store gave had to wait for others.
    pub(crate) fn was_behind(&self, grant: &Grant) -> bool {
        self.state().table.was_behind(grant)
    }

    /// Until when a grant holds its key, if it does (exact time).
    pub(crate) fn held_until(&self, grant: &Grant) -> Option<Moment> {
        let now = self.clock.now();
        self.state().table.held_until(grant, now)
    }

    /// The deadline of a grant that is still good, or why it is not.
    pub(crate) fn check(&self, grant: &Grant) -> Result<Moment, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.check(grant, now, fx)).map_err(LockError::Lost)
    }

    /// Ends by force whatever holds the key, in slices.
    pub(crate) fn force_release(&self, key: &Key, hash: u32) -> Release {
        let mut forced = Release::AlreadyGone;
        self.for_each_holder(key, hash, |table, grant, now, fx| {
            if table.end_grant(&grant, End::Forced, now, fx) == Release::Released {
                forced = Release::Released;
            }
        });
        forced
    }

    /// Gives the holders of a key notice, and ends them at `at`; answers which grants these are.
    pub(crate) fn give_notice(&self, key: &Key, hash: u32, at: Moment) -> Vec<Grant> {
        let mut grants = Vec::new();
        self.for_each_holder(key, hash, |table, grant, now, fx| {
            table.give_notice(&grant, at, now, fx);
            grants.push(grant);
        });
        grants
    }

    /// Calls `does` with each grant of a key, slice by slice.
    pub(super) fn for_each_holder(
        &self,
        key: &Key,
        hash: u32,
        mut does: impl FnMut(&mut Table, Grant, Moment, &mut Effects),
    ) {
        let now = self.clock.now();
        let mut cursor = Some(HoldersCursor::default());
        while let Some(from) = cursor {
            cursor = self.with(|state, fx| {
                let (grants, next) = state.table.grants_on(key, hash, from, now, fx);
                grants.into_iter().for_each(|grant| does(&mut state.table, grant, now, fx));
                next
            });
        }
    }

    /// Makes an exclusive lock a shared one, asking the store where there is one.
    pub(crate) async fn downgrade_anywhere(&self, grant: &Grant) -> Result<(), LockError> {
        let now = self.clock.now();
        match (self.with(|state, fx| state.table.downgrade(grant, now, fx))?, &self.driver) {
            (Downgrade::Asks { key, claim }, Some(driver)) => {
                driver.downgrade(*grant, key, claim).await.unwrap_or(Err(LockError::ShuttingDown))
            }
            _ => Ok(()),
        }
    }

    /// The store keeps what a grant holds as a share, until `deadline`.
    pub(super) fn downgraded(&self, grant: &Grant, deadline: Moment) -> Result<(), LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.downgraded(grant, deadline, now, fx))
    }

    /// Ends what an owner holds and waits for here, in slices. It has ended itself before.
    pub(crate) fn end_owner(&self, owner: &Owner) {
        let now = self.clock.now();
        while self.with(|state, fx| state.table.end_owner(owner, SLICE, now, fx)) == Slice::More {}
    }

    /// The same for a caller that waits until the store has released the keys, too.
    pub(crate) fn end_owner_anywhere(&self, owner: &Owner) -> Vec<Answered<Released>> {
        let Some(driver) = &self.driver else {
            self.end_owner(owner);
            return Vec::new();
        };
        let now = self.clock.now();
        let mut answers = Vec::new();
        loop {
            let end = |state: &mut State, fx: &mut Effects| state.table.end_owner(owner, SLICE, now, fx);
            if self.with_releases(end, |release| answers.extend(driver.release(release, None))) == Slice::Done {
                return answers;
            }
        }
    }

    /// What keeps a queued request from its key; `None` if it is not queued any more, or its wait is over.
    /// Of its holders, it names those whose owners are among `blocked`.
    pub(crate) fn blocker_of(&self, id: WaiterId, blocked: &OwnerSet) -> Option<Blocker> {
        let now = self.clock.now();
        self.state().table.blocker_of(id, blocked, now)
    }

    /// What keeps a request that polls from its key.
    pub(crate) fn blocker_to(&self, key: &Key, hash: u32, mode: Mode, blocked: &OwnerSet) -> Blocker {
        let now = self.clock.now();
        self.state().table.blocker_to(key, hash, mode, blocked, now)
    }

    /// Refuses a queued request to break a deadlock, if it is still queued. Its effects are the caller's to run.
    pub(crate) fn break_wait(&self, id: WaiterId, cycle: Arc<[WaitEdge]>, fx: &mut Effects) {
        let now = self.clock.now();
        self.with_effects(fx, |state, fx| {
            // If it was granted or left meanwhile, there is nothing to break.
            let _ = state.table.break_wait(id, LockError::Deadlock { cycle }, now, fx);
        });
    }

    /// Publishes that a request polls no more, to break a deadlock.
    pub(crate) fn publish_deadlock(&self, key: &Key, hash: u32, owner: Option<&Arc<str>>, cycle: &Arc<[WaitEdge]>) {
        self.with(|state, fx| state.table.tell_deadlock(key, hash, owner, cycle, fx));
    }

    /// Takes a lock from its holder to break a deadlock. Its effects are the caller's to run.
    pub(crate) fn revoke(&self, grant: &Grant, cycle: Arc<[WaitEdge]>, fx: &mut Effects) {
        let now = self.clock.now();
        self.with_effects(fx, |state, fx| state.table.revoke(grant, cycle, now, fx));
    }

    /// `source` has granted a key until `deadline`.
    pub(crate) fn claimed(&self, grant: &Grant, source: ClaimSource, deadline: Moment) -> ClaimOutcome {
        let now = self.clock.now();
        self.with(|state, fx| state.table.claimed(grant, source, deadline, now, fx))
    }

    /// Whether the request that a key is being taken for still waits.
    pub(crate) fn is_claimed_for(&self, grant: &Grant) -> bool {
        self.state().table.is_claimed_for(grant)
    }

    /// The store has refused a request, or has not answered it.
    pub(crate) fn denied(&self, grant: &Grant, why: LockError) {
        let now = self.clock.now();
        self.with(|state, fx| state.table.denied(grant, why, now, fx));
    }

    /// Whether what a grant holds its key by in the store is its own alone.
    pub(crate) fn has_own_claim(&self, grant: &Grant) -> bool {
        self.state().table.has_own_claim(grant)
    }

    /// The store keeps a key until `deadline`.
    pub(crate) fn extended(&self, grant: &Grant, deadline: Moment) -> Result<Refreshed, LockError> {
        let now = self.clock.now();
        self.with(|state, fx| state.table.extended(grant, deadline, now, fx)).map_err(LockError::Lost)
    }

    /// The store has answered that it keeps a key until `deadline`.
    pub(crate) fn confirmed(&self, grant: &Grant, deadline: Moment) {
        let now = self.clock.now();
        self.with(|state, fx| state.table.confirmed(grant, deadline, now, fx));
    }

    /// The store does not keep a key any more.
    pub(crate) fn claim_lost(&self, grant: &Grant, end: End) {
        let now = self.clock.now();
        self.with(|state, fx| state.table.claim_lost(grant, end, now, fx));
    }

    /// The grants whose keys the store keeps, with the keys.
    pub(crate) fn claims(&self, which: ClaimFilter) -> Vec<(Grant, Key, Token)> {
        let (mut claims, mut cursor) = (Vec::new(), Some(0));
        if which == ClaimFilter::InTheWay && self.state().table.waiting() == 0 {
            return claims;
        }
        while let Some(from) = cursor {
            let found = |grant, key, token| claims.push((grant, key, token));
            cursor = self.state().table.claims(which, from, SLICE as u32, found);
        }
        claims
    }

    /// Tells what became of the claim on a key, if there is one that may be reused.
    pub(crate) fn tell_claim(&self, key: &Key, hash: u32, told: Told) {
        let now = self.clock.now();
        self.with(|state, fx| state.table.tell_claim(key, hash, told, now, fx));
    }

    /// Gives up what is kept of the store's keys though nobody holds it, in slices.
    pub(crate) fn give_up_idle_claims(&self) {
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            cursor = self.with(|state, fx| state.table.give_up_idle_claims(from, SLICE as u32, fx));
        }
    }

    /// The store may have forgotten what it granted: nothing more is granted under it (K6).
    pub(crate) fn doubt_claims(&self) {
        self.state().table.doubt_claims();
        self.give_up_idle_claims();
    }

    /// The grants of a key that the store keeps, and under which tokens.
    pub(crate) fn claims_on(&self, key: &Key, hash: u32) -> Vec<(Grant, Token)> {
        let mut claims = Vec::new();
        self.for_each_holder(key, hash, |table, grant, _, _| {
            claims.extend(table.claim_of(&grant).map(|token| (grant, token)));
        });
        claims
    }

    /// The grants of a key, whether the store keeps them or not.
    pub(crate) fn grants_on(&self, key: &Key, hash: u32) -> Vec<Grant> {
        let mut grants = Vec::new();
        self.for_each_holder(key, hash, |_, grant, _, _| grants.push(grant));
        grants
    }

    /// Ends these grants by force, in slices, and none that was made since.
    pub(crate) fn force_release_grants(&self, grants: &[Grant]) -> Release {
        let now = self.clock.now();
        let mut forced = Release::AlreadyGone;
        for slice in grants.chunks(SLICE) {
            self.with(|state, fx| {
                for grant in slice {
                    if state.table.end_grant(grant, End::Forced, now, fx) == Release::Released {
                        forced = Release::Released;
                    }
                }
            });
        }
        forced
    }

    /// Refreshes, asking the store where there is one.
    pub(crate) async fn refresh_anywhere(
        &self,
        grant: &Grant,
        request: RefreshRequest,
    ) -> Result<Refreshed, LockError> {
        let Some(driver) = &self.driver else { return self.refresh(grant, request) };
        let now = self.clock.now();
        match self.with(|state, fx| state.table.start_extension(grant, request, now, fx)) {
            Ok((key, token, ttl)) => {
                driver.extend(*grant, (key, token), ttl).await.unwrap_or(Err(LockError::ShuttingDown))
            }
            Err(answer) => answer.map_err(LockError::Lost),
        }
    }

    /// Runs a transition over a store, for a caller that waits until the store has answered: `send` asks the store to
    /// release what the transition ended.
    fn with_releases<R>(
        &self,
        transition: impl FnOnce(&mut State, &mut Effects) -> R,
        send: impl FnMut(ReleaseCommand),
    ) -> R {
        let mut fx = Effects::new();
        let answer = self.transact(self.mutex.lock(), &mut fx, transition);
        // Sent before the other effects run: those may ask the store for the same keys.
        fx.take_releases(send);
        self.run_effects(fx);
        answer
    }

    /// Releases, and waits for the store, where there is one, to say whether the key still was held. `value`: what the
    /// release leaves there.
    pub(crate) async fn release_anywhere(&self, grant: &Grant, end: End, mut value: Option<ValueToLeave>) -> Release {
        let Some(driver) = &self.driver else { return self.release(grant, end) };
        let now = self.clock.now();
        let is_degraded = driver.is_degraded(grant);
        let mut own = None;
        let release = |state: &mut State, fx: &mut Effects| state.table.release(grant, end, now, fx);
        let released = self.with_releases(release, |ended| {
            if ended.grant.fence != grant.fence {
                drop(driver.release(ended, None));
                return;
            }
            let answer = driver.release(ended, value.take());
            if !is_degraded {
                own = answer;
            }
        });
        match (released, own) {
            (Release::Released, Some(answer)) => match answer.await {
                Some(Released::Released) => Release::Released,
                Some(Released::AlreadyGone) => Release::AlreadyGone,
                // S1: unknown is never taken for either. The store goes on by itself (S7).
                Some(Released::Unknown(_)) | None => Release::Unknown,
            },
            // The store knew nothing of it, or it had ended before.
            (released, _) => released,
        }
    }
}
