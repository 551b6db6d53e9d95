//! Who gets a key: at once, again, or by queueing.

use std::sync::Arc;

use super::holder::{GrantState, TokenOrigin};
use super::owner::Owner;
use super::request::{AcquireOutcome, AcquireRequest, WaitPolicy};
use super::slab::NIL;
use super::slot::{Reentry, Terms};
use super::{Counters, Effects, Table, steps};
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::FencingToken;
use crate::mode::{Mode, ModeConflict};

/// What a guard or ticket is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grant {
    pub(crate) slot: u32,
    /// Names the grant in its shard; in memory mode also what its resource is shown.
    pub(crate) fence: FencingToken,
    /// What the protected resource is shown, if there is such a proof.
    pub(crate) proof: Option<FencingToken>,
}

impl Grant {
    /// Moves the grant out of its guard, whose drop then has nothing to release.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self { slot: NIL, ..*self })
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.slot == NIL
    }
}

/// Why a key was not granted at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotFree {
    /// It is in this slot.
    At(u32),
    /// The request, or the table's state, needs more than a look at the key.
    Unasked,
}

/// Why a request cannot be granted at once.
pub(super) enum NotGrantable {
    /// Others hold the key, or wait for it. `until`: the deadline of the session that asks.
    Held {
        index: u32,
        until: Option<Moment>,
    },
    /// The store must be asked.
    Unclaimed {
        until: Option<Moment>,
    },
    Refused(LockError),
}

impl NotGrantable {
    /// Why, for one who does not wait; `held` where it is because of others.
    #[cfg(feature = "http")]
    pub(super) fn refusal(self, held: LockError) -> LockError {
        match self {
            Self::Held { .. } | Self::Unclaimed { .. } => held,
            Self::Refused(why) => why,
        }
    }
}

impl Table {
    /// Grants a key that nobody holds; changes nothing otherwise. The lane's whole way in when there is no contention.
    #[inline(always)]
    pub(crate) fn grant_if_free(&mut self, request: &AcquireRequest<'_>, now: Moment) -> Result<Grant, NotFree> {
        self.advance_clock(now);
        let special = request.token.is_some() || self.slow_path || self.is_full_of_keys();
        match &request.terms.extra {
            _ if special => Err(NotFree::Unasked),
            None => {
                let (slot, fence) = self.grant_vacant(request).map_err(NotFree::At)?;
                Ok(Grant { slot, fence, proof: Some(fence) })
            }
            Some(extra) if extra.need_slow_path() => Err(NotFree::Unasked),
            Some(_) => match self.find(request.hash, request.key) {
                Some(index) => Err(NotFree::At(index)),
                None => Ok(self.grant_vacant_until(request, None)),
            },
        }
    }

    /// Answers a request that `grant_if_free` has just turned away, the mutex held ever since.
    pub(crate) fn acquire_after(
        &mut self,
        not_free: NotFree,
        request: &AcquireRequest<'_>,
        policy: WaitPolicy<'_>,
        now: Moment,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        self.advance_clock(now);
        match not_free {
            NotFree::At(index) if self.slots[index].group().is_none() && !self.end_if_over(index, fx) => {
                self.enqueue(request, index, policy, None, fx)
            }
            _ => self.acquire(request, policy, now, fx),
        }
    }

    /// Answers any request. `now` is the exact time, except for one that will queue if the key looks held.
    pub(crate) fn acquire(
        &mut self,
        request: &AcquireRequest<'_>,
        policy: WaitPolicy<'_>,
        now: Moment,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        self.advance_clock(now);
        if self.closed {
            return self.reject(None, request.terms.mode(), LockError::ShuttingDown);
        }
        let found = self.find_live(request.hash, request.key, fx);
        if request.origin == TokenOrigin::ByClient
            && let Some(outcome) = self.answer_repeated(request, found, &policy, fx)
        {
            return outcome;
        }
        match self.open(request, found, fx) {
            Ok(grant) => AcquireOutcome::Granted(grant),
            Err(NotGrantable::Held { index, until }) => self.enqueue(request, index, policy, until, fx),
            Err(NotGrantable::Unclaimed { until }) if request.terms.mode() == Mode::Exclusive => {
                self.claim_vacant(request, &policy, until, fx)
            }
            Err(NotGrantable::Unclaimed { until }) => self.claim_share(request, found, &policy, until, fx),
            Err(NotGrantable::Refused(why)) => self.reject(found, request.terms.mode(), why),
        }
    }

    /// Answers a request of an owner if it can be granted now; changes nothing otherwise.
    pub(crate) fn grant_now(&mut self, request: &AcquireRequest<'_>, now: Moment, fx: &mut Effects) -> Option<Grant> {
        self.advance_clock(now);
        if self.closed || request.origin == TokenOrigin::ByClient {
            return None;
        }
        let found = self.find_live(request.hash, request.key, fx);
        self.open(request, found, fx).ok()
    }

