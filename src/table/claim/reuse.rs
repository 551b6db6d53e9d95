//! How a claim goes from one grant to the next, and what becomes of it in between.

use std::time::Duration;

use super::idle::What;
use super::kept::{ClaimEvent, ClaimStep, KeptClaim, Next};
use super::tokens::GIVEN;
use super::{AtFirst, Attempts, Claim, ClaimEnd, StoreCommand};
use crate::claim_reuse::{ClaimReuse, IDLE_LIFE, KeptIdle};
use crate::clock::Moment;
use crate::error::LockError;
use crate::key::{FencingToken, Key, Token, Ttl};
use crate::mode::Mode;
use crate::table::acquire::{reserve_quota, return_quota};
use crate::table::history::End;
use crate::table::holder::GrantState;
use crate::table::refresh_order::{AutoRefresh, DueAction};
use crate::table::slot::{Leaves, Refreshes, Terms};
use crate::table::timer_wheel::Step;
use crate::table::{AcquireRequest, Effects, Grant, Table, TokenOrigin};

/// A lock under a reused claim that is held for longer is extended to its whole TTL.
pub(super) const EXTEND_AFTER: Duration = Duration::from_millis(50);
/// The same where another process has handed the key over: it has less left.
const EXTEND_HANDED_AFTER: Duration = Duration::from_millis(10);

impl KeptClaim {
    pub(super) fn end(&self) -> ClaimEnd {
        ClaimEnd { token: self.token, last_fence: self.last_fence() }
    }
}

/// Whether a request is for a lock by itself, under a token that nobody else knows.
fn is_plain(origin: TokenOrigin, terms: &Terms) -> bool {
    origin == TokenOrigin::Minted && terms.session().is_none() && terms.mode() == Mode::Exclusive
}

/// Whether a request may have a key under a claim that was taken for another.
fn may_reuse(origin: TokenOrigin, terms: &Terms) -> bool {
    is_plain(origin, terms) && terms.leaves() == Leaves::Nothing
}

impl Table {
    /// A claim that may be reused, for a waiter; `None` if its own token is to be in the store (K3).
    pub(super) fn new_claim(&self, id: u32) -> Option<Box<KeptClaim>> {
        let Claim::Stored { reuse, tag, .. } = self.claim else { return None };
        let waiter = &self.waiters[id];
        let reuses = reuse != ClaimReuse::Off && may_reuse(waiter.origin, &waiter.terms);
        reuses.then(|| Box::new(KeptClaim::new(tag, self.kept_idle(id), self.claims_epoch)))
    }

    fn kept_idle(&self, id: u32) -> KeptIdle {
        let waiter = &self.waiters[id];
        KeptIdle::of(self.claim.reuse(), waiter.terms.ttl.as_duration(), waiter.is_for_ticket)
    }

    /// For how long the store is asked for the claim of a waiter: a short time where it may be kept idle, unless the
    /// waiter is told the whole TTL at once.
    pub(super) fn claim_ttl(&self, id: u32, claim: Option<&KeptClaim>) -> Ttl {
        let ttl = self.waiters[id].terms.ttl;
        let is_short = claim.is_some() && self.kept_idle(id) == KeptIdle::Briefly;
        if is_short { Ttl::new(IDLE_LIFE).map_or(ttl, |life| ttl.min(life)) } else { ttl }
    }

    /// Whether the store may grant a waiter's key for less than the TTL. A claim that is reused has rules of its own.
    pub(super) fn at_first(&self, id: u32, claim: Option<&KeptClaim>) -> AtFirst {
        let waiter = &self.waiters[id];
        let is_short = claim.is_none() && !waiter.is_for_ticket && is_plain(waiter.origin, &waiter.terms);
        if is_short { AtFirst::Short } else { AtFirst::Whole }
    }

    /// Before when a waiter does not have the store asked (K5). A single try does not wait.
    pub(super) fn not_before(&self, index: u32, tries: Attempts) -> Moment {
        let slot = &self.slots[index];
        let pause = self.idle_keys.as_ref().filter(|_| tries == Attempts::Many);
        pause.and_then(|idle| idle.pause_of(slot.hash, &slot.key)).unwrap_or(Moment::ZERO)
    }

    /// Whether the claim of a grant that ends so stays with its key, to be passed on in the same step.
    pub(super) fn keeps_claim(&self, index: u32, end: End) -> bool {
        let is_released = matches!(end, End::Released | End::Dropped | End::ByToken);
        is_released && !self.closed && self.slots[index].extras.as_ref().is_some_and(|extras| extras.claim.is_some())
    }

