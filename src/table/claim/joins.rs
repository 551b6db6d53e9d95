//! Keys of the store that several hold at once: how a share of one is taken ([`Joins`]).
//!
//! A request for a key alone keeps the key's place in this process while the store is asked. One for a share, or for
//! permits, does not: others that go together with it may hold the key already, or may be asked for at the same time. It
//! stands in its key's list of joins with the holder that it will be, and takes its room there, so that no more are asked
//! for than can be granted here. The store's yes makes it a holder of the key's group. Each has a token, an end and a fence
//! of its own in the store.
//!
//! Once the store has said no to one that waits, or nothing, no others join: they queue behind it. So of all who wait for
//! a key in this process one talks to the store (R15), but for those that were under way at the same time.

use super::carriers::Carrier;
use super::tokens::GIVEN;
use super::{AtFirst, Attempts, ClaimEnd, ClaimOutcome, ClaimRequest, ClaimSource, StoreCommand};
use crate::clock::Moment;
#[cfg(test)]
use crate::key::FencingToken;
use crate::key::Token;
use crate::mode::{Kind, Mode};
use crate::table::acquire::{Grant, reserve_quota};
use crate::table::holder::{GrantState, Holder};
use crate::table::request::{AcquireOutcome, AcquireRequest, WaitPolicy};
use crate::table::{Effects, Table};

/// The requests that shares of one key are being taken for: at least one.
#[derive(Debug)]
pub(crate) struct Joins {
    kind: Kind,
    list: Vec<Join>,
}

#[derive(Debug)]
pub(crate) struct Join {
    waiter: u32,
    /// It holds nothing before the store has said yes.
    holder: Holder,
    mode: Mode,
    /// The store has said no, or nothing, and it waits.
    is_refused: bool,
    /// What the store is asked for, where others may ride on it, and the table's `claims_epoch` then (K6, K7).
    carrier: Option<(Token, u32)>,
}

impl Joins {
    pub(in crate::table) const fn kind(&self) -> Kind {
        self.kind
    }

    /// How much of the key's room they take. `None`: nobody joins before one of them is granted or gone.
    pub(in crate::table) fn taken(&self) -> Option<u64> {
        let taken = |join: &Join| (!join.is_refused).then_some(u64::from(join.mode.weight()));
        self.list.iter().map(taken).sum()
    }

    /// Whether one of them is for a share that others may ride on, and the store may still grant it at once.
    pub(in crate::table) fn carries(&self) -> bool {
        self.list.iter().any(|join| join.carrier.is_some() && !join.is_refused)
    }

    /// The waiters, in the order in which they came.
    pub(in crate::table) fn waiters(&self) -> impl Iterator<Item = u32> + '_ {
        self.list.iter().map(|join| join.waiter)
    }

    #[cfg(test)]
    pub(in crate::table) fn fences(&self) -> impl Iterator<Item = FencingToken> {
        self.list.iter().map(|join| join.holder.fence())
    }

    fn of(&self, grant: &Grant) -> Option<&Join> {
        self.list.iter().find(|join| join.holder.fence() == grant.fence)
    }
}

impl Table {
    /// Has a share of a key taken for a request; `found` is the slot of its key. It goes together with whoever holds it.
    pub(in crate::table) fn claim_share(
        &mut self,
        request: &AcquireRequest<'_>,
        found: Option<u32>,
        policy: &WaitPolicy<'_>,
        until: Option<Moment>,
        fx: &mut Effects,
    ) -> AcquireOutcome {
        if let Err(why) = reserve_quota(request.terms) {
            return self.reject(found, request.terms.mode(), why);
        }
        let index = found.unwrap_or_else(|| self.insert_unclaimed(request));
        let (waiter, tries) = self.add_claimant(request, index, policy, until);
        let after = self.end_idle_claim(index, fx);
        self.start_join(index, waiter.index, (tries, after), fx);
        AcquireOutcome::Queued(waiter)
    }

