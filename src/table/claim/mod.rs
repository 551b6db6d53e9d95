//! May this process hand a key out, and until when? The seam to the store.
//!
//! Without a store, in memory mode, every key is this process's own for good, and all of this costs nothing. With a
//! store, a free key is not granted to the next request but *taken* for it: the request's waiter is set aside as the
//! one that the key is taken for (`Claiming`), everybody else queues behind it, and the store is asked, under the
//! waiter's own token. The grant is made when the store has said yes, and ends when the store's grant does (R19). So of
//! all who wait for a key in this process, one talks to the store (R15).
//!
//! The store is asked by a [`StoreCommands`], after the mutex is dropped; the answers come back as [`Table::claimed`],
//! [`Table::denied`], [`Table::extended`] and [`Table::claim_lost`]. Nothing is held for a waiter that has gone: its
//! claim is cancelled, and the next waiter's begins.
//!
//! Where the store is set to that ([`ClaimReuse`]), a claim has a token of its own and outlives the grant that it was
//! taken for: [`kept`] says how long, `reuse` hands it on, `idle` keeps it while nobody holds its key.

mod carriers;
mod commands;
mod fences;
mod idle;
mod joins;
mod kept;
#[cfg(test)]
mod model;
mod release_command;
mod reuse;
mod riders;
#[cfg(test)]
mod share_walks;
#[cfg(test)]
mod tests;
mod tokens;

use std::fmt;
use std::sync::Arc;

use super::acquire::{Grant, reserve_quota};
use super::history::End;
use super::holder::GrantState;
use super::queue::{WaiterId, WaiterState};
use super::request::{AcquireOutcome, AcquireRequest, WaitPolicy};
use super::slot::{Slot, Terms};
use super::{Effects, RefreshRequest, Refreshed, Table};
use crate::claim_reuse::ClaimReuse;
use crate::clock::Moment;
use crate::error::{AttemptOutcome, LockError, Loss};
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::mode::{Mode, ModeConflict, Modes};
pub(in crate::table) use carriers::{CarrierNumber, Carriers};
pub(crate) use commands::{
    AtFirst, Attempts, ClaimEnd, ClaimFilter, ClaimOutcome, ClaimRequest, ClaimSource, LocalWaiters, StoreCommand,
    StoreCommands,
};
pub(crate) use fences::StoreGrant;
pub(super) use idle::IdleKeys;
pub(crate) use joins::Joins;
pub(super) use kept::{ClaimEvent, KeptClaim};
pub(crate) use release_command::ReleaseCommand;
pub(crate) use reuse::Told;
use riders::NoRider;
use tokens::GIVEN;

/// The right of this process to grant a key.
#[derive(Clone)]
pub(crate) enum Claim {
    /// Memory mode: there is no store to ask.
    Local,
    /// The store says, key by key.
    Stored {
        /// Who asks it.
        commands: Arc<dyn StoreCommands>,
        reuse: ClaimReuse,
        /// What the tokens of claims that may be reused begin with, in the lower 48 bits.
        tag: u64,
        /// How its keys can be held.
        modes: Modes,
        /// Why exclusively alone, in its own words.
        why_exclusive: Option<&'static str>,
    },
}

impl Claim {
    pub(crate) const fn is_stored(&self) -> bool {
        matches!(self, Self::Stored { .. })
    }

    /// Whether a key can be granted in this mode.
    pub(super) fn check(&self, asked: Mode) -> Result<(), ModeConflict> {
        match self {
            Self::Stored { modes: Modes::Exclusive, why_exclusive: why, .. } if asked != Mode::Exclusive => {
                Err(ModeConflict::Store { asked, why: *why })
            }
            Self::Stored { .. } | Self::Local => Ok(()),
        }
    }

    /// How claims may outlive their grants.
    pub(super) const fn reuse(&self) -> ClaimReuse {
        match self {
            Self::Local => ClaimReuse::Off,
            Self::Stored { reuse, .. } => *reuse,
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_stored() { "Stored" } else { "Local" })
    }
}

