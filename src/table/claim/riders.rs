//! How a request rides on a share that this process has of a key (K7): what a table does with its `carriers`.

use std::time::Duration;

use super::carriers::{Age, Carrier, CarrierNumber};
use super::kept::{ClaimEvent, Next};
use super::{AtFirst, Claim, ClaimEnd};
use crate::claim_reuse::ClaimReuse;
use crate::clock::Moment;
use crate::error::{AttemptOutcome, LockError};
use crate::key::{FencingToken, Token, Ttl};
use crate::mode::Mode;
use crate::table::acquire::reserve_quota;
use crate::table::history::End;
use crate::table::holder::GrantState;
use crate::table::slot::{Refreshes, Terms};
use crate::table::{AcquireRequest, Downgrade, Effects, Grant, Refreshed, Table, TokenOrigin};

/// So long after another rider asked to have their carrier extended, one looks whether it was.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What a request rides on, and the end that it has by that.
struct Ride {
    number: CarrierNumber,
    fence: Option<FencingToken>,
    deadline: Moment,
}

impl Table {
    /// Whether a request may hold a key under a share that was taken for another, and others under its.
    pub(super) fn may_ride(&self, origin: TokenOrigin, terms: &Terms) -> bool {
        let is_reused = matches!(self.claim, Claim::Stored { reuse, .. } if reuse != ClaimReuse::Off);
        is_reused && origin == TokenOrigin::Minted && terms.session().is_none() && terms.mode() == Mode::Shared
    }

    /// The token of a share that others may ride on; `None` if the waiter's own token is to be in the store.
    pub(super) fn carrier_token(&self, id: u32) -> Option<Token> {
        let Claim::Stored { tag, .. } = self.claim else { return None };
        let waiter = &self.waiters[id];
        self.may_ride(waiter.origin, &waiter.terms).then(|| Token::of_claim(tag, 0))
    }

    /// Grants a share of a key to a request that comes. `None`: it is to take one of its own from the store.
    pub(in crate::table) fn ride(
        &mut self,
        index: u32,
        request: &AcquireRequest<'_>,
        fx: &mut Effects,
    ) -> Result<Option<Grant>, LockError> {
        if !self.may_ride(request.origin, request.terms) {
            return Ok(None);
        }
        let is_ticket = request.grant_state == GrantState::Ticket;
        let Some(ride) = self.find_ride(index, request.terms.ttl, is_ticket) else { return Ok(None) };
        reserve_quota(request.terms)?;
        let at = self.place(index, request.token, request.terms, request.grant_state, Some(ride.deadline));
        let fence = self.fence;
        self.board(at, index, &ride, fx);
        self.count(index, |c| {
            c.attempts += 1;
            c.grants += 1;
        });
        self.tally.acquired(request.terms.mode());
        self.tally.claimed(false);
        self.granted(at, index, 0, fx);
        Ok(Some(Grant { slot: at, fence, proof: ride.fence }))
    }

    /// The same for a waiter that has just left its queue; `false`: it is to take one of its own.
    pub(in crate::table) fn ride_from_queue(&mut self, index: u32, id: u32, fx: &mut Effects) -> bool {
        let waiter = &self.waiters[id];
        if !self.may_ride(waiter.origin, &waiter.terms) {
            return false;
        }
        let terms = Terms { ttl: waiter.terms.ttl, extra: waiter.terms.extra.clone() };
        let (token, queued_at) = (waiter.kept_token(), waiter.queued_at);
        let Some(ride) = self.find_ride(index, terms.ttl, waiter.is_for_ticket) else { return false };
        let waited = self.now.nanos_since(queued_at);
        let at = self.place(index, token, &terms, GrantState::Unseen(id), Some(ride.deadline));
        self.board(at, index, &ride, fx);
        self.grant_to_waiter(id, at, fx);
        self.count(index, |c| {
            c.attempts += 1;
            c.grants += 1;
            c.handoffs += 1;
            c.wait_nanos = c.wait_nanos.saturating_add(waited);
        });
        self.tally.acquired(terms.mode());
        self.tally.claimed(true);
        self.tally.waited_for(AttemptOutcome::Acquired, waited);
        // Its own wait is one that the deadlock check knows of.
        self.granted(at, index, 1, fx);
        true
    }