    /// Has a share of a key taken for a waiter, which has a place among the joins until the store has answered.
    pub(in crate::table) fn start_join(
        &mut self,
        index: u32,
        id: u32,
        (tries, after): (Attempts, Option<ClaimEnd>),
        fx: &mut Effects,
    ) {
        let waiter = &self.waiters[id];
        let (token, ttl) = (waiter.kept_token().expect(GIVEN), waiter.terms.ttl);
        let (mode, due) = (waiter.terms.mode(), waiter.due);
        if let Some(session) = waiter.terms.session().cloned() {
            self.index_of(&session).waiters.insert(id);
        }
        let not_before = self.not_before(index, tries);
        let carrier = self.carrier_token(id).map(|token| (token, self.claims_epoch));
        let holder = self.new_holder(ttl, Moment::FAR, GrantState::Claiming(id));
        let fence = holder.fence();
        let slot = &mut self.slots[index];
        let is_first = slot.is_free();
        let joins =
            slot.extras_mut().joins.get_or_insert_with(|| Box::new(Joins { kind: mode.kind(), list: Vec::new() }));
        joins.list.push(Join { waiter: id, holder, mode, is_refused: false, carrier });
        let key = slot.key.clone();
        self.bare += usize::from(is_first);
        if due != Moment::FAR {
            self.timeouts.insert(&mut self.waiters, id);
            fx.due(due);
        }
        let store_token = carrier.map_or(token, |(token, _)| token);
        let ask = ClaimRequest { token: store_token, ttl, tries, after, not_before, at_first: AtFirst::Whole, mode };
        self.send(StoreCommand::Acquire { grant: Grant { slot: index, fence, proof: None }, key, ask }, fx);
    }

    /// The waiter of the join that a command names.
    pub(super) fn joining(&self, grant: &Grant) -> Option<u32> {
        self.slots.get(grant.slot)?.joins()?.of(grant).map(|join| join.waiter)
    }

    /// The waiter that a share of a key is being taken for under this token, if there is one.
    pub(in crate::table) fn joining_with(&self, index: u32, token: Token) -> Option<u32> {
        let joins = self.slots[index].joins()?;
        joins.waiters().find(|waiter| self.waiters[*waiter].kept_token() == Some(token))
    }

    /// The store has said no, or nothing, to a request that waits on.
    pub(super) fn refuse_join(&mut self, grant: &Grant) {
        let joins = self.slots[grant.slot].extras.as_mut().and_then(|extras| extras.joins.as_mut());
        let join = joins.and_then(|joins| joins.list.iter_mut().find(|join| join.holder.fence() == grant.fence));
        if let Some(join) = join {
            join.is_refused = true;
        }
    }

    /// The store has granted a share until `deadline`: it joins those who hold the key.
    pub(super) fn joined(
        &mut self,
        grant: &Grant,
        id: u32,
        source: ClaimSource,
        deadline: Moment,
        fx: &mut Effects,
    ) -> ClaimOutcome {
        let (index, now) = (grant.slot, self.now);
        let Some(Join { mut holder, mode, carrier, .. }) = self.take_join(index, id) else {
            return ClaimOutcome::Unwanted;
        };
        let waiter = &self.waiters[id];
        let (token, terms) = (waiter.kept_token(), waiter.terms.clone());
        let last = terms.max_hold().map_or(Moment::FAR, |cap| now.saturating_add(cap));
        (holder.grant_state, holder.granted_at, holder.deadline) = (GrantState::Unseen(id), now, deadline.min(last));
        let at = self.place_holder(index, holder, token, &terms);
        let fence = if let ClaimSource::OfStore(given) = source { given.fence } else { None };
        self.slots[at].extras_mut().proof = fence;
        if let Some(named) = carrier {
            self.add_carrier(at, index, Carrier::new(named, fence, deadline, now));
        }
        self.slots[index].extras_mut().unanswered = false;
        self.tally.acquired(mode);
        self.grant_claimant(id, (at, index), source, deadline, fx);
        self.hand_off(index, fx);
        ClaimOutcome::Taken
    }

    /// Cancels a join, and lets those in who wait behind it. Its waiter has been answered before.
    pub(in crate::table) fn end_join(&mut self, index: u32, id: u32, fx: &mut Effects) {
        let Some(Join { holder, .. }) = self.take_join(index, id) else { return };
        let slot = &self.slots[index];
        let (key, hash) = (slot.key.clone(), slot.hash);
        self.hand_off(index, fx);
        let queue = self.local_waiters(hash, &key);
        let grant = Grant { slot: index, fence: holder.fence(), proof: None };
        self.send(StoreCommand::Cancel { grant, key, queue }, fx);
    }

    /// Takes a waiter out of the joins of its key.
    fn take_join(&mut self, index: u32, id: u32) -> Option<Join> {
        let slot = &mut self.slots[index];
        let joins = slot.extras.as_mut()?.joins.as_mut()?;
        let at = joins.list.iter().position(|join| join.waiter == id)?;
        let join = joins.list.remove(at);
        if joins.list.is_empty() {
            slot.extras_mut().joins = None;
            self.bare -= usize::from(slot.is_free());
        }
        self.timeouts.remove(&mut self.waiters, id);
        let session = self.waiters[id].terms.session().map(|session| session.id);
        if let Some(session) = session {
            self.remove_from_index(session, |owner_index| &mut owner_index.waiters, id);
        }
        Some(join)
    }
}