impl Table {
    /// Has a key that nobody here holds or wants taken for a request.
    pub(super) fn claim_vacant(
        &mut self,
        request: &AcquireRequest<'_>,
        policy: &WaitPolicy<'_>,
        until: Option<Moment>,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        if let Err(why) = reserve_quota(request.terms) {
            return self.reject(None, request.terms.mode(), why);
        }
        let index = self.insert_unclaimed(request);
        let (waiter, tries) = self.add_claimant(request, index, policy, until);
        let after = self.end_idle_claim(index, fx);
        self.start_claim(index, waiter.index, (tries, after), fx);
        AcquireOutcome::Queued(waiter)
    }

    /// Puts a key in the table that the store is to be asked for.
    fn insert_unclaimed(&mut self, request: &AcquireRequest<'_>) -> u32 {
        let index = self.insert_slot(Slot::of_key(request.key.clone(), request.hash, None, None));
        // Until the store has answered, nobody has said no.
        self.slots[index].extras_mut().unanswered = true;
        index
    }

    /// Makes the waiter that a key is to be taken for.
    fn add_claimant(
        &mut self,
        request: &AcquireRequest<'_>,
        index: u32,
        policy: &WaitPolicy<'_>,
        until: Option<Moment>,
    ) -> (WaiterId, Attempts) {
        let (deadline, waker, tries) = match *policy {
            WaitPolicy::Now | WaitPolicy::Poll => (Moment::FAR, None, Attempts::One),
            WaitPolicy::Until(deadline, waker) => (deadline, waker, Attempts::Many),
        };
        let counted = !matches!(policy, WaitPolicy::Poll);
        let state = WaiterState::Claiming { tries, queued: false, refused: false, counted };
        (self.add_waiter(request, index, state, (deadline, until), waker), tries)
    }

    /// Has a key taken for a waiter, which keeps its place in this process until the store has answered. `after`: this
    /// process's own last claim on it, to be let go first.
    pub(super) fn start_claim(
        &mut self,
        index: u32,
        id: u32,
        (tries, after): (Attempts, Option<ClaimEnd>),
        fx: &mut Effects,
    ) {
        let waiter = &self.waiters[id];
        let (token, ttl, extra, due) = (waiter.kept_token(), waiter.terms.ttl, waiter.terms.extra.clone(), waiter.due);
        let claim = self.new_claim(id);
        let claim_ttl = self.claim_ttl(id, claim.as_deref());
        let at_first = self.at_first(id, claim.as_deref());
        let not_before = self.not_before(index, tries);
        // It is no grant yet: it ends with its waiter, and with nothing else.
        let holder = self.new_holder(ttl, Moment::FAR, GrantState::Claiming(id));
        let fence = holder.fence();
        let slot = &mut self.slots[index];
        slot.holder = Some(holder);
        let own = token.expect(GIVEN);
        let claim_token = claim.as_ref().map_or(own, |claim| claim.token);
        let extras = slot.extras_mut();
        (extras.terms, extras.token) = (extra, token);
        if claim.is_some() {
            extras.claim = claim;
        }
        let key = slot.key.clone();
        self.claiming += 1;
        self.index_grant(index);
        self.slots[index].owner().into_iter().for_each(|owner| owner.begin_taking());
        if due != Moment::FAR {
            self.timeouts.insert(&mut self.waiters, id);
            fx.due(due);
        }
        let mode = Mode::Exclusive;
        let ask = ClaimRequest { token: claim_token, ttl: claim_ttl, tries, after, not_before, at_first, mode };
        self.send(StoreCommand::Acquire { grant: Grant { slot: index, fence, proof: None }, key, ask }, fx);
    }

    pub(super) fn send(&self, command: StoreCommand, fx: &mut Effects) {
        if let Claim::Stored { commands, .. } = &self.claim {
            fx.command(Arc::clone(commands), command);
        }
    }

    /// The waiter that a key is being taken for, by the grant that its command names.
    pub(super) fn claimant(&self, grant: &Grant) -> Option<u32> {
        match self.holder_of(grant).map(|holder| holder.grant_state) {
            Some(GrantState::Claiming(waiter)) => Some(waiter),
            Some(_) => None,
            None => self.joining(grant),
        }
    }