    /// Whether a waiter that has room does best to wait on: a share is being taken that it may ride on.
    pub(in crate::table) fn awaits_carrier(&self, index: u32, id: u32) -> bool {
        let waiter = &self.waiters[id];
        self.slots[index].joins().is_some_and(super::Joins::carries) && self.may_ride(waiter.origin, &waiter.terms)
    }

    /// The carrier that takes a request with this TTL.
    fn find_ride(&self, index: u32, ttl: Ttl, is_ticket: bool) -> Option<Ride> {
        let slot = &self.slots[index];
        let (number, age, carrier) = slot.group()?.carriers.as_ref()?.open(self.now, self.claims_epoch)?;
        let is_next_under_way = slot.joins().is_some_and(super::Joins::carries);
        let left = carrier.deadline.saturating_since(self.now);
        let Next::Reuses(least) = Next::reusing(ttl, is_ticket) else { return None };
        let takes = left >= least && (age == Age::Fresh || is_next_under_way);
        let deadline = carrier.deadline.min(self.now.after(ttl));
        takes.then_some(Ride { number, fence: carrier.fence, deadline })
    }

    /// A holder rides from now on.
    fn board(&mut self, at: u32, index: u32, ride: &Ride, fx: &mut Effects) {
        if let Some(carriers) = self.slots[index].group_mut().and_then(|group| group.carriers.as_mut()) {
            carriers.board(ride.number);
        }
        let extras = self.slots[at].extras_mut();
        (extras.rides_on, extras.proof) = (Some(ride.number), ride.fence);
        self.tally.reused_claim();
        self.extend_if_kept(at, AtFirst::Whole, fx);
    }

    /// The holder of a slot is the first to ride on a share that the store has granted.
    pub(super) fn add_carrier(&mut self, at: u32, index: u32, carrier: Carrier) {
        let Some(group) = self.slots[index].group_mut() else { return };
        let number = group.carriers.get_or_insert_default().add(carrier);
        self.slots[at].extras_mut().rides_on = Some(number);
    }

    /// What the store is asked for a lock that is to become a share. Its claim is the last lock's under it from now on (K6).
    pub(in crate::table) fn asks_for_share(&mut self, grant: &Grant) -> Downgrade {
        let (reuse, now, own) = (self.claim.reuse(), self.now, self.own_token(grant.slot));
        let slot = &mut self.slots[grant.slot];
        let kept = slot.extras.as_mut().and_then(|extras| extras.claim.as_mut());
        let claim = kept.map_or(ClaimEnd::from(own), |kept| {
            kept.step(ClaimEvent::Doubted, reuse, now);
            kept.end()
        });
        Downgrade::Asks { key: slot.key.clone(), claim }
    }

    /// The claim of a lock is a share now, and the lock its only rider: who asks for a share later takes one of its own,
    /// with a fence above this one.
    pub(in crate::table) fn claim_becomes_share(&mut self, index: u32, deadline: Moment) {
        let Some(kept) = self.slots[index].extras.as_mut().and_then(|extras| extras.claim.take()) else { return };
        let mut carrier = Carrier::new((kept.token, kept.epoch), self.proof_in(index), deadline, self.now);
        carrier.close();
        self.add_carrier(index, index, carrier);
    }

    /// What the holder of a slot rides on.
    pub(super) fn carrier_of(&self, at: u32) -> Option<&Carrier> {
        let number = self.slots[at].extras.as_ref()?.rides_on?;
        self.slots[self.key_slot(at)].group()?.carriers.as_ref()?.get(number)
    }