    /// Grants a key to a waiter that has just left its queue, under the claim of the last holder. `false`: there is no
    /// claim, or it was given up; the store is to be asked.
    pub(in crate::table) fn hand_on_claim(&mut self, index: u32, id: u32, fx: &mut Effects) -> bool {
        let Some(mut claim) = self.take_claim(index) else { return false };
        let waiter = &self.waiters[id];
        let next = if may_reuse(waiter.origin, &waiter.terms) {
            Next::reusing(waiter.terms.ttl, waiter.is_for_ticket)
        } else {
            Next::Asks
        };
        match claim.step(ClaimEvent::Released { next }, self.claim.reuse(), self.now) {
            ClaimStep::Grant { fence, deadline } => {
                let deadline = deadline.min(self.now.after(self.waiters[id].terms.ttl));
                self.put_claim(index, claim, fence);
                self.grant_waiter(index, id, Some(deadline), fx);
                self.tally.claimed(true);
                self.tally.reused_claim();
                self.extend_if_kept(index, AtFirst::Whole, fx);
                true
            }
            step => {
                self.give_up(index, &claim, step, fx);
                false
            }
        }
    }

    /// Keeps the claim on a key that nobody holds or waits for any more (R18), or gives it up.
    pub(in crate::table) fn settle_claim(&mut self, index: u32, fx: &mut Effects) {
        let Some(mut claim) = self.take_claim(index) else { return };
        let step = claim.step(ClaimEvent::Released { next: Next::Nobody }, self.claim.reuse(), self.now);
        // During a pause, which is for others, a single try may have taken it: it is not kept (K5).
        let has_room = self.has_room_for_idle() && self.not_before(index, Attempts::Many) <= self.now;
        match step {
            ClaimStep::Keep { until } if has_room => {
                let key = self.key_in(index);
                self.insert_idle(key, until, What::Claim(claim), fx);
                self.tally.kept_claim();
            }
            step => self.give_up(index, &claim, step, fx),
        }
    }

    /// Grants a free key under its idle claim. `None`: there is none, or it was given up.
    pub(in crate::table) fn grant_idle(
        &mut self,
        request: &AcquireRequest<'_>,
        fx: &mut Effects,
    ) -> Result<Option<Grant>, LockError> {
        let Some(id) = self.idle_keys.as_ref().and_then(|idle| idle.find(request.hash, request.key)) else {
            return Ok(None);
        };
        if !may_reuse(request.origin, request.terms) {
            return Ok(None);
        }
        let (reuse, now, epoch) = (self.claim.reuse(), self.now, self.claims_epoch);
        let Some(claim) = self.idle_claim(id) else { return Ok(None) };
        if claim.epoch != epoch || claim.idle_until().is_none_or(|until| until <= now) {
            return Ok(None);
        }
        reserve_quota(request.terms)?;
        let next = Next::reusing(request.terms.ttl, request.grant_state == GrantState::Ticket);
        let ClaimStep::Grant { fence, deadline } = claim.step(ClaimEvent::Asked { next }, reuse, now) else {
            // Whoever asks the store next takes it along.
            return_quota(request.terms);
            return Ok(None);
        };
        let Some(claim) = self.take_idle(id) else { return Ok(None) };
        let deadline = deadline.min(now.after(request.terms.ttl));
        let grant = self.grant_vacant_until(request, Some(deadline));
        self.put_claim(grant.slot, claim, fence);
        self.extend_if_kept(grant.slot, AtFirst::Whole, fx);
        self.tally.claimed(false);
        self.tally.reused_claim();
        Ok(Some(Grant { proof: fence, ..grant }))
    }

    /// The claim of a slot, which has none then. One that the store may have forgotten is in doubt (K6).
    pub(super) fn take_claim(&mut self, index: u32) -> Option<Box<KeptClaim>> {
        let mut claim = self.slots[index].extras.as_mut()?.claim.take()?;
        if claim.epoch != self.claims_epoch {
            claim.step(ClaimEvent::Doubted, self.claim.reuse(), self.now);
        }
        Some(claim)
    }

    fn put_claim(&mut self, index: u32, claim: Box<KeptClaim>, fence: Option<FencingToken>) {
        let extras = self.slots[index].extras_mut();
        (extras.claim, extras.proof, extras.unanswered) = (Some(claim), fence, false);
    }