    /// Whether the request that a key is being taken for still waits.
    pub(crate) fn is_claimed_for(&self, grant: &Grant) -> bool {
        self.claimant(grant).is_some()
    }

    /// The terms of a request that a key is being taken for, if a client is told of the grant.
    pub(crate) fn terms_of_ticket(&self, grant: &Grant) -> Option<&Terms> {
        let waiter = &self.waiters[self.claimant(grant)?];
        waiter.is_for_ticket.then_some(&waiter.terms)
    }

    /// Somebody has said yes, until `deadline`.
    pub(crate) fn claimed(
        &mut self,
        grant: &Grant,
        source: ClaimSource,
        deadline: Moment,
        now: Moment,
        fx: &mut Effects,
    ) -> ClaimOutcome {
        self.advance_clock(now);
        let Some(id) = self.claimant(grant).filter(|_| !self.closed) else {
            return ClaimOutcome::Unwanted;
        };
        if self.reject_if_over(grant.slot, id, fx) {
            return ClaimOutcome::Unwanted;
        }
        if deadline <= self.now {
            return ClaimOutcome::TooLate;
        }
        if self.waiters[id].terms.mode() != Mode::Exclusive {
            return self.joined(grant, id, source, deadline, fx);
        }
        self.timeouts.remove(&mut self.waiters, id);
        self.claiming -= 1;
        let now = self.now;
        let slot = &mut self.slots[grant.slot];
        slot.owner().into_iter().for_each(|owner| owner.end_taking());
        if let Some(holder) = slot.holder.as_mut() {
            (holder.grant_state, holder.granted_at) = (GrantState::Unseen(id), now);
        }
        let extras = slot.extras_mut();
        let proof = match source {
            ClaimSource::OfStore(given) => {
                if let Some(claim) = extras.claim.as_mut() {
                    claim.step(ClaimEvent::Granted { grant: given, deadline }, self.claim.reuse(), now);
                }
                given.fence
            }
            ClaimSource::Ours => None,
        };
        (extras.proof, extras.unanswered) = (proof, false);
        let last = slot.last_deadline();
        if let Some(holder) = slot.holder.as_mut() {
            holder.deadline = deadline.min(last);
        }
        self.expiries.insert(&mut self.slots, grant.slot);
        if self.slots[grant.slot].queue.len > 0 {
            self.file_as_urgent(grant.slot);
        }
        self.grant_claimant(id, (grant.slot, grant.slot), source, deadline, fx);
        ClaimOutcome::Taken
    }

    /// Grants a key to the waiter that it was taken for. `at`: the slot of the grant, and that of the key.
    fn grant_claimant(
        &mut self,
        id: u32,
        (at, index): (u32, u32),
        source: ClaimSource,
        deadline: Moment,
        fx: &mut Effects,
    ) {
        let now = self.now;
        self.keep_for_session(at, fx);
        let claim = self.slots[at].extras.as_ref().and_then(|extras| extras.claim.as_deref());
        let at_first = self.at_first(id, claim);
        if !self.extend_if_kept(at, at_first, fx)
            && let Some(due) = self.confirm_before_the_end(at)
        {
            fx.due(due);
        }
        let waiter = &self.waiters[id];
        let queued = matches!(waiter.state(), WaiterState::Claiming { queued: true, .. });
        // A single try is no wait that the deadlock check knows of.
        let known = u32::from(matches!(waiter.state(), WaiterState::Claiming { tries: Attempts::Many, .. }));
        let behind = waiter.was_behind();
        let waited = now.nanos_since(waiter.queued_at);
        self.slots[at].extras_mut().was_behind = behind;
        self.grant_to_waiter(id, at, fx);
        fx.due(deadline);
        self.count(index, |c| {
            c.attempts += 1;
            c.grants += 1;
            if source == ClaimSource::Ours {
                c.degraded += 1;
            }
            if queued {
                c.handoffs += 1;
                c.wait_nanos = c.wait_nanos.saturating_add(waited);
            }
        });
        self.tally.claimed(queued);
        if behind {
            self.tally.waited_for(AttemptOutcome::Acquired, waited);
        }
        self.granted(at, index, known, fx);
    }