    /// Grants what can be granted without waiting.
    pub(super) fn open(
        &mut self,
        request: &AcquireRequest<'_>,
        found: Option<u32>,
        fx: &mut Effects,
    ) -> Result<Grant, NotGrantable> {
        let until = request.terms.session().map(|session| session.settle(self.now)).transpose();
        let until = until.map_err(|_| NotGrantable::Refused(LockError::SessionEnded))?;
        let needs_claim = self.claim.is_stored() && request.terms.needs_claim();
        if needs_claim {
            self.claim.check(request.terms.mode()).map_err(|why| NotGrantable::Refused(why.into()))?;
        }
        if let Some(index) = found {
            let (slot, mode) = (&self.slots[index], request.terms.mode());
            let other_reach = (self.claim.is_stored() && slot.is_claimed() != needs_claim).then_some(if needs_claim {
                ModeConflict::WithinProcess
            } else {
                ModeConflict::AcrossProcesses
            });
            if let Some(why) = slot.kind().conflict(mode).or(other_reach) {
                return Err(NotGrantable::Refused(why.into()));
            }
            if let Some(owner) = request.terms.owner()
                && let Some(own) = self.own_grant(index, owner, request.terms)
            {
                self.tally.acquired(request.terms.mode());
                return Ok(self.reenter(own, index));
            }
            if slot.queue.len > 0 || !slot.has_room(mode) {
                return Err(NotGrantable::Held { index, until });
            }
        }
        let full = match found {
            None => self.is_full_of_keys().then_some(LockError::TooManyKeys),
            Some(index) => {
                let is_member = self.slots[index].holder.is_some();
                (is_member && self.members() >= self.limits.members).then_some(LockError::TooManyHolders)
            }
        };
        if let Some(why) = full {
            fx.due(self.now);
            return Err(NotGrantable::Refused(why));
        }
        if needs_claim {
            if let Some(index) = found
                && let Some(grant) = self.ride(index, request, fx).map_err(NotGrantable::Refused)?
            {
                return Ok(grant);
            }
            return match self.grant_idle(request, fx).map_err(NotGrantable::Refused)? {
                Some(grant) => {
                    self.granted(grant.slot, grant.slot, 0, fx);
                    Ok(grant)
                }
                None => Err(NotGrantable::Unclaimed { until }),
            };
        }
        reserve_quota(request.terms).map_err(NotGrantable::Refused)?;
        let Some(index) = found else {
            let grant = self.grant_vacant_until(request, until);
            self.granted(grant.slot, grant.slot, 0, fx);
            self.tally.acquired(request.terms.mode());
            return Ok(grant);
        };
        let at = self.place(index, request.token, request.terms, request.grant_state, until);
        self.count(index, |c| {
            c.attempts += 1;
            c.grants += 1;
        });
        self.tally.acquired(request.terms.mode());
        self.granted(at, index, 0, fx);
        Ok(Grant { slot: at, fence: self.fence, proof: Some(self.fence) })
    }

    /// The grant of this owner that answers its request again, if the request wants that.
    fn own_grant(&self, index: u32, owner: &Arc<Owner>, terms: &Terms) -> Option<u32> {
        if terms.extra.as_ref()?.reentry == Reentry::Refused {
            return None;
        }
        let is_own = |at: u32| self.slots[at].owner() == Some(owner) && !self.slots[at].is_pending();
        match (self.slots[index].group(), terms.mode()) {
            (None, Mode::Exclusive | Mode::Shared) => is_own(index).then_some(index),
            (Some(group), mode) if mode == Mode::Shared || (mode == Mode::Exclusive && group.is_alone()) => {
                let members = group.members_of(owner.id).inspect(|_| steps::count());
                std::iter::once(index).chain(members).find(|at| is_own(*at))
            }
            // Of permits one may want more, and a share is no exclusive lock unless it was upgraded.
            _ => None,
        }
    }

    fn reenter(&mut self, own: u32, index: u32) -> Grant {
        let slot = &mut self.slots[own];
        slot.extras_mut().reentries += 1;
        let holder = slot.holder.as_ref().expect("what an owner has is held");
        let grant = Grant { slot: own, fence: holder.fence(), proof: self.proof_in(own) };
        self.count(index, |c| {
            c.attempts += 1;
            c.reentered += 1;
        });
        grant
    }

    /// Whether a grant whose waiter has gone unseen was asked for again by its owner meanwhile: then it is that
    /// request's, and one release less ends it.
    pub(super) fn keep_for_owner(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index];
        let Some(extras) = slot.extras.as_mut().filter(|extras| extras.reentries > 0) else { return false };
        extras.reentries -= 1;
        if let Some(holder) = slot.holder.as_mut() {
            // The one that remembers its token longest: that other request may have been a guard's or a client's.
            holder.grant_state = GrantState::Guard(TokenOrigin::ByClient);
        }
        true
    }

    /// Refuses before anything was changed.
    pub(super) fn reject(&mut self, index: Option<u32>, mode: Mode, why: LockError) -> AcquireOutcome {
        self.tally.attempt(mode, why.outcome());
        let add = |c: &mut Counters| {
            c.rejected += 1;
            c.attempts += 1;
        };
        match index {
            Some(index) => self.count(index, add),
            None => add(&mut self.counters),
        }
        AcquireOutcome::Refused(why)
    }
}

/// Takes a place of the owner's, and one of the account's, that a grant or waiter will hold (T9).
pub(super) fn reserve_quota(terms: &Terms) -> Result<(), LockError> {
    if terms.owner().is_some_and(|owner| !owner.locks.take()) {
        return Err(LockError::TooManyLocks);
    }
    if terms.account().is_some_and(|account| !account.lock_quota().take()) {
        if let Some(owner) = terms.owner() {
            owner.locks.give_back();
        }
        return Err(LockError::LockQuota);
    }
    Ok(())
}

pub(super) fn return_quota(terms: &Terms) {
    if let Some(owner) = terms.owner() {
        owner.locks.give_back();
    }
    if let Some(account) = terms.account() {
        account.lock_quota().give_back();
    }
}