    /// Has a grant extended that was made for less than its TTL, if it is still held in a moment. Answers whether it was.
    pub(super) fn extend_if_kept(&mut self, index: u32, at_first: AtFirst, fx: &mut Effects) -> bool {
        let slot = &self.slots[index];
        let has_claim = slot.extras.as_ref().is_some_and(|extras| extras.claim.is_some() || extras.rides_on.is_some());
        let Some(holder) = slot.holder.as_ref() else { return false };
        let ttl = holder.ttl.as_duration();
        let (least, after) = match (has_claim, at_first) {
            // The store takes a little off each time.
            (true, _) => (ttl / 16, EXTEND_AFTER),
            (false, AtFirst::Short) => (ttl / 2, EXTEND_HANDED_AFTER),
            (false, AtFirst::Whole) => return false,
        };
        let missing = self.now.after(holder.ttl).min(slot.last_deadline()).saturating_since(holder.deadline);
        if missing <= least {
            return false;
        }
        self.slots[index].extras_mut().extension = Some(self.now.saturating_add(after.min(ttl / 8)));
        self.file_extension(index, fx)
    }

    /// Files the extension that a grant still needs, if it has no order to be refreshed. Answers whether it needs one.
    pub(in crate::table) fn file_extension(&mut self, index: u32, fx: &mut Effects) -> bool {
        let Some(due) = self.slots[index].extras.as_ref().and_then(|extras| extras.extension) else { return false };
        self.slots[index].extras_mut().auto = Some(AutoRefresh::extend(due));
        self.refreshes.insert(&mut Refreshes(&mut self.slots), index);
        fx.due(due);
        true
    }

    /// The extension is not needed any more.
    pub(super) fn unfile_extension(&mut self, index: u32) {
        let auto = self.slots[index].extras.as_ref().and_then(|extras| extras.auto.as_ref());
        if auto.is_some_and(|auto| auto.what == DueAction::Extend) {
            self.drop_auto(index);
        }
    }

    /// What the store is asked to extend. A claim is kept no more then, whether the answer comes or not: the store may
    /// have done so.
    pub(super) fn extending(&mut self, grant: &Grant) -> (Key, Token) {
        let (reuse, now, token) = (self.claim.reuse(), self.now, self.store_token(grant.slot).expect(GIVEN));
        let slot = &mut self.slots[grant.slot];
        if let Some(claim) = slot.extras.as_mut().and_then(|extras| extras.claim.as_mut()) {
            claim.step(ClaimEvent::Extending, reuse, now);
        }
        (slot.key.clone(), token)
    }

    /// The idle claim on a key, which is another's from now on: what is to be let go before the key is asked for.
    pub(super) fn end_idle_claim(&mut self, index: u32, fx: &mut Effects) -> Option<ClaimEnd> {
        let slot = &self.slots[index];
        let id = self.idle_keys.as_ref()?.find(slot.hash, &slot.key)?;
        self.idle_claim(id)?;
        let claim = self.take_idle(id)?;
        let key = self.key_in(index);
        self.pause(key, claim.pause(self.claim.reuse(), self.now), fx);
        Some(claim.end())
    }

    fn idle_claim(&mut self, id: u32) -> Option<&mut KeptClaim> {
        self.idle_keys.as_mut()?.claim_mut(id)
    }

    fn take_idle(&mut self, id: u32) -> Option<Box<KeptClaim>> {
        let claim = self.idle_keys.as_mut()?.remove(id)?;
        self.tally.took_idle_claim();
        Some(claim)
    }

    fn has_room_for_idle(&self) -> bool {
        self.idle_keys.as_ref().is_some_and(|idle| idle.len() < self.limits.keys)
    }

    /// The key of a slot, and its hash.
    fn key_in(&self, index: u32) -> (Key, u32) {
        let slot = &self.slots[index];
        (slot.key.clone(), slot.hash)
    }

    fn insert_idle(&mut self, (key, hash): (Key, u32), until: Moment, what: What, fx: &mut Effects) {
        let Some(idle) = self.idle_keys.as_mut() else { return };
        if let Some(pause) = idle.find(hash, &key) {
            idle.remove(pause);
        }
        idle.insert(key, hash, until, what);
        fx.due(until);
    }