    /// The store has said no, or nothing (`StoreUnavailable`). A request that has one try is refused; one that waits
    /// goes on.
    pub(crate) fn denied(&mut self, grant: &Grant, why: LockError, now: Moment, fx: &mut Effects) {
        self.advance_clock(now);
        let Some(id) = self.claimant(grant) else { return };
        self.slots[grant.slot].extras_mut().unanswered = why == LockError::StoreUnavailable;
        self.refuse_join(grant);
        self.deny_claimant(grant.slot, id, why, fx);
    }

    /// Cancels a claim, and hands the key to the next waiter. The waiter that it was for has been answered before.
    pub(super) fn end_claim(&mut self, index: u32, fx: &mut Effects) {
        let slot = &mut self.slots[index];
        let Some(holder) = slot.holder.take() else { return };
        let (fence, grant_state) = (holder.fence(), holder.grant_state);
        let key = slot.key.clone();
        let mut terms = None;
        if let Some(extras) = slot.extras.as_mut() {
            terms = extras.terms.take();
            // What the store may yet say yes to is let go under its token.
            extras.claim = None;
            let _ = extras.forget_holder();
        }
        if let Some(terms) = terms {
            terms.owner.iter().for_each(|owner| owner.end_taking());
            self.unindex_grant(index, &terms);
        }
        if let GrantState::Claiming(id) = grant_state {
            self.timeouts.remove(&mut self.waiters, id);
        }
        self.claiming -= 1;
        let hash = self.slots[index].hash;
        self.hand_off(index, fx);
        // Only now: the hand-off may have found that all the others have waited in vain, too.
        let queue = self.local_waiters(hash, &key);
        self.send(StoreCommand::Cancel { grant: Grant { slot: index, fence, proof: None }, key, queue }, fx);
    }

    /// Whether the key is being taken for somebody of this process, or somebody waits behind its holder here.
    fn local_waiters(&self, hash: u32, key: &Key) -> LocalWaiters {
        let Some(index) = self.find(hash, key) else { return LocalWaiters::None };
        let slot = &self.slots[index];
        let is_taken_for =
            slot.holder.as_ref().is_some_and(|holder| matches!(holder.grant_state, GrantState::Claiming(_)));
        if is_taken_for || slot.joins().is_some() || slot.queue.len > 0 {
            LocalWaiters::Some
        } else {
            LocalWaiters::None
        }
    }

    /// Lets the store know of the end of a grant that it had given; unless its claim is to be reused (K3).
    pub(super) fn release_claim(&mut self, index: u32, fence: FencingToken, end: End, fx: &mut Effects) {
        if self.keeps_claim(index, end) {
            return;
        }
        let carrier = match self.alight(index) {
            Ok(None) => return,
            Ok(carrier) => carrier,
            Err(NoRider) => None,
        };
        let kept = self.take_claim(index);
        if self.claim.is_stored() && end != End::Vanished {
            let key = self.slots[index].key.clone();
            let grant = Grant { slot: index, fence, proof: None };
            // The token of a claim that may be reused is known to nobody else.
            let is_own = kept.is_none() && carrier.is_none();
            let own = self.own_token(index);
            let shared = carrier.map_or(own, |carrier| carrier.token);
            let claim = kept.map_or(ClaimEnd::from(shared), |kept| kept.end());
            let command = if is_own && self.may_go_on_elsewhere(index, end) {
                StoreCommand::RunOut { grant, key, token: own }
            } else {
                StoreCommand::Release(ReleaseCommand { grant, key, claim, end, next: None })
            };
            self.send(command, fx);
        }
    }

    /// Whether the request of a grant that the store gave had to wait for others.
    pub(crate) fn was_behind(&self, grant: &Grant) -> bool {
        let extras = self.holder_of(grant).and_then(|_| self.slots[grant.slot].extras.as_ref());
        extras.is_some_and(|extras| extras.was_behind)
    }