    pub(super) fn carrier_of_mut(&mut self, at: u32) -> Option<&mut Carrier> {
        let number = self.slots[at].extras.as_ref()?.rides_on?;
        let key_slot = self.key_slot(at);
        self.slots[key_slot].group_mut()?.carriers.as_mut()?.get_mut(number)
    }

    /// The holder of a slot rides no more: `Err` if it did not, else the carrier if that was its last rider.
    pub(super) fn alight(&mut self, at: u32) -> Result<Option<Carrier>, NoRider> {
        let number = self.slots[at].extras.as_mut().and_then(|extras| extras.rides_on.take()).ok_or(NoRider)?;
        let key_slot = self.key_slot(at);
        let carriers = self.slots[key_slot].group_mut().and_then(|group| group.carriers.as_mut());
        Ok(carriers.and_then(|carriers| carriers.alight(number)))
    }

    /// Whether a key has an open carrier, which is closed now.
    pub(super) fn close_carriers(&mut self, index: u32) -> bool {
        let carriers = self.slots[index].group_mut().and_then(|group| group.carriers.as_mut());
        carriers.is_some_and(|carriers| carriers.close())
    }

    /// Refreshes a rider without asking the store: its carrier lasts for nearly as long as is asked.
    pub(in crate::table) fn refresh_on_carrier(
        &mut self,
        grant: &Grant,
        ttl: Ttl,
        fx: &mut Effects,
    ) -> Option<Refreshed> {
        let carrier_ends = self.carrier_of(grant.slot)?.deadline;
        let slot = &mut self.slots[grant.slot];
        let asked = self.now.after(ttl).min(slot.last_deadline());
        if asked.saturating_since(carrier_ends) > ttl.as_duration() / 16 {
            return None;
        }
        slot.extras_mut().extension = None;
        self.unfile_extension(grant.slot);
        Some(self.refreshed(grant, asked.min(carrier_ends), fx))
    }

    /// Has a grant extended because its time for that has come. Of those who ride on one carrier one asks.
    pub(in crate::table) fn extend_by_order(&mut self, grant: Grant, ttl: Ttl, fx: &mut Effects) {
        if self.refresh_on_carrier(&grant, ttl, fx).is_some() {
            return;
        }
        let now = self.now;
        if self.carrier_of_mut(grant.slot).is_some_and(|carrier| !carrier.ask(now)) {
            return self.extend_again(grant.slot, now.saturating_add(LOOK_AGAIN), fx);
        }
        self.extend_claim(grant, ttl, fx);
    }

    /// The same at a later time.
    fn extend_again(&mut self, at: u32, due: Moment, fx: &mut Effects) {
        let extras = self.slots[at].extras_mut();
        let Some(auto) = extras.auto.as_mut() else {
            extras.extension = Some(due);
            self.file_extension(at, fx);
            return;
        };
        auto.due = auto.due.min(due);
        self.refreshes.remove(&mut Refreshes(&mut self.slots), at);
        self.refreshes.insert(&mut Refreshes(&mut self.slots), at);
        fx.due(due);
    }

    /// Ends a grant that the store does not keep any more, and all who ride on the same carrier.
    pub(in crate::table) fn end_with_riders(&mut self, at: u32, end: End, fx: &mut Effects) {
        let number = |at: u32| self.slots[at].extras.as_ref().and_then(|extras| extras.rides_on);
        let key_slot = self.key_slot(at);
        let Some(lost) = number(at) else { return self.end(at, end, fx) };
        let members = self.slots[key_slot].group().into_iter().flat_map(|group| group.members());
        let riders = members.chain([key_slot]).filter(|at| number(*at) == Some(lost));
        let riders: Vec<Grant> = riders.filter_map(|at| self.grant_in(at)).collect();
        // First: who is let in when one ends must not ride on it.
        self.close_carriers(key_slot);
        for rider in riders {
            if self.holder_of(&rider).is_some() {
                self.end(rider.slot, end, fx);
            }
        }
    }
}

/// A holder that has a claim or a share of its own, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoRider;