    /// Lets a claim go that a slot had, and has others hold back if it is to.
    fn give_up(&mut self, index: u32, claim: &KeptClaim, step: ClaimStep, fx: &mut Effects) {
        let (key, hash) = self.key_in(index);
        self.send(StoreCommand::GiveUp { key: key.clone(), claim: claim.end() }, fx);
        if let ClaimStep::GiveUp { pause } = step {
            self.pause((key, hash), pause, fx);
        }
    }

    /// Nobody of this process asks for a key for so long.
    fn pause(&mut self, key: (Key, u32), pause: Duration, fx: &mut Effects) {
        if !pause.is_zero() && self.has_room_for_idle() {
            self.insert_idle(key, self.now.saturating_add(pause), What::Pause, fx);
        }
    }

    /// Does one piece of the end of what is kept idle; `false` if none is due.
    pub(in crate::table) fn end_idle_one(&mut self, fx: &mut Effects) -> bool {
        let Some(idle) = self.idle_keys.as_mut() else { return false };
        match idle.step(self.now) {
            Step::Due(id) => self.end_idle(id, fx),
            Step::Moved => {}
            Step::Idle => return false,
        }
        true
    }

    /// The time of a claim, or of a pause, is over. One that was used to its last moment is followed by a pause (K5).
    fn end_idle(&mut self, id: u32, fx: &mut Effects) {
        let Some((key, hash)) = self.idle_keys.as_ref().map(|idle| (idle.key(id).clone(), idle.hash(id))) else {
            return;
        };
        let reuse = self.claim.reuse();
        let pause_at = |claim: &mut KeptClaim| claim.idle_until().map(|until| claim.pause(reuse, until));
        let pause = self.idle_claim(id).and_then(pause_at).unwrap_or_default();
        self.give_up_idle(id, fx);
        self.pause((key, hash), pause, fx);
    }

    fn give_up_idle(&mut self, id: u32, fx: &mut Effects) {
        let Some(key) = self.idle_keys.as_ref().map(|idle| idle.key(id).clone()) else { return };
        if let Some(claim) = self.take_idle(id) {
            self.send(StoreCommand::GiveUp { key, claim: claim.end() }, fx);
        }
    }

    /// Another process asks for a key (K4, R17), or the store may not keep it any more.
    pub(crate) fn tell_claim(&mut self, key: &Key, hash: u32, told: Told, now: Moment, fx: &mut Effects) {
        self.advance_clock(now);
        let (reuse, now) = (self.claim.reuse(), self.now);
        let idle = self.idle_keys.as_ref().and_then(|idle| idle.find(hash, key));
        if let Some(id) = idle.filter(|id| self.idle_claim(*id).is_some()) {
            self.count_told(told);
            self.give_up_idle(id, fx);
        } else if let Some(index) = self.find(hash, key) {
            if self.close_carriers(index) {
                self.count_told(told);
            } else if let Some(claim) = self.slots[index].extras.as_mut().and_then(|extras| extras.claim.as_mut()) {
                claim.step(told.into(), reuse, now);
                self.count_told(told);
            }
        }
    }

    fn count_told(&mut self, told: Told) {
        if told == Told::Wanted {
            self.tally.wanted_claim();
        }
    }

    /// The store may have forgotten every key: what it was asked for before is not reused (K6). Idle claims are given up
    /// when they are looked at; whoever calls this sees to that.
    pub(crate) fn doubt_claims(&mut self) {
        self.claims_epoch = self.claims_epoch.wrapping_add(1);
    }

    /// Gives up the idle claims among `budget` from `cursor` on.
    pub(crate) fn give_up_idle_claims(&mut self, cursor: u32, budget: u32, fx: &mut Effects) -> Option<u32> {
        let (claims, next) = self.idle_keys.as_ref().map_or((Vec::new(), None), |idle| idle.claims(cursor, budget));
        claims.into_iter().for_each(|id| self.give_up_idle(id, fx));
        next
    }

    /// What the store keeps an idle key under.
    pub(crate) fn idle_token(&self, key: &Key, hash: u32) -> Option<Token> {
        let idle = self.idle_keys.as_ref()?;
        idle.token(idle.find(hash, key)?)
    }
}

/// What a process is told about its claim on a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// Another process asks for it.
    Wanted,
    /// It may be gone.
    Doubted,
}

impl From<Told> for ClaimEvent {
    fn from(told: Told) -> Self {
        match told {
            Told::Wanted => Self::Wanted,
            Told::Doubted => Self::Doubted,
        }
    }
}