    /// The fence that the store knows a grant by.
    pub(crate) fn store_fence(&self, grant: &Grant) -> Option<FencingToken> {
        let claim = self.slots[grant.slot].extras.as_ref().and_then(|extras| extras.claim.as_ref());
        claim.map_or(grant.proof, |claim| claim.given_fence())
    }

    /// Has the store asked to keep a key for its holder.
    pub(super) fn extend_claim(&mut self, grant: Grant, ttl: Ttl, fx: &mut Effects) {
        let (key, token) = self.extending(&grant);
        self.send(StoreCommand::Extend { grant, key, token, ttl }, fx);
    }

    /// The store keeps the key until `deadline` (R3: never shortened).
    pub(crate) fn extended(
        &mut self,
        grant: &Grant,
        deadline: Moment,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<Refreshed, Loss> {
        self.live_for_refresh(grant, now, fx)?;
        let (reuse, now) = (self.claim.reuse(), self.now);
        let slot = &mut self.slots[grant.slot];
        let was_short = slot.extras.as_mut().is_some_and(|extras| extras.extension.take().is_some());
        if let Some(claim) = slot.extras.as_mut().and_then(|extras| extras.claim.as_mut()) {
            claim.step(ClaimEvent::Extended { deadline }, reuse, now);
        }
        if let Some(carrier) = self.carrier_of_mut(grant.slot) {
            carrier.extended(deadline);
        }
        let slot = &self.slots[grant.slot];
        let asked = deadline.min(slot.last_deadline());
        if was_short {
            self.unfile_extension(grant.slot);
        }
        Ok(self.refreshed(grant, asked, fx))
    }

    /// A session's locks are kept in the store for as long as the session lives: its heartbeats cost nothing there.
    fn keep_for_session(&mut self, index: u32, fx: &mut Effects) {
        let slot = &self.slots[index];
        let (Some(holder), Some(_)) = (slot.holder.as_ref(), slot.session()) else { return };
        let every = (holder.ttl.as_duration() / 3).max(Ttl::MIN);
        self.begin_order(index, every, 0, fx);
    }

    /// Whether the grant in a slot was given by the store, so that the store must be asked to extend and release it.
    pub(super) fn is_by_store(&self, index: u32) -> bool {
        self.claim.is_stored() && self.slots[index].is_claimed()
    }

    /// What a grant's resource is shown: the store's fence, or, where no store is asked, the table's own.
    pub(super) fn proof_in(&self, index: u32) -> Option<FencingToken> {
        let slot = &self.slots[index];
        match slot.extras.as_ref() {
            Some(extras) if extras.proof.is_some() || self.is_by_store(index) => extras.proof,
            _ => slot.holder.as_ref().map(|holder| holder.fence()),
        }
    }

    /// What is to be asked of the store for a refresh; `Err` has the answer where it need not be asked.
    pub(crate) fn start_extension(
        &mut self,
        grant: &Grant,
        request: RefreshRequest,
        now: Moment,
        fx: &mut Effects,
    ) -> Result<(Key, Token, Ttl), Result<Refreshed, Loss>> {
        let by_store = self.holder_of(grant).is_some() && self.is_by_store(grant.slot);
        if !by_store || self.live(grant, now, fx).is_none() {
            return Err(self.refresh(grant, request, now, fx));
        }
        let slot = &self.slots[grant.slot];
        let ttl = slot.holder.as_ref().map(|holder| holder.ttl);
        match (self.skips_refresh(grant, request), request, ttl) {
            (Some(refreshed), ..) => Err(Ok(refreshed)),
            (None, RefreshRequest::To(ttl), _) | (None, RefreshRequest::IfDue, Some(ttl)) => {
                if let Some(refreshed) = self.refresh_on_carrier(grant, ttl, fx) {
                    return Err(Ok(refreshed));
                }
                if let Some(session) = self.slots[grant.slot].session() {
                    let _ = session.heartbeat(ttl, self.now);
                }
                let (key, token) = self.extending(grant);
                Ok((key, token, ttl))
            }
            (None, RefreshRequest::IfDue, None) => unreachable!("a live grant has its holder"),
        }
    }
}
